//! Renames that replace nothing, and those that leave no moment without one of two.

use std::{fs, io, path::Path};

/// Gives the file at `from` the name `to`.
///
/// # Errors
/// Those of the file system: [`io::ErrorKind::AlreadyExists`] where anything has that name.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match with_flag(from, to, NO_REPLACE) {
        Err(e) if is_unsupported(&e) => {}
        done => return done,
    }
    if from.is_dir() {
        // A folder can replace an empty one alone.
        return fs::rename(from, to);
    }
    fs::hard_link(from, to)?;
    fs::remove_file(from)
}

/// Lets two files or folders change places.
///
/// # Errors
/// Those of the file system; one for which [`is_unsupported`] holds where it has no such operation.
pub(super) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    with_flag(one, other, EXCHANGE)
}

/// Whether the system or the file system cannot do what was asked at all.
pub(super) fn is_unsupported(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::Unsupported
        || [libc::EINVAL, libc::ENOSYS, libc::ENOTSUP].iter().any(|&code| e.raw_os_error() == Some(code))
}

#[cfg(target_os = "linux")]
const NO_REPLACE: u32 = libc::RENAME_NOREPLACE;
#[cfg(target_os = "linux")]
const EXCHANGE: u32 = libc::RENAME_EXCHANGE;

#[cfg(target_os = "linux")]
fn with_flag(from: &Path, to: &Path, flag: u32) -> io::Result<()> {
    use std::{ffi::CString, os::unix::ffi::OsStrExt};
    let [from, to] = [from, to].map(|path| CString::new(path.as_os_str().as_bytes()));
    let (from, to) = (from?, to?);
    // SAFETY: both are strings that end in NUL and live through the call.
    let done = unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flag) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
const NO_REPLACE: u32 = 1;
#[cfg(not(target_os = "linux"))]
const EXCHANGE: u32 = 2;

#[cfg(not(target_os = "linux"))]
fn with_flag(_: &Path, _: &Path, _: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
