//! The canonical form of a Sudoku under its symmetries: two puzzles are equivalent exactly if their forms
//! are equal.
//!
//! The symmetries are those of [`super::shuffle`]: relabelled digits, transposition, bands, stacks, and the lines within
//! them, 9! · 2 · 6⁸ in all. The form is the one whose solution comes first in the order of its digits, row by row, and
//! among several such (a solution with symmetries of its own) the one whose givens come first.
//!
//! A least solution begins with 123456789, and of its second row only a few beginnings are possible, which leaves some
//! hundreds of arrangements to compare instead of millions.

use super::{
    boxes::SolutionError,
    sudoku::{Board, CELLS, SIDE},
};

/// The orders of three columns.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// A puzzle and its solution in the arrangement that stands for all equivalent ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Canonical {
    /// The puzzle.
    pub question: Board,
    /// Its solution, in the same arrangement.
    pub answer: Board,
}

/// The canonical form of a puzzle with the solution `answer`.
///
/// # Errors
/// `answer` is no solution of `question`.
pub fn canonical(question: &Board, answer: &Board) -> Result<Canonical, SolutionError> {
    answer.check_solves(question)?;
    let mut best = Best { answer: [SIDE as u8 + 1; CELLS], question: [0; CELLS] };
    for transposed in [false, true] {
        let turn = |board: &Board| -> [u8; CELLS] {
            let from = |cell: usize| if transposed { cell % SIDE * SIDE + cell / SIDE } else { cell };
            std::array::from_fn(|cell| board.digits()[from(cell)])
        };
        let grid = Grid { question: turn(question), answer: turn(answer) };
        for first in 0..SIDE {
            let band = first / 3 * 3;
            for second in (band..band + 3).filter(|&row| row != first) {
                grid.with_rows(first, second, &mut best);
            }
        }
    }
    Ok(Canonical { question: Board(best.question), answer: Board(best.answer) })
}

/// The least arrangement so far.
struct Best {
    answer: [u8; CELLS],
    question: [u8; CELLS],
}

struct Grid {
    question: [u8; CELLS],
    answer: [u8; CELLS],
}

impl Grid {
    fn row(&self, row: usize) -> &[u8; SIDE] {
        // A row of nine cells always has nine.
        self.answer[row * SIDE..][..SIDE].first_chunk().unwrap_or(&[0; SIDE])
    }

    /// Tries the arrangements in which `first` and `second`, of one band, become the first two rows, and the second is as
    /// small as it can be.
    fn with_rows(&self, first: usize, second: usize, best: &mut Best) {
        let (upper, lower) = (self.row(first), self.row(second));
        let mut column_of = [0; SIDE + 1];
        for (column, &digit) in upper.iter().enumerate() {
            column_of[usize::from(digit)] = column;
        }
        // For each column of the second row, where the first has that digit. Its stack is never the column's own.
        let source: [usize; SIDE] = std::array::from_fn(|column| column_of[usize::from(lower[column])]);
        // The first three cells of the second row become 4, 5, 6 if they come from one stack, else 4, 5, 7.
        let whole = |stack: usize| {
            source[3 * stack] / 3 == source[3 * stack + 1] / 3 && source[3 * stack] / 3 == source[3 * stack + 2] / 3
        };
        let any_whole = (0..3).any(whole);
        if !any_whole && best.answer[SIDE + 2] == 6 {
            return;
        }
        for stack in (0..3).filter(|&stack| whole(stack) == any_whole) {
            for order in ORDERS {
                let [a, b, c] = order.map(|i| 3 * stack + i);
                let (next, last) = (source[a] / 3, 3 - stack - source[a] / 3);
                if source[b] / 3 != next {
                    continue;
                }
                if any_whole {
                    // The three cells under 4, 5, 6 come from the last stack and number its columns 7, 8, 9.
                    let [d, e, f] = [source[a], source[b], source[c]];
                    self.with_columns(first, second, [a, b, c, d, e, f, source[d], source[e], source[f]], best);
                } else {
                    let sixth = 9 * next + 3 - source[a] - source[b];
                    let seventh = source[c];
                    // The other two columns of the last stack, either way round.
                    let within = [(seventh + 1) % 3, (seventh + 2) % 3].map(|i| 3 * last + i);
                    for [eighth, ninth] in [within, [within[1], within[0]]] {
                        let columns = [a, b, c, source[a], source[b], sixth, seventh, eighth, ninth];
                        self.with_columns(first, second, columns, best);
                    }
                }
            }
        }
    }

    /// Tries the arrangement with these first rows and this order of the columns: it numbers the digits, and the other
    /// rows follow in the order of their first cells.
    fn with_columns(&self, first: usize, second: usize, columns: [usize; SIDE], best: &mut Best) {
        let upper = self.row(first);
        let mut label = [0u8; SIDE + 1];
        for (at, &column) in columns.iter().enumerate() {
            label[usize::from(upper[column])] = at as u8 + 1;
        }
        let leading = |row: usize| label[usize::from(self.row(row)[columns[0]])];
        let third = 3 * (first / 3 * 3 + 1) - first - second;
        let mut sorted = [(first / 3 + 1) % 3, (first / 3 + 2) % 3].map(|band| {
            let mut rows = [3 * band, 3 * band + 1, 3 * band + 2];
            rows.sort_unstable_by_key(|&row| leading(row));
            rows
        });
        sorted.sort_unstable_by_key(|rows| leading(rows[0]));
        let rows = [[first, second, third], sorted[0], sorted[1]];

        let mut answer = [0; CELLS];
        let mut smaller = false;
        for (r, &row) in rows.as_flattened().iter().enumerate() {
            for (c, &column) in columns.iter().enumerate() {
                answer[r * SIDE + c] = label[usize::from(self.answer[row * SIDE + column])];
            }
            let range = r * SIDE..(r + 1) * SIDE;
            if !smaller {
                match answer[range.clone()].cmp(&best.answer[range]) {
                    std::cmp::Ordering::Less => smaller = true,
                    std::cmp::Ordering::Equal => {}
                    std::cmp::Ordering::Greater => return,
                }
            }
        }
        let mut question = [0; CELLS];
        for (r, &row) in rows.as_flattened().iter().enumerate() {
            for (c, &column) in columns.iter().enumerate() {
                question[r * SIDE + c] = label[usize::from(self.question[row * SIDE + column])];
            }
        }
        if smaller || question < best.question {
            *best = Best { answer, question };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        puzzle::SudokuShuffle,
        rng::{Purpose, stream},
    };

    const QUESTION: &str = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79";
    const ANSWER: &str = "534678912672195348198342567859761423426853791713924856961537284287419635345286179";
    /// The least of all grids; it has 648 symmetries of its own.
    const LEAST: &str = "123456789456789123789123456231564897564897231897231564312645978645978312978312645";

    fn board(text: &str) -> Board {
        text.parse().unwrap()
    }

    #[test]
    fn every_dress_has_the_same_form() {
        for (question, answer) in [(QUESTION, ANSWER), (LEAST, LEAST)] {
            // Blank some cells of the symmetric grid, so that the choice among its symmetries matters.
            let mut question = board(question);
            for cell in [0, 7, 13, 22, 40, 41, 59, 77] {
                question.0[cell] = 0;
            }
            let answer = board(answer);
            let form = canonical(&question, &answer).unwrap();
            assert!(form.answer.check_solves(&form.question).is_ok());
            assert_eq!(canonical(&form.question, &form.answer), Ok(form), "a form is its own form");
            let mut rng = stream(Purpose::Augment, 5, 0, 0);
            for _ in 0..300 {
                let shuffle = SudokuShuffle::draw(&mut rng);
                let (q, a) = (shuffle.apply(&question), shuffle.apply(&answer));
                assert_eq!(canonical(&q, &a), Ok(form));
            }
        }
        assert_eq!(canonical(&board(LEAST), &board(LEAST)).unwrap().answer, board(LEAST));
    }

    #[test]
    fn other_puzzles_have_other_forms() {
        let (question, answer) = (board(QUESTION), board(ANSWER));
        let mut forms = HashSet::from([canonical(&question, &answer).unwrap()]);
        for cell in (0..CELLS).filter(|&cell| question.0[cell] == 0) {
            let mut more = question;
            more.0[cell] = answer.0[cell];
            assert!(forms.insert(canonical(&more, &answer).unwrap()), "one given more in cell {cell}");
        }
        assert!(canonical(&question, &board(LEAST)).is_err());
    }
}
