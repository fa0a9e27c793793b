//! `hrm`: train, evaluate and take apart Hierarchical Reasoning Models (HRM) on libtorch.
//!
//! Arrows between the modules point one way: `cli` calls everything and nothing calls `cli`; `model` knows no file
//! formats; `puzzle` knows no tensors; `viz` draws what `analysis` computed.

pub mod analysis;
pub mod batch;
pub mod bench;
pub mod checkpoint;
#[doc(hidden)]
pub mod cli;
pub mod config;
pub mod dataset;
pub mod difference;
pub mod dims;
pub mod doctor;
pub mod dtype;
pub mod eval;
pub mod hub;
pub mod journal;
pub mod json;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod optim;
pub mod outcome;
pub mod puzzle;
pub mod raw_tensor;
pub mod rng;
pub mod runtime;
pub mod signals;
pub mod store;
pub mod study;
pub mod terminal;
pub mod train;
pub mod viz;
