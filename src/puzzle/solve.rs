//! A Sudoku solver, so that a prediction for a puzzle typed by hand can be marked right or wrong.
//!
//! Depth-first search over the blank cell with the fewest candidates, candidates as bit sets.

use super::sudoku::{Board, CELLS, SIDE};

/// Cells tried before the search gives up; ordinary puzzles take a few hundred.
const MOST_TRIES: u32 = 2_000_000;

/// What is known about a puzzle's solutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solutions {
    /// The givens contradict each other, at once or after some steps.
    None,
    One(Board),
    /// At least two.
    Several,
    /// The search gave up.
    Unknown,
}

/// Counts a puzzle's solutions up to two.
pub fn solve(puzzle: &Board) -> Solutions {
    let mut search = Search { digits: [0; CELLS], used: [[0; SIDE]; 3], found: Vec::new(), tries: 0 };
    for (cell, &digit) in puzzle.digits().iter().enumerate() {
        if digit != 0 {
            if search.candidates(cell) & bit(digit) == 0 {
                return Solutions::None;
            }
            search.place(cell, digit);
        }
    }
    search.run();
    match (search.found.as_slice(), search.tries > MOST_TRIES) {
        ([_, _, ..], _) => Solutions::Several,
        (_, true) => Solutions::Unknown,
        (&[digits], false) => Board::from_digits(digits).map_or(Solutions::Unknown, Solutions::One),
        ([], false) => Solutions::None,
    }
}

struct Search {
    digits: [u8; CELLS],
    /// Digits that stand in each row, column, box, as bits.
    used: [[u16; SIDE]; 3],
    found: Vec<[u8; CELLS]>,
    tries: u32,
}

/// Digit 1 is the lowest bit.
fn bit(digit: u8) -> u16 {
    1 << (digit - 1)
}

/// The row, column and box of a cell.
fn units(cell: usize) -> [usize; 3] {
    let (row, column) = (cell / SIDE, cell % SIDE);
    [row, column, row / 3 * 3 + column / 3]
}

impl Search {
    fn candidates(&self, cell: usize) -> u16 {
        let [row, column, square] = units(cell);
        !(self.used[0][row] | self.used[1][column] | self.used[2][square]) & 0x1ff
    }

    fn place(&mut self, cell: usize, digit: u8) {
        self.digits[cell] = digit;
        self.flip(cell, digit);
    }

    fn remove(&mut self, cell: usize) {
        self.flip(cell, self.digits[cell]);
        self.digits[cell] = 0;
    }

    fn flip(&mut self, cell: usize, digit: u8) {
        for (kind, unit) in units(cell).into_iter().enumerate() {
            self.used[kind][unit] ^= bit(digit);
        }
    }

    fn run(&mut self) {
        let blanks = (0..CELLS).filter(|&cell| self.digits[cell] == 0);
        let Some(cell) = blanks.min_by_key(|&cell| self.candidates(cell).count_ones()) else {
            self.found.push(self.digits);
            return;
        };
        let candidates = self.candidates(cell);
        for digit in (1..=9).filter(|&d| candidates & bit(d) != 0) {
            self.tries += 1;
            if self.tries > MOST_TRIES || self.found.len() > 1 {
                return;
            }
            self.place(cell, digit);
            self.run();
            self.remove(cell);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(text: &str) -> Board {
        text.parse().unwrap()
    }

    #[test]
    fn one_none_several() {
        let question = board("53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79");
        let answer = board("534678912672195348198342567859761423426853791713924856961537284287419635345286179");
        assert_eq!(solve(&question), Solutions::One(answer));
        assert_eq!(solve(&answer), Solutions::One(answer));
        assert_eq!(solve(&board(&".".repeat(81))), Solutions::Several);
        assert_eq!(solve(&board(&format!("11{}", ".".repeat(79)))), Solutions::None);
        // No clash among the givens, but the first cell has no candidate: 1-8 in its row, 9 in its column.
        let stuck = format!(".12345678{}9{}", ".".repeat(9), ".".repeat(62));
        assert_eq!(solve(&board(&stuck)), Solutions::None);
    }

    #[test]
    fn a_puzzle_with_17_givens() {
        let hard = board(".......1.4.........2...........5.4.7..8...3....1.9....3..4..2...5.1........8.6...");
        let Solutions::One(found) = solve(&hard) else { panic!("one solution") };
        assert!(found.check_solves(&hard).is_ok());
    }
}
