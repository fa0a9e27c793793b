//! The four ways in which a puzzle's run can end, after the paper, by criteria that are written down:
//!
//! - *trivial success*: the last answer is right, and right from segment `quick` or earlier on
//! - *non-trivial success*: the last answer is right, after wrong ones beyond segment `quick`
//! - *trivial failure*: the last answer is wrong, and the answers still change: they wander, or repeat with a period
//! - *non-trivial failure*: the last answer is wrong, and the run has settled on it: the same answer over the last
//!   `window` segments, with |Δz_H| / |z_H| at most `still` in each of them

use serde::{Deserialize, Serialize};

use super::runs::PuzzleRun;
use crate::eval::stats::{Interval, wilson};

/// What tells the modes apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Criteria {
    /// The last segment at which being right for good counts as trivial.
    pub quick: usize,
    /// Segments over which a settled answer stays the same.
    pub window: usize,
    /// The largest |Δz_H| / |z_H| of a settled state in that window.
    pub still: f64,
    /// The longest period that is looked for among answers that change.
    pub longest_cycle: usize,
}

impl Default for Criteria {
    fn default() -> Self {
        Self { quick: 3, window: 4, still: 1.0, longest_cycle: 4 }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Right for good by segment [`Criteria::quick`].
    TrivialSuccess,
    /// Right for good, later than that.
    NonTrivialSuccess,
    /// Wrong at the end, and not settled.
    TrivialFailure,
    /// Wrong at the end, and settled: neither answer nor state moves any more.
    NonTrivialFailure,
}

impl Mode {
    /// In the order of the report.
    pub const ALL: [Self; 4] =
        [Self::TrivialSuccess, Self::NonTrivialSuccess, Self::TrivialFailure, Self::NonTrivialFailure];

    /// Its name in the paper.
    pub fn name(self) -> &'static str {
        match self {
            Self::TrivialSuccess => "trivial success",
            Self::NonTrivialSuccess => "non-trivial success",
            Self::TrivialFailure => "trivial failure",
            Self::NonTrivialFailure => "non-trivial failure",
        }
    }
}

/// The mode of one run.
pub fn classify(run: &PuzzleRun, criteria: &Criteria) -> Mode {
    match run.right_for_good() {
        Some(step) if step <= criteria.quick => Mode::TrivialSuccess,
        Some(_) => Mode::NonTrivialSuccess,
        None if settled(run, criteria) => Mode::NonTrivialFailure,
        None => Mode::TrivialFailure,
    }
}

fn settled(run: &PuzzleRun, criteria: &Criteria) -> bool {
    let window = criteria.window.max(1);
    let from = run.segments().saturating_sub(window);
    run.settled(window) && run.move_h[from..].iter().all(|&m| f64::from(m) <= criteria.still)
}

/// One mode's share and members.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModeCount {
    /// The mode.
    pub mode: Mode,
    /// Puzzles that end so.
    pub count: usize,
    /// The same as a share of all puzzles.
    pub share: f64,
    /// 95 % interval of `share`.
    pub interval: Interval,
    /// Indices of the puzzles.
    pub puzzles: Vec<usize>,
}

/// What `hrm analyze modes` finds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModesSummary {
    /// What told the modes apart.
    pub criteria: Criteria,
    /// Puzzles looked at.
    pub puzzles: usize,
    /// In the order of [`Mode::ALL`].
    pub modes: Vec<ModeCount>,
    /// Failures whose answers repeat with a period, and how many have each period from 2 on.
    pub cycles: Vec<usize>,
    /// Failures that were right at some segment.
    pub lost: usize,
    /// Wrong answers that are settled, as a share of all failures.
    pub settled_of_failures: f64,
    /// 95 % interval of `settled_of_failures`.
    pub settled_of_failures_interval: Interval,
    /// Settled wrong answers that break no rule of Sudoku.
    pub settled_without_conflict: usize,
}

impl ModesSummary {
    /// Runs that end wrong.
    pub fn failures(&self) -> usize {
        let failed = [Mode::TrivialFailure, Mode::NonTrivialFailure];
        self.modes.iter().filter(|m| failed.contains(&m.mode)).map(|m| m.count).sum()
    }
}

/// Counts the modes of runs.
pub fn count_modes(runs: &[PuzzleRun], criteria: &Criteria) -> ModesSummary {
    let of_run: Vec<Mode> = runs.iter().map(|r| classify(r, criteria)).collect();
    let total = runs.len();
    let modes: Vec<ModeCount> = Mode::ALL
        .into_iter()
        .map(|mode| {
            let puzzles: Vec<usize> =
                runs.iter().zip(&of_run).filter(|(_, m)| **m == mode).map(|(r, _)| r.index).collect();
            ModeCount {
                mode,
                count: puzzles.len(),
                share: puzzles.len() as f64 / total.max(1) as f64,
                interval: wilson(puzzles.len() as u64, total as u64),
                puzzles,
            }
        })
        .collect();
    let failures = || runs.iter().zip(&of_run).filter(|(r, _)| !r.solved());
    let failed = failures().count();
    let settled = modes[3].count;
    let mut cycles = vec![0; criteria.longest_cycle.saturating_sub(1)];
    for (run, _) in failures().filter(|(_, m)| **m == Mode::TrivialFailure) {
        if let Some(count) = run.answer_cycle(criteria.longest_cycle).and_then(|p| cycles.get_mut(p - 2)) {
            *count += 1;
        }
    }
    ModesSummary {
        criteria: *criteria,
        puzzles: total,
        modes,
        cycles,
        lost: failures().filter(|(r, _)| r.first_right().is_some()).count(),
        settled_of_failures: settled as f64 / failed.max(1) as f64,
        settled_of_failures_interval: wilson(settled as u64, failed as u64),
        settled_without_conflict: failures()
            .filter(|(r, m)| **m == Mode::NonTrivialFailure && r.conflict.last() == Some(&0))
            .count(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::runs::run_of, *};

    #[test]
    fn four_runs_of_four_modes() {
        let criteria = Criteria { quick: 2, window: 2, still: 0.6, longest_cycle: 3 };
        let runs = [
            run_of(&[1, 9, 9, 9], &["a", "r", "r", "r"]),
            run_of(&[1, 2, 9, 9], &["a", "b", "r", "r"]),
            run_of(&[1, 2, 1, 2], &["a", "b", "a", "b"]),
            run_of(&[9, 5, 5, 5], &["r", "b", "b", "b"]),
        ];
        let found = count_modes(&runs, &criteria);
        assert_eq!(found.modes.iter().map(|m| m.count).collect::<Vec<_>>(), [1, 1, 1, 1]);
        assert_eq!(found.modes.iter().map(|m| m.mode).collect::<Vec<_>>(), Mode::ALL);
        assert_eq!((found.cycles.as_slice(), found.lost), ([1, 0].as_slice(), 1));
        assert_eq!((found.settled_of_failures, found.settled_without_conflict), (0.5, 1));
        // A state that still moves has not settled, whatever its answers say.
        let strict = Criteria { still: 0.4, ..criteria };
        assert_eq!(classify(&runs[3], &strict), Mode::TrivialFailure);
    }
}
