//! Files that are there completely or not at all.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::{Context, Result};
use ndarray_npy::WriteNpyExt;
use tempfile::Builder;

use crate::input;

/// Whether a process holds the lock of the file at `path`, see [`take_lock`]; false where there is no file.
pub fn is_locked(path: &Path) -> bool {
    input::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Writes a file through `write`: a temporary file in the same folder, fsync, rename, fsync of the folder. A reader
/// sees the old file or the new one; a failure leaves the old one and no temporary file.
///
/// # Errors
/// Those of `write` and of the file system, with the path.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let at = || format!("{}: cannot write", path.display());
    let folder = folder_of(path);
    let name = path.file_name().with_context(|| format!("{}: names no file", path.display()))?;
    let mut builder = Builder::new();
    let prefix = format!(".{}.", name.to_string_lossy());
    builder.prefix(&prefix).suffix(".part");
    // The umask still applies; without this the file would be readable by its owner alone.
    #[cfg(unix)]
    builder.permissions(<Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666));
    let mut temporary = builder.tempfile_in(folder).with_context(at)?;
    write(temporary.as_file_mut()).with_context(at)?;
    temporary.as_file().sync_all().with_context(at)?;
    temporary.persist(path).map_err(|e| e.error).with_context(at)?;
    sync_folder(folder)
}

/// [`write_atomic`] for bytes that are there already.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic(path, |file| Ok(file.write_all(bytes)?))
}

/// [`write_atomic`] for an array, as numpy's `.npy`.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_npy(path: &Path, array: &impl WriteNpyExt) -> Result<()> {
    write_atomic(path, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        array.write_npy(&mut out)?;
        Ok(out.flush()?)
    })
}

/// Takes a file's advisory lock, which its closing gives back; false where another process has it. Some network file
/// systems know no locks; there nothing keeps two processes apart.
pub fn take_lock(file: &File) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
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

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_bytes(&path, b"old").unwrap();
        let failed = write_atomic(&path, |file| {
            file.write_all(b"half of the n")?;
            bail!("disk on fire")
        });
        assert!(format!("{:#}", failed.unwrap_err()).contains("disk on fire"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the temporary file is gone");
        write_bytes(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = write_bytes(Path::new("/nonexistent/folder/x"), b"").unwrap_err();
        assert!(format!("{error:#}").contains("/nonexistent/folder/x"));
    }
}
