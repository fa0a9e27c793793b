//! Signals that ask for a stop. The first one asks the command to stop at the next safe place, the same one again ends the
//! process at once. A command that has no such place is ended by the first one, with the same exit code.

use std::{
    mem, ptr,
    sync::{
        Arc, LazyLock, Once, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1},
    low_level,
};

use crate::{outcome::INTERRUPTED, terminal::silent};

/// The signals that ask for a stop.
const STOPPING: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGUSR1];

/// How often each of them came.
static CAME: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];

/// True from the first of them on.
static ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Printed at the first of them.
static NOTE: OnceLock<String> = OnceLock::new();

/// What a signal does: one of the three below.
static MODE: AtomicU8 = AtomicU8::new(END);
/// It ends the process.
const END: u8 = 0;
/// It is noted; the same one again ends the process.
const STOP: u8 = 1;
/// It is noted.
const COUNT: u8 = 2;

/// From now on a signal that asks for a stop ends the process with [`INTERRUPTED`], until [`stop_flag`] is called. What was
/// ignored when the process started stays ignored, such as SIGHUP under nohup.
///
/// Where no handler can be set, a signal ends the process as it does by default.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        LazyLock::force(&ASKED);
        for (signal, came) in STOPPING.into_iter().zip(&CAME).filter(|&(signal, _)| !is_ignored(signal)) {
            // SAFETY: the handler uses atomics and async-signal-safe calls alone.
            let _ = unsafe { low_level::register(signal, move || handle(signal, came)) };
        }
    });
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: without a new action the call only fills the old one, which is plain data.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        libc::sigaction(signal, ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

fn handle(signal: i32, came: &AtomicUsize) {
    let again = came.fetch_add(1, Ordering::SeqCst) > 0 && signal != SIGUSR1;
    let mode = MODE.load(Ordering::SeqCst);
    if mode == END || (mode == STOP && again) {
        // SAFETY: async-signal-safe. No destructor runs: a library may be in use.
        unsafe { libc::_exit(INTERRUPTED.into()) };
    }
    let first = !ASKED.swap(true, Ordering::SeqCst);
    if let Some(note) = NOTE.get().filter(|_| first && mode == STOP && !silent()) {
        // SAFETY: async-signal-safe; the text stays where it is.
        unsafe { libc::write(libc::STDERR_FILENO, note.as_ptr().cast(), note.len()) };
    }
}

/// The flag that becomes true at the first signal, which also prints `note`, if there is one; the first note of a process
/// holds. The same signal again ends the process with [`INTERRUPTED`]: a batch system may send SIGUSR1 and then SIGTERM,
/// and the second must not cut off what the first began. SIGUSR1 may come any number of times.
pub fn stop_flag(note: &str) -> Arc<AtomicBool> {
    install();
    if !note.is_empty() {
        NOTE.get_or_init(|| format!("\n{note}\n"));
    }
    MODE.store(STOP, Ordering::SeqCst);
    Arc::clone(&ASKED)
}

/// Whether a signal came. Waits look at it.
pub fn asked_to_stop() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// The signals that a process hands on to others. While it exists they do nothing else.
#[derive(Debug)]
pub struct HandedOn([usize; 4]);

impl HandedOn {
    /// Begins to collect signals.
    pub fn new() -> Self {
        install();
        MODE.store(COUNT, Ordering::SeqCst);
        Self(CAME.each_ref().map(|came| came.load(Ordering::SeqCst)))
    }

    /// The signals that came since the last call, each once.
    pub fn pending(&mut self) -> Vec<i32> {
        let came = CAME.each_ref().map(|came| came.load(Ordering::SeqCst));
        let before = mem::replace(&mut self.0, came);
        STOPPING.into_iter().zip(before).zip(came).filter(|((_, was), is)| is > was).map(|((s, _), _)| s).collect()
    }

    /// Whether one that asks for a stop came again: then all is to end at once.
    pub fn insists(&self) -> bool {
        STOPPING.into_iter().zip(self.0).any(|(signal, came)| came > 1 && signal != SIGUSR1)
    }
}

impl Default for HandedOn {
    fn default() -> Self {
        Self::new()
    }
}

/// A write beyond the user's file size limit fails like a full disk, with an error that names the file; by default it
/// kills the process.
pub fn file_size_limits_are_errors() {
    // SAFETY: ignoring a signal installs no handler.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}
