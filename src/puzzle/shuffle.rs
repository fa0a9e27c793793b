//! Sudoku's symmetries as upstream's dataset builder draws them.
//!
//! `out[i][j] = digit_map[x'[row_perm[i]][col_perm[j]]]`, where `x'` is `x` or its transpose. Rows move within their
//! band, bands move as a whole, columns likewise, so a solution stays a solution.

use rand_chacha::rand_core::RngCore;

use super::sudoku::{Board, CELLS, SIDE};
use crate::rng::{below, shuffle_front};

/// One relabelling and rearrangement of a board, the same for a question and its solution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SudokuShuffle {
    /// New token of each token: 0, 1 and everything above 10 stay. A power of two long, so that no lookup is checked.
    token_map: [u8; 16],
    /// The cell that each cell of the result is taken from.
    cell_map: [u8; CELLS],
}

/// The draws that make a shuffle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShuffleDraws {
    /// New digit of each digit; blank 0 stays 0.
    pub digit_map: [u8; SIDE + 1],
    /// Whether the board is transposed first.
    pub transpose: bool,
    /// Row of the (transposed) board that each row of the result is taken from.
    pub row_perm: [u8; SIDE],
    /// The same for columns.
    pub col_perm: [u8; SIDE],
}

/// Why draws are no symmetry of Sudoku.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's message says it")]
pub enum ShuffleError {
    #[error("digit map {found:?} is not a permutation of 0..=9 that keeps 0")]
    DigitMap { found: [u8; SIDE + 1] },
    #[error("{axis} permutation {found:?} does not keep the bands of three together")]
    Lines { axis: &'static str, found: [u8; SIDE] },
}

impl ShuffleDraws {
    /// Draws uniformly among all symmetries, in upstream's order: digits, transposition, bands, the three rows of each
    /// band, stacks, the three columns of each stack.
    #[inline]
    pub fn draw(rng: &mut impl RngCore) -> Self {
        let mut digit_map = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        shuffle_front(rng, &mut digit_map[1..], SIDE);
        let transpose = rng.next_u32() & 1 == 1;
        Self { digit_map, transpose, row_perm: draw_lines(rng), col_perm: draw_lines(rng) }
    }
}

#[inline]
fn draw_lines(rng: &mut impl RngCore) -> [u8; SIDE] {
    /// The six orders of three things.
    const ORDERS: [[u8; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let mut order = || ORDERS[below(rng, 6) as usize];
    let bands = order();
    let mut lines = [0; SIDE];
    for (three, band) in lines.chunks_exact_mut(3).zip(bands) {
        for (line, within) in three.iter_mut().zip(order()) {
            *line = band * 3 + within;
        }
    }
    lines
}

impl SudokuShuffle {
    /// The shuffle that supplied draws describe.
    pub fn new(draws: &ShuffleDraws) -> Result<Self, ShuffleError> {
        let mut digits = draws.digit_map;
        digits.sort_unstable();
        if draws.digit_map[0] != 0 || !digits.iter().copied().eq(0..=9) {
            return Err(ShuffleError::DigitMap { found: draws.digit_map });
        }
        for (axis, lines) in [("row", draws.row_perm), ("column", draws.col_perm)] {
            let mut sorted = lines;
            sorted.sort_unstable();
            let together = lines.chunks_exact(3).all(|three| three.iter().all(|line| line / 3 == three[0] / 3));
            if !sorted.iter().copied().eq(0..9) || !together {
                return Err(ShuffleError::Lines { axis, found: lines });
            }
        }
        Ok(Self::from_checked(draws))
    }

    /// A uniformly drawn shuffle.
    #[inline]
    pub fn draw(rng: &mut impl RngCore) -> Self {
        Self::from_checked(&ShuffleDraws::draw(rng))
    }

    #[inline]
    pub(super) fn from_checked(draws: &ShuffleDraws) -> Self {
        let mut token_map = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        for (token, digit) in token_map[1..].iter_mut().zip(draws.digit_map) {
            *token = digit + 1;
        }
        let mut cell_map = [0; CELLS];
        let (row_step, col_step) = if draws.transpose { (1, SIDE as u8) } else { (SIDE as u8, 1) };
        for (cells, row) in cell_map.chunks_exact_mut(SIDE).zip(draws.row_perm) {
            for (cell, col) in cells.iter_mut().zip(draws.col_perm) {
                *cell = row * row_step + col * col_step;
            }
        }
        Self { token_map, cell_map }
    }

    /// The cell that each cell of the result is taken from.
    pub fn cell_map(&self) -> &[u8; CELLS] {
        &self.cell_map
    }

    /// The shuffled board, in tokens (digit + 1).
    ///
    /// # Shapes
    /// - tokens, result: `[81]`
    #[inline]
    pub fn apply_tokens(&self, tokens: &[u8; CELLS]) -> [u8; CELLS] {
        self.cell_map.map(|cell| self.token_map[usize::from(tokens[usize::from(cell)] & 15)])
    }

    /// The shuffled board.
    pub fn apply(&self, board: &Board) -> Board {
        Board(self.apply_tokens(&board.tokens()).map(|token| token - 1))
    }
}
