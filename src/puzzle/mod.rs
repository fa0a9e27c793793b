//! Sudoku boards, mazes and their symmetries, on plain arrays: nothing here knows tensors or files.

pub mod canonical;
pub mod clue_swap;
pub mod digit_shift;
pub mod dihedral;
pub mod maze;
pub mod maze_maker;
pub mod shortest_path;
pub mod shuffle;
pub mod solve;
pub mod sudoku;
mod triads;

pub use canonical::{Canonical, canonical};
pub use digit_shift::{shift_digits, unshift_digits};
pub use dihedral::{DIHEDRAL_INVERSE, dihedral, inverse_dihedral};
pub use maze::swap_start_goal;
pub use shuffle::SudokuShuffle;
pub use sudoku::Board;

/// What kind of puzzle a dataset holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PuzzleKind {
    /// 81 cells, tokens 1 (blank) and 2..=10 (digits 1..=9).
    Sudoku,
    /// A square of walls, ways, start, goal and path, tokens 1..=5.
    Maze,
}

impl PuzzleKind {
    /// Tokens including the padding token 0.
    pub fn vocab_size(self) -> usize {
        match self {
            Self::Sudoku => sudoku::VOCAB_SIZE,
            Self::Maze => maze::VOCAB_SIZE,
        }
    }
}

impl PuzzleKind {
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
