//! Sizes of a dataset's puzzles, which decide about the model's first and last layer.

/// What the dataset decides about a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Cells per puzzle, S.
    pub seq_len: i64,
    /// Distinct tokens, V (the pad token included).
    pub vocab_size: i64,
    /// Rows of the puzzle embedding.
    pub num_puzzle_identifiers: i64,
}

impl Dims {
    /// A 9x9 Sudoku: 81 cells; tokens 0 (pad), 1 (blank), 2..=10 (digits); one identifier.
    pub fn sudoku() -> Self {
        Self { seq_len: 81, vocab_size: 11, num_puzzle_identifiers: 1 }
    }
}
