//! The one puzzle that a picture is of, and the checkpoint that works on it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    analysis::{runs::Item, trajectory::WatchedPuzzle},
    checkpoint::Checkpoint,
    cli::{
        sources::{WeightsArg, compute_dtype, load_checkpoint, test_puzzles},
        ui::{Ui, warn},
    },
    dtype::Dtype,
    model::Dims,
    puzzle::{
        Board, PuzzleKind,
        solve::{Solutions, solve},
    },
    say,
};

/// Flags of every picture of one puzzle.
#[derive(clap::Args, Debug)]
pub struct PuzzleArgs {
    /// A run folder, a step_N folder, a .safetensors file or upstream's [default: the newest]
    #[arg(long, visible_alias = "checkpoints", value_name = "PATH")]
    pub checkpoint: Option<PathBuf>,
    /// Which test puzzle, from 0 [default: 0]
    #[arg(long, value_name = "I[,I...]", value_delimiter = ',', conflicts_with = "puzzle")]
    pub index: Vec<usize>,
    /// A Sudoku of your own: 81 characters row by row, 1-9 and . or 0 for blanks
    #[arg(long, value_name = "81 CHARACTERS", conflicts_with = "data_path")]
    pub puzzle: Option<String>,
    /// Dataset folder whose test split the puzzle is from [default: the checkpoint's, else the bundled rows]
    #[arg(long, value_name = "DIR")]
    pub data_path: Option<PathBuf>,
    /// Number format of the forward pass [default: the checkpoint's]
    #[arg(long, value_name = "bf16|f32", value_parser = compute_dtype())]
    pub dtype: Option<Dtype>,
    #[command(flatten)]
    pub weights: WeightsArg,
}

impl PuzzleArgs {
    /// Loads the checkpoint and takes the one puzzle.
    pub fn choose(&self, ui: &Ui) -> Result<(Checkpoint, Chosen)> {
        ensure!(self.index.len() <= 1, "--index: this picture is of one puzzle: give one number");
        let (checkpoint, mut chosen) = self.choose_all(ui)?;
        Ok((checkpoint, chosen.remove(0)))
    }

    /// Loads the checkpoint and takes every puzzle that was named; at least one.
    pub fn choose_all(&self, ui: &Ui) -> Result<(Checkpoint, Vec<Chosen>)> {
        let typed = self.puzzle.as_deref().map(typed_board).transpose()?;
        let checkpoint = load_checkpoint(ui, self.checkpoint.as_deref(), self.weights)?;
        let chosen = match typed {
            Some(board) => vec![of_board(&board, &checkpoint)?],
            None => of_dataset(ui, self, &checkpoint)?,
        };
        Ok((checkpoint, chosen))
    }
}

/// A puzzle, its sizes, its name for the title and where it is from.
pub struct Chosen {
    pub puzzle: WatchedPuzzle,
    pub dims: Dims,
    pub name: String,
    pub origin: String,
    /// Its row among the test puzzles of `data`; none if it was typed.
    pub row: Option<usize>,
    /// What its row is counted in.
    pub data: String,
}

/// Where several puzzles are from, in words.
pub fn origins(chosen: &[Chosen]) -> String {
    let rows: Vec<String> = chosen.iter().filter_map(|c| c.row).map(|row| row.to_string()).collect();
    match chosen {
        [] => String::new(),
        [one] => format!("Puzzle: {}", one.origin),
        [first, ..] => format!("Puzzles: test rows {} of {}", rows.join(", "), first.data),
    }
}

impl Chosen {
    /// A picture's last line.
    pub fn sources(&self, checkpoint: &Checkpoint) -> String {
        format!("Puzzle: {} · Weights: {}", self.origin, weights_name(checkpoint))
    }
}

/// A checkpoint's path, and its step where the path does not tell it.
pub fn weights_name(checkpoint: &Checkpoint) -> String {
    match checkpoint.step {
        Some(step) if !checkpoint.path.display().to_string().contains(&format!("step_{step}")) => {
            format!("{} (step {step})", checkpoint.path.display())
        }
        _ => checkpoint.path.display().to_string(),
    }
}

/// Names that tell checkpoints apart, as short as they can be: the last parts of their folders, and the step where that
/// does not tell it.
pub fn short_names(checkpoints: &[Checkpoint]) -> Vec<String> {
    let mut names = suffixes(&checkpoints.iter().map(|c| c.path.as_path()).collect::<Vec<_>>());
    for (name, checkpoint) in names.iter_mut().zip(checkpoints) {
        if let Some(step) = checkpoint.step.filter(|step| !name.contains(&format!("step_{step}"))) {
            name.push_str(&format!(" (step {step})"));
        }
    }
    names
}

/// The shortest ends of paths that differ; a weights file whose name says nothing stands for its folder.
fn suffixes(paths: &[&Path]) -> Vec<String> {
    let usual = |path: &Path| path.file_stem().is_some_and(|stem| stem == "model" || stem == "ema");
    let folders: Vec<Vec<String>> = paths
        .iter()
        .map(|path| path.parent().filter(|p| usual(path) && p.file_name().is_some()).unwrap_or(path))
        .map(|path| path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect())
        .collect();
    let longest = folders.iter().map(Vec::len).max().unwrap_or(1);
    let ends = |parts: usize| -> Vec<String> {
        folders.iter().map(|f| f[f.len().saturating_sub(parts)..].join("/")).collect()
    };
    let distinct = |names: &[String]| names.iter().collect::<std::collections::HashSet<_>>().len() == names.len();
    (1..=longest)
        .map(ends)
        .find(|names| distinct(names))
        .unwrap_or_else(|| paths.iter().map(|path| path.display().to_string()).collect())
}

fn typed_board(text: &str) -> Result<Board> {
    let board: Board =
        text.trim().parse().context("--puzzle: give 81 characters, row by row, 1-9 and . or 0 for blanks")?;
    if let Some(clash) = board.repeated() {
        bail!("--puzzle: {clash}: no Sudoku has such givens");
    }
    Ok(board)
}

fn of_board(board: &Board, checkpoint: &Checkpoint) -> Result<Chosen> {
    let kind = PuzzleKind::Sudoku;
    if let Some(found) = checkpoint.vocab_size()
        && found != kind.vocab_size()
    {
        bail!(
            "{}: it knows {found} tokens, a Sudoku has {}: it was trained on another kind of puzzle; take one of its own \
             with --index and --data-path",
            checkpoint.path.display(),
            kind.vocab_size()
        );
    }
    let solution = match solve(board) {
        Solutions::One(solution) => Some(solution.tokens().to_vec()),
        Solutions::None => {
            warn(format_args!("this puzzle has no solution"));
            None
        }
        Solutions::Several => {
            warn(format_args!("this puzzle has more than one solution: cells are not marked right or wrong"));
            None
        }
        Solutions::Unknown => {
            warn(format_args!("this puzzle's solution was not found in time: cells are not marked right or wrong"));
            None
        }
    };
    let num_puzzle_identifiers = i64::try_from(checkpoint.num_puzzle_identifiers().unwrap_or(1))?;
    Ok(Chosen {
        puzzle: WatchedPuzzle { kind, tokens: board.tokens().to_vec(), solution },
        dims: Dims { num_puzzle_identifiers, ..Dims::sudoku() },
        name: "Your Sudoku".to_owned(),
        origin: "typed".to_owned(),
        row: None,
        data: String::new(),
    })
}

fn of_dataset(ui: &Ui, args: &PuzzleArgs, checkpoint: &Checkpoint) -> Result<Vec<Chosen>> {
    let puzzles = test_puzzles(ui, args.data_path.as_deref(), checkpoint)?;
    puzzles.check_kind(checkpoint)?;
    let mut indices = args.index.clone();
    if indices.is_empty() {
        say!(ui, "puzzle: test row 0 (--index chooses another)");
        indices.push(0);
    }
    let chosen = |item: Item| Chosen {
        puzzle: item.watched(),
        dims: Dims::from(puzzles.dataset.meta()),
        name: item.name(),
        origin: format!("test row {} of {}", item.index, puzzles.origin),
        row: Some(item.index),
        data: puzzles.origin.clone(),
    };
    Ok(puzzles.rows("--index", &indices)?.into_iter().map(chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_named_by_what_differs() {
        let names = |paths: &[&str]| suffixes(&paths.iter().map(Path::new).collect::<Vec<_>>());
        assert_eq!(names(&["a/mini/model.safetensors", "a/mini-hint/model.safetensors"]), ["mini", "mini-hint"]);
        assert_eq!(
            names(&["runs/a/step_9/model.safetensors", "runs/b/step_9/ema.safetensors"]),
            ["a/step_9", "b/step_9"]
        );
        assert_eq!(names(&["x/model.safetensors"]), ["x"]);
        assert_eq!(names(&["x/one.safetensors", "x/two.safetensors"]), ["one.safetensors", "two.safetensors"]);
        assert_eq!(names(&["x/model.safetensors", "x/ema.safetensors"]), ["x/model.safetensors", "x/ema.safetensors"]);
        assert_eq!(names(&["model.safetensors"]), ["model.safetensors"]);
    }
}
