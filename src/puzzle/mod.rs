//! Sudoku boards, mazes and their symmetries, on plain arrays: nothing here knows tensors or files.

pub mod boxes;
pub mod canonical;
pub(crate) mod clue_swap;
pub mod dihedral;
mod geometry;
mod instance;
mod known;
pub mod maze;
pub(crate) mod maze_maker;
pub(crate) mod shortest_path;
pub mod shuffle;
pub mod solve;
pub mod sudoku;
mod text;
mod transform;
mod triads;
mod typed;

pub use boxes::{Boxes, SolutionError, Unit};
pub use canonical::{Canonical, canonical};
pub use dihedral::{DIHEDRAL_INVERSE, dihedral, inverse_dihedral};
pub use geometry::{Fault, Geometry, Glyph, Line, UnknownKind};
pub use instance::{CellMark, Puzzle, PuzzleError};
pub(crate) use known::{Count, Known};
pub use shuffle::SudokuShuffle;
pub use sudoku::Board;
pub use text::TextError;
pub(crate) use text::{base36, from_base36};
pub use transform::Transform;
pub(crate) use typed::Typed;

/// The kinds of puzzle that there are rules for, as flags and files name them; [`Geometry`] adds the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PuzzleKind {
    /// Rows, columns and boxes that hold every digit once.
    Sudoku,
    /// Walls, free cells, start, goal and path.
    Maze,
}

impl PuzzleKind {
    /// The square board of that many cells; none where there is no such board.
    pub fn square(self, cells: usize) -> Option<Geometry> {
        let side = cells.isqrt();
        let geometry = match self {
            Self::Sudoku => Geometry::sudoku(side)?,
            Self::Maze => Geometry::maze(side),
        };
        (geometry.cells() == cells).then_some(geometry)
    }

    /// The square board of that many cells; of unknown kind where there is no such board, or no cell.
    pub fn square_or_unknown(self, cells: usize) -> Geometry {
        let unknown = Geometry::Unknown { vocab_size: 0, cells };
        self.square(cells).filter(|_| cells > 0).unwrap_or(unknown)
    }

    /// Whether a puzzle with several solutions is faulty. A maze may have several shortest ways, of which one is the label.
    pub fn has_one_solution(self) -> bool {
        self == Self::Sudoku
    }

    /// As a title begins with it; in running text the kind displays itself.
    pub fn title(self) -> &'static str {
        match self {
            Self::Sudoku => "Sudoku",
            Self::Maze => "Maze",
        }
    }
}

impl std::fmt::Display for PuzzleKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sudoku => "sudoku",
            Self::Maze => "maze",
        })
    }
}
