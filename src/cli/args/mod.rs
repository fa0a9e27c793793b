//! What several commands accept, each group of arguments defined once.

pub mod checkpoints;
pub mod choices;
pub mod guesses;
pub mod launch;
pub mod output;
pub mod puzzle;
pub mod puzzles;
