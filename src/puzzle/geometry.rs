//! What a puzzle is and how large: its vocabulary, its rules, how it is written and drawn.

use std::fmt;

use serde::{Serialize, Serializer};

use super::{
    Board, PuzzleKind,
    boxes::{BLANK, Boxes, FIRST_DIGIT, SolutionError},
    canonical::canonical,
    maze::{self, FREE, GOAL, PATH, START, WALL},
    shortest_path::{self, MazeFault},
};

/// A kind of puzzle with its sizes. Serialised as the kind's name, null where it is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Geometry {
    /// N×N cells; tokens: 1 blank, 2 to N + 1 digits.
    Sudoku(Boxes),
    /// Tokens: 1 wall, 2 free, 3 start, 4 goal, 5 path.
    Maze {
        /// Rows of cells.
        height: usize,
        /// Cells of a row.
        width: usize,
    },
    /// Rows of tokens that no rules are known for.
    Unknown {
        /// Tokens that there are, padding included.
        vocab_size: usize,
        /// Tokens of a row.
        cells: usize,
    },
}

/// Puzzles without rules, where rules are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "puzzles of {cells} cells and {vocab_size} tokens are of an unknown kind: neither Sudokus (N x N cells and N + 2 \
     tokens: 1 for a blank, from 2 on for digits) nor mazes (6 tokens, one start and one goal each)"
)]
pub struct UnknownKind {
    /// Tokens that there are, padding included.
    pub vocab_size: usize,
    /// Tokens of a row.
    pub cells: usize,
}

/// Why an answer does not solve its puzzle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's message says it")]
pub enum Fault {
    #[error("{found} cells; this puzzle has {wanted}")]
    Cells { found: usize, wanted: usize },
    #[error(transparent)]
    Sudoku(#[from] SolutionError),
    #[error(transparent)]
    Maze(#[from] MazeFault),
    #[error(transparent)]
    Unknown(#[from] UnknownKind),
}

/// What is drawn between a cell and the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Nothing.
    None,
    /// Between two cells of a box.
    Thin,
    /// Between two boxes.
    Thick,
}

/// How a token is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyph {
    /// A digit, or the letter of a start or a goal.
    Symbol(char),
    /// No digit.
    Blank,
    /// A wall.
    Wall,
    /// A free cell.
    Free,
    /// A cell of a path.
    Dot,
}

impl Geometry {
    /// The usual Sudoku, 9×9.
    pub const SUDOKU: Self = Self::Sudoku(Boxes::NINE);

    /// A Sudoku of `side`×`side` cells; see [`Boxes::of_side`].
    pub fn sudoku(side: usize) -> Option<Self> {
        Boxes::of_side(side).map(Self::Sudoku)
    }

    /// A square maze.
    pub fn maze(side: usize) -> Self {
        Self::Maze { height: side, width: side }
    }

    /// What a dataset's rows are: decided by the vocabulary, the length of a row, and what most of the sampled rows hold.
    ///
    /// - Sudoku: N + 2 tokens and N·N cells; questions of blanks and digits, labels of digits (or no label). Whether they
    ///   are right is another question.
    /// - Maze: 6 tokens; questions with one start and one goal, labels that mark free cells. The size is the one under
    ///   which the labels are shortest ways: the square unless another height fits better.
    ///
    /// Anything else is [`Geometry::Unknown`]: 4×4 Sudokus have a maze's 6 tokens, and Sudokus may be written with other
    /// tokens than these.
    ///
    /// # Shapes
    /// - rows: question and label, `[cells]` each
    pub fn of_dataset(vocab_size: usize, cells: usize, rows: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let most = |fits: &dyn Fn(&[u8], &[u8]) -> bool| {
            2 * rows.iter().filter(|(question, label)| fits(question, label)).count() > rows.len()
        };
        let side = cells.isqrt();
        let square = side * side == cells;
        // A row of a maze is hardly ever one of a 4×4 Sudoku by chance, the other way round it may be.
        if vocab_size == maze::VOCAB_SIZE && most(&is_maze_row) {
            let mut widths: Vec<usize> = (2..=cells / 2).filter(|width| cells.is_multiple_of(*width)).collect();
            widths.sort_by_key(|&width| width.abs_diff(cells / width));
            let solved = |width: usize| most(&|q, label| shortest_path::check_marks(q, label, width).is_ok());
            let found = widths.into_iter().find(|&width| solved(width)).or(square.then_some(side));
            if let Some(width) = found {
                return Self::Maze { height: cells / width, width };
            }
        }
        if let Some(boxes) = Boxes::of_side(side).filter(|_| square && vocab_size == side + 2)
            && most(&|question, label| is_sudoku_row(boxes, question, label))
        {
            return Self::Sudoku(boxes);
        }
        Self::Unknown { vocab_size, cells }
    }

    /// Its kind; none if that is unknown.
    pub fn kind(self) -> Option<PuzzleKind> {
        match self {
            Self::Sudoku(_) => Some(PuzzleKind::Sudoku),
            Self::Maze { .. } => Some(PuzzleKind::Maze),
            Self::Unknown { .. } => None,
        }
    }

    /// Itself, if there are rules for it.
    ///
    /// # Errors
    /// A kind that is unknown, by its sizes.
    pub fn known(self) -> Result<Self, UnknownKind> {
        match self {
            Self::Unknown { vocab_size, cells } => Err(UnknownKind { vocab_size, cells }),
            known => Ok(known),
        }
    }

    /// The boxes of a Sudoku; none for anything else.
    pub fn boxes(self) -> Option<Boxes> {
        match self {
            Self::Sudoku(boxes) => Some(boxes),
            _ => None,
        }
    }

    /// Whether it is a Sudoku.
    pub fn is_sudoku(self) -> bool {
        matches!(self, Self::Sudoku(_))
    }

    /// Rows of cells; one for an unknown kind.
    pub fn height(self) -> usize {
        match self {
            Self::Sudoku(boxes) => boxes.side(),
            Self::Maze { height, .. } => height,
            Self::Unknown { .. } => 1,
        }
    }

    /// Cells of a row.
    pub fn width(self) -> usize {
        match self {
            Self::Sudoku(boxes) => boxes.side(),
            Self::Maze { width, .. } => width,
            Self::Unknown { cells, .. } => cells,
        }
    }

    /// Cells of a puzzle.
    pub fn cells(self) -> usize {
        self.height() * self.width()
    }

    /// Tokens, the padding token 0 included.
    pub fn vocab_size(self) -> usize {
        match self {
            Self::Sudoku(boxes) => boxes.side() + usize::from(FIRST_DIGIT),
            Self::Maze { .. } => maze::VOCAB_SIZE,
            Self::Unknown { vocab_size, .. } => vocab_size,
        }
    }

    /// As a title begins with it; in running text it displays itself.
    pub fn title(self) -> &'static str {
        self.kind().map_or("Puzzle", PuzzleKind::title)
    }

    /// Whether a cell that holds this token in the question is open, which is to say to be filled in: a Sudoku's blank, a
    /// maze's free cell, which belongs to the path or not. This is what the model sees, so that it holds without a label
    /// too. Every cell of an unknown kind is open: none is known to be given.
    pub fn is_open(self, token: u8) -> bool {
        match self {
            Self::Sudoku(_) => token == BLANK,
            Self::Maze { .. } => token == FREE,
            Self::Unknown { .. } => true,
        }
    }

    /// How full a question is: what cells are counted for that, and the token that the other cells hold. None for an
    /// unknown kind.
    pub fn counted(self) -> Option<(&'static str, u8)> {
        match self {
            Self::Sudoku(_) => Some(("given cells", BLANK)),
            Self::Maze { .. } => Some(("free cells", WALL)),
            Self::Unknown { .. } => None,
        }
    }

    /// Stands for a question and all that are equivalent to it; the answer helps to find it. Where the answer is none, and
    /// for Sudokus other than 9×9, equal boards alone have equal forms.
    ///
    /// # Shapes
    /// - question, answer: `[cells]`
    pub fn canonical(self, question: &[u8], answer: &[u8]) -> Vec<u8> {
        match self {
            Self::SUDOKU => {
                let boards = Board::from_tokens(question).ok().zip(Board::from_tokens(answer).ok());
                let form = boards.and_then(|(question, answer)| canonical(&question, &answer).ok());
                form.map_or_else(|| question.to_vec(), |form| form.question.digits().to_vec())
            }
            Self::Maze { height, width } => maze::canonical(question, height, width),
            Self::Sudoku(_) | Self::Unknown { .. } => question.to_vec(),
        }
    }

    /// What a cell is called that the question gives and that cannot be filled in.
    pub fn given_name(self) -> &'static str {
        match self {
            Self::Maze { .. } => "wall",
            Self::Sudoku(_) | Self::Unknown { .. } => "given",
        }
    }

    /// What a right answer is, in words.
    pub fn right_answer(self) -> &'static str {
        match self {
            Self::Maze { .. } => "a shortest path from S to G",
            Self::Sudoku(_) | Self::Unknown { .. } => "complete, keeps the givens, breaks no rule",
        }
    }

    /// Checks an answer by the rules, without any label: a Sudoku's is complete, keeps the givens and repeats no digit; a
    /// maze's marks a shortest way, and what it has in other cells does not count.
    ///
    /// # Shapes
    /// - question, answer: `[cells]`
    pub fn check(self, question: &[u8], answer: &[u8]) -> Result<(), Fault> {
        for tokens in [question, answer] {
            if tokens.len() != self.cells() {
                return Err(Fault::Cells { found: tokens.len(), wanted: self.cells() });
            }
        }
        match self.known()? {
            Self::Sudoku(boxes) => Ok(boxes.check(question, answer)?),
            _ => Ok(shortest_path::check_marks(question, answer, self.width()).map(|_| ())?),
        }
    }

    /// [`Geometry::check`] in one word; false for an unknown kind.
    pub fn is_right(self, question: &[u8], answer: &[u8]) -> bool {
        self.check(question, answer).is_ok()
    }

    /// What is drawn below row `row`, between it and the next.
    pub fn line_below(self, row: usize) -> Line {
        self.boxes().map_or(Line::None, |boxes| line(row + 1, boxes.height()))
    }

    /// What is drawn to the right of column `column`, between it and the next.
    pub fn line_right(self, column: usize) -> Line {
        self.boxes().map_or(Line::None, |boxes| line(column + 1, boxes.width()))
    }

    /// How a token is drawn.
    pub fn glyph(self, token: u8) -> Glyph {
        match (self, token) {
            (Self::Sudoku(boxes), _) if boxes.digit(token).is_none() => match token {
                0 | BLANK => Glyph::Blank,
                _ => Glyph::Symbol('?'),
            },
            (Self::Maze { .. }, WALL) => Glyph::Wall,
            (Self::Maze { .. }, PATH) => Glyph::Dot,
            (Self::Maze { .. }, START | GOAL) | (Self::Sudoku(_) | Self::Unknown { .. }, _) => {
                Glyph::Symbol(self.symbol(token))
            }
            (Self::Maze { .. }, _) => Glyph::Free,
        }
    }
}

fn line(after: usize, every: usize) -> Line {
    if after.is_multiple_of(every) { Line::Thick } else { Line::Thin }
}

fn is_sudoku_row(boxes: Boxes, question: &[u8], label: &[u8]) -> bool {
    let question_fits = question.iter().all(|&token| token == BLANK || boxes.digit(token).is_some());
    let label_fits = label.iter().all(|&token| token == 0 || boxes.digit(token).is_some());
    question_fits && label_fits && label.iter().any(|&token| token != 0)
}

fn is_maze_row(question: &[u8], label: &[u8]) -> bool {
    let count = |token: u8| question.iter().filter(|&&t| t == token).count();
    let kept = |(&q, &label): (&u8, &u8)| label == 0 || label == q || (q == FREE && label == PATH);
    count(START) == 1
        && count(GOAL) == 1
        && question.iter().all(|token| (WALL..=GOAL).contains(token))
        && label.iter().any(|&token| token != 0)
        && question.iter().zip(label).all(kept)
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SUDOKU => f.write_str("sudoku"),
            Self::Sudoku(boxes) => write!(f, "{0}x{0} sudoku", boxes.side()),
            Self::Maze { .. } => f.write_str("maze"),
            Self::Unknown { vocab_size, cells } => write!(f, "unknown puzzle of {cells} cells and {vocab_size} tokens"),
        }
    }
}

impl Serialize for Geometry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.kind().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        puzzle::maze_maker::make_maze,
        rng::{Purpose, stream},
    };

    const FOUR: &str = "1234341221434321";

    /// Rows of a 4×4 Sudoku with some blanks.
    fn fours() -> Vec<(Vec<u8>, Vec<u8>)> {
        let geometry = Geometry::sudoku(4).unwrap();
        let label = geometry.parse(FOUR).unwrap();
        let with_blanks = |from: usize| {
            let blank = |(cell, &token): (usize, &u8)| if cell % 3 == from { BLANK } else { token };
            (label.iter().enumerate().map(blank).collect(), label.clone())
        };
        (0..3).map(with_blanks).collect()
    }

    fn mazes(side: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let make = |i| make_maze(side, 3, &mut stream(Purpose::Generate, 1, i, 0));
        (0..40).filter_map(make).map(|maze| (maze.question, maze.answer)).collect()
    }

    /// A maze of 3×7 cells and its way.
    fn oblong() -> (Vec<u8>, Vec<u8>) {
        let geometry = Geometry::Maze { height: 3, width: 7 };
        (geometry.parse("S  #   ##   # ####  G").unwrap(), geometry.parse("Soo#   ##ooo# ####ooG").unwrap())
    }

    #[test]
    fn the_kind_of_a_dataset() {
        let sudoku = |side| Geometry::sudoku(side).unwrap();
        assert_eq!(Geometry::of_dataset(6, 16, &fours()), sudoku(4), "a maze's vocabulary");
        assert_eq!(Geometry::of_dataset(6, 16, &mazes(4)), Geometry::maze(4));
        assert_eq!(Geometry::of_dataset(6, 121, &mazes(11)), Geometry::maze(11));
        assert_eq!(Geometry::of_dataset(6, 21, &[oblong()]), Geometry::Maze { height: 3, width: 7 });
        let nine = vec![(vec![BLANK; 81], vec![2; 81])];
        assert_eq!(Geometry::of_dataset(11, 81, &nine), Geometry::SUDOKU);
        let unknown = |vocab_size, cells, rows: &[(Vec<u8>, Vec<u8>)]| {
            let found = Geometry::of_dataset(vocab_size, cells, rows);
            assert_eq!(found, Geometry::Unknown { vocab_size, cells });
            assert!(found.known().is_err() && found.kind().is_none());
        };
        unknown(11, 16, &fours());
        unknown(11, 100, &[(vec![1; 100], vec![2; 100])]);
        unknown(12, 81, &nine);
        unknown(10, 81, &nine);
        unknown(6, 16, &[(vec![1; 16], vec![1; 16])]);
        unknown(6, 81, &[]);
        // Digits at 1 to 9 with 10 for a blank, and blanks as padding.
        unknown(11, 81, &[(vec![10; 81], (0..81).map(|cell| 1 + cell % 9).collect())]);
        unknown(11, 81, &[(vec![0; 81], vec![2; 81])]);
    }

    #[test]
    fn a_few_bad_rows_change_nothing() {
        let mut rows = fours();
        rows.push((vec![0; 16], vec![0; 16]));
        assert_eq!(Geometry::of_dataset(6, 16, &rows), Geometry::sudoku(4).unwrap());
        rows.extend(vec![(vec![0; 16], vec![0; 16]); 2]);
        assert_eq!(Geometry::of_dataset(6, 16, &rows), Geometry::Unknown { vocab_size: 6, cells: 16 });
    }

    #[test]
    fn open_cells_are_those_that_the_question_leaves_open() {
        let open = |geometry: Geometry, text: &str| -> String {
            let tokens = geometry.parse(text).unwrap();
            tokens.iter().map(|&token| if geometry.is_open(token) { 'x' } else { '-' }).collect()
        };
        assert_eq!(open(Geometry::sudoku(4).unwrap(), "12.4.4.2........"), "--x-x-x-xxxxxxxx");
        assert_eq!(open(Geometry::maze(3), "S  ## ##G"), "-xx--x---");
        assert_eq!(open(Geometry::Unknown { vocab_size: 4, cells: 4 }, "0123"), "xxxx");
    }

    #[test]
    fn rules_of_every_kind() {
        let (question, answer) = oblong();
        let geometry = Geometry::Maze { height: 3, width: 7 };
        assert_eq!(geometry.check(&question, &answer), Ok(()));
        assert!(matches!(geometry.check(&question, &question), Err(Fault::Maze(MazeFault::NotShortest { .. }))));
        assert_eq!(geometry.check(&question, &answer[1..]), Err(Fault::Cells { found: 20, wanted: 21 }));
        let (four, rows) = (Geometry::sudoku(4).unwrap(), fours());
        assert!(rows.iter().all(|(question, answer)| four.is_right(question, answer)));
        assert!(!four.is_right(&rows[0].0, &rows[0].0) && !four.is_right(&rows[0].1, &[2; 16]));
        let unknown = Geometry::Unknown { vocab_size: 9, cells: 2 };
        assert!(matches!(unknown.check(&[1, 2], &[1, 2]), Err(Fault::Unknown(_))));
    }

    #[test]
    fn lines_and_glyphs() {
        let six = Geometry::sudoku(6).unwrap();
        assert_eq!([0, 1, 2, 3].map(|row| six.line_below(row)), [Line::Thin, Line::Thick, Line::Thin, Line::Thick]);
        assert_eq!(
            [0, 1, 2, 3].map(|column| six.line_right(column)),
            [Line::Thin, Line::Thin, Line::Thick, Line::Thin]
        );
        assert_eq!(Geometry::maze(3).line_below(2), Line::None);
        assert_eq!([0, 1, 2, 7, 8].map(|token| six.glyph(token)), {
            let symbol = Glyph::Symbol;
            [Glyph::Blank, Glyph::Blank, symbol('1'), symbol('6'), symbol('?')]
        });
        assert_eq!([WALL, FREE, START, GOAL, PATH].map(|token| Geometry::maze(3).glyph(token)), {
            [Glyph::Wall, Glyph::Free, Glyph::Symbol('S'), Glyph::Symbol('G'), Glyph::Dot]
        });
    }
}
