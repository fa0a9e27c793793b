//! Ctrl-C, SIGTERM and SIGUSR1: the first asks the command to stop at the next safe place; a second Ctrl-C or SIGTERM ends
//! the process at once.

use std::{
    io::Write,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Result;

use super::ui;
pub use crate::runtime::launch::INTERRUPTED;
use crate::runtime::launch::LaunchEnd;

/// Ends the process as its ranks ended.
pub fn end_as(end: LaunchEnd) -> Result<()> {
    match end {
        LaunchEnd::Done => Ok(()),
        LaunchEnd::Interrupted => process::exit(INTERRUPTED),
    }
}

/// Becomes true at the first signal, which also prints `note` for people, if there is one. To be called once in a
/// process; where no handler can be set, a signal goes on ending the process at once.
pub fn flag(note: &'static str) -> Arc<AtomicBool> {
    let asked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&asked);
    // What batch systems send before they end a job.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&asked));
    let _ = ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::SeqCst) {
            process::exit(INTERRUPTED);
        }
        if !note.is_empty() && !ui::silent() {
            let _ = writeln!(std::io::stderr().lock(), "\n{note}");
        }
    });
    asked
}

/// A write beyond the user's file size limit should fail like a full disk, with an error that names the file; by
/// default it kills the process.
pub fn file_size_limits_are_errors() {
    #[cfg(unix)]
    // SAFETY: ignoring a signal installs no handler.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}
