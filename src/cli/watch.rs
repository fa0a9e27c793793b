//! Long work on the terminal: its progress, and its stop at Ctrl-C.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use indicatif::ProgressBar;

use super::ui::Ui;
use crate::{dataset::Progress, signals::stop_flag, study::Watcher};

/// Shows a study on the terminal, and asks it to stop at Ctrl-C.
pub struct StudyWatch {
    ui: Ui,
    stop: Arc<AtomicBool>,
}

impl StudyWatch {
    /// To be made once, when everything that was typed has been checked.
    pub fn new(ui: &Ui) -> Self {
        Self { ui: ui.clone(), stop: stop_flag("stopping after this batch") }
    }

    /// For work that is too short to stop in between.
    pub fn unstoppable(ui: &Ui) -> Self {
        Self { ui: ui.clone(), stop: Arc::default() }
    }
}

impl Watcher for StudyWatch {
    fn line(&self, text: fmt::Arguments<'_>) {
        self.ui.say(text);
    }

    fn bar(&self, total: usize, what: &str, unit: &str) -> ProgressBar {
        self.ui.progress(total as u64, what, unit)
    }

    fn asked_to_stop(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// Shows work on datasets, and stops it at Ctrl-C.
pub struct DatasetWatch {
    bar: OnceLock<ProgressBar>,
    ui: Ui,
    what: &'static str,
    unit: &'static str,
    stop: Arc<AtomicBool>,
}

impl DatasetWatch {
    /// To be called once in a process.
    pub fn new(ui: &Ui, what: &'static str, unit: &'static str) -> Self {
        Self { bar: OnceLock::new(), ui: ui.clone(), what, unit, stop: stop_flag("") }
    }

    /// Goes over to the next piece of work, which has a bar of its own.
    pub fn next(&mut self, what: &'static str, unit: &'static str) {
        self.done();
        (self.bar, self.what, self.unit) = (OnceLock::new(), what, unit);
    }

    /// Removes the bar.
    pub fn done(&self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}

impl Progress for DatasetWatch {
    fn start(&self, total: u64) {
        self.bar.get_or_init(|| self.ui.progress(total, self.what, self.unit));
    }

    fn advance(&self, by: u64) {
        if let Some(bar) = self.bar.get() {
            bar.inc(by);
        }
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
