//! An equivalent puzzle: relabelled, turned, rearranged, such that its solution changes with it.
//!
//! ```text
//! transformed[i] = tokens[puzzle[cells[i]]]
//! ```

use ndarray::Array2;
use rand_chacha::rand_core::RngCore;

use super::{
    Boxes, Geometry,
    boxes::FIRST_DIGIT,
    dihedral,
    maze::{GOAL, START},
    shuffle::{ShuffleDraws, SudokuShuffle},
};
use crate::rng::shuffle_front;

/// A permutation of the tokens and one of the cells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transform {
    /// New token of each token. Length V.
    tokens: Vec<u8>,
    /// The cell that each cell of the transformed board is taken from. Length S.
    cells: Vec<u32>,
}

impl Geometry {
    /// How many different transforms there are, with any relabelling of a Sudoku's digits and with the board's symmetries
    /// where that is asked for; none where they are more than anybody makes.
    pub fn transforms(self, relabel: bool, symmetries: bool) -> Option<u64> {
        let permutations = u64::from(self.permutations());
        match self {
            Self::Sudoku(_) if relabel || symmetries => None,
            Self::Maze { height, width } if symmetries && height == width => Some(8 * permutations),
            _ => Some(permutations),
        }
    }

    /// Upstream's permutations in batched inference: the cyclic shifts of a Sudoku's N digits; a maze's start and goal as
    /// they are or swapped. One where the kind is unknown.
    pub fn permutations(self) -> u32 {
        match self {
            Self::Sudoku(boxes) => boxes.side() as u32,
            Self::Maze { .. } => 2,
            Self::Unknown { .. } => 1,
        }
    }

    /// Tokens under upstream's permutation `perm`, in place: digits move up cyclically by `perm`, counted modulo N; start
    /// and goal change places for any `perm` but 0. All other tokens stay.
    ///
    /// # Shapes
    /// - tokens: any
    pub fn permute(self, tokens: &mut [i32], perm: u32) {
        let (first, start, goal) = (i32::from(FIRST_DIGIT), i32::from(START), i32::from(GOAL));
        match self {
            Self::Sudoku(boxes) => {
                let side = boxes.side() as i32;
                let by = (perm % side as u32) as i32;
                for token in tokens.iter_mut().filter(|token| (first..first + side).contains(token)) {
                    *token = (*token - first + by) % side + first;
                }
            }
            Self::Maze { .. } if perm > 0 => {
                for token in tokens {
                    *token = if *token == start {
                        goal
                    } else if *token == goal {
                        start
                    } else {
                        *token
                    };
                }
            }
            Self::Maze { .. } | Self::Unknown { .. } => {}
        }
    }
}

impl Transform {
    /// Upstream's permutation `perm`; 0 is the puzzle as it is.
    pub fn permuted(geometry: Geometry, perm: u32) -> Self {
        let mut tokens: Vec<i32> = (0..geometry.vocab_size() as i32).collect();
        geometry.permute(&mut tokens, perm);
        let cells = (0..geometry.cells() as u32).collect();
        Self { tokens: tokens.into_iter().map(|token| token as u8).collect(), cells }
    }

    /// Puts a drawn relabelling of a Sudoku's digits (`relabel`) and a drawn rearrangement of its cells (`rearrange`) in
    /// the place of its own. Draws the same numbers in either case; leaves other kinds alone.
    pub fn drawn(self, geometry: Geometry, relabel: bool, rearrange: bool, rng: &mut impl RngCore) -> Self {
        let Some(boxes) = geometry.boxes() else { return self };
        let drawn = if boxes == Boxes::NINE { of_nine(rng) } else { of_boxes(boxes, rng) };
        Self {
            tokens: if relabel { drawn.tokens } else { self.tokens },
            cells: if rearrange { drawn.cells } else { self.cells },
        }
    }

    /// Puts symmetry `tid` of a square maze in the place of its rearrangement; leaves other boards alone.
    pub fn turned(self, geometry: Geometry, tid: usize) -> Self {
        let Geometry::Maze { height, width } = geometry else { return self };
        match Array2::from_shape_vec((height, width), self.cells.clone()) {
            Ok(grid) if height == width => {
                Self { cells: dihedral(grid.view(), tid).into_raw_vec_and_offset().0, ..self }
            }
            _ => self,
        }
    }

    /// New token of each token. Shape `[V]`.
    pub fn tokens(&self) -> &[u8] {
        &self.tokens
    }

    /// The cell that each cell of the transformed board is taken from. Shape `[S]`.
    pub fn cells(&self) -> &[u32] {
        &self.cells
    }

    /// The board after the transform.
    ///
    /// # Shapes
    /// - board, result: `[S]`
    pub fn apply(&self, board: &[u8]) -> Vec<u8> {
        self.cells.iter().map(|&cell| self.tokens[usize::from(board[cell as usize])]).collect()
    }

    /// What undoes it.
    pub fn inverse(&self) -> Self {
        let (mut tokens, mut cells) = (vec![0; self.tokens.len()], vec![0; self.cells.len()]);
        (0..).zip(&self.tokens).for_each(|(from, &to)| tokens[usize::from(to)] = from);
        (0..).zip(&self.cells).for_each(|(to, &from)| cells[from as usize] = to);
        Self { tokens, cells }
    }

    /// Undoes [`Transform::apply`].
    pub fn undo(&self, board: &[u8]) -> Vec<u8> {
        self.inverse().apply(board)
    }
}

/// A symmetry of the usual board, drawn as upstream's dataset builder draws it.
fn of_nine(rng: &mut impl RngCore) -> Transform {
    let draws = ShuffleDraws::draw(rng);
    let relabelled = draws.digit_map.iter().map(|digit| digit + 1);
    let cells = SudokuShuffle::from_checked(&draws).cell_map().iter().map(|&cell| u32::from(cell)).collect();
    Transform { tokens: [0].into_iter().chain(relabelled).collect(), cells }
}

/// A symmetry of a board with such boxes: digits, rows within their band, bands, columns and stacks likewise, and the
/// transposition where boxes are square.
fn of_boxes(boxes: Boxes, rng: &mut impl RngCore) -> Transform {
    let (side, height, width) = (boxes.side(), boxes.height(), boxes.width());
    let mut digits: Vec<u8> = (0..side as u8).map(|digit| digit + FIRST_DIGIT).collect();
    shuffle_front(rng, &mut digits, side);
    let transposed = height == width && rng.next_u32() & 1 == 1;
    let mut lines = |thick: usize| -> Vec<usize> {
        let mut order = |count: usize| {
            let mut order: Vec<usize> = (0..count).collect();
            shuffle_front(rng, &mut order, count);
            order
        };
        order(side / thick)
            .into_iter()
            .flat_map(|band| order(thick).into_iter().map(move |i| band * thick + i))
            .collect()
    };
    let (rows, columns) = (lines(height), lines(width));
    let cell = |(row, column): (usize, usize)| if transposed { column * side + row } else { row * side + column };
    let places = rows.iter().flat_map(|&row| columns.iter().map(move |&column| (row, column)));
    Transform { tokens: [0, 1].into_iter().chain(digits).collect(), cells: places.map(|at| cell(at) as u32).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    #[test]
    fn permutations_are_bijections_that_leave_other_tokens_alone() {
        let six = Geometry::sudoku(6).unwrap();
        for geometry in [Geometry::SUDOKU, six, Geometry::maze(3), Geometry::Unknown { vocab_size: 9, cells: 2 }] {
            for perm in 0..geometry.permutations() {
                let mut tokens: Vec<i32> = (-100..20).collect();
                geometry.permute(&mut tokens, perm);
                assert_eq!(tokens == (-100..20).collect::<Vec<_>>(), perm == 0, "{geometry} {perm}");
                tokens.sort_unstable();
                assert_eq!(tokens, (-100..20).collect::<Vec<_>>(), "{geometry} {perm}");
            }
        }
        let mut tokens = [1, 2, 7, 8];
        six.permute(&mut tokens, 7);
        assert_eq!(tokens, [1, 3, 2, 8], "8 is no digit of six");
    }

    #[test]
    fn drawn_transforms_keep_solutions_and_come_back() {
        let six = "123456456123231564564231312645645312";
        let four = "1234341221434321";
        let nine = "534678912672195348198342567859761423426853791713924856961537284287419635345286179";
        for (side, text) in [(4, four), (6, six), (9, nine)] {
            let geometry = Geometry::sudoku(side).unwrap();
            let board = geometry.parse(text).unwrap();
            let mut different = std::collections::HashSet::new();
            for i in 0..50 {
                let plain = Transform::permuted(geometry, 0);
                let drawn = plain.drawn(geometry, i % 2 == 0, true, &mut stream(Purpose::Guesses, 1, i, 0));
                let transformed = drawn.apply(&board);
                assert!(geometry.is_right(&vec![1; board.len()], &transformed), "{side} {i}");
                assert_eq!(drawn.undo(&transformed), board);
                different.insert(transformed);
            }
            assert!(different.len() > 25, "{side}: {}", different.len());
        }
    }

    #[test]
    fn a_maze_has_eight_symmetries_if_it_is_square() {
        let cells = |geometry: Geometry, tid| Transform::permuted(geometry, 0).turned(geometry, tid).cells().to_vec();
        let square: std::collections::HashSet<_> = (0..8).map(|tid| cells(Geometry::maze(3), tid)).collect();
        assert_eq!(square.len(), 8);
        let oblong = Geometry::Maze { height: 2, width: 3 };
        assert!((0..8).all(|tid| cells(oblong, tid) == [0, 1, 2, 3, 4, 5]));
    }
}
