//! The mean over puzzles against the single puzzle: losses fall smoothly in the mean and at once in each run.

use serde::Serialize;

use super::runs::PuzzleRun;
use crate::eval::stats::{Interval, bootstrap_mean, wilson};

/// One segment, over all puzzles.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SegmentMean {
    /// From 1.
    pub segment: usize,
    /// Mean token loss (nats).
    pub loss: f64,
    /// 95 % interval of `loss`.
    pub loss_interval: Interval,
    /// Share of the puzzles whose cells are all right.
    pub exact: f64,
    /// 95 % interval of `exact`.
    pub exact_interval: Interval,
    /// Mean share of the labelled cells that are right.
    pub cells: f64,
    /// Share of the puzzles for which q says halt.
    pub halts: f64,
    /// Mean q_halt.
    pub q_halt: f64,
    /// Mean q_continue.
    pub q_continue: f64,
    /// Mean |Δz_H| / |z_H| and |Δz_L| / |z_L|.
    pub move_h: f64,
    /// As `move_h`, of z_L.
    pub move_l: f64,
}

/// When single puzzles are solved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Grokking {
    /// Puzzles that are right from segment k on to the end, k = 1, 2, ... Length segments.
    pub at: Vec<usize>,
    /// Puzzles that are wrong at the end.
    pub never: usize,
    /// Among those: right at some segment before.
    pub lost: usize,
    /// Mean share of a solved puzzle's whole fall of the loss that its steepest segment carries; none where no puzzle is
    /// solved later than at segment 1. A fall spread evenly over n segments would have 1/(n − 1).
    pub steepest_share: Option<f64>,
    /// The same for the mean curve of those puzzles.
    pub steepest_share_of_mean: Option<f64>,
}

impl Grokking {
    /// Both shares of the steepest segment, that of single puzzles first; none where no puzzle is solved after segment 1.
    pub fn jump(&self) -> Option<[f64; 2]> {
        Some([self.steepest_share?, self.steepest_share_of_mean.unwrap_or(0.0)])
    }
}

/// What `hrm analyze segments` finds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SegmentsSummary {
    /// Puzzles looked at.
    pub puzzles: usize,
    /// One entry a segment.
    pub segments: Vec<SegmentMean>,
    /// When single puzzles are solved.
    pub grokking: Grokking,
}

/// Means over runs of the same number of segments.
pub fn summarise(runs: &[PuzzleRun], seed: u64) -> SegmentsSummary {
    let n = runs.len();
    let mean = |value: &dyn Fn(&PuzzleRun) -> f64| runs.iter().map(value).sum::<f64>() / n.max(1) as f64;
    let length = runs.iter().map(PuzzleRun::segments).min().unwrap_or(0);
    let segments = (1..=length)
        .map(|k| {
            let losses: Vec<f64> = runs.iter().map(|r| r.loss[k - 1]).collect();
            let exact = runs.iter().filter(|r| r.exact(k)).count();
            SegmentMean {
                segment: k,
                loss: mean(&|r| r.loss[k - 1]),
                loss_interval: bootstrap_mean(&losses, seed),
                exact: exact as f64 / n.max(1) as f64,
                exact_interval: wilson(exact as u64, n as u64),
                cells: mean(&|r| r.right[k - 1] as f64 / r.cells.max(1) as f64),
                halts: mean(&|r| f64::from(u8::from(r.wants_halt(k)))),
                q_halt: mean(&|r| f64::from(r.q_halt[k - 1])),
                q_continue: mean(&|r| f64::from(r.q_continue[k - 1])),
                move_h: mean(&|r| f64::from(r.move_h[k - 1])),
                move_l: mean(&|r| f64::from(r.move_l[k - 1])),
            }
        })
        .collect();
    let mut at = vec![0; length];
    for step in runs.iter().filter_map(PuzzleRun::right_for_good) {
        if let Some(count) = at.get_mut(step - 1) {
            *count += 1;
        }
    }
    let never = n - at.iter().sum::<usize>();
    let lost = runs.iter().filter(|r| r.right_for_good().is_none() && r.first_right().is_some()).count();
    let later: Vec<&PuzzleRun> = runs.iter().filter(|r| r.right_for_good().is_some_and(|k| k > 1)).collect();
    let shares: Vec<f64> = later.iter().filter_map(|r| r.steepest_fall()).map(|(_, share)| share).collect();
    let steepest_share = (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64);
    let steepest_share_of_mean = later.first().and_then(|first| {
        let mut curve = (*first).clone();
        curve.loss = (0..length).map(|k| later.iter().map(|r| r.loss[k]).sum::<f64>() / later.len() as f64).collect();
        curve.steepest_fall().map(|(_, share)| share)
    });
    SegmentsSummary {
        puzzles: n,
        segments,
        grokking: Grokking { at, never, lost, steepest_share, steepest_share_of_mean },
    }
}

#[cfg(test)]
mod tests {
    use super::{super::runs::run_of, *};

    #[test]
    fn the_mean_hides_the_jumps() {
        // Four puzzles, each solved at once, at different segments.
        let runs: Vec<PuzzleRun> = (2..=5)
            .map(|step| {
                let right: Vec<usize> = (1..=5).map(|k| if k >= step { 9 } else { 1 }).collect();
                run_of(&right, &["a"; 5])
            })
            .chain([run_of(&[1, 9, 1, 1, 1], &["a"; 5])])
            .collect();
        let found = summarise(&runs, 0);
        assert_eq!(found.grokking.at, [0, 1, 1, 1, 1]);
        assert_eq!((found.grokking.never, found.grokking.lost), (1, 1));
        assert_eq!(found.grokking.steepest_share, Some(1.0));
        let of_mean = found.grokking.steepest_share_of_mean.unwrap();
        assert!((of_mean - 0.25).abs() < 1e-12, "{of_mean}");
        assert_eq!(found.segments[4].exact, 0.8);
        assert_eq!(found.segments[1].exact, 0.4);
        assert!((found.segments[0].loss - 8.0).abs() < 1e-12);
        assert_eq!(summarise(&[], 0).segments, []);
    }
}
