//! The puzzles that a picture is of.

use anyhow::{Result, bail};

use crate::{
    checkpoint::{Checkpoint, weights_name},
    eval::test_puzzles::{TestPuzzles, check_fits},
    model::Dims,
    puzzle::{Count, Geometry, Known, Puzzle, Typed},
};

/// A puzzle, its sizes and where it is from.
#[derive(Clone, Debug)]
pub struct ChosenPuzzle {
    pub puzzle: Puzzle,
    pub dims: Dims,
    pub origin: String,
    /// Its row among the test puzzles of `data`; none if it was typed.
    pub row: Option<usize>,
    /// What its row is counted in.
    pub data: String,
}

/// Where several puzzles are from, in words.
pub fn origins(chosen: &[ChosenPuzzle]) -> String {
    let rows: Vec<String> = chosen.iter().filter_map(|c| c.row).map(|row| row.to_string()).collect();
    match chosen {
        [] => String::new(),
        [one] => format!("Puzzle: {}", one.origin),
        [first, ..] => format!("Puzzles: test rows {} of {}", rows.join(", "), first.data),
    }
}

impl ChosenPuzzle {
    /// A puzzle that was typed, as [`Typed::read`] reads it, with its solution. Warns where it has no single one, and where
    /// the checkpoint was trained on another size.
    ///
    /// # Errors
    /// What is no puzzle of the checkpoint's kind; several; givens that contradict each other.
    pub fn typed(text: &str, checkpoint: &Checkpoint) -> Result<Self> {
        let vocab_size = checkpoint.vocab_size().unwrap_or(Geometry::SUDOKU.vocab_size());
        let typed = Typed::read(vocab_size, text)?;
        let [question] = typed.puzzles.as_slice() else { bail!("{} puzzles: give one", typed.puzzles.len()) };
        let known = Known::of(typed.geometry, question);
        let warning = match (known.count, known.why) {
            (Count::One, _) => None,
            (Count::None, Some(why)) => bail!("{why}: such a puzzle has no solution"),
            (Count::None, None) => Some("this puzzle has no solution"),
            (Count::Several, _) => Some("this puzzle has more than one solution: cells are not marked right or wrong"),
            (Count::Unknown, _) => Some("this puzzle's solution is not known: cells are not marked right or wrong"),
        };
        warning.iter().for_each(|warning| log::warn!("{warning}"));
        check_fits(checkpoint, typed.geometry, "--puzzle")?;
        let dims = checkpoint.dims(typed.geometry.cells(), typed.geometry.vocab_size())?;
        let puzzle = Puzzle::new(typed.geometry, question.clone(), known.solution)?;
        Ok(Self { puzzle, dims, origin: "typed".to_owned(), row: None, data: String::new() })
    }

    /// Test puzzles by their rows.
    ///
    /// # Errors
    /// A row that is not there, told as one of `flag`'s.
    pub fn rows(puzzles: &TestPuzzles, flag: &str, rows: &[usize]) -> Result<Vec<Self>> {
        let chosen = |puzzle: Puzzle| Self {
            dims: Dims::from(puzzles.dataset.meta()),
            origin: format!("test row {} of {}", puzzle.index(), puzzles.origin),
            row: Some(puzzle.index()),
            data: puzzles.origin.clone(),
            puzzle,
        };
        Ok(puzzles.rows(flag, rows)?.into_iter().map(chosen).collect())
    }

    /// A picture's last line.
    pub fn sources(&self, checkpoint: &Checkpoint) -> String {
        format!("Puzzle: {} · Weights: {}", self.origin, weights_name(checkpoint))
    }
}
