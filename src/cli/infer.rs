//! `hrm infer`.

mod print;

use std::{
    collections::BTreeMap,
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};

use super::{
    GlobalArgs,
    args::{
        checkpoints::{CheckpointsArg, ModelArgs, checkpoint_files, load_checkpoints},
        choices::{KINDS, STOP_RULES, one_of},
        guesses::GuessArgs,
        launch::LaunchArgs,
        puzzles::{DataPathArg, check_kind, open_test_set},
    },
    ui::{JsonArg, Ui, only_errors, writable},
};
use crate::{
    analysis::test_puzzles::TestPuzzles,
    checkpoint::Checkpoint,
    dataset::DatasetSet,
    eval::{
        guess::GuessOptions,
        infer::{Event, InferPlan, infer},
        parts::{Part, wait_and_join},
        pass::StopRule,
        report::{Circumstances, InferReport, of_each},
        results_file::{self, CheckpointIdentity, Differences, ResultsWriter, RunIdentity, StoredResults},
        scores::Tally,
        shard::Shard,
        vote::summary_line,
    },
    journal::Existing,
    model::{Dims, Model},
    outcome::Interrupted,
    puzzle::PuzzleKind,
    runtime::{
        Runtime, device_name,
        dist::Place,
        launch::{Launch, Role},
    },
    say,
    signals::stop_flag,
    study::save_picture,
    viz::{
        PictureFormat,
        pass_curve::{PassCurvePicture, PassLine},
    },
};

/// Rows of a batch where nothing better is known.
const UPSTREAMS_BATCH: u64 = 91;

const DETAILS: &str = "\
Every test puzzle goes through every checkpoint under every permutation (Sudoku: the digits shifted cyclically by 0, 1, \
..; maze: start and goal swapped); one such run is a pass. With --stop never, upstream's rule and the default, a pass has \
all halt_max_steps segments and the last one counts. --stop halt ends a pass at its first halt, --stop verified at its \
first answer that is right by the puzzle's rules, and later passes of that puzzle are skipped. A slot that becomes free is \
filled with the next pass at once, so that less is computed. --compare-stops shows all three rules from one full run.

Scores: exact and cell accuracy are means over passes and cells, givens included. What a user can have without the \
answers: verified (some pass is right by the rules), vote (the most frequent answer among halted passes) and best halt (the \
answer with the highest q_halt - q_continue). Upstream's rule is what upstream prints: a Sudoku is solved when more than \
half of a checkpoint's halted passes are exact, for at least one checkpoint; a maze when any pass is exact. It looks at the \
labels: it is no vote that a solver could take. With --stop never the last line is upstream's: correct/total, accuracy=x.

Defaults:
  --checkpoints  the newest step of the newest run under checkpoints/, else one of checkpoint_example/
  --data-path    the last checkpoint's data_path if it is here, else the first 2,000 bundled Sudoku test rows
                 or, for mazes, the 40 of 30x30 cells
  --batch-size   91 as upstream; on a GPU with fused kernels a size whose matrix products fill its processors evenly
  --num-batch    as many as cover all rows, in file order; the last batch may be short
  --dataset      what the data's vocabulary says

Large runs: --output FILE keeps results as they come, a line of JSON a puzzle, and --resume goes on with it. --shard I/N \
takes a part of the puzzles; --merge FILE... joins the parts. --nproc-per-node N starts N processes on this host, each for \
its part and on its GPU, which write FILE's parts beside it; the first process joins them. So do the processes of another \
launcher that sets RANK, WORLD_SIZE and LOCAL_RANK, such as torchrun.

Intervals are 95 %: Wilson's for one yes or no a puzzle, a bootstrap over puzzles where passes are pooled.

Examples:
  hrm infer --permutes 9
  hrm infer --stop verified --permutes 9 --bundled 10000
  hrm infer --checkpoints runs/a/step_52080,runs/b --num-batch 10 --json results.json
  hrm infer --checkpoint runs/a --data-path data/maze-30x30-hard-1k --permutes 2
  hrm infer --permutes 20 --relabel --symmetries --stop verified --plot passes.png
  hrm infer --permutes 9 --nproc-per-node gpu --output all.jsonl --resume
  hrm infer --permutes 9 --shard 1/4 --output a.jsonl --resume
  hrm infer --merge a.jsonl b.jsonl c.jsonl d.jsonl --json all.json";

/// Solve a test set with one or several checkpoints and score what comes out
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm infer --permutes 9    (--help tells more)")]
pub struct InferArgs {
    #[command(flatten)]
    checkpoints: CheckpointsArg,
    /// Transforms of each puzzle to try: 1 to 9 for Sudoku, 1 or 2 for mazes; more with the options for more guesses
    #[arg(long, value_name = "K", default_value_t = 1, allow_negative_numbers = true)]
    permutes: u32,
    /// Batches to run [default: all rows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    num_batch: Option<u64>,
    /// Puzzles that go through the model together [default: 91 as upstream; on a GPU what fills it]
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    batch_size: Option<u64>,
    /// The kind of puzzle [default: what the data's vocabulary says]
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
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=1 << 20))]
    segments: Option<i64>,
    /// Keep results as they come: a line of JSON for each puzzle
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Go on with the results in --output
    #[arg(long, requires = "output")]
    resume: bool,
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
    for file in args.plot.iter().chain(args.output.iter().filter(|_| !args.resume)) {
        writable(file).map_err(|why| anyhow!("{}: {why}", file.display()))?;
    }
    if let Some(plot) = &args.plot {
        PictureFormat::of(plot)?;
    }
    if !args.merge.is_empty() {
        return merge(&args, global);
    }
    let role = args.launch.role(global.device)?;
    only_errors(!role.reports());
    let ui = Ui::new(&args.json);
    let part = Part::new(&role, args.shard, args.output.as_deref(), args.resume)?;
    if let Role::Launcher(launch) = &role {
        return start(launch, &ui, &args);
    }
    let job = Job::prepare(&ui, &args, global, &role, part)?;
    job.run(&ui, &args, global, &role)
}

/// Starts the ranks, with the checkpoints that all of them take.
fn start(launch: &Launch, ui: &Ui, args: &InferArgs) -> Result<()> {
    let files = checkpoint_files(ui, &args.checkpoints.checkpoints)?;
    launch.run(&files)
}

/// Everything that is loaded and checked before the first segment.
struct Job {
    puzzles: TestPuzzles,
    models: Vec<Model>,
    runtime: Runtime,
    plan: InferPlan,
    identity: RunIdentity,
    part: Part,
    /// Another run's results, to count differences from.
    against: Option<StoredResults>,
}

impl Job {
    fn prepare(ui: &Ui, args: &InferArgs, global: &GlobalArgs, role: &Role, part: Part) -> Result<Self> {
        ensure!(
            !args.compare_stops || args.stop == StopRule::Never,
            "--compare-stops shows all rules from passes that run to the end: leave --stop {} out",
            args.stop.name()
        );
        let handed_down = role.handed_down::<Vec<PathBuf>>()?;
        let files = handed_down.as_ref().unwrap_or(&args.checkpoints.checkpoints);
        let mut checkpoints = load_checkpoints(ui, files, args.model.weights)?;
        let last = checkpoints.last().context("no checkpoint")?;
        let puzzles = chosen_puzzles(ui, args, last)?;
        let set = puzzles.set()?;
        let options = args.guesses.options(global.seed.unwrap_or(0))?;
        check_permutes(args, &puzzles, &options)?;
        for checkpoint in &mut checkpoints {
            check_kind(&puzzles, checkpoint)?;
            if let Some(segments) = args.segments {
                checkpoint.config.arch.halt_max_steps = segments;
            }
        }

        let runtime = global.init_on(role.device(global.device)?)?;
        let dims = Dims::from(puzzles.dataset.meta());
        let mut models = Vec::with_capacity(checkpoints.len());
        for checkpoint in &checkpoints {
            models.push(checkpoint.model(dims, runtime, args.model.dtype)?);
        }
        let filling = || models.iter().filter_map(|m| m.filling_batch(models.len() - 1)).min();
        let batch_size = match args.batch_size {
            Some(given) => usize::try_from(given)?,
            None => filling().unwrap_or(UPSTREAMS_BATCH as usize),
        };
        let total = puzzles_to_run(args, set, batch_size);
        if total == set.len() && args.num_batch.is_some_and(|n| n.saturating_mul(batch_size as u64) > total as u64) {
            say!(ui, "fewer test puzzles than asked for: all {} of {} are run once", set.len(), puzzles.origin);
        }
        let plan = InferPlan {
            geometry: puzzles.geometry,
            permutes: args.permutes,
            options,
            stop: args.stop,
            compare: args.compare_stops,
            batch_size,
            puzzles: part.shard.of(total),
        };
        let identity = RunIdentity {
            shape: plan.shape(&models),
            compare_stops: plan.compare,
            options,
            checkpoints: checkpoints.iter().zip(&models).map(|(c, m)| checkpoint_identity(c, m)).collect(),
            // Without a file there is nothing to compare it with.
            data_fingerprint: match (&part.output, &args.against) {
                (None, None) => String::new(),
                _ => puzzles.dataset.fingerprint()?,
            },
            data: puzzles.origin.clone(),
            puzzles: total,
        };
        let against = args.against.as_ref().map(|path| {
            let stored = results_file::read(path)?;
            let at = || format!("{}: cannot stand beside this run", path.display());
            stored.check_comparable(&identity).with_context(at)?;
            Ok::<_, anyhow::Error>(stored)
        });
        let against = against.transpose()?;
        Ok(Self { puzzles, models, runtime, plan, identity, part, against })
    }

    fn run(&self, ui: &Ui, args: &InferArgs, global: &GlobalArgs, role: &Role) -> Result<()> {
        let stored = self.open(ui, args)?;
        let (writer, known, before) = match stored {
            (writer, Some(stored)) => (writer, stored.records, stored.seconds),
            (writer, None) => (writer, BTreeMap::new(), 0.0),
        };
        self.describe(ui, known.len());
        let asked_to_stop = stop_flag("");
        let started = Instant::now();
        let mut watch = Watch::new(ui, self, writer, &asked_to_stop, &known);
        let mut differences = self.against.as_ref().map(|_| Differences::default());
        let outcome = infer(&self.models, self.puzzles.set()?, &self.plan, known, |event| {
            if let (Event::Pass { puzzle, pass, .. }, Some(other), Some(counts)) =
                (event, &self.against, &mut differences)
            {
                other.compare(puzzle, pass, self.plan.stop, counts);
            }
            watch.see(event)
        })?;
        watch.bar.finish_and_clear();
        if let Some(writer) = watch.writer {
            writer.finish(!outcome.work.stopped)?;
        }
        if outcome.work.stopped {
            return Err(self.interrupted(ui, &outcome.tally).into());
        }

        let seed = global.seed.unwrap_or(0);
        let setup = outcome.work.setup.as_secs_f64();
        let seconds = before + (started.elapsed().as_secs_f64() - setup).max(0.0);
        if let (Some(whole), Role::Rank(rank)) = (&self.part.whole, role) {
            if rank.place.rank > 0 {
                return Ok(());
            }
            let joined = join_parts(ui, whole, &rank.place, &asked_to_stop)?;
            return report_stored(ui, args, &joined, seed);
        }
        let how = Circumstances {
            shard: args.shard.map(|s| s.to_string()),
            batch_size: Some(self.plan.batch_size),
            device: Some(device_name(self.runtime.device)),
            row_segments: Some(outcome.work.rows),
            setup_seconds: Some(setup),
            against: differences,
        };
        let report = InferReport::new(&self.identity, &outcome.tally, how, seed, seconds);
        finish(ui, args, &report, &outcome.tally, &self.identity)
    }

    fn open(&self, ui: &Ui, args: &InferArgs) -> Result<(Option<ResultsWriter>, Option<StoredResults>)> {
        let Some(path) = &self.part.output else { return Ok((None, None)) };
        let existing = if args.resume { Existing::Resume } else { Existing::Refuse };
        let (writer, stored) = ResultsWriter::open(path, &self.identity, &self.plan.puzzles, existing)?;
        if let Some(stored) = &stored {
            let (all, stop) = (self.identity.shape.passes(), self.plan.stop);
            let done = stored.records.values().filter(|r| r.is_complete(all, stop)).count();
            say!(ui, "{}: {done} of {} puzzles are done", path.display(), self.plan.puzzles.len());
        }
        Ok((Some(writer), stored))
    }

    fn describe(&self, ui: &Ui, known: usize) {
        let plan = &self.plan;
        let Range { start, end } = plan.puzzles;
        let part = match self.part.shard {
            Shard { count: 1, .. } => String::new(),
            shard => format!(", shard {shard}: puzzles {start} to {}", end.saturating_sub(1)),
        };
        let stop = match plan.stop {
            StopRule::Never => String::new(),
            rule => format!(" at most, --stop {}", rule.name()),
        };
        say!(
            ui,
            "{} {} puzzles of {} in batches of {}: {} checkpoint(s) x {} permutation(s), {} segments{stop}, {} on {}{part}{}",
            plan.puzzles.len(),
            plan.geometry,
            self.puzzles.origin,
            plan.batch_size,
            self.models.len(),
            plan.permutes,
            of_each(self.models.iter().map(|m| m.config().halt_max_steps)),
            of_each(self.models.iter().map(|m| m.config().forward_dtype.short_name())),
            device_name(self.runtime.device),
            if known > 0 { ", without what is known" } else { "" }
        );
    }

    /// Tells how far the run came.
    fn interrupted(&self, ui: &Ui, tally: &Tally) -> Interrupted {
        let so_far = match (tally.total(), tally.upstream()) {
            (0, _) | (_, None) => String::new(),
            (done, Some(solved)) => {
                let correct = solved.iter().map(|&s| u64::from(s)).sum();
                format!(", {} of them solved under upstream's rule", summary_line(correct, done))
            }
        };
        let kept = match &self.part.output {
            Some(path) => format!("{} has what is done, --resume goes on with it", path.display()),
            None => "no results were written".to_owned(),
        };
        say!(ui, "interrupted after {} of {} puzzles{so_far}; {kept}", tally.total(), self.plan.puzzles.len());
        Interrupted::TOLD
    }
}

/// Shows a run and keeps its results.
struct Watch<'a> {
    bar: indicatif::ProgressBar,
    writer: Option<ResultsWriter>,
    asked_to_stop: &'a AtomicBool,
    /// Passes of a puzzle.
    all: u64,
    passes: u64,
    exact: u64,
}

impl<'a> Watch<'a> {
    fn new(
        ui: &Ui,
        job: &Job,
        writer: Option<ResultsWriter>,
        asked_to_stop: &'a Arc<AtomicBool>,
        known: &BTreeMap<usize, crate::eval::record::PuzzleRecord>,
    ) -> Self {
        let all = job.identity.shape.passes() as u64;
        let bar = ui.progress(job.plan.puzzles.len() as u64 * all, "infer", "passes");
        let done = known
            .values()
            .map(|r| if r.is_complete(all as usize, job.plan.stop) { all } else { r.passes.len() as u64 });
        bar.inc(done.sum());
        bar.reset_eta();
        Self { bar, writer, asked_to_stop, all, passes: 0, exact: 0 }
    }

    fn see(&mut self, event: Event<'_>) -> Result<ControlFlow<()>> {
        match event {
            Event::Segment => self.bar.tick(),
            Event::Pass { puzzle, row, pass } => {
                self.passes += 1;
                self.exact += u64::from(pass.end.is_exact());
                self.bar.inc(1);
                if self.passes.is_multiple_of(64) {
                    self.bar.set_message(format!("· exact {:.1} %", 100.0 * self.exact as f64 / self.passes as f64));
                }
                if let Some(writer) = &mut self.writer {
                    writer.pass(puzzle, row, pass)?;
                }
            }
            Event::Puzzle(record) => {
                self.bar.inc(self.all.saturating_sub(record.passes.len() as u64));
                if let Some(writer) = &mut self.writer {
                    writer.done(record.puzzle)?;
                }
            }
        }
        let stop = self.asked_to_stop.load(Ordering::SeqCst);
        Ok(if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}

fn chosen_puzzles(ui: &Ui, args: &InferArgs, last: &Checkpoint) -> Result<TestPuzzles> {
    let puzzles = match args.bundled {
        None => open_test_set(ui, &args.data, last)?,
        Some(rows) => TestPuzzles::bundled_sudokus(rows)?,
    };
    if let Some(kind) = args.dataset {
        ensure!(
            Some(kind) == puzzles.geometry.kind(),
            "--dataset {kind}: the puzzles of {} are {} (a vocabulary of {} tokens)",
            puzzles.origin,
            puzzles.geometry,
            puzzles.geometry.vocab_size()
        );
    }
    Ok(puzzles)
}

fn check_permutes(args: &InferArgs, puzzles: &TestPuzzles, options: &GuessOptions) -> Result<()> {
    let (kind, most) = (puzzles.geometry, options.most(puzzles.geometry));
    ensure!(!options.relabel || kind.is_sudoku(), "--relabel: a {kind} has no digits to relabel");
    let more = if options.beyond_upstream() { "" } else { "; the options for more guesses allow more" };
    ensure!(
        args.permutes >= 1 && u64::from(args.permutes) <= most,
        "--permutes {}: a {kind} puzzle has {most} permutations: give 1 to {most}{more}",
        args.permutes
    );
    Ok(())
}

/// Puzzles of the whole run: what was asked for in batches, else all.
fn puzzles_to_run(args: &InferArgs, set: &DatasetSet, batch_size: usize) -> usize {
    let asked = args.num_batch.map(|n| usize::try_from(n).unwrap_or(usize::MAX).saturating_mul(batch_size));
    asked.unwrap_or(usize::MAX).min(set.len())
}

fn checkpoint_identity(checkpoint: &Checkpoint, model: &Model) -> CheckpointIdentity {
    CheckpointIdentity {
        weights: checkpoint.weights_digest(),
        step: checkpoint.step,
        dtype: model.config().forward_dtype.short_name().to_owned(),
        path: checkpoint.path.display().to_string(),
    }
}

/// `--merge`.
fn merge(args: &InferArgs, global: &GlobalArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let joined = results_file::join(&args.merge)?;
    if let Some(output) = &args.output {
        joined.write(output)?;
        say!(ui, "results: {}", output.display());
    }
    let seed = global.seed.unwrap_or(joined.run.options.seed);
    report_stored(&ui, args, &joined, seed)
}

fn report_stored(ui: &Ui, args: &InferArgs, stored: &StoredResults, seed: u64) -> Result<()> {
    let mut tally = Tally::new(stored.run.shape.clone());
    stored.records.values().for_each(|record| tally.add(record));
    let report = InferReport::new(&stored.run, &tally, Circumstances::default(), seed, stored.seconds);
    finish(ui, args, &report, &tally, &stored.run)
}

/// Waits for the parts of the other processes.
fn join_parts(ui: &Ui, whole: &Path, place: &Place, asked_to_stop: &AtomicBool) -> Result<StoredResults> {
    let (mut told, mut left) = (Instant::now(), 0);
    let joined = wait_and_join(whole, place.world, place.timeout, |open| {
        left = open.len();
        if told.elapsed() > Duration::from_secs(30) {
            say!(ui, "waiting for {left} part(s), {} first", open[0].display());
            told = Instant::now();
        }
        if asked_to_stop.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    joined.ok_or_else(|| {
        say!(ui, "interrupted while {left} part(s) were not finished; --resume goes on");
        Interrupted::TOLD.into()
    })
}

/// Text, picture and JSON.
fn finish(ui: &Ui, args: &InferArgs, report: &InferReport, tally: &Tally, run: &RunIdentity) -> Result<()> {
    print::print(report, ui);
    if let Some(path) = &args.plot {
        let curve = tally.curve();
        let line = |name: &str, of: fn(&crate::eval::scores::CurvePoint) -> f64| PassLine {
            name: name.to_owned(),
            shares: curve.iter().map(of).collect(),
        };
        let picture = PassCurvePicture {
            title: format!("Puzzles solved with the first passes ({} puzzles)", report.total),
            sources: format!("Puzzles: {} · {} checkpoint(s)", run.data, run.checkpoints.len()),
            lines: vec![
                line("any pass right", |p| p.any_exact),
                line("verified", |p| p.verified),
                line("vote", |p| p.vote),
                line("best halt", |p| p.best_halt),
            ],
        };
        save_picture(&picture, path)?;
        say!(ui, "picture: {}", path.display());
    }
    if let Some(rule) = report.upstream_rule {
        say!(ui, "{}", summary_line(rule.correct, rule.total));
    }
    ui.emit(report)
}
