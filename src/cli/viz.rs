//! `hrm viz`.

mod landscape;
mod puzzle;

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use clap::Subcommand;
use serde::Serialize;

use self::puzzle::PuzzleArgs;
pub use self::puzzle::weights_name;
use super::{
    GlobalArgs,
    sources::{device_name, dtype_name},
    ui::{JsonArg, Ui, writable},
};
use crate::{
    analysis::trajectory::{Trajectory, trace_puzzle},
    model::Model,
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
    Landscape(landscape::LandscapeArgs),
    Flow(landscape::FlowArgs),
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
    #[command(flatten)]
    subject: PuzzleArgs,
    /// The picture; its ending, .png or .svg, decides the format
    #[arg(short, long, value_name = "FILE", default_value = "trajectory.png")]
    output: PathBuf,
    #[command(flatten)]
    json: JsonArg,
}

pub fn run(args: VizArgs, global: &GlobalArgs) -> Result<()> {
    match args.picture {
        PictureCommand::Trajectory(args) => trajectory(&args, global),
        PictureCommand::Landscape(args) => landscape::run(&args, global),
        PictureCommand::Flow(args) => landscape::run_flow(&args, global),
    }
}

fn trajectory(args: &TrajectoryArgs, global: &GlobalArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    check_output(&args.output)?;
    let (checkpoint, chosen) = args.subject.choose(&ui)?;

    let runtime = global.init()?;
    let model = Model::load(&checkpoint, chosen.dims, runtime.device, args.subject.dtype.map(Into::into))?;
    let trajectory = trace_puzzle(&model, &chosen.puzzle)?;
    let picture = TrajectoryPicture {
        trajectory: &trajectory,
        puzzle_name: chosen.name.clone(),
        sources: chosen.sources(&checkpoint),
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
