//! Training.

mod step;

pub use step::{Accumulated, PuzzleGrad, StepReport, Trainer};
