//! `hrm infer`.

mod print;

use std::{
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    GlobalArgs,
    args::{
        checkpoints::{CheckpointsArg, ModelArgs, checkpoint_files, load_checkpoints},
        choices::{KINDS, STOP_RULES, one_of},
        guesses::GuessArgs,
        launch::LaunchArgs,
        output::check_files,
        puzzles::{DataPathArg, open_test_set},
    },
    ui::{JsonArg, Ui, only_errors},
    work::foretell_work,
};
use crate::{
    checkpoint::{Checkpoint, resolve},
    config::MOST_SEGMENTS,
    eval::{
        infer::Event,
        parts::{Part, SignsOfLife, wait_and_join},
        pass::StopRule,
        record::PuzzleRecord,
        report::{InferReport, of_each},
        request::{DecidedInfer, InferJob, InferRequest, OpenedResults},
        results_file::{self, StoredResults},
        scores::Tally,
        shard::Shard,
        test_puzzles::{TestPuzzles, TestSource},
        vote::summary_line,
    },
    outcome::Interrupted,
    puzzle::PuzzleKind,
    runtime::{
        dist::Place,
        launch::{Launch, Role},
    },
    say,
    signals::stop_flag,
    store::Existing,
    study::save_picture,
    viz::{PictureFormat, pass_curve::PassCurvePicture},
};

const DETAILS: &str = "\
Every test puzzle goes through every checkpoint under every guess (Sudoku: the digits shifted cyclically by 0, 1, ..; \
maze: start and goal swapped); one such run is a pass. With --stop never, upstream's rule and the default, a pass has \
all halt_max_steps segments and the last one counts. --stop halt ends a pass at its first halt, --stop verified at its \
first answer that is right by the puzzle's rules, and later passes of that puzzle are skipped. A slot that becomes free is \
filled with the next pass at once, so that less is computed. --compare-stops shows all three rules from one full run.

Scores: exact and cell accuracy are means over passes and cells, givens included. Without labels: \
verified (some pass is right by the rules), vote (the most frequent answer among halted passes) and best halt (the \
answer with the highest q_halt - q_continue). Upstream's rule is what upstream prints: a Sudoku is solved when more than \
half of a checkpoint's halted passes are exact, for at least one checkpoint; a maze when any pass is exact. It uses the \
labels, so a solver cannot vote like that. With --stop never the last line is upstream's: correct/total, accuracy=x.

Defaults:
  --checkpoints  the newest step of the newest run under checkpoints/, else one of checkpoint_example/
  --data-path    the last checkpoint's data_path if it is here, else the first 2,000 bundled Sudoku test rows
                 or, for mazes, the 40 of 30x30 cells
  --batch-size   91 as upstream; on a GPU with fused kernels a size whose matrix products fill its processors evenly
  --num-batch    as many as cover all rows, in file order; the last batch may be short
  --dataset      the kind that the data's vocabulary implies

Large runs: --output FILE keeps results as they come, a line of JSON per puzzle, and --resume continues it. --shard I/N \
takes a part of the puzzles; --merge FILE... joins the parts. --nproc-per-node N starts N processes on this host, each for \
its part and on its GPU, which write FILE's parts beside it; the first process joins them. So do the processes of another \
launcher that sets RANK, WORLD_SIZE and LOCAL_RANK, such as torchrun.

Intervals are 95 %: Wilson's for one yes or no per puzzle, a bootstrap over puzzles where passes are pooled.

Examples:
  hrm infer --guesses 9
  hrm infer --stop verified --guesses 9 --bundled 10000
  hrm infer --checkpoints runs/a/step_52080,runs/b --num-batch 10 --json results.json
  hrm infer --checkpoint runs/a --data-path data/maze-30x30-hard-1k --guesses 2
  hrm infer --guesses 20 --relabel --symmetries --stop verified --plot passes.png
  hrm infer --guesses 9 --nproc-per-node gpu --output all.jsonl --resume
  hrm infer --guesses 9 --shard 1/4 --output a.jsonl --resume
  hrm infer --merge a.jsonl b.jsonl c.jsonl d.jsonl --json all.json";

/// Solve a test set with one or several checkpoints and score what comes out
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm infer --guesses 9    (--help has the details)")]
pub struct InferArgs {
    #[command(flatten)]
    checkpoints: CheckpointsArg,
    /// Guesses of each checkpoint, which are transforms of the puzzle: 1 to 9 for Sudoku, 1 or 2 for mazes; more with
    /// --relabel, --symmetries, --random-start or --noise
    #[arg(
        long = "guesses",
        visible_alias = "permutes",
        value_name = "K",
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    permutes: u32,
    /// Batches to run [default: all rows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    num_batch: Option<u64>,
    /// Puzzles per batch [default: 91 as upstream; on a GPU as many as fill it]
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    batch_size: Option<u64>,
    /// The kind of puzzle [default: the kind that the data's vocabulary implies]
    #[arg(long, value_name = "sudoku|maze", value_parser = one_of(KINDS))]
    dataset: Option<PuzzleKind>,
    #[command(flatten)]
    data: DataPathArg,
    /// Solve the first N of the 10,000 bundled Sudoku-Extreme test rows
    #[arg(long, value_name = "N", conflicts_with = "data_path", value_parser = clap::value_parser!(u64).range(1..))]
    bundled: Option<u64>,
    #[command(flatten)]
    model: ModelArgs,
    /// When a pass ends: after all segments, at its first halt, or at its first answer that is right by the rules
    #[arg(long, value_name = "never|halt|verified", default_value = "never", hide_possible_values = true, value_parser = one_of(STOP_RULES))]
    stop: StopRule,
    /// Score every stop rule, from passes that run to the end
    #[arg(long)]
    compare_stops: bool,
    /// Segments of a pass [default: the checkpoint's halt_max_steps]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=MOST_SEGMENTS))]
    segments: Option<i64>,
    /// Keep results as they come: a line of JSON for each puzzle
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Continue the results in --output
    #[arg(long, requires = "output")]
    resume: bool,
    /// Replace the files of --output and --plot that are there already; with --resume, that of --plot alone
    #[arg(long)]
    force: bool,
    /// Solve one of N equal parts of the puzzles, I from 1 to N
    #[arg(long, value_name = "I/N", requires = "output")]
    shard: Option<Shard>,
    /// Join the results of all shards instead of solving anything
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["checkpoints", "data_path", "shard", "resume", "num_batch", "nproc_per_node"])]
    merge: Vec<PathBuf>,
    /// Count answers that differ from those in the results of another run, made with --compare-stops
    #[arg(long, value_name = "FILE", conflicts_with = "merge")]
    against: Option<PathBuf>,
    /// Draw how many puzzles are solved with the first k passes, as .png or .svg
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    json: JsonArg,
    // The last ones: their headings hold for what follows.
    #[command(flatten)]
    guesses: GuessArgs,
    #[command(flatten)]
    launch: LaunchArgs,
}

pub fn run(args: InferArgs, global: &GlobalArgs) -> Result<()> {
    let files = args.plot.iter().chain(&args.output).map(PathBuf::as_path);
    // A journal that is there already is judged when it is opened.
    let existing = if args.merge.is_empty() { Existing::Replace } else { args.of_whole_files() };
    check_files(files, existing, &args.json)?;
    check_files(args.plot.as_deref(), args.of_whole_files(), &args.json)?;
    if let Some(plot) = &args.plot {
        PictureFormat::of(plot)?;
    }
    if !args.merge.is_empty() {
        return merge(&args, global);
    }
    let role = args.launch.role(global.device)?;
    only_errors(!role.reports());
    let ui = Ui::new(&args.json);
    let part = Part::new(&role, args.shard, args.output.as_deref(), args.of_output(), args.of_whole_files())?;
    if let Role::Launcher(launch) = &role {
        return start(launch, &ui, &args);
    }
    infer(&ui, &args, global, &role, part)
}

impl InferArgs {
    /// What to do with an --output that is there already.
    fn of_output(&self) -> Existing {
        match (self.resume, self.force) {
            (true, _) => Existing::Resume,
            (_, true) => Existing::Replace,
            _ => Existing::Refuse,
        }
    }

    /// What to do with a file that is there already and would be written in one go.
    fn of_whole_files(&self) -> Existing {
        if self.force { Existing::Replace } else { self.of_output() }
    }
}

/// The checkpoints that a launcher chose, else those that were named, else the newest.
fn checkpoints_of(ui: &Ui, args: &InferArgs, decided: Option<&DecidedInfer>) -> Result<Vec<Checkpoint>> {
    let files = decided.map_or(&args.checkpoints.checkpoints, |decided| &decided.checkpoints);
    load_checkpoints(ui, files, args.model.weights)
}

/// The puzzles that were named, else those of the last checkpoint.
fn puzzles_of(ui: &Ui, args: &InferArgs, last: &Checkpoint) -> Result<TestPuzzles> {
    match args.bundled {
        None => open_test_set(ui, &args.data, last),
        Some(rows) => TestPuzzles::open(TestSource::Sudokus(usize::try_from(rows)?)),
    }
}

/// Starts the ranks, with the checkpoints and the puzzles that all of them take.
fn start(launch: &Launch, ui: &Ui, args: &InferArgs) -> Result<()> {
    let checkpoints = checkpoint_files(ui, &args.checkpoints.checkpoints)?;
    let last = checkpoints.last().context("no checkpoint")?;
    let last = resolve(last)?.load(args.model.weights.into())?.checkpoint;
    let source = puzzles_of(ui, args, &last)?.source;
    launch.run(&DecidedInfer { checkpoints, source })
}

/// Runs, alone or as one of several processes, and reports.
fn infer(ui: &Ui, args: &InferArgs, global: &GlobalArgs, role: &Role, part: Part) -> Result<()> {
    let decided = role.handed_down::<DecidedInfer>()?;
    let checkpoints = checkpoints_of(ui, args, decided.as_ref())?;
    let puzzles = match decided {
        Some(decided) => TestPuzzles::open(decided.source)?,
        None => puzzles_of(ui, args, checkpoints.last().context("no checkpoint")?)?,
    };
    let seed = global.seed.unwrap_or(0);
    let request = InferRequest {
        kind: args.dataset,
        permutes: args.permutes,
        options: args.guesses.options(seed),
        stop: args.stop,
        compare_stops: args.compare_stops,
        segments: args.segments,
        dtype: args.model.dtype,
        num_batch: args.num_batch,
        batch_size: args.batch_size,
        part,
        existing: args.of_output(),
        against: args.against.clone(),
    };
    request.check(&puzzles, &checkpoints)?;
    let runtime = global.init_on(role.device(global.device)?)?;
    let job = request.prepare(puzzles, checkpoints, runtime)?;
    if job.fewer {
        let (there, origin) = (job.identity.puzzles, &job.puzzles.origin);
        say!(ui, "fewer test puzzles than asked for: all {there} of {origin} are run once");
    }
    let opened = job.open()?;
    if let (Some(path), Some(done)) = (&job.part.output, opened.done) {
        say!(ui, "{}: {done} of {} puzzles are done", path.display(), job.plan.puzzles.len());
    }
    describe(ui, &job, opened.known.is_empty());
    let passes = job.plan.puzzles.len().saturating_sub(opened.known.len()) as f64 * f64::from(job.plan.permutes);
    let flops = job.models.iter().map(|m| m.config().flops_per_row()).sum::<f64>();
    foretell_work(ui, job.models.first().context("no checkpoint")?, passes * flops);
    let _alive = match (&job.part.output, role) {
        (Some(file), Role::Rank(rank)) => Some(SignsOfLife::of(file.clone(), rank.place.timeout)?),
        _ => None,
    };
    let asked_to_stop = stop_flag("");
    let mut watch = Watch::new(ui, &job, &opened, &asked_to_stop);
    let end = job.run(opened, |event| watch.see(event))?;
    watch.bar.finish_and_clear();
    if end.outcome.work.stopped {
        return Err(interrupted(ui, &job, &end.outcome.tally).into());
    }
    if let (Some(whole), Role::Rank(rank)) = (&job.part.whole, role) {
        if rank.place.rank > 0 {
            return Ok(());
        }
        let joined = join_parts(ui, args, whole, &rank.place, &asked_to_stop)?;
        return finish(ui, args, &InferReport::of_stored(&joined, seed));
    }
    finish(ui, args, &job.report(&end, args.shard, seed))
}

/// Says what is run.
fn describe(ui: &Ui, job: &InferJob, fresh: bool) {
    let plan = &job.plan;
    let Range { start, end } = plan.puzzles;
    let part = match job.part.shard {
        Shard { count: 1, .. } => String::new(),
        shard => format!(", shard {shard}: puzzles {start} to {}", end.saturating_sub(1)),
    };
    let stop = match plan.stop {
        StopRule::Never => String::new(),
        rule => format!(" at most, --stop {}", rule.name()),
    };
    say!(
        ui,
        "{} {} puzzles of {} in batches of {}: {} checkpoint(s) x {} guess(es), {} segments{stop}, {} on {}{part}{}",
        plan.puzzles.len(),
        plan.geometry,
        job.puzzles.origin,
        plan.batch_size,
        job.models.len(),
        plan.permutes,
        of_each(job.models.iter().map(|m| m.config().halt_max_steps)),
        of_each(job.models.iter().map(|m| m.config().forward_dtype.short_name())),
        job.device,
        if fresh { "" } else { ", without what is known" }
    );
}

/// Tells how far the run came.
fn interrupted(ui: &Ui, job: &InferJob, tally: &Tally) -> Interrupted {
    let so_far = match (tally.total(), tally.upstream()) {
        (0, _) | (_, None) => String::new(),
        (done, Some(solved)) => {
            let correct = solved.iter().map(|&s| u64::from(s)).sum();
            format!(", {} of them solved under upstream's rule", summary_line(correct, done))
        }
    };
    let kept = match &job.part.output {
        Some(path) => format!("{} has the results so far, --resume continues it", path.display()),
        None => "no results were written".to_owned(),
    };
    say!(ui, "interrupted after {} of {} puzzles{so_far}; {kept}", tally.total(), job.plan.puzzles.len());
    Interrupted::TOLD
}

/// Shows a run.
struct Watch<'a> {
    bar: indicatif::ProgressBar,
    asked_to_stop: &'a AtomicBool,
    /// Passes of a puzzle.
    all: u64,
    passes: u64,
    exact: u64,
}

impl<'a> Watch<'a> {
    fn new(ui: &Ui, job: &InferJob, opened: &OpenedResults, asked_to_stop: &'a AtomicBool) -> Self {
        let all = job.identity.shape.passes() as u64;
        let bar = ui.progress(job.plan.puzzles.len() as u64 * all, "infer", "passes");
        let done = |record: &PuzzleRecord| if job.is_complete(record) { all } else { record.passes.len() as u64 };
        bar.inc(opened.known.values().map(done).sum());
        bar.reset_eta();
        Self { bar, asked_to_stop, all, passes: 0, exact: 0 }
    }

    fn see(&mut self, event: Event<'_>) -> ControlFlow<()> {
        match event {
            Event::Segment => self.bar.tick(),
            Event::Pass { pass, .. } => {
                self.passes += 1;
                self.exact += u64::from(pass.end.is_exact());
                self.bar.inc(1);
                if self.passes.is_multiple_of(64) {
                    self.bar.set_message(format!("· exact {:.1} %", 100.0 * self.exact as f64 / self.passes as f64));
                }
            }
            Event::Puzzle(record) => self.bar.inc(self.all.saturating_sub(record.passes.len() as u64)),
        }
        if self.asked_to_stop.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// `--merge`.
fn merge(args: &InferArgs, global: &GlobalArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let joined = results_file::join(&args.merge)?;
    if let Some(output) = &args.output {
        joined.write(output, args.of_whole_files())?;
        say!(ui, "results: {}", output.display());
    }
    let seed = global.seed.unwrap_or(joined.run.options.seed);
    finish(&ui, args, &InferReport::of_stored(&joined, seed))
}

/// Waits for the parts of the other processes.
fn join_parts(
    ui: &Ui,
    args: &InferArgs,
    whole: &Path,
    place: &Place,
    asked_to_stop: &AtomicBool,
) -> Result<StoredResults> {
    let (mut told, mut left) = (Instant::now(), 0);
    let joined = wait_and_join(whole, place.world, place.timeout, |open| {
        left = open.len();
        if told.elapsed() > Duration::from_secs(30) {
            say!(ui, "waiting for {left} part(s), {} first", open[0].display());
            told = Instant::now();
        }
        if asked_to_stop.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let Some(joined) = joined else {
        say!(ui, "interrupted while {left} part(s) were not finished; --resume goes on");
        bail!(Interrupted::TOLD);
    };
    // What an earlier process of the same run joined may tell of other seconds.
    let same_run = || results_file::read(whole).is_ok_and(|stored| stored.run == joined.run);
    let existing = if args.resume && same_run() { Existing::Replace } else { args.of_whole_files() };
    joined.write(whole, existing)?;
    Ok(joined)
}

/// Text, picture and JSON.
fn finish(ui: &Ui, args: &InferArgs, report: &InferReport) -> Result<()> {
    print::print(report, ui);
    if let Some(path) = &args.plot {
        save_picture(&PassCurvePicture::of(report), path, args.of_whole_files())?;
        say!(ui, "picture: {}", path.display());
    }
    if let Some(rule) = report.upstream_rule {
        say!(ui, "{}", summary_line(rule.correct, rule.total));
    }
    ui.emit(report)
}
