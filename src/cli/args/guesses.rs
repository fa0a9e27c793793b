//! Passes beyond upstream's.

use crate::eval::guess::GuessOptions;

/// Passes beyond upstream's permutations. Pass 0 of each checkpoint stays the plain puzzle.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(next_help_heading = "More guesses")]
pub struct GuessArgs {
    /// Any of the 9! relabellings of the digits, drawn from --seed, instead of cyclic shifts
    #[arg(long)]
    relabel: bool,
    /// The board's symmetries as well: transposition, bands and stacks; for mazes the square's eight
    #[arg(long)]
    symmetries: bool,
    /// Random starting states: upstream's unused option of reset_carry
    #[arg(long)]
    random_start: bool,
    /// Gaussian noise on z_H before each segment: PTRM, arXiv:2605.19943
    #[arg(long, value_name = "SIGMA", default_value_t = 0.0, hide_default_value = true, allow_negative_numbers = true)]
    noise: f64,
}

impl GuessArgs {
    pub fn options(self, seed: u64) -> GuessOptions {
        let Self { relabel, symmetries, random_start, noise } = self;
        GuessOptions { relabel, symmetries, random_start, noise, seed }
    }
}
