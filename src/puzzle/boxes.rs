//! Sudoku's rules on boards of any side, in tokens: blank 1, digits 2 to N + 1.
//!
//! Each row, each column and each box of a board of N×N cells holds every digit once. A box is `height` rows of `width`
//! cells with height · width = N: 2×2 for N = 4, 2×3 for 6, 3×3 for 9, 4×4 for 16.

use std::fmt;

/// Token of a blank cell.
pub const BLANK: u8 = 1;
/// Token of the digit 1.
pub const FIRST_DIGIT: u8 = 2;
/// The largest board: 25×25. Larger digits have no letter.
pub const MAX_SIDE: usize = 25;

/// The size of a Sudoku's boxes, which decides the size of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Boxes {
    height: usize,
    width: usize,
}

/// A row, a column or a box, numbered from 0 (boxes in row order).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A row, from the top.
    Row(usize),
    /// A column, from the left.
    Column(usize),
    /// A box.
    Box {
        /// Its number, row by row.
        index: usize,
        /// Boxes side by side.
        across: usize,
    },
}

/// Why a board is not the solution of a question. Rows and columns count from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's message says it")]
pub enum SolutionError {
    #[error("row {}, column {} of the answer is blank", .row + 1, .column + 1)]
    Blank { row: usize, column: usize },
    #[error("row {}, column {} is given as {given}, the answer has {answer} there", .row + 1, .column + 1)]
    Given { row: usize, column: usize, given: u8, answer: u8 },
    #[error("{digit} occurs twice in {unit}")]
    Repeated { digit: u8, unit: Unit },
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row(i) => write!(f, "row {}", i + 1),
            Self::Column(i) => write!(f, "column {}", i + 1),
            Self::Box { index, across } => {
                let (row, column) = (index / across, index % across);
                write!(f, "box {} (row {}, column {} of boxes)", index + 1, row + 1, column + 1)
            }
        }
    }
}

impl Boxes {
    /// Those of the usual board of 9×9 cells.
    pub const NINE: Self = Self { height: 3, width: 3 };

    /// The usual boxes of a board of `side`×`side` cells: as square as they can be, wider than high. None for a side
    /// that is prime, or beyond 4 to [`MAX_SIDE`].
    pub fn of_side(side: usize) -> Option<Self> {
        if side > MAX_SIDE {
            return None;
        }
        let height = (2..=side.isqrt()).rev().find(|height| side.is_multiple_of(*height))?;
        Some(Self { height, width: side / height })
    }

    /// Rows of a box.
    pub fn height(self) -> usize {
        self.height
    }

    /// Columns of a box.
    pub fn width(self) -> usize {
        self.width
    }

    /// Rows and columns of the board, cells of a box, and digits.
    pub fn side(self) -> usize {
        self.height * self.width
    }

    /// Cells of the board.
    pub fn cells(self) -> usize {
        self.side() * self.side()
    }

    /// The 3N units: rows, columns, boxes.
    pub fn units(self) -> impl Iterator<Item = Unit> {
        let side = self.side();
        let boxes = (0..side).map(move |index| Unit::Box { index, across: self.height });
        (0..side).map(Unit::Row).chain((0..side).map(Unit::Column)).chain(boxes)
    }

    /// The cell index of a unit's `k`-th cell, `k` below N.
    pub fn cell(self, unit: Unit, k: usize) -> usize {
        let side = self.side();
        match unit {
            Unit::Row(row) => row * side + k,
            Unit::Column(column) => k * side + column,
            Unit::Box { index, across } => {
                let (row, column) = (index / across * self.height, index % across * self.width);
                (row + k / self.width) * side + column + k % self.width
            }
        }
    }

    /// Whether two cells share their row, their column, their box.
    pub fn shared(self, a: usize, b: usize) -> [bool; 3] {
        let side = self.side();
        let place = |cell: usize| {
            let (row, column) = (cell / side, cell % side);
            (row, column, (row / self.height, column / self.width))
        };
        let (a, b) = (place(a), place(b));
        [a.0 == b.0, a.1 == b.1, a.2 == b.2]
    }

    /// The digit of a token, none for a blank, padding or a token beyond the vocabulary.
    pub fn digit(self, token: u8) -> Option<u8> {
        let digit = token.checked_sub(FIRST_DIGIT)? + 1;
        (usize::from(digit) <= self.side()).then_some(digit)
    }

    /// Checks that `answer` is a full board that keeps every given of `question` and repeats no digit in a unit. Cells
    /// without a digit count as blank.
    ///
    /// # Shapes
    /// - question, answer: `[N * N]`
    pub fn check(self, question: &[u8], answer: &[u8]) -> Result<(), SolutionError> {
        let at = |cell: usize| (cell / self.side(), cell % self.side());
        if let Some(cell) = (0..self.cells()).find(|&cell| self.at(answer, cell).is_none()) {
            let (row, column) = at(cell);
            return Err(SolutionError::Blank { row, column });
        }
        for cell in 0..self.cells() {
            if let (Some(given), Some(answer)) = (self.at(question, cell), self.at(answer, cell))
                && given != answer
            {
                let (row, column) = at(cell);
                return Err(SolutionError::Given { row, column, given, answer });
            }
        }
        self.repeated(answer).map_or(Ok(()), Err)
    }

    /// The first digit that occurs twice in a unit, if any. Blanks never clash.
    ///
    /// # Shapes
    /// - tokens: `[N * N]`
    pub fn repeated(self, tokens: &[u8]) -> Option<SolutionError> {
        self.units().find_map(|unit| {
            let mut seen = 0_u32;
            (0..self.side()).find_map(|k| {
                let digit = self.at(tokens, self.cell(unit, k))?;
                let repeated = seen & (1 << digit) != 0;
                seen |= 1 << digit;
                repeated.then_some(SolutionError::Repeated { digit, unit })
            })
        })
    }

    /// Upstream's measure of how far a board is from a solution, whatever its givens are:
    ///
    /// ```text
    /// loss = Σ over the 3N units  Σ over the digits  max(0, times it stands in the unit − 1)
    /// ```
    ///
    /// 0 on a solved or an empty board; at most 3N(N − 1), which is 216 for N = 9: every cell the same digit.
    ///
    /// # Shapes
    /// - tokens: `[N * N]`
    pub fn conflicts(self, tokens: &[u8]) -> u32 {
        let mut conflicts = 0;
        for unit in self.units() {
            let mut counts = [0_u32; MAX_SIDE + 1];
            for digit in (0..self.side()).filter_map(|k| self.at(tokens, self.cell(unit, k))) {
                counts[usize::from(digit)] += 1;
            }
            conflicts += counts.iter().map(|n| n.saturating_sub(1)).sum::<u32>();
        }
        conflicts
    }

    /// For each blank cell how many digits its row, column and box leave; none for other cells.
    ///
    /// # Shapes
    /// - tokens, result: `[N * N]`
    pub fn candidates(self, tokens: &[u8]) -> Vec<Option<usize>> {
        let mut seen = vec![0_u32; self.cells()];
        for unit in self.units() {
            let digits = (0..self.side()).filter_map(|k| self.at(tokens, self.cell(unit, k)));
            let of_unit = digits.fold(0_u32, |set, digit| set | 1 << digit);
            (0..self.side()).for_each(|k| seen[self.cell(unit, k)] |= of_unit);
        }
        let left = |(cell, seen): (usize, u32)| {
            (tokens.get(cell) == Some(&BLANK)).then(|| self.side() - seen.count_ones() as usize)
        };
        seen.into_iter().enumerate().map(left).collect()
    }

    fn at(self, tokens: &[u8], cell: usize) -> Option<u8> {
        tokens.get(cell).and_then(|&token| self.digit(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIX: &str = "123456456123231564564231312645645312";

    fn tokens(text: &str) -> Vec<u8> {
        text.bytes().map(|b| if b == b'.' { BLANK } else { b - b'0' + 1 }).collect()
    }

    #[test]
    fn boxes_of_each_side() {
        let sizes: Vec<_> =
            (0..=26).filter_map(|side| Boxes::of_side(side).map(|b| (side, b.height, b.width))).collect();
        assert_eq!(sizes[..6], [(4, 2, 2), (6, 2, 3), (8, 2, 4), (9, 3, 3), (10, 2, 5), (12, 3, 4)]);
        assert_eq!((sizes.last(), Boxes::of_side(9)), (Some(&(25, 5, 5)), Some(Boxes::NINE)));
    }

    #[test]
    fn units_cover_every_cell_three_times() {
        for boxes in [4, 6, 9, 12, 16].map(|side| Boxes::of_side(side).unwrap()) {
            let mut seen = vec![0; boxes.cells()];
            for unit in boxes.units() {
                (0..boxes.side()).for_each(|k| seen[boxes.cell(unit, k)] += 1);
            }
            assert!(seen.iter().all(|&n| n == 3), "{boxes:?}");
            for unit in 0..3 {
                let with_first = (1..boxes.cells()).filter(|&cell| boxes.shared(0, cell)[unit]).count();
                assert_eq!(with_first, boxes.side() - 1);
            }
        }
        assert_eq!(Boxes::NINE.cell(Unit::Box { index: 5, across: 3 }, 4), 4 * 9 + 7);
    }

    #[test]
    fn a_board_of_six_is_checked() {
        let boxes = Boxes::of_side(6).unwrap();
        let (answer, question) = (tokens(SIX), tokens(&format!("1....{}", &SIX[5..])));
        assert_eq!(boxes.check(&question, &answer), Ok(()));
        assert_eq!((boxes.conflicts(&answer), boxes.conflicts(&[3; 36]), boxes.conflicts(&[0; 36])), (0, 90, 0));
        assert_eq!(boxes.check(&question, &question), Err(SolutionError::Blank { row: 0, column: 1 }));
        let mut changed = answer.clone();
        changed.swap(0, 1);
        assert_eq!(
            boxes.check(&question, &changed),
            Err(SolutionError::Given { row: 0, column: 0, given: 1, answer: 2 })
        );
        changed = answer.clone();
        changed.swap(1, 7); // 2 and 5, of one column and one box
        assert_eq!(boxes.repeated(&changed), Some(SolutionError::Repeated { digit: 5, unit: Unit::Row(0) }));
        assert_eq!(boxes.conflicts(&changed), 2);
        assert_eq!(boxes.candidates(&question)[..6], [None, Some(1), Some(1), Some(1), Some(1), None]);
        assert_eq!(Boxes::NINE.candidates(&[BLANK; 81])[40], Some(9));
        let unit = Unit::Box { index: 3, across: 2 };
        assert_eq!(
            SolutionError::Repeated { digit: 4, unit }.to_string(),
            "4 occurs twice in box 4 (row 2, column 2 of boxes)"
        );
    }

    #[test]
    fn only_digits_of_the_board_count() {
        assert_eq!(Boxes::NINE.conflicts(&[11; 81]), 0, "no digit of a board of nine");
        assert_eq!(Boxes::NINE.conflicts(&[6; 81]), 216);
        let mut board = [0; 81];
        (board[0], board[1]) = (8, 8); // same row, same box
        assert_eq!(Boxes::NINE.conflicts(&board), 2);
        (board[1], board[8]) = (0, 8); // same row only
        assert_eq!(Boxes::NINE.conflicts(&board), 1);
    }
}
