//! How good a checkpoint is: evaluation as in training, batched inference with upstream's voting rule, intervals.

pub mod evaluate;
pub mod infer;
pub mod stats;
pub mod vote;
