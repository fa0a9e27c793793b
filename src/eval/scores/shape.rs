//! The shape of a run: which passes a puzzle has.

use serde::{Deserialize, Serialize};

use crate::{
    eval::pass::{PassId, StopRule},
    puzzle::PuzzleKind,
};

/// What a run looks like, as far as counting goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunShape {
    /// None where it is unknown.
    pub kind: Option<PuzzleKind>,
    /// Cells of a puzzle.
    pub cells: usize,
    /// Segments that a pass of each checkpoint can have.
    pub segments: Vec<u32>,
    /// Passes of each checkpoint.
    pub guesses: u32,
    /// When a pass ends.
    pub stop: StopRule,
}

impl RunShape {
    /// Passes of a puzzle over all checkpoints.
    pub fn passes(&self) -> usize {
        self.segments.len() * self.guesses as usize
    }

    /// The passes of a puzzle, in their order.
    pub fn pass_ids(&self) -> impl Iterator<Item = PassId> + use<> {
        PassId::all(self.segments.len(), self.guesses as usize)
    }

    /// Segments that all passes of a puzzle have together at most.
    pub fn segments_of_puzzle(&self) -> u64 {
        self.segments.iter().map(|&n| u64::from(n)).sum::<u64>() * u64::from(self.guesses)
    }
}
