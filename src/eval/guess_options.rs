//! Which guesses are made of a puzzle, see [`super::guess`].

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::puzzle::Geometry;

/// Which guesses are made, beyond how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GuessOptions {
    /// Any relabelling of the digits instead of the cyclic ones.
    pub relabel: bool,
    /// The board's symmetries as well.
    pub symmetries: bool,
    /// Starting states drawn around H_init and L_init.
    pub random_start: bool,
    /// Deviation of the noise on z_H before each segment.
    pub noise: f64,
    /// Of everything that is drawn.
    pub seed: u64,
}

impl GuessOptions {
    /// More guesses are never made of a puzzle.
    pub const MOST: u64 = 1 << 16;

    /// How many different guesses there are of a puzzle.
    pub fn most(&self, geometry: Geometry) -> u64 {
        let drawn = self.random_start || self.noise > 0.0;
        let transforms = geometry.transforms(self.relabel, self.symmetries).filter(|_| !drawn);
        transforms.unwrap_or(Self::MOST)
    }

    /// Whether `count` guesses can be made.
    ///
    /// # Errors
    /// No guess, or more than there are; options that the puzzle does not have.
    pub fn check(&self, geometry: Geometry, count: u32) -> Result<()> {
        ensure!(!self.relabel || geometry.is_sudoku(), "--relabel: a {geometry} has no digits to relabel");
        ensure!(self.noise.is_finite() && self.noise >= 0.0, "--noise {}: give a deviation of 0 or more", self.noise);
        let most = self.most(geometry);
        let more = if self.beyond_upstream() {
            ""
        } else {
            "; --relabel, --symmetries, --random-start and --noise allow more"
        };
        ensure!(
            count >= 1 && u64::from(count) <= most,
            "--permutes {count}: a {geometry} puzzle has {most} permutations: give 1 to {most}{more}"
        );
        Ok(())
    }

    /// Whether anything but upstream's permutations is asked for.
    pub fn beyond_upstream(&self) -> bool {
        self.relabel || self.symmetries || self.random_start || self.noise > 0.0
    }
}
