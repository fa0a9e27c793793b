//! A 9×9 Sudoku board: its text form, its rules, its tokens.

use std::{fmt, str::FromStr};

use super::boxes::{Boxes, SolutionError};

/// Cells of a row, a column or a box.
pub const SIDE: usize = 9;
/// Cells of a board.
pub const CELLS: usize = SIDE * SIDE;

/// 81 digits in row order, 0 for a blank cell.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Board(pub(super) [u8; CELLS]);

/// Why a text or a list of numbers is no board.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's message says it")]
pub enum BoardError {
    #[error("a board has 81 cells, this one has {found}")]
    Length { found: usize },
    #[error("cell {} (row {}, column {}) holds {found:?}; a cell is 1-9, or '.' or 0 for a blank",
        .cell + 1, .cell / SIDE + 1, .cell % SIDE + 1)]
    Character { found: char, cell: usize },
    #[error("cell {} (row {}, column {}) holds token {found}; Sudoku tokens are 1 (blank) to 10 (digit 9)",
        .cell + 1, .cell / SIDE + 1, .cell % SIDE + 1)]
    Token { found: i64, cell: usize },
    #[error("cell {} (row {}, column {}) holds {found}; a digit is 0 (blank) to 9",
        .cell + 1, .cell / SIDE + 1, .cell % SIDE + 1)]
    Digit { found: u8, cell: usize },
}

impl Board {
    /// A board of digits 0..=9.
    pub fn from_digits(digits: [u8; CELLS]) -> Result<Self, BoardError> {
        match digits.iter().position(|&d| d > 9) {
            Some(cell) => Err(BoardError::Digit { found: digits[cell], cell }),
            None => Ok(Self(digits)),
        }
    }

    /// A board from a dataset row or a prediction.
    ///
    /// # Shapes
    /// - tokens: `[81]`, 1 for a blank, digit + 1 otherwise
    pub fn from_tokens<T: Copy + Into<i64>>(tokens: &[T]) -> Result<Self, BoardError> {
        if tokens.len() != CELLS {
            return Err(BoardError::Length { found: tokens.len() });
        }
        let mut digits = [0; CELLS];
        for (cell, (digit, &token)) in digits.iter_mut().zip(tokens).enumerate() {
            let found: i64 = token.into();
            if !(1..=10).contains(&found) {
                return Err(BoardError::Token { found, cell });
            }
            *digit = (found - 1) as u8;
        }
        Ok(Self(digits))
    }

    /// Digit + 1 for every cell, 1 for a blank.
    pub fn tokens(&self) -> [u8; CELLS] {
        self.0.map(|d| d + 1)
    }

    /// Digits in row order, 0 for a blank.
    pub fn digits(&self) -> &[u8; CELLS] {
        &self.0
    }

    /// How many cells are blank.
    pub fn blanks(&self) -> usize {
        self.0.iter().filter(|&&d| d == 0).count()
    }

    /// The first digit that occurs twice in a unit, if any. Blanks never clash.
    pub fn repeated(&self) -> Option<SolutionError> {
        // Mostly there is none, which one look at each cell tells.
        let (mut columns, mut boxes, mut clashes) = ([0u16; SIDE], [0u16; SIDE], 0);
        for (r, row) in self.0.as_chunks::<SIDE>().0.iter().enumerate() {
            let mut seen = 0;
            for (c, &digit) in row.iter().enumerate() {
                let bit = (1u16 << (digit & 15)) & !1;
                let (column, block) = (&mut columns[c], &mut boxes[r / 3 * 3 + c / 3]);
                clashes |= (seen | *column | *block) & bit;
                seen |= bit;
                *column |= bit;
                *block |= bit;
            }
        }
        if clashes == 0 {
            return None;
        }
        Boxes::NINE.repeated(&self.tokens())
    }

    /// Whether no digit occurs twice in a row, a column or a box.
    pub fn is_consistent(&self) -> bool {
        self.repeated().is_none()
    }

    /// Whether every cell is filled and every rule holds.
    pub fn is_solved(&self) -> bool {
        !self.0.contains(&0) && self.is_consistent()
    }

    /// Checks that this board is a full, correct grid that keeps every given of `question`.
    pub fn check_solves(&self, question: &Self) -> Result<(), SolutionError> {
        let at = |cell: usize| (cell / SIDE, cell % SIDE);
        if let Some((row, column)) = self.0.iter().position(|&d| d == 0).map(at) {
            return Err(SolutionError::Blank { row, column });
        }
        let clash = |(cell, (&given, &answer)): (usize, (&u8, &u8))| {
            let (row, column) = at(cell);
            (given != 0 && given != answer).then_some(SolutionError::Given { row, column, given, answer })
        };
        match question.0.iter().zip(&self.0).enumerate().find_map(clash).or_else(|| self.repeated()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl FromStr for Board {
    type Err = BoardError;

    /// Reads 81 characters, row by row: `1`-`9`, and `.` or `0` for a blank.
    fn from_str(text: &str) -> Result<Self, BoardError> {
        // Good boards at once; what is wrong with others is found out below.
        if let Ok(bytes) = <&[u8; CELLS]>::try_from(text.as_bytes()) {
            let digits = bytes.map(|byte| if byte == b'.' { 0 } else { byte.wrapping_sub(b'0') });
            if digits.iter().fold(true, |good, &digit| good & (digit <= 9)) {
                return Ok(Self(digits));
            }
        }
        let mut digits = [0; CELLS];
        let mut count = 0;
        for found in text.chars() {
            if let Some(digit) = digits.get_mut(count) {
                *digit = match found {
                    '.' => 0,
                    '0'..='9' => found as u8 - b'0',
                    _ => return Err(BoardError::Character { found, cell: count }),
                };
            }
            count += 1;
        }
        if count != CELLS {
            return Err(BoardError::Length { found: count });
        }
        Ok(Self(digits))
    }
}

impl fmt::Display for Board {
    /// 81 characters, `.` for a blank.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|&d| write!(f, "{}", if d == 0 { '.' } else { char::from(b'0' + d) }))
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Board({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::{super::boxes::Unit, *};

    const QUESTION: &str = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79";
    const ANSWER: &str = "534678912672195348198342567859761423426853791713924856961537284287419635345286179";

    fn board(text: &str) -> Board {
        text.parse().expect("a board")
    }

    #[test]
    fn text_forms() {
        assert_eq!(board(QUESTION).to_string(), QUESTION);
        assert_eq!(board(&QUESTION.replace('.', "0")), board(QUESTION));
        assert_eq!(board(QUESTION).blanks(), 51);
        assert_eq!("".parse::<Board>(), Err(BoardError::Length { found: 0 }));
        assert_eq!(QUESTION[1..].parse::<Board>(), Err(BoardError::Length { found: 80 }));
        assert_eq!(format!("{QUESTION}1").parse::<Board>(), Err(BoardError::Length { found: 82 }));
        let bad = QUESTION.replacen("53..7", "53.x7", 1).parse::<Board>();
        assert_eq!(bad, Err(BoardError::Character { found: 'x', cell: 3 }));
        let text = bad.map_err(|e| e.to_string()).expect_err("x is no digit");
        assert!(text.contains("row 1, column 4") && text.contains("'x'"), "{text}");
        assert!(matches!("é".repeat(81).parse::<Board>(), Err(BoardError::Character { found: 'é', cell: 0 })));
    }

    #[test]
    fn tokens_there_and_back() {
        let board = board(QUESTION);
        assert_eq!(Board::from_tokens(&board.tokens()), Ok(board));
        let mut tokens = board.tokens().map(i32::from);
        assert_eq!(Board::from_tokens(&tokens), Ok(board));
        tokens[80] = 11;
        assert_eq!(Board::from_tokens(&tokens), Err(BoardError::Token { found: 11, cell: 80 }));
        assert_eq!(Board::from_tokens(&[1u8; 80]), Err(BoardError::Length { found: 80 }));
        assert_eq!(Board::from_digits([10; CELLS]), Err(BoardError::Digit { found: 10, cell: 0 }));
    }

    #[test]
    fn two_equal_digits_clash_where_they_share_a_unit() {
        for a in 0..CELLS {
            for b in 0..a {
                let mut digits = [0; CELLS];
                (digits[a], digits[b]) = (9, 9);
                let holds = |unit, cell| (0..SIDE).any(|k| Boxes::NINE.cell(unit, k) == cell);
                let shared = Boxes::NINE.units().find(|&unit| holds(unit, a) && holds(unit, b));
                let found = Board(digits).repeated();
                assert_eq!(found, shared.map(|unit| SolutionError::Repeated { digit: 9, unit }), "{a} {b}");
                digits[b] = 8;
                assert_eq!(Board(digits).repeated(), None);
            }
        }
    }

    #[test]
    fn solutions() {
        let (question, answer) = (board(QUESTION), board(ANSWER));
        assert!(answer.is_solved() && question.is_consistent() && !question.is_solved());
        assert_eq!(answer.check_solves(&question), Ok(()));
        assert_eq!(question.check_solves(&question), Err(SolutionError::Blank { row: 0, column: 2 }));

        let other_given = board(&QUESTION.replacen("53", "54", 1));
        assert_eq!(
            answer.check_solves(&other_given),
            Err(SolutionError::Given { row: 0, column: 1, given: 4, answer: 3 })
        );

        let swapped = board(&ANSWER.replacen("4678", "4687", 1));
        let Err(SolutionError::Repeated { unit, .. }) = swapped.check_solves(&board(&".".repeat(81))) else {
            panic!("a swap within a row breaks two columns")
        };
        assert!(matches!(unit, Unit::Column(_)));
        assert!(!swapped.is_solved());
    }
}
