//! Training.

mod step;

pub use step::{StepReport, Trainer};
