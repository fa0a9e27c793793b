//! `hrm infer`.

use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::{
    GlobalArgs, interrupt,
    sources::{DtypeChoice, TestPuzzles, device_name, dtype_name, load_checkpoint, test_puzzles, vocab_size},
    ui::{JsonArg, Ui},
};
use crate::{
    checkpoint::Checkpoint,
    eval::{
        infer::{InferOutcome, InferPlan, infer},
        stats::{Interval, bootstrap_mean, wilson},
        vote::{max_permutes, summary_line},
    },
    model::{Dims, Model},
    puzzle::PuzzleKind,
    say,
};

/// Rows of a batch where nothing better is known.
const UPSTREAMS_BATCH: u64 = 91;

const DETAILS: &str = "\
Every batch of test puzzles goes through every checkpoint under every permutation (Sudoku: the digits shifted \
cyclically by 0, 1, ..; maze: start and goal swapped), always for all halt_max_steps segments. The last segment counts.

Exact and cell accuracy are means over all passes and over all cells, givens included. Upstream's rule is what upstream \
prints: a Sudoku is solved when more than half of a checkpoint's halted passes are exact, for at least one checkpoint; a \
maze when any pass is exact. It looks at the labels: it is no vote that a solver could take. The last line is upstream's: \
correct/total, accuracy=x.

Defaults:
  --checkpoints  the newest step of the newest run under checkpoints/, else one of checkpoint_example/
  --data-path    the last checkpoint's data_path if it is here, else the first 2,000 bundled Sudoku test rows
  --batch-size   91 as upstream; on a GPU with fused kernels a size whose matrix products fill its processors evenly
  --num-batch    as many as cover all rows, in file order; the last batch may be short
  --dataset      what the data's vocabulary says

Intervals are 95 %: Wilson's for one yes or no a puzzle, a bootstrap over puzzles where passes are pooled.

Examples:
  hrm infer --permutes 9
  hrm infer --checkpoints runs/a/step_52080,runs/b --num-batch 10 --json results.json
  hrm infer --checkpoint runs/a --data-path data/maze-30x30-hard-1k --permutes 2";

/// Solve a test set with one or several checkpoints and count upstream's votes
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm infer --permutes 9    (--help tells more)")]
pub struct InferArgs {
    /// Checkpoints: run folders, step_N folders, .safetensors files or upstream's; separated by commas or repeated
    #[arg(long, visible_alias = "checkpoint", value_name = "PATH[,PATH...]", value_delimiter = ',')]
    checkpoints: Vec<PathBuf>,
    /// Disguises of each puzzle to try: 1 to 9 for Sudoku, 1 or 2 for mazes
    #[arg(long, value_name = "K", default_value_t = 1, allow_negative_numbers = true)]
    permutes: u32,
    /// Batches to run [default: all rows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    num_batch: Option<u64>,
    /// Puzzles that go through the model together [default: 91 as upstream; on a GPU what fills it]
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    batch_size: Option<u64>,
    /// The kind of puzzle [default: what the data's vocabulary says]
    #[arg(long, value_name = "sudoku|maze")]
    dataset: Option<PuzzleKind>,
    /// Dataset folder whose test split is solved [default: the last checkpoint's, else the bundled rows]
    #[arg(long, value_name = "DIR")]
    data_path: Option<PathBuf>,
    /// Number format of the forward pass [default: the checkpoint's]
    #[arg(long, value_name = "bf16|f32")]
    dtype: Option<DtypeChoice>,
    #[command(flatten)]
    json: JsonArg,
}

pub fn run(args: InferArgs, global: &GlobalArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let checkpoints = load_checkpoints(&ui, &args.checkpoints)?;
    let last = checkpoints.last().context("no checkpoint")?;
    let puzzles = test_puzzles(&ui, args.data_path.as_deref(), last)?;
    let set = puzzles.set()?;
    let mut plan = plan(&args, &puzzles, set.len())?;
    if plan.batches.checked_mul(plan.batch_size).is_none_or(|asked| asked > set.len()) && args.num_batch.is_some() {
        say!(ui, "fewer test puzzles than asked for: all {} of {} are run once", set.len(), puzzles.origin);
    }

    let runtime = global.init()?;
    let dims = Dims::from(puzzles.dataset.meta());
    let mut models = Vec::with_capacity(checkpoints.len());
    for checkpoint in &checkpoints {
        check_kind(checkpoint, &puzzles)?;
        models.push(Model::load(checkpoint, dims, runtime.device, args.dtype.map(Into::into))?);
    }
    if args.batch_size.is_none()
        && let Some(best) = models.iter().filter_map(|m| m.filling_batch(models.len() - 1)).min()
    {
        plan.batch_size = best;
        plan.batches = batches(&args, set.len(), best);
    }
    let total = plan.puzzles(set);
    let passes = models.len() * plan.permutes as usize;
    say!(
        ui,
        "{total} {} puzzles of {} in batches of {}: {} checkpoint(s) x {} permutation(s), {} segments, {} on {}",
        plan.kind,
        puzzles.origin,
        plan.batch_size,
        models.len(),
        plan.permutes,
        of_each(models.iter().map(|m| m.config().halt_max_steps)),
        of_each(models.iter().map(|m| dtype_name(m.config().forward_dtype))),
        device_name(runtime.device)
    );

    let asked_to_stop = interrupt::flag("");
    let bar = ui.progress((total * passes) as u64, "infer", "passes");
    let started = Instant::now();
    let (mut rows_done, mut exact_done) = (0_u64, 0_u64);
    let outcome = infer(&models, set, &plan, |pass| {
        rows_done += pass.rows.len() as u64;
        exact_done += pass.outcomes().iter().filter(|row| row.pass.exact).count() as u64;
        bar.inc(pass.rows.len() as u64);
        bar.set_message(format!("· exact {:.1} %", 100.0 * exact_done as f64 / rows_done as f64));
        if asked_to_stop.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    bar.finish_and_clear();
    if outcome.stopped {
        stop(&ui, &outcome, total);
    }

    let report = Report::new(&checkpoints, &models, &puzzles, &plan, &outcome, global, started.elapsed());
    report.print(&ui);
    say!(ui, "{}", summary_line(outcome.correct(), outcome.total()));
    ui.emit(&report)
}

fn load_checkpoints(ui: &Ui, paths: &[PathBuf]) -> Result<Vec<Checkpoint>> {
    if paths.is_empty() {
        return Ok(vec![load_checkpoint(ui, None)?]);
    }
    if paths.iter().any(|p| p.as_os_str().is_empty()) {
        bail!("--checkpoints: an empty name between commas");
    }
    paths.iter().map(|path| load_checkpoint(ui, Some(path))).collect()
}

fn plan(args: &InferArgs, puzzles: &TestPuzzles, rows: usize) -> Result<InferPlan> {
    let kind = match args.dataset {
        Some(kind) => {
            ensure!(
                kind == puzzles.kind,
                "--dataset {kind}: the puzzles of {} are {} (a vocabulary of {} tokens, {kind} has {})",
                puzzles.origin,
                puzzles.kind,
                puzzles.kind.vocab_size(),
                kind.vocab_size()
            );
            kind
        }
        None => puzzles.kind,
    };
    let most = max_permutes(kind);
    ensure!(
        (1..=most).contains(&args.permutes),
        "--permutes {}: a {kind} puzzle has {most} permutations: give 1 to {most}",
        args.permutes
    );
    let batch_size = usize::try_from(args.batch_size.unwrap_or(UPSTREAMS_BATCH))?;
    Ok(InferPlan { kind, permutes: args.permutes, batch_size, batches: batches(args, rows, batch_size) })
}

/// Batches to run: what was asked for, else as many as cover all rows.
fn batches(args: &InferArgs, rows: usize, batch_size: usize) -> usize {
    args.num_batch.map_or(rows.div_ceil(batch_size), |n| usize::try_from(n).unwrap_or(usize::MAX))
}

/// A checkpoint of another kind of puzzle is told as that, before it is told as shapes that do not fit.
fn check_kind(checkpoint: &Checkpoint, puzzles: &TestPuzzles) -> Result<()> {
    let wanted = puzzles.kind.vocab_size();
    if let Some(found) = vocab_size(checkpoint)
        && found != wanted
    {
        bail!(
            "{}: it knows {found} tokens, the puzzles of {} have {wanted} ({}): it was trained on another kind of \
             puzzle; name its own data with --data-path",
            checkpoint.path.display(),
            puzzles.origin,
            puzzles.kind
        );
    }
    Ok(())
}

fn stop(ui: &Ui, outcome: &InferOutcome, total: usize) -> ! {
    let so_far = match outcome.total() {
        0 => String::new(),
        done => format!(", {} of them solved under upstream's rule", summary_line(outcome.correct(), done)),
    };
    say!(ui, "interrupted after {} of {total} puzzles{so_far}; no results were written", outcome.total());
    std::process::exit(interrupt::INTERRUPTED)
}

/// The JSON document. Later versions add keys and change none.
#[derive(Serialize)]
struct Report {
    /// Puzzles really run.
    total: u64,
    exact_accuracy: f64,
    exact_accuracy_interval: Interval,
    cell_accuracy: f64,
    cell_accuracy_interval: Interval,
    passes: Vec<PassReport>,
    upstream_rule: UpstreamRule,
    /// Under upstream's rule, 0 or 1 per puzzle, in order.
    solved: Vec<u8>,
    dataset: PuzzleKind,
    data: String,
    checkpoints: Vec<CheckpointReport>,
    permutes: u32,
    batch_size: usize,
    dtype: String,
    device: String,
    seed: u64,
    seconds: f64,
    puzzles_per_second: f64,
}

#[derive(Serialize)]
struct PassReport {
    /// The weights file.
    checkpoint: String,
    permutation: u32,
    exact: f64,
    exact_interval: Interval,
    cell: f64,
    halted: f64,
}

#[derive(Serialize)]
struct UpstreamRule {
    correct: u64,
    total: u64,
    accuracy: f64,
    interval: Interval,
}

#[derive(Serialize)]
struct CheckpointReport {
    path: String,
    step: Option<u64>,
    segments: i64,
    dtype: &'static str,
}

/// One value per checkpoint: said once where all are equal, else all with slashes between.
fn of_each<T: PartialEq + ToString>(values: impl Iterator<Item = T>) -> String {
    let mut values: Vec<T> = values.collect();
    if values.iter().all(|v| *v == values[0]) {
        values.truncate(1);
    }
    values.iter().map(T::to_string).collect::<Vec<_>>().join("/")
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Report {
    fn new(
        checkpoints: &[Checkpoint],
        models: &[Model],
        puzzles: &TestPuzzles,
        plan: &InferPlan,
        outcome: &InferOutcome,
        global: &GlobalArgs,
        took: Duration,
    ) -> Self {
        let total = outcome.total();
        let seed = global.seed.unwrap_or(0);
        let cells = total * puzzles.dataset.meta().seq_len.unsigned_abs();
        let passes: Vec<PassReport> = outcome
            .passes
            .iter()
            .map(|pass| PassReport {
                checkpoint: checkpoints[pass.checkpoint].path.display().to_string(),
                permutation: pass.permutation,
                exact: share(pass.exact, total),
                exact_interval: wilson(pass.exact, total),
                cell: share(pass.cells, cells),
                halted: share(pass.halted, total),
            })
            .collect();
        let pooled = |values: &[f64]| bootstrap_mean(values, seed);
        let exact_accuracy_interval = match outcome.passes.as_slice() {
            [only] => wilson(only.exact, total),
            _ => pooled(&outcome.exact_share),
        };
        let seconds = took.as_secs_f64();
        Self {
            total,
            exact_accuracy: outcome.exact_accuracy(),
            exact_accuracy_interval,
            cell_accuracy: outcome.cell_accuracy(),
            cell_accuracy_interval: pooled(&outcome.cell_share),
            passes,
            upstream_rule: UpstreamRule {
                correct: outcome.correct(),
                total,
                accuracy: share(outcome.correct(), total),
                interval: wilson(outcome.correct(), total),
            },
            solved: outcome.solved.iter().map(|&s| u8::from(s)).collect(),
            dataset: plan.kind,
            data: puzzles.origin.clone(),
            checkpoints: checkpoints
                .iter()
                .zip(models)
                .map(|(checkpoint, model)| CheckpointReport {
                    path: checkpoint.path.display().to_string(),
                    step: checkpoint.step,
                    segments: model.config().halt_max_steps,
                    dtype: dtype_name(model.config().forward_dtype),
                })
                .collect(),
            permutes: plan.permutes,
            batch_size: plan.batch_size,
            dtype: of_each(models.iter().map(|m| dtype_name(m.config().forward_dtype))),
            device: device_name(models[0].device()),
            seed,
            seconds,
            puzzles_per_second: if seconds > 0.0 { total as f64 / seconds } else { 0.0 },
        }
    }

    fn print(&self, ui: &Ui) {
        let percent = |x: f64| format!("{:.2} %", 100.0 * x);
        let between = |i: &Interval| format!("[{:.2}, {:.2}]", 100.0 * i.low, 100.0 * i.high);
        say!(ui, "");
        say!(
            ui,
            "{:>4}  {:>10}  {:>9}  {:>16}  {:>9}  {:>9}",
            "pass",
            "permutation",
            "exact",
            "95 %",
            "cells",
            "halted"
        );
        let mut named = "";
        for (i, pass) in self.passes.iter().enumerate() {
            if pass.checkpoint != named {
                say!(ui, "{}", pass.checkpoint);
                named = &pass.checkpoint;
            }
            say!(
                ui,
                "{:>4}  {:>11}  {:>9}  {:>16}  {:>9}  {:>9}",
                i + 1,
                pass.permutation,
                percent(pass.exact),
                between(&pass.exact_interval),
                percent(pass.cell),
                percent(pass.halted)
            );
        }
        say!(ui, "");
        let exact = (percent(self.exact_accuracy), between(&self.exact_accuracy_interval));
        let cell = (percent(self.cell_accuracy), between(&self.cell_accuracy_interval));
        let rule = (percent(self.upstream_rule.accuracy), between(&self.upstream_rule.interval));
        say!(ui, "exact accuracy   {:>9} {}  mean over {} pass(es), last segment", exact.0, exact.1, self.passes.len());
        say!(ui, "cell accuracy    {:>9} {}  all cells, givens included", cell.0, cell.1);
        say!(ui, "upstream's rule  {:>9} {}  counts passes that are right: it looks at the labels", rule.0, rule.1);
        say!(ui, "{:.1} s, {:.1} puzzles/s", self.seconds, self.puzzles_per_second);
    }
}
