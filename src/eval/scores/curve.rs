//! Pass@k: what the first k passes of each puzzle come to.

use serde::Serialize;

use super::{RunShape, pool::Pool, ratio};
use crate::eval::pass::{Ending, PassId};

/// Shares of puzzles with the first k passes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    /// k.
    pub passes: usize,
    /// Some pass equals the label: it needs the label to tell which.
    pub any_exact: f64,
    /// Some pass is verified; null for puzzles of an unknown kind.
    pub verified: Option<f64>,
    /// The vote equals the label.
    pub vote: f64,
    /// The best halt equals the label.
    pub best_halt: f64,
}

/// Puzzles solved with the first k passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Solved {
    any_exact: u64,
    verified: u64,
    vote: u64,
    best_halt: u64,
}

/// Counts for each k from 1.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    solved: Vec<Solved>,
    guesses: usize,
    /// There are rules to verify by.
    known: bool,
}

impl Curve {
    pub fn new(shape: &RunShape) -> Self {
        let solved = vec![Solved::default(); shape.passes()];
        Self { solved, guesses: shape.guesses as usize, known: shape.kind.is_some() }
    }

    /// Counts a puzzle; `passes` in order.
    pub fn add(&mut self, passes: &[(PassId, &Ending)]) {
        let mut pool = Pool::default();
        let mut next = passes.iter().peekable();
        let mut reached = pool.chosen();
        for (k, solved) in self.solved.iter_mut().enumerate() {
            while let Some((_, end)) = next.next_if(|(pass, _)| pass.number(self.guesses) as usize <= k) {
                pool.add(end);
                reached = pool.chosen();
            }
            solved.any_exact += u64::from(reached.any_exact);
            solved.verified += u64::from(reached.verified);
            solved.vote += u64::from(reached.vote);
            solved.best_halt += u64::from(reached.best_halt);
        }
    }

    /// Shares of `total` puzzles.
    pub fn points(&self, total: u64) -> Vec<CurvePoint> {
        let point = |(k, solved): (usize, &Solved)| CurvePoint {
            passes: k + 1,
            any_exact: ratio(solved.any_exact, total),
            verified: self.known.then(|| ratio(solved.verified, total)),
            vote: ratio(solved.vote, total),
            best_halt: ratio(solved.best_halt, total),
        };
        self.solved.iter().enumerate().map(point).collect()
    }
}
