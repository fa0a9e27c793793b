//! `hrm`: train, evaluate and analyse Hierarchical Reasoning Models (HRM) on libtorch.
//!
//! - [`config`] and [`train`]: a run from upstream's configuration; [`train::Trainer`] is a single step.
//! - [`checkpoint::Checkpoint`] loads weights, [`model::Model`] runs segments, [`eval`] runs puzzles through models.
//! - [`dataset`] reads and builds datasets, [`puzzle`] holds the rules of Sudokus and mazes.
//! - [`analysis`] computes what `hrm analyze` and `hrm viz` show.
//!
//! Imports between the modules point one way: `model` knows no file formats, `puzzle` knows no tensors. Shapes are given
//! in brackets: B rows, S cells, T positions, h hidden size, V tokens.

// Errors are returned; `cli` alone prints.
#![cfg_attr(not(test), warn(clippy::exit, clippy::print_stderr, clippy::print_stdout, clippy::unwrap_used))]

pub mod analysis;
pub mod batch;
#[doc(hidden)]
pub mod bench;
pub mod checkpoint;
#[doc(hidden)]
pub mod cli;
pub mod config;
pub mod dataset;
mod difference;
pub mod dims;
mod doctor;
pub mod dtype;
pub mod escape;
pub mod eval;
mod hub;
mod input;
#[doc(hidden)]
pub mod journal;
mod json;
#[doc(hidden)]
pub mod memory;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod optim;
mod outcome;
pub mod puzzle;
pub mod raw_tensor;
pub mod rng;
pub mod runtime;
mod signals;
pub mod store;
mod study;
mod terminal;
pub mod train;
mod viz;
