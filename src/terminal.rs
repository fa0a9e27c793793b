//! Progress bars on standard error, and whether this process may show anything.

use std::{
    io::{self, IsTerminal},
    sync::atomic::{AtomicBool, Ordering},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

static SILENT: AtomicBool = AtomicBool::new(false);

/// One of several processes speaks for all: the others print nothing but errors from now on.
pub fn only_errors(on: bool) {
    SILENT.store(on, Ordering::SeqCst);
}

/// Whether [`only_errors`] is on.
pub fn silent() -> bool {
    SILENT.load(Ordering::SeqCst)
}

/// A progress bar with rate and time to go; silent where standard error is no terminal.
pub fn progress_bar(len: u64, what: &str, unit: &str) -> ProgressBar {
    if silent() || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr());
    let style = format!(
        "{what} {{bar:30}} {{human_pos}}/{{human_len}} {unit} · {{per_sec}} · {{elapsed}} · {{eta}} to go {{msg}}"
    );
    bar.set_style(ProgressStyle::with_template(&style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
