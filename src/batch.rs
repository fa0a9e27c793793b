//! Rows of puzzles on the host, between the data that they are from and the model that they go through.

use ndarray::{Array1, Array2};

/// The label of a cell that no loss and no metric looks at.
pub const IGNORE_LABEL: i32 = -100;

/// Rows that go through the model together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Tokens. Shape `[rows, seq_len]`.
    pub inputs: Array2<i32>,
    /// Tokens, [`IGNORE_LABEL`] where there is none. Shape `[rows, seq_len]`.
    pub labels: Array2<i32>,
    /// Shape `[rows]`.
    pub puzzle_identifiers: Array1<i32>,
}
