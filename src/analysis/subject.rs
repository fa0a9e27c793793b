//! The puzzles that a picture is of.

use anyhow::{Result, bail};

use super::{runs::Item, test_puzzles::TestPuzzles, trajectory::WatchedPuzzle};
use crate::{
    checkpoint::{Checkpoint, weights_name},
    model::Dims,
    puzzle::{
        Board, PuzzleKind,
        solve::{Solutions, solve},
    },
};

/// A puzzle, its sizes, its name for the title and where it is from.
#[derive(Clone, Debug)]
pub struct ChosenPuzzle {
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
pub fn origins(chosen: &[ChosenPuzzle]) -> String {
    let rows: Vec<String> = chosen.iter().filter_map(|c| c.row).map(|row| row.to_string()).collect();
    match chosen {
        [] => String::new(),
        [one] => format!("Puzzle: {}", one.origin),
        [first, ..] => format!("Puzzles: test rows {} of {}", rows.join(", "), first.data),
    }
}

impl ChosenPuzzle {
    /// A Sudoku that was typed, solved; and a warning where it has no single solution.
    ///
    /// # Errors
    /// A checkpoint of another kind of puzzle.
    pub fn typed(board: &Board, checkpoint: &Checkpoint) -> Result<(Self, Option<&'static str>)> {
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
        let (solution, warning) = match solve(board) {
            Solutions::One(solution) => (Some(solution.tokens().to_vec()), None),
            Solutions::None => (None, Some("this puzzle has no solution")),
            Solutions::Several => {
                (None, Some("this puzzle has more than one solution: cells are not marked right or wrong"))
            }
            Solutions::Unknown => {
                (None, Some("this puzzle's solution was not found in time: cells are not marked right or wrong"))
            }
        };
        let num_puzzle_identifiers = i64::try_from(checkpoint.num_puzzle_identifiers().unwrap_or(1))?;
        let chosen = Self {
            puzzle: WatchedPuzzle { kind, tokens: board.tokens().to_vec(), solution },
            dims: Dims { num_puzzle_identifiers, ..Dims::sudoku() },
            name: "Your Sudoku".to_owned(),
            origin: "typed".to_owned(),
            row: None,
            data: String::new(),
        };
        Ok((chosen, warning))
    }

    /// Test puzzles by their rows.
    ///
    /// # Errors
    /// A row that is not there, told as one of `flag`'s.
    pub fn rows(puzzles: &TestPuzzles, flag: &str, rows: &[usize]) -> Result<Vec<Self>> {
        let chosen = |item: Item| Self {
            puzzle: item.watched(),
            dims: Dims::from(puzzles.dataset.meta()),
            name: item.name(),
            origin: format!("test row {} of {}", item.index, puzzles.origin),
            row: Some(item.index),
            data: puzzles.origin.clone(),
        };
        Ok(puzzles.rows(flag, rows)?.into_iter().map(chosen).collect())
    }

    /// A picture's last line.
    pub fn sources(&self, checkpoint: &Checkpoint) -> String {
        format!("Puzzle: {} · Weights: {}", self.origin, weights_name(checkpoint))
    }
}
