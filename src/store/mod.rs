//! Files and folders that are there completely or not at all, and never in place of what somebody else put there.
//!
//! Every output is placed here: [`write_file`] places a file, [`Staging`] a folder. Both write beside the place, under a
//! name `.NAME.XXXXXX.part` that is locked while its process lives, bring it onto the disk and rename it. What a killed
//! process leaves under such a name is removed when the same output is written the next time.

mod folder;
mod leftovers;
mod place;
mod rename;

use std::{
    fs::{self, File, TryLockError},
    path::Path,
};

use anyhow::{Context, Result};

use crate::input;

pub use folder::Staging;
pub use leftovers::clear_leftovers;
pub use place::{Unplaced, check_output, is_stream, replace_locked, same_place, write_bytes, write_file, write_npy};
pub use rename::rename_new;

/// What to do with what stands where an output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and is an error.
    Refuse,
    /// The same work left it: a journal is gone on with, a file of the same contents is left alone. Others are an error.
    Resume,
    /// It is replaced.
    Replace,
}

/// Whether a process holds the lock of the file at `path`, see [`take_lock`]; false where there is no file.
pub fn is_locked(path: &Path) -> bool {
    input::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Takes a file's advisory lock, which its closing gives back; false where another process has it. Some network file
/// systems know no locks; there nothing keeps two processes apart.
pub fn take_lock(file: &File) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// Whether `path` still names this open file: another process may have replaced or removed it.
pub fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let number = |of: &fs::Metadata| (of.dev(), of.ino());
        matches!((file.metadata(), fs::metadata(path)), (Ok(open), Ok(there)) if number(&open) == number(&there))
    }
    #[cfg(not(unix))]
    path.exists()
}

/// Makes a folder and its parents, and makes the entry of the last one durable.
///
/// # Errors
/// Those of the file system, with the path.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("{}: cannot make the folder", path.display()))?;
    sync_folder(folder_of(path))
}

/// Makes renames in a folder survive a power failure.
///
/// # Errors
/// Those of the file system, with the path.
pub fn sync_folder(path: &Path) -> Result<()> {
    let folder = File::open(path).with_context(|| format!("{}: cannot open the folder", path.display()))?;
    folder.sync_all().with_context(|| format!("{}: cannot sync the folder", path.display()))
}

/// The folder that a path is in.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
