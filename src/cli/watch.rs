//! Long work on the terminal: its progress, and its stop at Ctrl-C.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
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
    ui: Ui,
    bar: Mutex<ProgressBar>,
    stop: Arc<AtomicBool>,
}

impl DatasetWatch {
    /// To be called once in a process.
    pub fn new(ui: &Ui) -> Self {
        Self { ui: ui.clone(), bar: Mutex::new(ProgressBar::hidden()), stop: stop_flag("") }
    }

    fn bar(&self) -> MutexGuard<'_, ProgressBar> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for DatasetWatch {
    fn start(&self, what: &'static str, total: u64, unit: &'static str) {
        self.done();
        *self.bar() = self.ui.progress(total, what, unit);
    }

    fn done(&self) {
        std::mem::replace(&mut *self.bar(), ProgressBar::hidden()).finish_and_clear();
    }

    fn note(&self, text: fmt::Arguments<'_>) {
        self.bar().suspend(|| self.ui.say(text));
    }

    fn advance(&self, by: u64) {
        self.bar().inc(by);
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Drop for DatasetWatch {
    fn drop(&mut self) {
        self.done();
    }
}
