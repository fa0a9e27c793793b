//! Augmentation on the fly (`augment=online`): a fresh symmetry of every board that is drawn, instead of stored ones.
//!
//! The draws are keyed by (seed, step, row of the global batch), as those of exploration are: they depend neither on the
//! number of processes nor on what was drawn before.

use anyhow::{Context, Result, ensure};
use ndarray::ArrayView2;

use super::TrainPlan;
use crate::{
    config::Augment,
    dataset::{Batch, give_hints},
    puzzle::{Geometry, SudokuShuffle, Transform, dihedral},
    rng::{Purpose, below, stream},
};

/// What happens to each board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnlineAugment {
    pub geometry: Geometry,
    pub seed: u64,
    /// Every other Sudoku, drawn by lot, has some blanks filled in, as `hrm build-dataset --hint` fills them.
    pub hint: bool,
}

impl OnlineAugment {
    /// What a plan asks for; none where it takes the boards as they are stored.
    ///
    /// # Errors
    /// Puzzles whose symmetries are not known; hints for anything but a Sudoku of 9×9.
    pub fn new(plan: &TrainPlan) -> Result<Option<Self>> {
        let config = &plan.config;
        if config.augment == Augment::Stored {
            return Ok(None);
        }
        let geometry = plan.train.geometry();
        geometry.known().with_context(|| format!("augment=online: {}", config.data_path))?;
        ensure!(
            !config.augment_hint || geometry == Geometry::SUDOKU,
            "augment_hint=true is for Sudokus of 9x9 cells, {} holds puzzles of another kind ({geometry})",
            config.data_path
        );
        if let Geometry::Maze { height, width } = geometry {
            ensure!(height == width, "augment=online turns square mazes, {} holds {height}x{width}", config.data_path);
        }
        Ok(Some(Self { geometry, seed: config.seed, hint: config.augment_hint }))
    }

    /// Changes the rows of a batch, of which the first is row `first` of the global batch at `step`.
    pub fn apply(&self, batch: &mut Batch, step: i64, first: usize) {
        let rows = batch.inputs.outer_iter_mut().zip(batch.labels.outer_iter_mut());
        for (row, (mut input, mut label)) in rows.enumerate() {
            let (Some(input), Some(label)) = (input.as_slice_mut(), label.as_slice_mut()) else { continue };
            let mut rng = stream(Purpose::Online, self.seed, step as u64, (first + row) as u64);
            match self.geometry {
                Geometry::SUDOKU => {
                    let (Some(question), Some(answer)) = (tokens(input), tokens(label)) else { continue };
                    let shuffle = SudokuShuffle::draw(&mut rng);
                    let (mut question, answer) = (shuffle.apply_tokens(&question), shuffle.apply_tokens(&answer));
                    if self.hint && below(&mut rng, 2) == 1 {
                        give_hints(&mut rng, &mut question, &answer);
                    }
                    write(input, &question);
                    write(label, &answer);
                }
                Geometry::Maze { .. } => {
                    let symmetry = below(&mut rng, 8) as usize;
                    turn(input, symmetry);
                    turn(label, symmetry);
                }
                geometry => {
                    let transform = Transform::permuted(geometry, 0).drawn(geometry, true, true, &mut rng);
                    let (Some(question), Some(answer)) = (bytes(input), bytes(label)) else { continue };
                    write(input, &transform.apply(&question));
                    write(label, &transform.apply(&answer));
                }
            }
        }
    }
}

/// A Sudoku of 9×9 in tokens; none where a cell holds something else, as rows of padding do.
fn tokens(cells: &[i32]) -> Option<[u8; 81]> {
    let mut board = [0u8; 81];
    for (to, &from) in board.iter_mut().zip(cells) {
        *to = u8::try_from(from).ok().filter(|t| (1..=10).contains(t))?;
    }
    Some(board)
}

/// Tokens as bytes; none for a row of padding, which has no label.
fn bytes(cells: &[i32]) -> Option<Vec<u8>> {
    cells.iter().map(|&token| u8::try_from(token).ok()).collect()
}

fn write(cells: &mut [i32], board: &[u8]) {
    for (to, &from) in cells.iter_mut().zip(board) {
        *to = i32::from(from);
    }
}

fn turn(cells: &mut [i32], symmetry: usize) {
    let side = cells.len().isqrt();
    let turned = ArrayView2::from_shape((side, side), &*cells).map(|grid| dihedral(grid, symmetry));
    if let Ok(turned) = turned {
        cells.iter_mut().zip(turned).for_each(|(to, from)| *to = from);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2};

    use super::*;
    use crate::dataset::Dataset;

    fn batch(rows: usize) -> Batch {
        let all = Dataset::bundled_test(Some(rows)).unwrap();
        all.sets()[0].rows_as_stored(&(0..rows).collect::<Vec<_>>()).unwrap()
    }

    fn sudoku(hint: bool) -> OnlineAugment {
        OnlineAugment { geometry: Geometry::SUDOKU, seed: 7, hint }
    }

    #[test]
    fn boards_stay_puzzles_with_their_solutions() {
        let (before, mut after) = (batch(200), batch(200));
        sudoku(true).apply(&mut after, 3, 0);
        let mut hinted = 0;
        for row in 0..200 {
            let (input, label) = (after.inputs.row(row), after.labels.row(row));
            assert_ne!(label, before.labels.row(row));
            let givens = |row: ndarray::ArrayView1<'_, i32>| row.iter().filter(|&&t| t > 1).count();
            assert!(input.iter().zip(label).all(|(i, l)| *i == 1 || i == l), "the givens belong to the solution");
            for line in 0..9 {
                let mut seen: Vec<i32> = (0..9).map(|c| label[line * 9 + c]).collect();
                seen.sort_unstable();
                assert_eq!(seen, (2..=10).collect::<Vec<_>>());
            }
            let more = givens(input) - givens(before.inputs.row(row));
            assert!(givens(input) < 81);
            hinted += usize::from(more > 0);
        }
        // Six standard deviations of 200 fair coins.
        assert!((58..=142).contains(&hinted), "{hinted} of 200 have hints");
        let mut plain = batch(200);
        sudoku(false).apply(&mut plain, 3, 0);
        let blanks = |b: &Batch| b.inputs.iter().filter(|&&t| t == 1).count();
        assert_eq!(blanks(&plain), blanks(&before));
    }

    #[test]
    fn draws_depend_on_the_global_row_and_the_step_alone() {
        let augment = sudoku(true);
        let (mut all, mut again) = (batch(8), batch(8));
        augment.apply(&mut all, 5, 0);
        augment.apply(&mut again, 6, 0);
        assert_ne!(all, again, "another step, other draws");
        let stored = batch(8);
        let take = |a: &Array2<i32>| a.slice(ndarray::s![5..8, ..]).to_owned();
        let mut upper =
            Batch { inputs: take(&stored.inputs), labels: take(&stored.labels), puzzle_identifiers: Array1::zeros(3) };
        augment.apply(&mut upper, 5, 5);
        assert_eq!((upper.inputs, upper.labels), (take(&all.inputs), take(&all.labels)));
    }

    #[test]
    fn mazes_are_turned_and_padding_is_left_alone() {
        let maze = OnlineAugment { geometry: Geometry::maze(3), seed: 1, hint: false };
        let cells: Vec<i32> = (0..9).collect();
        let grid = || Array2::from_shape_vec((1, 9), cells.clone()).unwrap();
        let mut seen = std::collections::HashSet::new();
        for step in 0..200 {
            let mut batch = Batch { inputs: grid(), labels: grid(), puzzle_identifiers: Array1::zeros(1) };
            maze.apply(&mut batch, step, 0);
            assert_eq!(batch.inputs, batch.labels, "both under the same symmetry");
            assert_eq!(batch.inputs[(0, 4)], 4, "the centre stays");
            seen.insert(batch.inputs.iter().copied().collect::<Vec<_>>());
        }
        assert_eq!(seen.len(), 8);
        let padding = Batch {
            inputs: Array2::zeros((1, 81)),
            labels: Array2::from_elem((1, 81), -100),
            puzzle_identifiers: Array1::zeros(1),
        };
        let mut after = padding.clone();
        sudoku(true).apply(&mut after, 1, 0);
        assert_eq!(after, padding);
    }

    #[test]
    fn sudokus_of_other_sides_stay_sudokus() {
        let four = Geometry::sudoku(4).unwrap();
        let label = four.parse("1234341221434321").unwrap();
        let row = |tokens: &[u8]| Array2::from_shape_fn((1, 16), |(_, cell)| i32::from(tokens[cell]));
        let mut seen = std::collections::HashSet::new();
        for step in 0..50 {
            let mut batch = Batch { inputs: row(&[1; 16]), labels: row(&label), puzzle_identifiers: Array1::zeros(1) };
            OnlineAugment { geometry: four, seed: 1, hint: false }.apply(&mut batch, step, 0);
            let answer: Vec<u8> = batch.labels.iter().map(|&token| token as u8).collect();
            assert!(four.is_right(&[1; 16], &answer), "{answer:?}");
            seen.insert(answer);
        }
        assert!(seen.len() > 25, "{}", seen.len());
    }
}
