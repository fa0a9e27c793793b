//! What `hrm infer` prints and writes as JSON.

use serde::Serialize;

use super::ui::Ui;
use crate::{
    eval::{
        engine::StopRule,
        guess::GuessOptions,
        results_file::{Differences, RunIdentity},
        scores::{Breakdown, CurvePoint, PuzzleList, Scores, Stop, Stops, Tally},
        stats::{Interval, normal_share, wilson},
    },
    puzzle::PuzzleKind,
    say,
};

/// The JSON document. Later versions add keys and change none.
#[derive(Serialize)]
pub struct Report {
    /// Puzzles really run.
    pub total: u64,
    exact_accuracy: f64,
    exact_accuracy_interval: Interval,
    cell_accuracy: f64,
    cell_accuracy_interval: Interval,
    passes: Vec<PassReport>,
    stop: StopRule,
    scores: Scores,
    stops: Stops,
    /// Null unless every pass ran all segments.
    pub upstream_rule: Option<UpstreamRule>,
    /// Under upstream's rule, 0 or 1 per puzzle, in order.
    solved: Option<Vec<u8>>,
    pass_at_k: Vec<CurvePoint>,
    breakdown: Option<Breakdown>,
    puzzles: PuzzleList,
    dataset: PuzzleKind,
    data: String,
    checkpoints: Vec<CheckpointReport>,
    permutes: u32,
    guesses: GuessOptions,
    dtype: String,
    seed: u64,
    #[serde(flatten)]
    how: How,
    seconds: f64,
    puzzles_per_second: f64,
}

/// What does not decide the results.
#[derive(Clone, Debug, Default, Serialize)]
pub struct How {
    /// `I/N`; null for all puzzles.
    pub shard: Option<String>,
    pub batch_size: Option<usize>,
    pub device: Option<String>,
    /// Row segments that went through a model, empty slots included; of this process.
    pub row_segments: Option<u64>,
    /// Making models ready, not in `seconds`.
    pub setup_seconds: Option<f64>,
    /// With `--against`.
    pub against: Option<Differences>,
}

#[derive(Serialize)]
struct PassReport {
    /// The weights file.
    checkpoint: String,
    permutation: u32,
    exact: f64,
    exact_interval: Interval,
    cell: f64,
    cell_interval: Interval,
    halted: f64,
    verified: f64,
    segments_mean: f64,
    /// Puzzles that the pass ran on.
    puzzles: u64,
}

#[derive(Clone, Copy, Serialize)]
pub struct UpstreamRule {
    pub correct: u64,
    pub total: u64,
    pub accuracy: f64,
    interval: Interval,
}

#[derive(Serialize)]
struct CheckpointReport {
    path: String,
    step: Option<u64>,
    segments: u32,
    dtype: String,
}

/// One value per checkpoint: said once where all are equal, else all with slashes between.
pub fn of_each<T: PartialEq + ToString>(values: impl Iterator<Item = T>) -> String {
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
    /// `seed`: of the intervals.
    pub fn new(run: &RunIdentity, tally: &Tally, how: How, seed: u64, seconds: f64) -> Self {
        let total = tally.total();
        let shape = tally.shape();
        let passes = tally.passes().iter().map(|pass| PassReport {
            checkpoint: run.checkpoints[pass.checkpoint].path.clone(),
            permutation: pass.permutation,
            exact: share(pass.exact, pass.run),
            exact_interval: wilson(pass.exact, pass.run),
            cell: share(pass.cells, pass.run * shape.cells as u64),
            cell_interval: normal_share(pass.cells, pass.cells_squared, pass.run, shape.cells as u64),
            halted: share(pass.halted, pass.run),
            verified: share(pass.verified, pass.run),
            segments_mean: share(pass.segments, pass.run),
            puzzles: pass.run,
        });
        let (exact, cell) = (tally.exact_accuracy(seed), tally.cell_accuracy(seed));
        let solved: Option<Vec<u8>> = tally.upstream().map(|list| list.into_iter().map(u8::from).collect());
        let upstream_rule = solved.as_ref().map(|solved| {
            let correct = solved.iter().map(|&s| u64::from(s)).sum();
            UpstreamRule { correct, total, accuracy: share(correct, total), interval: wilson(correct, total) }
        });
        let checkpoint = |(c, segments): (&crate::eval::results_file::CheckpointIdentity, &u32)| CheckpointReport {
            path: c.path.clone(),
            step: c.step,
            segments: *segments,
            dtype: c.dtype.clone(),
        };
        Self {
            total,
            exact_accuracy: exact.value,
            exact_accuracy_interval: exact.interval,
            cell_accuracy: cell.value,
            cell_accuracy_interval: cell.interval,
            passes: passes.collect(),
            stop: shape.stop,
            scores: tally.scores(),
            stops: tally.stops(seconds),
            upstream_rule,
            solved,
            pass_at_k: tally.curve(),
            breakdown: tally.breakdown(),
            puzzles: tally.puzzles(),
            dataset: shape.kind,
            data: run.data.clone(),
            checkpoints: run.checkpoints.iter().zip(&shape.segments).map(checkpoint).collect(),
            permutes: shape.guesses,
            guesses: run.options,
            dtype: of_each(run.checkpoints.iter().map(|c| c.dtype.as_str())),
            seed,
            how,
            seconds,
            puzzles_per_second: if seconds > 0.0 { total as f64 / seconds } else { 0.0 },
        }
    }

    /// For people.
    pub fn print(&self, ui: &Ui) {
        self.print_passes(ui);
        say!(ui, "");
        let line = |name: &str, value: f64, [low, high]: [f64; 2], what: &str| {
            let between = format!("[{:.2}, {:.2}]", 100.0 * low, 100.0 * high);
            say!(ui, "{name:<16} {:>7} %  {between:<16}  {what}", format!("{:.2}", 100.0 * value));
        };
        let ends = |i: &Interval| [i.low, i.high];
        let passes = match self.stop {
            StopRule::Never => format!("mean over {} pass(es), last segment", self.passes.len()),
            StopRule::Halt => format!("mean over {} pass(es), at the first halt", self.passes.len()),
            StopRule::Verified => "mean over the passes that ran".to_owned(),
        };
        line("exact accuracy", self.exact_accuracy, ends(&self.exact_accuracy_interval), &passes);
        line("cell accuracy", self.cell_accuracy, ends(&self.cell_accuracy_interval), "all cells, givens included");
        let Scores { verified, vote, best_halt } = &self.scores;
        let mismatches = match verified.label_mismatches {
            0 => String::new(),
            n => format!("; {n} differ from the label"),
        };
        let verified_what = format!("some pass is right by the puzzle's rules; no label{mismatches}");
        line("verified", verified.share.accuracy, verified.share.ci95, &verified_what);
        line("vote", vote.accuracy, vote.ci95, "most frequent answer of the halted passes");
        line("best halt", best_halt.accuracy, best_halt.ci95, "answer with the highest q_halt - q_continue");
        if let Some(rule) = &self.upstream_rule {
            let what = "counts passes that are right: it looks at the labels";
            line("upstream's rule", rule.accuracy, ends(&rule.interval), what);
        }
        self.print_stops(ui);
        self.print_breakdown(ui);
        say!(ui, "");
        if let Some(Differences { passes, answers, stops }) = self.how.against {
            say!(ui, "against the other run: {answers} of {passes} answers differ, {stops} stop otherwise");
        }
        say!(ui, "{:.1} s, {:.1} puzzles/s", self.seconds, self.puzzles_per_second);
    }

    fn print_passes(&self, ui: &Ui) {
        let percent = |x: f64| format!("{:.2} %", 100.0 * x);
        let between = |i: &Interval| format!("[{:.2}, {:.2}]", 100.0 * i.low, 100.0 * i.high);
        say!(ui, "");
        say!(
            ui,
            "{:>4}  {:>10}  {:>9}  {:>16}  {:>9}  {:>16}  {:>9}  {:>9}  {:>8}",
            "pass",
            "permutation",
            "exact",
            "95 %",
            "cells",
            "95 %",
            "halted",
            "verified",
            "segments"
        );
        let mut named = "";
        for (i, pass) in self.passes.iter().enumerate() {
            if pass.checkpoint != named {
                say!(ui, "{}", pass.checkpoint);
                named = &pass.checkpoint;
            }
            say!(
                ui,
                "{:>4}  {:>11}  {:>9}  {:>16}  {:>9}  {:>16}  {:>9}  {:>9}  {:>8.2}",
                i + 1,
                pass.permutation,
                percent(pass.exact),
                between(&pass.exact_interval),
                percent(pass.cell),
                between(&pass.cell_interval),
                percent(pass.halted),
                percent(pass.verified),
                pass.segments_mean
            );
        }
    }

    fn print_stops(&self, ui: &Ui) {
        let rules: Vec<(&str, &Stop)> =
            [("never", &self.stops.never), ("halt", &self.stops.halt), ("verified", &self.stops.verified)]
                .into_iter()
                .filter_map(|(name, stop)| Some((name, stop.as_ref()?)))
                .collect();
        say!(ui, "");
        say!(
            ui,
            "{:<10}  {:>9}  {:>9}  {:>9}  {:>9}  {:>8}  {:>24}  {:>9}",
            "stop",
            "exact",
            "verified",
            "vote",
            "best halt",
            "segments",
            "computed",
            "seconds"
        );
        for (name, stop) in rules {
            let percent = |x: f64| format!("{:.2} %", 100.0 * x);
            let computed = format!("{} ({:.1} %)", stop.segments, 100.0 * share(stop.segments, stop.segments_nominal));
            say!(
                ui,
                "{name:<10}  {:>9}  {:>9}  {:>9}  {:>9}  {:>8.2}  {computed:>24}  {:>8.1}{}",
                percent(stop.exact_accuracy),
                percent(stop.scores.verified.share.accuracy),
                percent(stop.scores.vote.accuracy),
                percent(stop.scores.best_halt.accuracy),
                stop.segments_mean,
                stop.seconds,
                if stop.measured { " " } else { "*" }
            );
        }
        if [&self.stops.never, &self.stops.halt, &self.stops.verified].into_iter().flatten().any(|s| !s.measured) {
            say!(ui, "* this run's seconds in proportion to the segments");
        }
    }

    fn print_breakdown(&self, ui: &Ui) {
        let Some(breakdown) = &self.breakdown else { return };
        say!(ui, "");
        say!(ui, "{:<28}  {:>8}  {:>9}  {:>9}  {:>9}", "puzzles", "number", "exact", "verified", "vote");
        let line = |name: &str, g: &crate::eval::scores::Group| {
            let percent = |x: f64| format!("{:.2} %", 100.0 * x);
            say!(
                ui,
                "{name:<28}  {:>8}  {:>9}  {:>9}  {:>9}",
                g.total,
                percent(g.exact_accuracy),
                percent(g.verified),
                percent(g.vote)
            );
        };
        for (source, group) in &breakdown.by_source {
            line(source, group);
        }
        for range in &breakdown.by_rating {
            let name = match range.high {
                Some(high) if high == range.low => format!("rating {high}"),
                Some(high) => format!("rating {} to {high}", range.low),
                None => format!("rating {} and more", range.low),
            };
            line(&name, &range.group);
        }
    }
}
