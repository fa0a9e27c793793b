//! Signals that ask for a stop. The first one asks the command to stop at the next safe place, a second one ends the
//! process at once.

use std::{
    mem, ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1},
    low_level,
};

use crate::{outcome::INTERRUPTED, terminal::silent};

/// The signals that ask for a stop and may be handled: what was ignored when the process started stays ignored, such as
/// SIGHUP under nohup.
pub fn stop_signals() -> impl Iterator<Item = i32> {
    [SIGINT, SIGTERM, SIGHUP, SIGUSR1].into_iter().filter(|&signal| !is_ignored(signal))
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: without a new action the call only fills the old one, which is plain data.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        libc::sigaction(signal, ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// A flag that becomes true at the first signal, which also prints `note`, if there is one. A second signal ends the
/// process with [`INTERRUPTED`], and no destructor runs: a library may be in use. SIGUSR1, which batch systems send before
/// they end a job, only sets the flag.
///
/// Where no handler can be set, a signal ends the process at once.
pub fn stop_flag(note: &str) -> Arc<AtomicBool> {
    let asked = Arc::new(AtomicBool::new(false));
    let text: Arc<str> = if note.is_empty() { "".into() } else { format!("\n{note}\n").into() };
    for signal in stop_signals() {
        let (asked, text) = (Arc::clone(&asked), Arc::clone(&text));
        let handler = move || {
            let again = asked.swap(true, Ordering::SeqCst);
            if signal == SIGUSR1 {
                return;
            }
            // SAFETY: both calls are async-signal-safe; the text outlives the handler.
            unsafe {
                if again {
                    libc::_exit(INTERRUPTED.into());
                }
                if !text.is_empty() && !silent() {
                    libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
                }
            }
        };
        // SAFETY: the handler uses atomics and async-signal-safe calls alone.
        let _ = unsafe { low_level::register(signal, handler) };
    }
    asked
}

/// A write beyond the user's file size limit fails like a full disk, with an error that names the file; by default it
/// kills the process.
pub fn file_size_limits_are_errors() {
    // SAFETY: ignoring a signal installs no handler.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}
