//! The host's memory: a program that gets none ends with a sentence.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::TryReserveError,
    io::Write,
    sync::OnceLock,
};

thread_local! {
    /// Whether this thread can do without what it asks for.
    static MAY_FAIL: Cell<bool> = const { Cell::new(false) };
}

static ADVICE: OnceLock<&str> = OnceLock::new();

/// What the line of an end adds, from now on: what to do about it.
pub fn advise(advice: &'static str) {
    // The first one holds: a process runs one command.
    let _ = ADVICE.set(advice);
}

/// An empty vector with room for exactly `length` elements.
///
/// # Errors
/// There is not that much memory.
pub fn with_room<T>(length: usize) -> Result<Vec<T>, TryReserveError> {
    let mut vector = Vec::new();
    MAY_FAIL.set(true);
    let reserved = vector.try_reserve_exact(length);
    MAY_FAIL.set(false);
    reserved.map(|()| vector)
}

/// The system's allocator, but where it has nothing to give the process ends with one line and exit code 1. Rust would
/// abort, as nobody can go on from there.
#[derive(Debug)]
pub struct Allocator;

fn or_end(pointer: *mut u8, size: usize) -> *mut u8 {
    if pointer.is_null() && !MAY_FAIL.get() {
        let mut line = [0; 256];
        let mut rest = &mut line[..];
        let advice = ADVICE.get().copied().unwrap_or_default();
        let _ = writeln!(rest, "error: out of memory: there is no room for {size} bytes more{advice}");
        let length = 256 - rest.len();
        // SAFETY: both calls are sound at any point of a program; nothing is allocated.
        unsafe {
            libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), length);
            libc::_exit(1);
        }
    }
    pointer
}

// SAFETY: the system's allocator does the work; a pointer that is returned is one of its own.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the same contract.
        or_end(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the same contract.
        or_end(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the same contract.
        or_end(unsafe { System.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
