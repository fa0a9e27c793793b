//! How good a checkpoint is.

pub mod evaluate;
