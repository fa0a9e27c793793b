//! The shape of a run: which passes a puzzle has.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    eval::{
        guess_options::GuessOptions,
        pass::{PassId, StopRule},
    },
    puzzle::PuzzleKind,
};

/// A puzzle has no more passes over all checkpoints, and a pass no more segments.
const MOST: usize = 1 << 20;

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

    /// Whether a run can look like this.
    ///
    /// # Errors
    /// No pass, or more passes or segments than a run may have.
    pub fn check(&self) -> Result<()> {
        let (guesses, most) = (self.guesses, GuessOptions::MOST);
        ensure!((1..=most).contains(&u64::from(guesses)), "{guesses} guesses of {most}");
        ensure!(
            (1..=MOST).contains(&self.passes()),
            "{} passes of a puzzle, at most {MOST} are counted",
            self.passes()
        );
        let wrong = self.segments.iter().find(|&&segments| !(1..=MOST).contains(&(segments as usize)));
        ensure!(wrong.is_none(), "{} segments of at most {MOST}", wrong.copied().unwrap_or_default());
        ensure!(self.cells > 0, "puzzles without cells");
        Ok(())
    }

    /// Segments that all passes of a puzzle have together at most.
    pub fn segments_of_puzzle(&self) -> u64 {
        self.segments.iter().map(|&n| u64::from(n)).sum::<u64>() * u64::from(self.guesses)
    }
}
