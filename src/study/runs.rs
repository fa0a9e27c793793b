//! Many puzzles through one checkpoint, written down as they go.

use std::{ops::ControlFlow, time::Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use super::{StudyFolder, Watcher, interrupted};
use crate::{
    analysis::{
        identity::{PuzzlesIdentity, RunsIdentity},
        runs::{PuzzleRun, run_puzzles},
    },
    checkpoint::{Checkpoint, weights_name},
    journal::run_batches,
    model::Model,
    puzzle::Puzzle,
    runtime::device_name,
};

/// States are compared bit by bit with those of so many segments before.
pub const LONGEST_CYCLE: usize = 4;

/// Puzzles to run.
#[derive(Clone, Copy, Debug)]
pub struct RunsPlan<'a> {
    pub checkpoint: &'a Checkpoint,
    pub model: &'a Model,
    pub items: &'a [Puzzle],
    /// Which puzzles they are, for the journal.
    pub puzzles: &'a PuzzlesIdentity,
    /// Segments of each.
    pub segments: usize,
    /// Puzzles per batch.
    pub batch_size: usize,
    /// The journal's name in the output folder.
    pub file: &'a str,
}

impl RunsPlan<'_> {
    /// Runs the puzzles, on with what the journal holds where that is wanted.
    ///
    /// # Errors
    /// [`crate::outcome::Interrupted`]; a journal of another run; a failure inside libtorch or of the file system.
    pub fn run(&self, output: &StudyFolder, watcher: &dyn Watcher) -> Result<Vec<PuzzleRun>> {
        let Self { model, items, segments, .. } = *self;
        let dtype = model.config().forward_dtype.short_name();
        let asked =
            RunsIdentity { weights: self.checkpoint.weights_digest(), puzzles: self.puzzles.clone(), segments, dtype };
        let (mut journal, done) = output.journal::<_, PuzzleRun>(self.file, &asked)?;
        let done = done.place(items, |run, item| run.fits(item, segments))?;
        let before = done.iter().flatten().count();
        if before > 0 {
            watcher.line(format_args!("{before} of {} puzzles were run already", items.len()));
        }
        let bar = watcher.bar(items.len(), "run", "puzzles");
        bar.set_position(before as u64);
        let (mut reached, mut solved) = (before, done.iter().flatten().filter(|r| r.solved()).count());
        let started = Instant::now();
        let compute = |batch: &[Puzzle]| run_puzzles(model, batch, segments, LONGEST_CYCLE);
        let found = run_batches(items, self.batch_size, Some(&mut journal), done, compute, |found| {
            reached += found.len();
            solved += found.iter().filter(|r| r.solved()).count();
            bar.inc(found.len() as u64);
            bar.set_message(format!("· exact {:.1} %", 100.0 * solved as f64 / reached as f64));
            if watcher.asked_to_stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        bar.finish_and_clear();
        if found.stopped {
            bail!(interrupted(watcher, found.results.len(), items.len(), output.folder()));
        }
        let seconds = started.elapsed().as_secs_f64();
        if found.results.len() > before {
            let n = found.results.len() - before;
            watcher.line(format_args!(
                "{n} puzzles x {segments} segments in {seconds:.1} s, {:.1} puzzles/s ({dtype} on {})",
                n as f64 / seconds.max(1e-9),
                device_name(model.device())
            ));
        }
        Ok(found.results)
    }
}

/// A model with the puzzles that it was run on.
#[derive(Debug)]
pub struct RunPuzzles {
    pub checkpoint: Checkpoint,
    pub model: Model,
    pub items: Vec<Puzzle>,
    pub runs: Vec<PuzzleRun>,
    pub output: StudyFolder,
    /// What the items' rows are counted in.
    pub origin: String,
}

impl RunPuzzles {
    /// A picture's last line.
    pub fn sources(&self) -> String {
        format!("Puzzles: {} · Weights: {}", self.rows(), weights_name(&self.checkpoint))
    }

    fn rows(&self) -> String {
        let first = self.items.first().map_or(0, |i| i.index());
        format!("test rows {first} to {} of {}", first + self.items.len().saturating_sub(1), self.origin)
    }

    /// What every summary begins with.
    pub fn head(&self, title: &str, pictures: Vec<String>, arrays: Vec<String>) -> Head {
        Head {
            title: title.to_owned(),
            pictures,
            arrays,
            checkpoint: self.checkpoint.path.display().to_string(),
            step: self.checkpoint.step,
            data: self.rows(),
            dtype: self.model.config().forward_dtype.short_name(),
        }
    }
}

/// The first keys of a summary.
#[derive(Debug, Serialize)]
pub struct Head {
    pub title: String,
    pub pictures: Vec<String>,
    /// numpy's files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arrays: Vec<String>,
    pub checkpoint: String,
    pub step: Option<u64>,
    pub data: String,
    pub dtype: &'static str,
}
