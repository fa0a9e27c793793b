//! The readers of datasets as a crate of their own, under the name that they have in the program.
#![allow(dead_code, unused_imports, reason = "the targets use a part")]

#[path = "../src/batch.rs"]
pub mod batch;
#[path = "../src/dataset/mod.rs"]
pub mod dataset;
#[path = "../src/dims.rs"]
pub mod dims;
#[path = "../src/escape.rs"]
pub mod escape;
#[path = "../src/outcome.rs"]
pub mod outcome;
#[path = "../src/puzzle/mod.rs"]
pub mod puzzle;
#[path = "../src/rng.rs"]
pub mod rng;

#[path = "../src/store.rs"]
pub mod store;
