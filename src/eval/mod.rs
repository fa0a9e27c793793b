//! How good a checkpoint is: evaluation as in training, batched inference with upstream's voting rule, intervals.

pub mod engine;
pub mod evaluate;
pub mod guess;
pub mod infer;
pub mod outputs;
pub mod parts;
pub mod pass;
mod pass_rows;
pub mod record;
pub mod report;
pub mod results_file;
pub mod scores;
pub mod shard;
pub mod solve;
pub mod stats;
pub mod verify;
pub mod vote;
