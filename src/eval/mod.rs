//! How good a checkpoint is: evaluation as in training, batched inference with upstream's voting rule, intervals.

pub mod engine;
pub mod evaluate;
pub mod guess;
mod guess_options;
pub mod infer;
pub(crate) mod outputs;
pub(crate) mod parts;
pub mod pass;
mod pass_rows;
pub mod record;
pub(crate) mod report;
pub(crate) mod request;
pub mod results_file;
pub mod scores;
pub(crate) mod shard;
pub mod solve;
pub(crate) mod stats;
pub(crate) mod test_puzzles;
pub(crate) mod verify;
pub mod vote;
