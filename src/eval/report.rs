//! What an inference run comes to: the JSON document of `hrm infer`.

use serde::Serialize;

use super::{
    guess::GuessOptions,
    pass::StopRule,
    results_file::{CheckpointIdentity, Differences, RunIdentity, StoredResults},
    scores::{Breakdown, CurvePoint, PuzzleScores, Scores, Stops, Tally, ratio},
    stats::{Interval, normal_share, wilson},
};
use crate::puzzle::PuzzleKind;

/// The JSON document. Later versions add keys and change none.
#[derive(Clone, Debug, Serialize)]
pub struct InferReport {
    /// Puzzles really run.
    pub total: u64,
    pub exact_accuracy: f64,
    pub exact_accuracy_interval: Interval,
    pub cell_accuracy: f64,
    pub cell_accuracy_interval: Interval,
    pub passes: Vec<PassReport>,
    pub stop: StopRule,
    pub scores: Scores,
    pub stops: Stops,
    /// Null unless every pass ran all segments.
    pub upstream_rule: Option<UpstreamRule>,
    /// Under upstream's rule, 0 or 1 per puzzle, in order.
    pub solved: Option<Vec<u8>>,
    pub pass_at_k: Vec<CurvePoint>,
    pub breakdown: Option<Breakdown>,
    pub puzzles: PuzzleScores,
    /// Null where it is unknown.
    pub dataset: Option<PuzzleKind>,
    pub data: String,
    pub checkpoints: Vec<CheckpointEntry>,
    pub permutes: u32,
    pub guesses: GuessOptions,
    pub dtype: String,
    pub seed: u64,
    #[serde(flatten)]
    pub how: Circumstances,
    pub seconds: f64,
    pub puzzles_per_second: f64,
}

/// What does not decide the results.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Circumstances {
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

/// One pass over the puzzles.
#[derive(Clone, Debug, Serialize)]
pub struct PassReport {
    /// The weights file.
    pub checkpoint: String,
    pub permutation: usize,
    pub exact: f64,
    pub exact_interval: Interval,
    pub cell: f64,
    pub cell_interval: Interval,
    pub halted: f64,
    /// Null for puzzles of an unknown kind.
    pub verified: Option<f64>,
    pub segments_mean: f64,
    /// Puzzles that the pass ran on.
    pub puzzles: u64,
}

/// Puzzles solved under the rule of upstream's program.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct UpstreamRule {
    pub correct: u64,
    pub total: u64,
    pub accuracy: f64,
    pub interval: Interval,
}

/// A checkpoint that was run.
#[derive(Clone, Debug, Serialize)]
pub struct CheckpointEntry {
    pub path: String,
    pub step: Option<u64>,
    pub segments: u32,
    pub dtype: String,
}

/// One value per checkpoint: said once where all are equal, else all with slashes between.
pub fn of_each<T: PartialEq + ToString>(values: impl Iterator<Item = T>) -> String {
    let mut values: Vec<T> = values.collect();
    if values.iter().all(|v| *v == values[0]) {
        values.truncate(1);
    }
    values.iter().map(T::to_string).collect::<Vec<_>>().join("/")
}

impl InferReport {
    /// Of results that were read from a file.
    pub fn of_stored(stored: &StoredResults, seed: u64) -> Self {
        let mut tally = Tally::new(stored.run.shape.clone());
        stored.records.values().for_each(|record| tally.add(record));
        Self::new(&stored.run, &tally, Circumstances::default(), seed, stored.seconds)
    }

    /// `seed`: of the intervals.
    pub fn new(run: &RunIdentity, tally: &Tally, how: Circumstances, seed: u64, seconds: f64) -> Self {
        let total = tally.total();
        let shape = tally.shape();
        let passes = tally.passes().iter().map(|pass| PassReport {
            checkpoint: run.checkpoints[pass.id.checkpoint].path.clone(),
            permutation: pass.id.guess,
            exact: ratio(pass.exact, pass.run),
            exact_interval: wilson(pass.exact, pass.run),
            cell: ratio(pass.cells, pass.run * shape.cells as u64),
            cell_interval: normal_share(pass.cells, pass.cells_squared, pass.run, shape.cells as u64),
            halted: ratio(pass.halted, pass.run),
            verified: shape.kind.map(|_| ratio(pass.verified, pass.run)),
            segments_mean: ratio(pass.segments, pass.run),
            puzzles: pass.run,
        });
        let (exact, cell) = (tally.exact_accuracy(seed), tally.cell_accuracy(seed));
        let solved: Option<Vec<u8>> = tally.upstream().map(|list| list.into_iter().map(u8::from).collect());
        let upstream_rule = solved.as_ref().map(|solved| {
            let correct = solved.iter().map(|&s| u64::from(s)).sum();
            UpstreamRule { correct, total, accuracy: ratio(correct, total), interval: wilson(correct, total) }
        });
        let checkpoint = |(c, segments): (&CheckpointIdentity, &u32)| CheckpointEntry {
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
}
