//! Dataset folders in upstream's format (SPEC 5): building, reading, drawing batches.

use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

/// `dataset.json` of one split, fields in upstream's order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatasetMeta {
    pub pad_id: i64,
    /// Label that counts as "no label"; batches carry [`IGNORE_LABEL`] in its place.
    pub ignore_label_id: Option<i64>,
    pub blank_identifier_id: i64,
    pub vocab_size: i64,
    pub seq_len: i64,
    pub num_puzzle_identifiers: i64,
    pub total_groups: i64,
    pub mean_puzzle_examples: f64,
    pub sets: Vec<String>,
}

/// The label of a cell that no loss and no metric looks at.
pub const IGNORE_LABEL: i32 = -100;

/// Host rows that go through the model together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Tokens. Shape `[rows, seq_len]`.
    pub inputs: Array2<i32>,
    /// Tokens, [`IGNORE_LABEL`] where there is none. Shape `[rows, seq_len]`.
    pub labels: Array2<i32>,
    /// Shape `[rows]`.
    pub puzzle_identifiers: Array1<i32>,
}
