//! `hrm viz`.

mod landscape;
mod puzzle;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Subcommand;
use serde::Serialize;

use self::puzzle::{Chosen, origins};
pub use self::puzzle::{PuzzleArgs, short_names, weights_name};
use super::{
    GlobalArgs, curves,
    sources::{device_name, load_checkpoint},
    ui::{JsonArg, Ui, writable},
};
use crate::{
    analysis::trajectory::{PointsPer, Subject, Trajectory, WatchedPuzzle, trace_together},
    checkpoint::Checkpoint,
    model::Model,
    say,
    viz::{
        PictureFormat, animation::save_gif, chart::Words, save, trajectories::PathsPicture,
        trajectory::TrajectoryPicture,
    },
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

Several --index, --permutes K (the digits shifted by 0 to K-1) and --against (a second checkpoint) put several paths on one plane, that of the principal components of all their states. An output that ends in .gif shows the point move and the board fill in.

Defaults:
  --checkpoint  the newest step of the newest run under checkpoints/, else one of checkpoint_example/
  --data-path   the checkpoint's data_path if it is here, else the bundled test rows of its kind
  --index       0

Examples:
  hrm viz trajectory
  hrm viz trajectory --checkpoint runs/a/step_52080 --index 7 -o seven.svg
  hrm viz trajectory --index 0,1,2,3 -o four.png
  hrm viz trajectory --index 7 --permutes 9 --points segment -o disguises.png
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
    after_help = "Example: hrm viz trajectory --index 7 -o seven.svg    (--help tells more)"
)]
struct TrajectoryArgs {
    #[command(flatten)]
    subject: PuzzleArgs,
    /// A point after every H cycle or after every segment
    #[arg(long, value_name = "cycle|segment", default_value = "cycle", hide_possible_values = true)]
    points: PointsChoice,
    /// Each puzzle in so many disguises on one plane: 1 to 9 for Sudoku, 1 or 2 for mazes
    #[arg(long, value_name = "K", default_value_t = 1)]
    permutes: u32,
    /// A second checkpoint on the same plane
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
    /// The picture; its ending, .png, .svg or .gif (one path, moving), decides the format
    #[arg(short, long, value_name = "FILE", default_value = "trajectory.png")]
    output: PathBuf,
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

/// Everything that has a path in the picture.
struct Traced {
    /// Index into the checkpoints.
    checkpoint: usize,
    puzzle: WatchedPuzzle,
    name: String,
}

/// Every puzzle under every permutation with every checkpoint, named by what differs.
fn traced(args: &TrajectoryArgs, chosen: &[Chosen], checkpoints: &[Checkpoint]) -> Result<Vec<Traced>> {
    let mut all = Vec::new();
    for (k, weights) in short_names(checkpoints).iter().enumerate() {
        for one in chosen {
            let cells = one.puzzle.tokens.len();
            let geometry = one.puzzle.kind.square(cells).context("a board of another size")?;
            let most = geometry.permutations();
            ensure!(
                (1..=most).contains(&args.permutes),
                "--permutes {}: a {} puzzle has {most} permutations: give 1 to {most}",
                args.permutes,
                one.puzzle.kind
            );
            for permutation in 0..args.permutes {
                let under = |tokens: &[u8]| -> Result<Vec<u8>> {
                    let mut wide: Vec<i32> = tokens.iter().map(|&t| i32::from(t)).collect();
                    geometry.permute(&mut wide, permutation);
                    Ok(wide.into_iter().map(u8::try_from).collect::<Result<_, _>>()?)
                };
                let puzzle = WatchedPuzzle {
                    kind: one.puzzle.kind,
                    tokens: under(&one.puzzle.tokens)?,
                    solution: one.puzzle.solution.as_deref().map(under).transpose()?,
                };
                // What is the same for all paths is in the title.
                let mut name = Vec::new();
                if chosen.len() > 1 || (args.permutes == 1 && checkpoints.len() == 1) {
                    name.push(one.name.clone());
                }
                if args.permutes > 1 {
                    name.push(format!("permutation {permutation}"));
                }
                if checkpoints.len() > 1 {
                    name.push(weights.clone());
                }
                all.push(Traced { checkpoint: k, puzzle, name: name.join(", ") });
            }
        }
    }
    Ok(all)
}

fn trajectory(args: &TrajectoryArgs, global: &GlobalArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let animated = is_gif(&args.output);
    check_output(&args.output)?;
    let (checkpoint, chosen) = args.subject.choose_all(&ui)?;
    let mut checkpoints = vec![checkpoint];
    if let Some(path) = &args.against {
        checkpoints.push(load_checkpoint(&ui, Some(path), args.subject.weights)?);
    }
    let traced = traced(args, &chosen, &checkpoints)?;
    ensure!(
        !animated || traced.len() == 1,
        "{}: a GIF shows one path, this would be {}: take .png or .svg",
        args.output.display(),
        traced.len()
    );
    let first = &chosen[0];

    let runtime = global.init()?;
    let dtype = args.subject.dtype;
    let models: Vec<Model> =
        checkpoints.iter().map(|c| Model::load(c, first.dims, runtime.device, dtype)).collect::<Result<_>>()?;
    let subjects: Vec<Subject<'_>> =
        traced.iter().map(|t| Subject { model: &models[t.checkpoint], puzzle: &t.puzzle }).collect();
    let bar = ui.progress(subjects.len() as u64, "trace", "paths");
    let trajectories = trace_together(&subjects, args.points.into(), || bar.inc(1))?;
    bar.finish_and_clear();
    let weights: Vec<String> = checkpoints.iter().map(weights_name).collect();
    let sources = format!("{} · Weights: {}", origins(&chosen), weights.join(" and "));
    let title = match trajectories.as_slice() {
        [one] => {
            let picture = TrajectoryPicture { trajectory: one, puzzle_name: first.name.clone(), sources };
            if animated {
                let bar = ui.progress(one.points.len() as u64 + 1, "draw", "frames");
                save_gif(one, &picture.title(), &args.output, || bar.inc(1))?;
                bar.finish_and_clear();
            } else {
                save(&picture, &args.output)?;
            }
            picture.title()
        }
        many => {
            let solved = many.iter().filter(|t| t.solved()).count();
            let what = match (chosen.len(), checkpoints.len()) {
                (1, 1) => format!("{} under {} permutations", first.name, args.permutes),
                (1, _) => format!("{}, two checkpoints", first.name),
                (n, _) => format!("{n} puzzles"),
            };
            let title = format!("{what}: {solved} of {} paths end at the right answer", many.len());
            let per = if args.points == PointsChoice::Cycle { "H cycle" } else { "segment" };
            let words = Words {
                title: title.clone(),
                subtitle: format!(
                    "State z_H after each {per}, on the plane of the two principal components of all paths"
                ),
                sources,
            };
            let paths = traced.iter().map(|t| t.name.clone()).zip(many).collect();
            save(&PathsPicture { words, paths }, &args.output)?;
            title
        }
    };

    say!(ui, "{title}");
    let one = &trajectories[0];
    if trajectories.len() > 1 {
        for (name, t) in traced.iter().map(|t| &t.name).zip(&trajectories) {
            let first = t.first_solved().map_or_else(|| "never".to_owned(), |k| format!("at segment {k}"));
            say!(ui, "{name}: first right {first}, {} at the end", if t.solved() { "right" } else { "wrong" });
        }
    }
    let [pc1, pc2] = one.explained_variance_ratio.map(|share| 100.0 * share);
    say!(ui, "variance shown: {pc1:.1} % along PC1, {pc2:.1} % along PC2");
    say!(
        ui,
        "picture: {} ({} on {})",
        args.output.display(),
        models[0].config().forward_dtype.short_name(),
        device_name(models[0].device())
    );
    ui.emit(&TrajectoryReport {
        title,
        picture: args.output.display().to_string(),
        checkpoint: checkpoints[0].path.display().to_string(),
        step: checkpoints[0].step,
        dtype: models[0].config().forward_dtype.short_name(),
        solved: one.solved(),
        first_solved_segment: one.first_solved(),
        first_halt_segment: one.first_halt(),
        trajectory: one,
        paths: if trajectories.len() > 1 {
            let named = traced.iter().zip(&trajectories);
            named.map(|(t, trajectory)| NamedPath { name: &t.name, trajectory }).collect()
        } else {
            Vec::new()
        },
    })
}

#[derive(Serialize)]
struct NamedPath<'a> {
    name: &'a str,
    #[serde(flatten)]
    trajectory: &'a Trajectory,
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
    /// The first, or only, path.
    #[serde(flatten)]
    trajectory: &'a Trajectory,
    /// All paths where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths: Vec<NamedPath<'a>>,
}

fn is_gif(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gif"))
}

/// Told before anything heavy starts.
fn check_output(path: &Path) -> Result<()> {
    if !is_gif(path) {
        PictureFormat::of(path).map_err(|e| anyhow!("{e}, or .gif to see it move"))?;
    }
    writable(path).map_err(|why| anyhow!("{}: {why}", path.display()))
}
