//! The long analyses as commands run them: an output folder with a journal that a stopped run goes on with, the work,
//! pictures and documents. What is computed is in [`crate::analysis`], how it is drawn in [`crate::viz`].

pub mod attention;
pub mod cells;
pub mod landscape;
pub mod modes;
mod output;
pub mod report;
pub mod runs;
pub mod segments;
pub mod stability;
pub mod trace;
pub mod trajectory;

use std::{fmt, path::Path};

use indicatif::ProgressBar;

use crate::{model::Model, outcome::Interrupted};

pub use output::{Files, StudyFolder, save_picture};

/// Puzzles or points that go through the model together where nothing better is known.
const CPU_BATCH: usize = 64;

/// Who watches a study: hears how far it is, and may stop it.
pub trait Watcher {
    /// A line for people.
    fn line(&self, text: fmt::Arguments<'_>);
    /// A progress bar over `total` things of a `unit`.
    fn bar(&self, total: usize, what: &str, unit: &str) -> ProgressBar;
    /// Whether the study shall stop after this batch.
    fn asked_to_stop(&self) -> bool;
}

/// Tells how far a study that was asked to stop came; `place` holds what it found.
fn interrupted(watcher: &dyn Watcher, done: usize, total: usize, place: &Path) -> Interrupted {
    let place = place.display();
    watcher.line(format_args!(
        "interrupted after {done} of {total}; the results so far are in {place}, --resume continues"
    ));
    Interrupted::TOLD
}

/// Rows of a batch: what was asked for, else what fills a GPU, else a number that is good for a CPU.
pub fn batch_size(asked: Option<u64>, model: &Model) -> usize {
    let asked = asked.and_then(|n| usize::try_from(n).ok());
    asked.or_else(|| model.filling_batch(0)).unwrap_or(CPU_BATCH)
}

/// A share as text.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// An interval of shares as text.
pub fn between(interval: &crate::eval::stats::Interval) -> String {
    format!("[{:.1}, {:.1}]", 100.0 * interval.low, 100.0 * interval.high)
}
