//! `hrm viz landscape` and `hrm viz flow`.

use anyhow::{Result, ensure};

use crate::{
    analysis::landscape::Grid,
    cli::{
        GlobalArgs,
        args::{output::OutputArgs, puzzle::PuzzleArgs},
        table::{Table, cells},
        ui::Ui,
        watch::StudyWatch,
        work::foretell_work,
    },
    model::Model,
    runtime::device_name,
    say,
    study::{
        Files, StudyFolder,
        landscape::{Explored, FLOW_FILES, GridStudyPlan, GridSubject, LANDSCAPE_FILES, LandscapeLook},
    },
};

/// The grid and where it lies.
#[derive(clap::Args, Debug)]
struct GridArgs {
    /// First and last coordinate along both components, in steps of sqrt(T·h)/8
    #[arg(long, value_name = "A..B", default_value = "-20..20", allow_hyphen_values = true, value_parser = grid_range)]
    grid: [f64; 2],
    /// Distance between neighbouring points
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    step: f64,
    /// The segment whose z_H is the centre [default: the last]
    #[arg(long, value_name = "SEGMENT")]
    centre: Option<usize>,
    /// Points per batch [default: 64, on a GPU as many as fill it]
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    batch_size: Option<u64>,
}

impl GridArgs {
    /// Refuses grids that nobody can want.
    fn grid(&self) -> Result<Grid> {
        let [low, high] = self.grid;
        ensure!(self.step.is_finite() && self.step > 0.0, "--step {}: give a positive number", self.step);
        let grid = Grid { low, high, step: self.step };
        ensure!(
            (high - low) / self.step < 1000.0,
            "--grid {low}..{high} in steps of {}: more than 1,000 points a side; take a larger --step",
            self.step
        );
        Ok(grid)
    }

    fn plan(&self, name: &'static str, segments: usize, density: f64, global: &GlobalArgs) -> Result<GridStudyPlan> {
        Ok(GridStudyPlan {
            name,
            grid: self.grid()?,
            segments,
            centre: self.centre,
            batch_size: self.batch_size,
            density,
            seed: global.seed.unwrap_or(0),
        })
    }
}

fn grid_range(text: &str) -> Result<[f64; 2], String> {
    let wanted = || format!("{text:?}: give two numbers like -20..20");
    let (low, high) = text.split_once("..").ok_or_else(wanted)?;
    let number = |t: &str| t.trim().parse::<f64>().ok().filter(|x| x.is_finite()).ok_or_else(wanted);
    let (low, high) = (number(low)?, number(high)?);
    if low < high { Ok([low, high]) } else { Err(format!("{text:?}: the first number must be the smaller")) }
}

const LANDSCAPE_DETAILS: &str = "\
Upstream's error landscape. The model works on a Sudoku for all its segments; the plane is that of the two principal \
components of its trace (z_H after every H cycle), the centre z_H after the last segment. At every point of the grid the \
state centre + i·scale·pc1 + j·scale·pc2, scale = sqrt(T·h)/8, is rounded to the forward dtype and decoded by the output \
head; its error is the number of broken Sudoku rules (0 solved, at most 216). Then one more segment is run from it: the \
arrows show where that leads. Grid points go through the model as batches.

Files in --output-dir:
  landscape.png   the map: errors as colours, the trace in red, cyan arrows from a --density share of the points
  surface.png     the same as a surface, its height clipped at --clip
  landscape.json  every point: error, blanks, where a segment leads, the answer there
  error.npy       the errors as a grid, f32 [side, side], first index along PC1; not clipped
  end.npy         where a segment leads from each, f32 [side, side, 2]
  points.jsonl    every point as it came, for --resume

--mask-blanks greys out (crosses, on the surface) the points whose board has blank cells, for which fewer rules can be \
broken. Upstream masks what the caller has set to -1, by default nothing.

Examples:
  hrm viz landscape --index 8
  hrm viz landscape --grid -8..8 --step 0.5 --clip 60 --density 0.1
  hrm viz landscape --elev 50 --azim 30 --format both";

/// The error landscape around the state that the model ends in, as a map and as a surface
#[derive(clap::Args, Debug)]
#[command(
    after_long_help = LANDSCAPE_DETAILS,
    after_help = "Example: hrm viz landscape --index 8    (--help has the details)"
)]
pub struct LandscapeArgs {
    #[command(flatten)]
    subject: PuzzleArgs,
    #[command(flatten)]
    grid: GridArgs,
    /// Errors from here on have the same colour
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=216))]
    clip: u32,
    /// Share of the points that have an arrow
    #[arg(long, value_name = "0..1", default_value_t = 0.05)]
    density: f64,
    /// Grey out the points whose board has blanks
    #[arg(long)]
    mask_blanks: bool,
    /// Elevation of the viewpoint, in degrees
    #[arg(long, value_name = "DEGREES", default_value_t = 30.0, allow_negative_numbers = true)]
    elev: f64,
    /// Azimuth of the viewpoint, in degrees
    #[arg(long, value_name = "DEGREES", default_value_t = 120.0, allow_negative_numbers = true)]
    azim: f64,
    #[command(flatten)]
    output: OutputArgs,
}

const FLOW_DETAILS: &str = "\
From every point of the landscape's grid (see `hrm viz landscape`) the model goes on for --segments segments. Points that \
end at the same answer are one basin of attraction. A point has settled when its answer stays the same over its last \
--settle segments; the others are left white. The picture numbers the basins by size, marks where their points end, and \
draws the ways of a --density share of the points. Of a wrong answer it tells how many rules it breaks, or, where it is a \
whole Sudoku, how many of the givens it changes.

Files in --output-dir: flow.png, flow.json (every point's way and end, the basins with their answers), points.jsonl; and as \
grids whose first index goes along PC1: basin.npy (int32 [side, side], index into flow.json's basins, -1 where the answer \
still changes), error.npy (f32, before the first segment), end.npy (f32 [side, side, 2], where each way ends).

Examples:
  hrm viz flow --index 8
  hrm viz flow --grid -20..20 --step 2 --segments 32 --settle 8";

/// Where many segments lead from every point of the landscape: its basins of attraction
#[derive(clap::Args, Debug)]
#[command(after_long_help = FLOW_DETAILS, after_help = "Example: hrm viz flow --index 8    (--help has the details)")]
pub struct FlowArgs {
    #[command(flatten)]
    subject: PuzzleArgs,
    #[command(flatten)]
    grid: GridArgs,
    /// Segments from every point
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    segments: u32,
    /// An answer has settled when it stays the same over this many segments
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    settle: u32,
    /// Share of the points whose path is drawn
    #[arg(long, value_name = "0..1", default_value_t = 0.05)]
    density: f64,
    #[command(flatten)]
    output: OutputArgs,
}

/// Loads and checks everything that a study needs.
fn prepare(
    ui: &Ui,
    global: &GlobalArgs,
    subject: &PuzzleArgs,
    output: &OutputArgs,
    plan: &GridStudyPlan,
    files: Files,
) -> Result<(GridSubject, StudyFolder)> {
    let density = plan.density;
    ensure!((0.0..=1.0).contains(&density), "--density {density}: give a share from 0 to 1");
    let (checkpoint, chosen) = subject.choose(ui)?;
    plan.check_puzzle(&chosen)?;
    let runtime = global.init()?;
    let model = checkpoint.model(chosen.dims, runtime, subject.model.dtype)?;
    let segments = plan.grid.points().len() * plan.segments;
    foretell_work(ui, &model, model.config().flops_per_segment() * segments as f64);
    let subject = GridSubject { checkpoint, chosen, model };
    plan.centre_of(&subject.model)?;
    Ok((subject, output.open(files)?))
}

fn say_speed(ui: &Ui, explored: &Explored<'_>, model: &Model) {
    let seconds = explored.took.as_secs_f64();
    if explored.computed > 0 {
        say!(
            ui,
            "{} grid points x {} segment(s) in {seconds:.1} s, {:.1} points/s ({} on {})",
            explored.computed,
            explored.landscape.segments,
            explored.computed as f64 / seconds.max(1e-9),
            model.config().forward_dtype.short_name(),
            device_name(model.device())
        );
    }
}

pub fn run(args: &LandscapeArgs, global: &GlobalArgs) -> Result<()> {
    let ui = args.output.ui();
    ensure!(args.elev.is_finite() && args.azim.is_finite(), "--elev and --azim must be numbers of degrees");
    let plan = args.grid.plan("landscape", 1, args.density, global)?;
    let (subject, output) = prepare(&ui, global, &args.subject, &args.output, &plan, LANDSCAPE_FILES)?;
    let watch = StudyWatch::new(&ui);
    let explored = plan.run(&subject, &output, &watch)?;
    let look =
        LandscapeLook { clip: args.clip, mask_blanks: args.mask_blanks, elevation: args.elev, azimuth: args.azim };
    let (report, file) = explored.write_landscape(&look)?;
    say!(ui, "{}", report.head.title);
    say_speed(&ui, &explored, &subject.model);
    say!(ui, "pictures: {}", report.head.pictures.join(", "));
    say!(ui, "data: {file}, {}", report.head.arrays.join(", "));
    ui.emit(&report)
}

pub fn run_flow(args: &FlowArgs, global: &GlobalArgs) -> Result<()> {
    let ui = args.output.ui();
    ensure!(
        args.settle <= args.segments,
        "--settle {} of --segments {}: an answer cannot stay for longer than the run",
        args.settle,
        args.segments
    );
    let plan = args.grid.plan("flow", usize::try_from(args.segments)?, args.density, global)?;
    let (subject, output) = prepare(&ui, global, &args.subject, &args.output, &plan, FLOW_FILES)?;
    let watch = StudyWatch::new(&ui);
    let explored = plan.run(&subject, &output, &watch)?;
    let (report, file) = explored.write_flow(args.settle)?;
    let (title, segments) = (&report.head.title, args.segments);
    say!(ui, "{title}; {:.0} % still change after {segments} segments", 100.0 * report.unsettled());
    let total = explored.landscape.points.len() as f64;
    let mut table = Table::new(&[3, 4]);
    for (k, basin) in report.basins.iter().take(9).enumerate() {
        let what = if basin.right == Some(true) {
            "the solution".to_owned()
        } else {
            format!("changes {} givens", basin.givens_changed)
        };
        let share = format!("{:.2} %", 100.0 * basin.points as f64 / total);
        table.row(cells![k + 1, share, format!("error {}", basin.error), what, basin.answer]);
    }
    table.print(&ui);
    say_speed(&ui, &explored, &subject.model);
    say!(ui, "picture: {}", report.head.pictures.join(", "));
    say!(ui, "data: {file}, {}", report.head.arrays.join(", "));
    ui.emit(&report)
}
