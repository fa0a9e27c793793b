//! Rows of puzzles on the host, between the data that they are from and the model that they go through.

use ndarray::{Array1, Array2};

use crate::puzzle::Puzzle;

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

impl Batch {
    /// Puzzles of one size, all with puzzle identifier 0. A puzzle without a solution is its own label, so that sizes fit.
    pub fn of_puzzles(puzzles: &[Puzzle]) -> Self {
        let shape = (puzzles.len(), puzzles.first().map_or(0, |puzzle| puzzle.tokens().len()));
        let label = |row: usize, cell: usize| {
            let puzzle = &puzzles[row];
            match puzzle.solution().unwrap_or(puzzle.tokens())[cell] {
                0 => IGNORE_LABEL,
                token => token.into(),
            }
        };
        Self {
            inputs: Array2::from_shape_fn(shape, |(row, cell)| puzzles[row].tokens()[cell].into()),
            labels: Array2::from_shape_fn(shape, |(row, cell)| label(row, cell)),
            puzzle_identifiers: Array1::zeros(puzzles.len()),
        }
    }
}
