//! What an exact search says of a puzzle.

use serde::Serialize;

use super::{
    Board, Geometry,
    maze::PATH,
    shortest_path::shortest,
    solve::{Solutions, solve},
};

/// How many solutions a puzzle has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Count {
    None,
    One,
    Several,
    Unknown,
}

/// The solutions of a puzzle; of a maze its shortest ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub count: Count,
    /// The only solution. Tokens, `[cells]`.
    pub solution: Option<Vec<u8>>,
    /// Why there is none, where that can be told.
    pub why: Option<String>,
}

impl Known {
    /// Searches for the solutions of a question, exactly. A search that takes too long gives up; there is none for
    /// Sudokus other than 9×9, nor for an unknown kind.
    ///
    /// # Shapes
    /// - question: `[cells]`
    pub fn of(geometry: Geometry, question: &[u8]) -> Self {
        let only = |count| Self { count, solution: None, why: None };
        match geometry {
            Geometry::Sudoku(boxes) => {
                if let Some(clash) = boxes.repeated(question) {
                    return Self { why: Some(clash.to_string()), ..only(Count::None) };
                }
                let Ok(board) = Board::from_tokens(question) else { return only(Count::Unknown) };
                match solve(&board) {
                    Solutions::One(solution) => Self { solution: Some(solution.tokens().to_vec()), ..only(Count::One) },
                    Solutions::None => only(Count::None),
                    Solutions::Several => only(Count::Several),
                    Solutions::Unknown => only(Count::Unknown),
                }
            }
            Geometry::Maze { width, .. } => match shortest(question, width) {
                Ok(found) if found.several => only(Count::Several),
                Ok(found) => {
                    let mut solution = question.to_vec();
                    found.path.iter().for_each(|&cell| solution[cell] = PATH);
                    Self { solution: Some(solution), ..only(Count::One) }
                }
                Err(fault) => Self { why: Some(fault.to_string()), ..only(Count::None) },
            },
            Geometry::Unknown { .. } => only(Count::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solutions_are_counted() {
        let known = |geometry: Geometry, text: &str| Known::of(geometry, &geometry.parse(text).unwrap());
        let nine = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79";
        let found = known(Geometry::SUDOKU, nine);
        assert!(
            found.count == Count::One && found.solution.is_some_and(|s| Geometry::SUDOKU.text(&s).starts_with("5346"))
        );
        assert_eq!(known(Geometry::SUDOKU, &".".repeat(81)).count, Count::Several);
        let four = Geometry::sudoku(4).unwrap();
        assert_eq!(known(four, "1...............").count, Count::Unknown);
        assert_eq!(known(four, "11..............").why.as_deref(), Some("1 occurs twice in row 1"));
        let maze = Geometry::Maze { height: 2, width: 3 };
        assert_eq!(known(maze, "S##  G").solution.map(|s| maze.text(&s)).as_deref(), Some("S##ooG"));
        assert_eq!((known(maze, "S    G").count, known(maze, "S# ##G").count), (Count::Several, Count::None));
    }
}
