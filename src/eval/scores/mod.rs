//! What an inference run comes to: plain accuracies, upstream's rule, and what a user can have without the answers (see
//! [`Pool`]).
//!
//! All checkpoints and passes of a puzzle are pooled. None of the label-free rules chooses its answer by looking at
//! labels; labels only tell afterwards whether a chosen answer was right.

mod breakdown;
mod curve;
mod pool;
mod rules;
mod shape;
mod tally;

use serde::Serialize;

pub use breakdown::{Breakdown, BreakdownPart, RatingGroup};
pub use curve::CurvePoint;
pub use pool::Pool;
pub use rules::PerRule;
pub use shape::RunShape;
pub use tally::{Mean, PassTotals, PuzzleScores, Tally};

use self::tally::RuleScore;
use super::stats::{Interval, wilson};

/// A share of puzzles.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    /// Puzzles that count.
    pub correct: u64,
    /// The same as a share of all.
    pub accuracy: f64,
    /// Wilson's interval: low, high.
    pub ci95: [f64; 2],
}

impl Share {
    fn of(correct: u64, total: u64) -> Self {
        let Interval { low, high, .. } = wilson(correct, total);
        Self { correct, accuracy: ratio(correct, total), ci95: [low, high] }
    }
}

/// What a user can have without the answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Puzzles with a verified answer; null for an unknown kind, which has no rules to verify by.
    pub verified: Option<VerifiedShare>,
    /// Puzzles whose vote equals the label.
    pub vote: Share,
    /// Puzzles whose best halt equals the label.
    pub best_halt: Share,
}

impl Scores {
    /// `known`: there are rules to verify by.
    fn of(puzzles: impl Iterator<Item = RuleScore>, known: bool) -> Self {
        let (mut total, mut verified, mut label_mismatches, mut vote, mut best_halt) = (0, 0, 0, 0, 0);
        for RuleScore { chosen, .. } in puzzles {
            total += 1;
            verified += u64::from(chosen.verified);
            label_mismatches += u64::from(chosen.mismatch);
            vote += u64::from(chosen.vote);
            best_halt += u64::from(chosen.best_halt);
        }
        Self {
            verified: known.then(|| VerifiedShare { share: Share::of(verified, total), label_mismatches }),
            vote: Share::of(vote, total),
            best_halt: Share::of(best_halt, total),
        }
    }
}

/// Verified puzzles; no label decides about them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct VerifiedShare {
    /// The verified puzzles.
    #[serde(flatten)]
    pub share: Share,
    /// Verified answers that are not the label: another shortest way, a puzzle with several solutions.
    pub label_mismatches: u64,
}

/// A run under one stop rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Stop {
    /// Mean over puzzles of the share of the passes run that are exact.
    pub exact_accuracy: f64,
    /// Of a pass that ran.
    pub segments_mean: f64,
    /// Of the run itself; of another rule the run's, in proportion to the segments.
    pub seconds: f64,
    /// Whether the seconds are measured.
    pub measured: bool,
    /// Segments computed, and those that all passes have together.
    pub segments: u64,
    /// Segments that all passes have together.
    pub segments_nominal: u64,
    /// Passes that ran.
    pub passes_run: u64,
    /// Passes left out because an earlier one was verified.
    pub passes_skipped: u64,
    /// Scores of the answers.
    pub scores: Scores,
}

/// A run under each stop rule; only its own is known unless stops are compared.
pub type Stops = PerRule<Option<Stop>>;

/// `part` of `whole`; 0 of nothing.
pub fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}
