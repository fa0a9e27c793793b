//! The one puzzle that a picture is of, and the checkpoint that works on it.

use anyhow::{Context, Result, ensure};

use super::{
    checkpoints::{CheckpointArg, ModelArgs},
    puzzles::{DataPathArg, open_test_set},
};
use crate::{analysis::subject::ChosenPuzzle, checkpoint::Checkpoint, cli::ui::Ui, say};

/// Flags of every picture of one puzzle.
#[derive(clap::Args, Debug)]
pub struct PuzzleArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// Which test puzzle, from 0 [default: 0]
    #[arg(long, value_name = "I[,I...]", value_delimiter = ',', conflicts_with = "puzzle")]
    index: Vec<usize>,
    /// A puzzle of your own, as `hrm solve` reads it: 81 characters row by row for a Sudoku, 1-9 and . or 0 for blanks
    #[arg(long, value_name = "CHARACTERS", conflicts_with = "data_path")]
    puzzle: Option<String>,
    #[command(flatten)]
    data: DataPathArg,
    #[command(flatten)]
    pub model: ModelArgs,
}

impl PuzzleArgs {
    /// Loads the checkpoint and takes the one puzzle.
    pub fn choose(&self, ui: &Ui) -> Result<(Checkpoint, ChosenPuzzle)> {
        ensure!(self.index.len() <= 1, "--index: this picture is of one puzzle: give one number");
        let (checkpoint, mut chosen) = self.choose_all(ui)?;
        Ok((checkpoint, chosen.remove(0)))
    }

    /// Loads the checkpoint and takes every puzzle that was named; at least one.
    pub fn choose_all(&self, ui: &Ui) -> Result<(Checkpoint, Vec<ChosenPuzzle>)> {
        let checkpoint = self.checkpoint.load(ui, self.model.weights)?;
        let chosen = match &self.puzzle {
            Some(text) => {
                vec![ChosenPuzzle::typed(text, &checkpoint).context("--puzzle")?]
            }
            None => {
                let puzzles = open_test_set(ui, &self.data, &checkpoint)?;
                puzzles.check_kind(&checkpoint)?;
                if self.index.is_empty() {
                    say!(ui, "puzzle: test row 0 (--index chooses another)");
                }
                let rows = if self.index.is_empty() { &[0][..] } else { &self.index };
                ChosenPuzzle::rows(&puzzles, "--index", rows)?
            }
        };
        Ok((checkpoint, chosen))
    }
}
