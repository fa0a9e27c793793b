//! `hrm viz`.

mod curves;
mod landscape;

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::Subcommand;

use super::{
    GlobalArgs,
    args::{checkpoints::load_checkpoint, output::ForceArg, puzzle::PuzzleArgs},
    ui::{JsonArg, Ui},
    watch::StudyWatch,
    work::foretell_work,
};
use crate::{
    analysis::trajectory::PointsPer,
    checkpoint::Checkpoint,
    model::Model,
    runtime::device_name,
    say,
    study::trajectory::{TrajectoryPlan, is_gif},
    viz::PictureFormat,
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
    Landscape(landscape::LandscapeArgs),
    Flow(landscape::FlowArgs),
}

const TRAJECTORY_DETAILS: &str = "\
The model works on one puzzle for all its segments. Its high-level state z_H after every H cycle is a point; the picture \
shows the points in the plane of their two principal components (exact PCA), joined by arrows in the order of time, beside \
the last answer (givens, right and wrong cells) and how many cells were right after each segment.

Several --index, --guesses K (the digits shifted by 0 to K-1) and --against (a second checkpoint) put several paths on one plane, that of the principal components of all their states. An output that ends in .gif shows the point move and the board fill in.

Defaults:
  --checkpoint  the newest step of the newest run under checkpoints/, else one of checkpoint_example/
  --data-path   the checkpoint's data_path if it is here, else the bundled test rows of its kind
  --index       0

Examples:
  hrm viz trajectory
  hrm viz trajectory --checkpoint runs/a/step_52080 --index 7 -o seven.svg
  hrm viz trajectory --index 0,1,2,3 -o four.png
  hrm viz trajectory --index 7 --guesses 9 --points segment -o transforms.png
  hrm viz trajectory --checkpoint runs/vanilla --against runs/hint --index 7 -o two.png
  hrm viz trajectory --index 7 -o seven.gif
  hrm viz trajectory -o mine.png --puzzle \\
    53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79";

/// `--points`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PointsChoice {
    Cycle,
    Segment,
}

impl From<PointsChoice> for PointsPer {
    fn from(choice: PointsChoice) -> Self {
        match choice {
            PointsChoice::Cycle => Self::Cycle,
            PointsChoice::Segment => Self::Segment,
        }
    }
}

/// The path of the model's high-level state while it works on a puzzle
#[derive(clap::Args, Debug)]
#[command(
    after_long_help = TRAJECTORY_DETAILS,
    after_help = "Example: hrm viz trajectory --index 7 -o seven.svg    (--help has the details)"
)]
struct TrajectoryArgs {
    #[command(flatten)]
    subject: PuzzleArgs,
    /// A point after every H cycle or after every segment
    #[arg(long, value_name = "cycle|segment", default_value = "cycle", hide_possible_values = true)]
    points: PointsChoice,
    /// Each puzzle under K transforms on one plane: 1 to 9 for Sudoku, 1 or 2 for mazes
    #[arg(long = "guesses", visible_alias = "permutes", value_name = "K", default_value_t = 1)]
    permutes: u32,
    /// A second checkpoint on the same plane
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
    /// The picture; its ending, .png, .svg or .gif (one path, moving), decides the format
    #[arg(short, long, value_name = "FILE", default_value = "trajectory.png")]
    output: PathBuf,
    #[command(flatten)]
    force: ForceArg,
    #[command(flatten)]
    json: JsonArg,
}

pub fn run(args: VizArgs, global: &GlobalArgs) -> Result<()> {
    match args.picture {
        PictureCommand::Trajectory(args) => trajectory(&args, global),
        PictureCommand::Curves(args) => curves::run(&args),
        PictureCommand::Landscape(args) => landscape::run(&args, global),
        PictureCommand::Flow(args) => landscape::run_flow(&args, global),
    }
}

fn trajectory(args: &TrajectoryArgs, global: &GlobalArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    if !is_gif(&args.output) {
        PictureFormat::of(&args.output).map_err(|e| anyhow!("{e}, or .gif to see it move"))?;
    }
    let existing = args.force.check(&args.output, &args.json)?;
    let (checkpoint, chosen) = args.subject.choose_all(&ui)?;
    let mut checkpoints = vec![checkpoint];
    if let Some(path) = &args.against {
        checkpoints.push(load_checkpoint(&ui, Some(path), args.subject.model.weights)?);
    }
    let (file, per) = (args.output.clone(), args.points.into());
    let plan = TrajectoryPlan::new(&chosen, &checkpoints, args.permutes, per, file, existing)?;
    let runtime = global.init()?;
    let (dims, dtype) = (chosen[0].dims, args.subject.model.dtype);
    let load = |checkpoint: &Checkpoint| checkpoint.model(dims, runtime, dtype);
    let models: Vec<Model> = checkpoints.iter().map(load).collect::<Result<_>>()?;
    let paths = chosen.len() as f64 * f64::from(args.permutes);
    foretell_work(&ui, &models[0], paths * models.iter().map(|m| m.config().flops_per_row()).sum::<f64>());
    let traced = plan.run(&models, &StudyWatch::unstoppable(&ui))?;
    say!(ui, "{}", traced.title);
    if traced.paths.len() > 1 {
        for (name, t) in traced.names.iter().zip(&traced.paths) {
            let first = t.first_solved().map_or_else(|| "never".to_owned(), |k| format!("at segment {k}"));
            say!(ui, "{name}: first right {first}, {} at the end", if t.solved() { "right" } else { "wrong" });
        }
    }
    let [pc1, pc2] = traced.paths[0].explained_variance_ratio.map(|share| 100.0 * share);
    say!(ui, "variance shown: {pc1:.1} % along PC1, {pc2:.1} % along PC2");
    say!(
        ui,
        "picture: {} ({} on {})",
        args.output.display(),
        models[0].config().forward_dtype.short_name(),
        device_name(models[0].device())
    );
    ui.emit(&traced.report(&plan, &models))
}
