//! `hrm viz`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Subcommand;
use serde::Serialize;

use super::{
    GlobalArgs, curves,
    sources::{DtypeChoice, WeightsArg, device_name, dtype_name, load_checkpoint, test_puzzles, vocab_size},
    ui::{JsonArg, Ui, warn, writable},
};
use crate::{
    analysis::trajectory::{Trajectory, WatchedPuzzle, trace_puzzle},
    checkpoint::{Checkpoint, infer_dims},
    model::{Dims, Model},
    puzzle::{
        Board, PuzzleKind,
        solve::{Solutions, solve},
    },
    say,
    viz::{PictureFormat, save, trajectory::TrajectoryPicture},
};

/// Draw pictures of what a model does
#[derive(clap::Args, Debug)]
pub struct VizArgs {
    #[command(subcommand)]
    picture: PictureCommand,
}

#[derive(Subcommand, Debug)]
enum PictureCommand {
    Trajectory(TrajectoryArgs),
    Curves(curves::CurvesArgs),
}

const TRAJECTORY_DETAILS: &str = "\
The model works on one puzzle for all its segments. Its high-level state z_H after every H cycle is a point; the picture \
shows the points in the plane of their two principal components (exact PCA), joined by arrows in the order of time, beside \
the last answer (givens, right and wrong cells) and how many cells were right after each segment.

Defaults:
  --checkpoint  the newest step of the newest run under checkpoints/, else one of checkpoint_example/
  --data-path   the checkpoint's data_path if it is here, else the bundled Sudoku test rows
  --index       0

Examples:
  hrm viz trajectory
  hrm viz trajectory --checkpoint runs/a/step_52080 --index 7 -o seven.svg
  hrm viz trajectory -o mine.png --puzzle \\
    53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79";

/// The path of the model's high-level state while it works on a puzzle
#[derive(clap::Args, Debug)]
#[command(
    after_long_help = TRAJECTORY_DETAILS,
    after_help = "Example: hrm viz trajectory --index 7 -o seven.svg    (--help tells more)"
)]
struct TrajectoryArgs {
    /// A run folder, a step_N folder, a .safetensors file or upstream's [default: the newest]
    #[arg(long, visible_alias = "checkpoints", value_name = "PATH")]
    checkpoint: Option<PathBuf>,
    /// Which test puzzle, from 0 [default: 0]
    #[arg(long, value_name = "I", conflicts_with = "puzzle")]
    index: Option<usize>,
    /// A Sudoku of your own: 81 characters row by row, 1-9 and . or 0 for blanks
    #[arg(long, value_name = "81 CHARACTERS", conflicts_with = "data_path")]
    puzzle: Option<String>,
    /// Dataset folder whose test split the puzzle is from [default: the checkpoint's, else the bundled rows]
    #[arg(long, value_name = "DIR")]
    data_path: Option<PathBuf>,
    /// The picture; its ending, .png or .svg, decides the format
    #[arg(short, long, value_name = "FILE", default_value = "trajectory.png")]
    output: PathBuf,
    /// Number format of the forward pass [default: the checkpoint's]
    #[arg(long, value_name = "bf16|f32")]
    dtype: Option<DtypeChoice>,
    #[command(flatten)]
    weights: WeightsArg,
    #[command(flatten)]
    json: JsonArg,
}

pub fn run(args: VizArgs, global: &GlobalArgs) -> Result<()> {
    match args.picture {
        PictureCommand::Trajectory(args) => trajectory(&args, global),
        PictureCommand::Curves(args) => curves::run(&args),
    }
}

/// A puzzle, its sizes, its name for the title and where it is from.
struct Chosen {
    puzzle: WatchedPuzzle,
    dims: Dims,
    name: String,
    origin: String,
}

fn trajectory(args: &TrajectoryArgs, global: &GlobalArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    check_output(&args.output)?;
    let typed = args.puzzle.as_deref().map(typed_board).transpose()?;
    let checkpoint = load_checkpoint(&ui, args.checkpoint.as_deref(), args.weights)?;
    let chosen = match typed {
        Some(board) => of_board(&board, &checkpoint)?,
        None => of_dataset(&ui, args, &checkpoint)?,
    };

    let runtime = global.init()?;
    let model = Model::load(&checkpoint, chosen.dims, runtime.device, args.dtype.map(Into::into))?;
    let trajectory = trace_puzzle(&model, &chosen.puzzle)?;
    let weights = match checkpoint.step {
        Some(step) if !checkpoint.path.ends_with(format!("step_{step}")) => {
            format!("{} (step {step})", checkpoint.path.display())
        }
        _ => checkpoint.path.display().to_string(),
    };
    let picture = TrajectoryPicture {
        trajectory: &trajectory,
        puzzle_name: chosen.name,
        sources: format!("Puzzle: {} · Weights: {weights}", chosen.origin),
    };
    save(&picture, &args.output)?;

    say!(ui, "{}", picture.title());
    let [first, second] = trajectory.explained_variance_ratio.map(|share| 100.0 * share);
    say!(ui, "variance shown: {first:.1} % along PC1, {second:.1} % along PC2");
    say!(
        ui,
        "picture: {} ({} on {})",
        args.output.display(),
        dtype_name(model.config().forward_dtype),
        device_name(model.device())
    );
    ui.emit(&TrajectoryReport {
        title: picture.title(),
        picture: args.output.display().to_string(),
        checkpoint: checkpoint.path.display().to_string(),
        step: checkpoint.step,
        dtype: dtype_name(model.config().forward_dtype),
        solved: trajectory.solved(),
        first_solved_segment: trajectory.first_solved(),
        first_halt_segment: trajectory.first_halt(),
        trajectory: &trajectory,
    })
}

/// The JSON document.
#[derive(Serialize)]
struct TrajectoryReport<'a> {
    title: String,
    picture: String,
    checkpoint: String,
    step: Option<u64>,
    dtype: &'static str,
    solved: bool,
    first_solved_segment: Option<usize>,
    first_halt_segment: Option<usize>,
    #[serde(flatten)]
    trajectory: &'a Trajectory,
}

/// Told before anything heavy starts.
fn check_output(path: &Path) -> Result<()> {
    PictureFormat::of(path)?;
    writable(path).map_err(|why| anyhow!("{}: {why}", path.display()))
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
    let sizes = infer_dims(checkpoint);
    if let Some(found) = sizes.vocab_size
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
    let num_puzzle_identifiers = i64::try_from(sizes.num_puzzle_identifiers.unwrap_or(1))?;
    Ok(Chosen {
        puzzle: WatchedPuzzle { kind, tokens: board.tokens().to_vec(), solution },
        dims: Dims { num_puzzle_identifiers, ..Dims::sudoku() },
        name: "Your Sudoku".to_owned(),
        origin: "typed".to_owned(),
    })
}

fn of_dataset(ui: &Ui, args: &TrajectoryArgs, checkpoint: &Checkpoint) -> Result<Chosen> {
    let puzzles = test_puzzles(ui, args.data_path.as_deref(), checkpoint)?;
    let set = puzzles.set()?;
    let index = args.index.unwrap_or_else(|| {
        say!(ui, "puzzle: test row 0 (--index chooses another)");
        0
    });
    ensure!(
        index < set.len(),
        "--index {index}: there are {} test puzzles in {}: give 0 to {}",
        set.len(),
        puzzles.origin,
        set.len() - 1
    );
    let kind = puzzles.kind;
    if let Some(found) = vocab_size(checkpoint)
        && found != kind.vocab_size()
    {
        bail!(
            "{}: it knows {found} tokens, the puzzles of {} have {} ({kind}): it was trained on another kind of puzzle; \
             name its own data with --data-path",
            checkpoint.path.display(),
            puzzles.origin,
            kind.vocab_size()
        );
    }
    let row = set.rows_as_stored(&[index])?;
    let bytes = |tokens: ndarray::Array2<i32>| tokens.into_iter().map(u8::try_from).collect::<Result<Vec<u8>, _>>();
    let title_kind = match kind {
        PuzzleKind::Sudoku => "Sudoku",
        PuzzleKind::Maze => "Maze",
    };
    Ok(Chosen {
        puzzle: WatchedPuzzle { kind, tokens: bytes(row.inputs)?, solution: Some(bytes(row.labels)?) },
        dims: Dims::from(puzzles.dataset.meta()),
        name: format!("{title_kind} {index}"),
        origin: format!("test row {index} of {}", puzzles.origin),
    })
}
