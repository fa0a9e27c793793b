//! `hrm viz landscape` and `hrm viz flow`.

use std::{
    ops::ControlFlow,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use ndarray::{Array2, Array3};
use serde::Serialize;

use super::puzzle::{Chosen, PuzzleArgs};
use crate::{
    analysis::{
        identity::GridIdentity,
        landscape::{Basin, Grid, GridPoint, Landscape, LandscapePlan, Plane, basins, digits_of, explore},
    },
    checkpoint::Checkpoint,
    cli::{
        GlobalArgs,
        sources::device_name,
        study::{Output, OutputArgs, batch_size, interrupted},
        table::{Table, cells},
        ui::Ui,
    },
    model::Model,
    puzzle::PuzzleKind,
    rng::{Purpose, distinct, stream},
    say,
    signals::stop_flag,
    viz::landscape::{Basins, HeatMap, Map, Surface},
};

/// The grid and where it lies.
#[derive(clap::Args, Debug)]
struct GridArgs {
    /// First and last coordinate along both components, in steps of sqrt(T·h)/8
    #[arg(long, value_name = "A..B", default_value = "-20..20", allow_hyphen_values = true, value_parser = grid_range)]
    grid: [f64; 2],
    /// How far neighbouring points are apart
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    step: f64,
    /// The segment whose z_H is the centre [default: the last]
    #[arg(long, value_name = "SEGMENT")]
    centre: Option<usize>,
    /// Points that go through the model together [default: 64, on a GPU what fills it]
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
    after_help = "Example: hrm viz landscape --index 8    (--help tells more)"
)]
pub struct LandscapeArgs {
    #[command(flatten)]
    subject: PuzzleArgs,
    #[command(flatten)]
    grid: GridArgs,
    /// Errors from here on look the same
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=216))]
    clip: u32,
    /// Share of the points that have an arrow
    #[arg(long, value_name = "0..1", default_value_t = 0.05)]
    density: f64,
    /// Grey out the points whose board has blanks
    #[arg(long)]
    mask_blanks: bool,
    /// The surface is seen from so many degrees above
    #[arg(long, value_name = "DEGREES", default_value_t = 30.0, allow_negative_numbers = true)]
    elev: f64,
    /// and turned by so many
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
#[command(after_long_help = FLOW_DETAILS, after_help = "Example: hrm viz flow --index 8    (--help tells more)")]
pub struct FlowArgs {
    #[command(flatten)]
    subject: PuzzleArgs,
    #[command(flatten)]
    grid: GridArgs,
    /// Segments from every point
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    segments: u32,
    /// An answer has settled when it stays the same over so many segments
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    settle: u32,
    /// Share of the points whose way is drawn
    #[arg(long, value_name = "0..1", default_value_t = 0.05)]
    density: f64,
    #[command(flatten)]
    output: OutputArgs,
}

/// A landscape that was computed, with what the pictures say beside it.
struct Explored {
    checkpoint: Checkpoint,
    chosen: Chosen,
    model: Model,
    output: Output,
    landscape: Landscape,
    /// Which points are drawn with an arrow or a way.
    drawn: Vec<usize>,
    computed: usize,
    took: Duration,
}

impl Explored {
    fn map(&self, title: String) -> Map<'_> {
        Map { landscape: &self.landscape, title, sources: self.chosen.sources(&self.checkpoint) }
    }

    /// The grid's errors `[side, side]` and where its points end `[side, side, 2]`, f32, for numpy; the first index goes
    /// along the first component.
    fn point_arrays(&self) -> Result<Vec<String>> {
        let (side, points) = (self.landscape.grid.side(), &self.landscape.points);
        let error = Array2::from_shape_fn((side, side), |(i, j)| points[i * side + j].error as f32);
        let end = |(i, j, axis): (usize, usize, usize)| {
            points[i * side + j].path.last().map_or(f32::NAN, |at| at[axis] as f32)
        };
        let ends = Array3::from_shape_fn((side, side, 2), end);
        Ok(vec![self.output.array("error", &error)?, self.output.array("end", &ends)?])
    }

    fn say_speed(&self, ui: &Ui) {
        let seconds = self.took.as_secs_f64();
        if self.computed > 0 {
            say!(
                ui,
                "{} grid points x {} segment(s) in {seconds:.1} s, {:.1} points/s ({} on {})",
                self.computed,
                self.landscape.segments,
                self.computed as f64 / seconds.max(1e-9),
                self.model.config().forward_dtype.short_name(),
                device_name(self.model.device())
            );
        }
    }
}

fn compute(
    ui: &Ui,
    global: &GlobalArgs,
    subject: &PuzzleArgs,
    grid_args: &GridArgs,
    density: f64,
    segments: usize,
    (output, name): (&OutputArgs, &'static str),
) -> Result<Explored> {
    let grid = grid_args.grid()?;
    ensure!((0.0..=1.0).contains(&density), "--density {density}: give a share from 0 to 1");
    let (checkpoint, chosen) = subject.choose(ui)?;
    ensure!(
        chosen.puzzle.kind == PuzzleKind::Sudoku,
        "{} is a {}: the landscape counts broken Sudoku rules; give a Sudoku and a checkpoint that was trained on Sudokus",
        chosen.origin,
        chosen.puzzle.kind
    );
    let runtime = global.init()?;
    let model = Model::load(&checkpoint, chosen.dims, runtime.device, subject.dtype)?;
    let last = usize::try_from(model.config().halt_max_steps)?;
    let centre_segment = grid_args.centre.unwrap_or(last);
    ensure!((1..=last).contains(&centre_segment), "--centre {centre_segment}: the model runs segments 1 to {last}");
    let output = output.open(name)?;
    let asked = GridIdentity {
        what: name,
        weights: checkpoint.weights_digest(),
        puzzle: chosen.puzzle.tokens.clone(),
        grid,
        segments,
        centre: centre_segment,
        dtype: model.config().forward_dtype.short_name(),
    };
    let (mut journal, mut done) = output.journal::<_, GridPoint>("points.jsonl", &asked)?;
    let points = grid.points();
    let total = points.len();
    done.truncate(total);
    let fits = |p: &GridPoint| p.path.len() == segments && p.answers.len() == segments;
    if let Some(k) = done.iter().zip(&points).position(|(p, at)| p.at != *at || !fits(p)) {
        bail!("{}: line {} is not that grid point: --force begins anew", output.path("points.jsonl").display(), k + 2);
    }
    if !done.is_empty() {
        say!(ui, "{} of {total} points were there already", done.len());
    }

    let plane = Plane::of(&model, &chosen.puzzle, centre_segment)?;
    let plan = LandscapePlan { grid, segments, centre_segment, batch_size: batch_size(grid_args.batch_size, &model) };
    let asked_to_stop = stop_flag("stopping after this batch");
    let bar = ui.progress(total as u64, name, "points");
    bar.set_position(done.len() as u64);
    let before = done.len();
    let mut reached = before;
    let started = Instant::now();
    let landscape = explore(&model, &plane, &plan, Some(&mut journal), done, |found| {
        reached += found.len();
        bar.inc(found.len() as u64);
        if asked_to_stop.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    bar.finish_and_clear();
    let took = started.elapsed();
    let landscape = landscape.ok_or_else(|| interrupted(ui, reached, total, output.folder()))?;
    let seed = global.seed.unwrap_or(0);
    let count = (density * total as f64).round() as u32;
    let drawn = distinct(&mut stream(Purpose::Analysis, seed, 0, 0), total as u32, count);
    Ok(Explored {
        checkpoint,
        chosen,
        model,
        output,
        landscape,
        drawn: drawn.into_iter().map(|i| i as usize).collect(),
        computed: total - before,
        took,
    })
}

/// What both documents begin with.
#[derive(Serialize)]
struct Head {
    title: String,
    pictures: Vec<String>,
    /// numpy's files.
    arrays: Vec<String>,
    checkpoint: String,
    step: Option<u64>,
    dtype: &'static str,
    puzzle: Vec<u8>,
    solution: Option<Vec<u8>>,
}

impl Head {
    fn new(explored: &Explored, title: String, pictures: Vec<String>, arrays: Vec<String>) -> Self {
        Self {
            title,
            pictures,
            arrays,
            checkpoint: explored.checkpoint.path.display().to_string(),
            step: explored.checkpoint.step,
            dtype: explored.model.config().forward_dtype.short_name(),
            puzzle: explored.chosen.puzzle.tokens.clone(),
            solution: explored.chosen.puzzle.solution.clone(),
        }
    }
}

#[derive(Serialize)]
struct LandscapeReport<'a> {
    #[serde(flatten)]
    head: Head,
    clip: u32,
    #[serde(flatten)]
    landscape: &'a Landscape,
}

#[derive(Serialize)]
struct FlowReport<'a> {
    #[serde(flatten)]
    head: Head,
    settle: u32,
    basins: &'a [Basin],
    /// Index into `basins` of every point, null where its answer still changes.
    basin_of_point: &'a [Option<usize>],
    #[serde(flatten)]
    landscape: &'a Landscape,
}

pub fn run(args: &LandscapeArgs, global: &GlobalArgs) -> Result<()> {
    let ui = args.output.ui();
    ensure!(args.elev.is_finite() && args.azim.is_finite(), "--elev and --azim must be numbers of degrees");
    let explored = compute(&ui, global, &args.subject, &args.grid, args.density, 1, (&args.output, "landscape"))?;
    let title = format!("{}: {}", explored.chosen.name, explored.landscape.verdict());
    let heat = HeatMap {
        map: explored.map(title.clone()),
        clip: args.clip,
        mask_blanks: args.mask_blanks,
        arrows: explored.drawn.clone(),
    };
    let surface = Surface {
        map: explored.map(title.clone()),
        clip: args.clip,
        mask_blanks: args.mask_blanks,
        elevation: args.elev,
        azimuth: args.azim,
    };
    let mut pictures = explored.output.picture("landscape", &heat)?;
    pictures.extend(explored.output.picture("surface", &surface)?);
    say!(ui, "{title}");
    explored.say_speed(&ui);
    say!(ui, "pictures: {}", pictures.join(", "));
    let arrays = explored.point_arrays()?;
    let listed = arrays.join(", ");
    let report = LandscapeReport {
        head: Head::new(&explored, title, pictures, arrays),
        clip: args.clip,
        landscape: &explored.landscape,
    };
    say!(ui, "data: {}, {listed}", explored.output.json("landscape.json", &report)?);
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
    let segments = usize::try_from(args.segments)?;
    let explored = compute(&ui, global, &args.subject, &args.grid, args.density, segments, (&args.output, "flow"))?;
    let puzzle = &explored.chosen.puzzle;
    let solution = puzzle.solution.as_deref().map(digits_of);
    let (found, of_point) =
        basins(&explored.landscape.points, args.settle as usize, &digits_of(&puzzle.tokens), solution.as_deref());
    let total = explored.landscape.points.len() as f64;
    let percent = |n: usize| 100.0 * n as f64 / total;
    let right: usize = found.iter().filter(|b| b.right == Some(true)).map(|b| b.points).sum();
    let unsettled = of_point.iter().filter(|b| b.is_none()).count();
    let wrong = found.iter().filter(|b| b.right != Some(true)).count();
    let title = format!(
        "{}: {:.0} % of the plane flows to the solution, {:.0} % to {wrong} wrong answer{}",
        explored.chosen.name,
        percent(right),
        percent(explored.landscape.points.len() - right - unsettled),
        if wrong == 1 { "" } else { "s" },
    );
    let picture =
        Basins { map: explored.map(title.clone()), basins: &found, of_point: &of_point, ways: explored.drawn.clone() };
    let pictures = explored.output.picture("flow", &picture)?;
    say!(ui, "{title}; {:.0} % still change after {segments} segments", percent(unsettled));
    let mut table = Table::new(&[3, 4]);
    for (k, basin) in found.iter().take(9).enumerate() {
        let what = if basin.right == Some(true) {
            "the solution".to_owned()
        } else {
            format!("changes {} givens", basin.givens_changed)
        };
        let share = format!("{:.2} %", percent(basin.points));
        table.row(cells![k + 1, share, format!("error {}", basin.error), what, basin.answer]);
    }
    table.print(&ui);
    explored.say_speed(&ui);
    say!(ui, "picture: {}", pictures.join(", "));
    let side = explored.landscape.grid.side();
    let number = |k: usize| of_point[k].and_then(|basin| i32::try_from(basin).ok()).unwrap_or(-1);
    let mut arrays = explored.point_arrays()?;
    arrays.push(explored.output.array("basin", &Array2::from_shape_fn((side, side), |(i, j)| number(i * side + j)))?);
    let listed = arrays.join(", ");
    let report = FlowReport {
        head: Head::new(&explored, title, pictures, arrays),
        settle: args.settle,
        basins: &found,
        basin_of_point: &of_point,
        landscape: &explored.landscape,
    };
    say!(ui, "data: {}, {listed}", explored.output.json("flow.json", &report)?);
    ui.emit(&report)
}
