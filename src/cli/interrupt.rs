//! Ctrl-C: the first asks the command to stop at the next safe place, the second ends the process at once.

use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// The exit code of a command that Ctrl-C stopped: 128 + SIGINT, as shells have it.
pub const INTERRUPTED: i32 = 130;

/// Becomes true at the first Ctrl-C. To be called once in a process; where no handler can be set, Ctrl-C goes on
/// ending the process at once.
pub fn flag() -> Arc<AtomicBool> {
    let asked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&asked);
    let _ = ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::SeqCst) {
            process::exit(INTERRUPTED);
        }
    });
    asked
}
