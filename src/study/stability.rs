//! The study of stability: whether right answers stay, on puzzles with few blanks.

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{Files, StudyFolder, Watcher, runs::RunsPlan};
use crate::{
    analysis::{
        identity::PuzzlesIdentity,
        runs::PuzzleRun,
        stability::{Blanks, Motion, StabilityRow, make_puzzles, motions, tabulate},
    },
    checkpoint::{Checkpoint, weights_name},
    eval::test_puzzles::{DataIdentity, TestPuzzles},
    model::Model,
    puzzle::Puzzle,
    viz::{
        chart::Words,
        stability::{StabilityPicture, StabilitySeries},
    },
};

/// What it writes.
pub const FILES: Files = Files {
    folder: "analysis/stability",
    journal: Some("runs-1.jsonl"),
    pictures: &["stability"],
    others: &["stability.json"],
};

/// What to run.
#[derive(Clone, Debug)]
pub struct StabilityPlan {
    /// Numbers of blank cells, each once.
    pub blanks: Vec<Blanks>,
    /// Puzzles for each.
    pub per_k: usize,
    pub segments: usize,
    /// Puzzles per batch.
    pub batch_size: Option<u64>,
    pub seed: u64,
}

/// Puzzles with blanks, made from the solutions of test puzzles.
#[derive(Clone, Debug)]
pub struct BlankedPuzzles {
    pub items: Vec<Puzzle>,
    /// How many there are for each number of blanks.
    pub per_k: usize,
    data: DataIdentity,
}

/// The document of `hrm analyze stability`.
#[derive(Debug, Serialize)]
pub struct StabilityReport {
    title: String,
    pub pictures: Vec<String>,
    data: String,
    puzzles_per_k: usize,
    pub segments: usize,
    seed: u64,
    pub checkpoints: Vec<StableCheckpoint>,
}

/// What was found for one checkpoint.
#[derive(Debug, Serialize)]
pub struct StableCheckpoint {
    pub path: String,
    step: Option<u64>,
    dtype: &'static str,
    pub own_segments: usize,
    pub rows: Vec<StabilityRow>,
    pub motions: Vec<Motion>,
}

impl StabilityPlan {
    /// Makes the puzzles.
    ///
    /// # Errors
    /// A number of blanks that is there twice; puzzles that are no Sudokus.
    pub fn make_puzzles(&self, puzzles: &TestPuzzles) -> Result<BlankedPuzzles> {
        ensure!(
            puzzles.geometry.is_sudoku(),
            "{} holds {} puzzles, and blanks can be made in Sudokus only: give --data-path of Sudokus and checkpoints \
             that were trained on them",
            puzzles.origin,
            puzzles.geometry
        );
        for (k, blanks) in self.blanks.iter().enumerate() {
            ensure!(!self.blanks[..k].contains(blanks), "--blanks: {blanks} is given twice");
        }
        let rows = puzzles.rows_from(0, Some(self.per_k))?;
        let made = self.blanks.iter().map(|&blanks| make_puzzles(&rows, blanks, self.seed));
        let items = made.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        Ok(BlankedPuzzles { items, per_k: rows.len(), data: puzzles.identity()? })
    }

    /// Runs every checkpoint's model on the puzzles.
    ///
    /// # Errors
    /// Those of [`RunsPlan::run`].
    pub fn run(
        &self,
        puzzles: &BlankedPuzzles,
        subjects: &[(Checkpoint, Model)],
        output: &StudyFolder,
        watcher: &dyn Watcher,
    ) -> Result<Vec<StableCheckpoint>> {
        let asked = PuzzlesIdentity::Blanks {
            data: puzzles.data.clone(),
            per_k: puzzles.per_k,
            seed: self.seed,
            blanks: self.blanks.iter().map(ToString::to_string).collect(),
        };
        let mut found = Vec::new();
        for (k, (checkpoint, model)) in subjects.iter().enumerate() {
            watcher.line(format_args!("checkpoint {}: {}", k + 1, weights_name(checkpoint)));
            let plan = RunsPlan {
                checkpoint,
                model,
                items: &puzzles.items,
                puzzles: &asked,
                segments: self.segments,
                batch_size: super::batch_size(self.batch_size, model),
                file: &format!("runs-{}.jsonl", k + 1),
            };
            let runs = plan.run(output, watcher)?;
            let own = usize::try_from(model.config().halt_max_steps)?.min(self.segments);
            let of_blanks = self.blanks.iter().zip(runs.chunks(puzzles.per_k));
            found.push(StableCheckpoint {
                path: checkpoint.path.display().to_string(),
                step: checkpoint.step,
                dtype: model.config().forward_dtype.short_name(),
                own_segments: own,
                rows: of_blanks.map(|(&blanks, runs)| tabulate(blanks, runs, own)).collect(),
                motions: motions(&runs.iter().collect::<Vec<&PuzzleRun>>()),
            });
        }
        Ok(found)
    }

    /// Draws the picture and writes `stability.json`; returns the document and its file.
    ///
    /// # Errors
    /// Those of the file system and of drawing.
    pub fn write(
        &self,
        puzzles: &BlankedPuzzles,
        subjects: &[(Checkpoint, Model)],
        found: Vec<StableCheckpoint>,
        output: &StudyFolder,
    ) -> Result<(StabilityReport, String)> {
        let (segments, seed) = (self.segments, self.seed);
        let (left, reached) = left_of_reached(&found);
        let title = format!(
            "{:.0} % of the right answers are left again within {segments} segments; {} of {} runs reach a bitwise fixed \
             point",
            100.0 * left / reached.max(1.0),
            found.iter().flat_map(|f| &f.rows).map(|r| r.fixed_points).sum::<usize>(),
            puzzles.items.len() * found.len()
        );
        let series = found.iter().zip(subjects).enumerate().map(|(k, (of, (checkpoint, _)))| StabilitySeries {
            name: format!("checkpoint {}: {}", k + 1, weights_name(checkpoint)),
            rows: &of.rows,
            motions: &of.motions,
        });
        let picture = StabilityPicture {
            words: Words {
                title: title.clone(),
                subtitle: format!(
                    "{} puzzles for each number of blanks, made from real solutions, seed {seed}",
                    puzzles.per_k
                ),
                sources: format!("Solutions: {}", puzzles.data.data),
            },
            series: series.collect(),
            segments,
            own_segments: found.iter().map(|f| f.own_segments).max().unwrap_or(0),
        };
        let report = StabilityReport {
            title,
            pictures: output.picture("stability", &picture)?,
            data: puzzles.data.data.clone(),
            puzzles_per_k: puzzles.per_k,
            segments,
            seed,
            checkpoints: found,
        };
        let file = output.json("stability.json", &report)?;
        Ok((report, file))
    }
}

/// Answers that were left again, and all that were reached, over everything.
fn left_of_reached(found: &[StableCheckpoint]) -> (f64, f64) {
    found.iter().flat_map(|f| &f.rows).fold((0.0, 0.0), |(left, reached), row| {
        let here = row.reached * row.puzzles as f64;
        (left + row.left * here, reached + here)
    })
}
