//! Puzzles as a person types or prints them: on one line, in lines, as a printed grid; several in a text.

use super::{Boxes, Geometry, TextError, maze::VOCAB_SIZE};

/// Puzzles of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    pub geometry: Geometry,
    /// Tokens; at least one puzzle.
    pub puzzles: Vec<Vec<u8>>,
}

/// Why a text holds no puzzles.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypedError {
    #[error(
        "a vocabulary of {vocab_size} tokens belongs to no known puzzle (a Sudoku of N x N cells has N + 2, a maze 6)"
    )]
    Vocabulary { vocab_size: usize },
    #[error("not a {kind} puzzle: {why}")]
    Text { kind: String, why: Why },
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("{found} cells: give {} for each Sudoku, row by row; {}", .geometry.cells(), .geometry.alphabet())]
    Cells { found: usize, geometry: Geometry },
    #[error("{found:?} is not a cell (row {}, column {}): {}", .row + 1, .column + 1, .geometry.alphabet())]
    Symbol { found: char, row: usize, column: usize, geometry: Geometry },
    #[error("not a maze: give lines of #, space, S and G")]
    NoMaze,
    #[error("{found} characters on one line: only a square maze can be on one line")]
    OneLine { found: usize },
    #[error(transparent)]
    Maze(TextError),
}

impl Typed {
    /// Reads puzzles with a vocabulary of `vocab_size` tokens, as a model knows them.
    ///
    /// - Sudokus, one after the other: what separates cells in print (spaces, line ends, rules, commas) is passed over;
    ///   0 and _ are blanks.
    /// - A maze: lines of one length, at whose ends spaces may be missing; a square one may stand on one line. Six tokens
    ///   are a maze's where the text has a wall, a start or a goal, else those of 4×4 Sudokus.
    ///
    /// # Errors
    /// A text without puzzles, or with something else in it; a vocabulary of no known kind.
    pub fn read(vocab_size: usize, text: &str) -> Result<Self, TypedError> {
        if vocab_size == VOCAB_SIZE && text.contains(['#', 'S', 'G']) {
            return maze(text).map_err(|why| TypedError::Text { kind: "maze".to_owned(), why });
        }
        let boxes = vocab_size.checked_sub(2).and_then(Boxes::of_side);
        let boxes = boxes.ok_or(TypedError::Vocabulary { vocab_size })?;
        sudokus(boxes, text).map_err(|why| match (vocab_size, text.trim()) {
            (VOCAB_SIZE, "") => TypedError::Text { kind: "maze".to_owned(), why: Why::NoMaze },
            _ => TypedError::Text { kind: Geometry::Sudoku(boxes).to_string(), why },
        })
    }
}

fn sudokus(boxes: Boxes, text: &str) -> Result<Typed, Why> {
    let (geometry, cells) = (Geometry::Sudoku(boxes), boxes.cells());
    let separates = |c: &char| c.is_whitespace() || "|-+,│─┼".contains(*c);
    let token = |(at, found): (usize, char)| {
        let (row, column) = (at % cells / boxes.side(), at % boxes.side());
        let token = if found == '_' { geometry.token('.') } else { geometry.token(found) };
        token.filter(|&token| token != 0).ok_or(Why::Symbol { found, row, column, geometry })
    };
    let tokens = text.chars().filter(|c| !separates(c)).enumerate().map(token).collect::<Result<Vec<u8>, Why>>()?;
    if tokens.is_empty() || !tokens.len().is_multiple_of(cells) {
        return Err(Why::Cells { found: tokens.len(), geometry });
    }
    Ok(Typed { geometry, puzzles: tokens.chunks(cells).map(<[u8]>::to_vec).collect() })
}

fn maze(text: &str) -> Result<Typed, Why> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let geometry = match lines.as_slice() {
        [] => return Err(Why::NoMaze),
        [_] => {
            let side = width.isqrt();
            if side * side != width {
                return Err(Why::OneLine { found: width });
            }
            Geometry::maze(side)
        }
        lines => Geometry::Maze { height: lines.len(), width },
    };
    let joined: String = lines.iter().map(|line| format!("{line:<width$}")).collect();
    Ok(Typed { geometry, puzzles: vec![geometry.parse(&joined).map_err(Why::Maze)?] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(vocab_size: usize, text: &str) -> String {
        Typed::read(vocab_size, text).unwrap_err().to_string()
    }

    #[test]
    fn sudokus_in_several_forms() {
        let line = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79";
        let wanted = Geometry::SUDOKU.parse(line).unwrap();
        let in_lines: String =
            line.as_bytes().chunks(9).map(|row| String::from_utf8_lossy(row).into_owned() + "\r\n").collect();
        let grid = Geometry::SUDOKU.grid(None, &wanted, |_, text| text);
        for text in
            [line.to_owned(), format!("{line}\n"), line.replace('.', "0"), line.replace('.', "_"), in_lines, grid]
        {
            let found = Typed::read(11, &text).unwrap().puzzles;
            assert_eq!((found.len(), &found[0]), (1, &wanted), "{text}");
        }
        assert_eq!(Typed::read(11, &format!("{line}\n{line}\n")).unwrap().puzzles.len(), 2);
        let four = Typed::read(6, "1 . | . 3\n. 4 | 1 .\n----+----\n2 . | . .\n4 3 | 2 1").unwrap();
        assert_eq!((four.geometry, four.puzzles.len()), (Geometry::sudoku(4).unwrap(), 1));
        let sixteen = Typed::read(18, &format!("G{}", ".".repeat(255))).unwrap();
        assert_eq!((sixteen.geometry, sixteen.puzzles[0][0]), (Geometry::sudoku(16).unwrap(), 17));
    }

    #[test]
    fn mazes_may_lack_spaces_at_the_ends_of_lines() {
        for text in ["S  \n## \n  G\n", "S\n##\n  G", "S  ##   G"] {
            let found = Typed::read(6, text).unwrap();
            assert_eq!(
                (found.geometry, &found.puzzles[0]),
                (Geometry::maze(3), &vec![3, 2, 2, 1, 1, 2, 2, 2, 4]),
                "{text}"
            );
        }
        assert_eq!(Typed::read(6, "S  \n##G").unwrap().geometry, Geometry::Maze { height: 2, width: 3 });
    }

    #[test]
    fn what_is_no_puzzle_is_told() {
        let line = ".".repeat(80);
        for (vocab_size, text, wanted) in [
            (11, "", "not a sudoku puzzle: 0 cells: give 81"),
            (11, line.as_str(), "80 cells: give 81 for each Sudoku"),
            (11, "x", "'x' is not a cell (row 1, column 1): a cell is 1-9"),
            (11, "?", "'?' is not a cell"),
            (6, "", "not a maze puzzle: not a maze"),
            (6, "S    G", "6 characters on one line"),
            (6, "S  x", "not a maze puzzle: cell 4 (row 2, column 2) holds \"x\""),
            (6, "123", "not a 4x4 sudoku puzzle: 3 cells: give 16"),
            (13, "1", "a vocabulary of 13 tokens belongs to no known puzzle"),
            (7, "1", "a vocabulary of 7 tokens"),
        ] {
            assert!(error(vocab_size, text).contains(wanted), "{}", error(vocab_size, text));
        }
    }
}
