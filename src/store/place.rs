//! Where an output goes, and how a file gets there.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use ndarray_npy::WriteNpyExt;
use tempfile::TempPath;
use thiserror::Error;

use super::{Existing, clear_leftovers, folder_of, is_at, leftovers, rename::rename_new, sync_folder, take_lock};

use crate::input;

/// So many links may lead to each other.
const LINKS: usize = 40;

/// Why nothing can be written at a path. The path itself is left to the caller.
#[derive(Debug, Error)]
pub enum Unplaced {
    /// No name.
    #[error("an empty name: give a file")]
    Empty,
    /// A folder.
    #[error("this is a folder: give a file")]
    Folder,
    /// A disk.
    #[error("a block device is no place for results: give a file")]
    BlockDevice,
    /// Links without end.
    #[error("links that lead to each other")]
    Links,
    /// Its folder is missing.
    #[error("there is no folder {}: make it first", .0.display())]
    NoFolder(PathBuf),
    /// Something that must stay.
    #[error("is there already: --force replaces it, another name keeps it")]
    Taken,
    /// Something that the same work has not left.
    #[error("is there already, with other contents: move it away, or --force replaces it")]
    Other,
    /// What the file system says.
    #[error("cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// Where an output really goes.
enum Target {
    /// A regular file, there or not; no link.
    File(PathBuf),
    /// A pipe or a character device: it is written to.
    Stream(PathBuf),
    /// A descriptor of this process, as `/dev/stdout` and `/dev/fd/3` name it: what it leads to is written to.
    Descriptor(i32),
}

impl Target {
    /// Follows the links at `path`.
    fn of(path: &Path) -> Result<Self, Unplaced> {
        if path.as_os_str().is_empty() {
            return Err(Unplaced::Empty);
        }
        let mut place = path.to_owned();
        for _ in 0..LINKS {
            if let Some(descriptor) = own_descriptor(&place) {
                return Ok(Self::Descriptor(descriptor));
            }
            let kind = match fs::symlink_metadata(&place) {
                Ok(there) => there.file_type(),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    let folder = folder_of(&place);
                    return match place.file_name() {
                        None => Err(Unplaced::Folder),
                        Some(_) if !folder.is_dir() => Err(Unplaced::NoFolder(folder.to_owned())),
                        Some(_) => Ok(Self::File(place)),
                    };
                }
                Err(e) => return Err(e.into()),
            };
            if kind.is_symlink() {
                place = folder_of(&place).join(fs::read_link(&place)?);
                continue;
            }
            return match kind {
                kind if kind.is_dir() => Err(Unplaced::Folder),
                kind if kind.is_file() => Ok(Self::File(place)),
                kind if is_block_device(kind) => Err(Unplaced::BlockDevice),
                _ => Ok(Self::Stream(place)),
            };
        }
        Err(Unplaced::Links)
    }
}

#[cfg(unix)]
fn is_block_device(kind: fs::FileType) -> bool {
    std::os::unix::fs::FileTypeExt::is_block_device(&kind)
}

#[cfg(not(unix))]
fn is_block_device(_: fs::FileType) -> bool {
    false
}

/// The number of the open file of this process that `path` names, as `/proc/self/fd/N` does.
fn own_descriptor(path: &Path) -> Option<i32> {
    let number = path.file_name()?.to_str()?.parse().ok()?;
    let folder = fs::canonicalize(folder_of(path)).ok()?;
    let own = Path::new("/proc").join(std::process::id().to_string());
    (folder.starts_with(own) && folder.ends_with("fd")).then_some(number)
}

#[cfg(unix)]
fn opened(descriptor: i32) -> io::Result<File> {
    use std::os::fd::BorrowedFd;
    // SAFETY: the descriptor is looked at in this call only, and one that is not open is an error of it.
    Ok(File::from(unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()?))
}

#[cfg(not(unix))]
fn opened(_: i32) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether `path` is a pipe, a character device or an open descriptor, which [`write_file`] writes to and never replaces.
pub fn is_stream(path: &Path) -> bool {
    matches!(Target::of(path), Ok(Target::Stream(_) | Target::Descriptor(_)))
}

/// Whether both paths lead to the same file, there or not.
pub fn same_place(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| match Target::of(path) {
        Ok(Target::File(file)) => Some((fs::canonicalize(folder_of(&file)).ok()?, file.file_name()?.to_owned())),
        _ => None,
    };
    matches!((place(one), place(other)), (Some(one), Some(other)) if one == other)
}

/// Whether a file can be placed at `path`; to be asked before the work whose result goes there. Nothing is changed.
///
/// # Errors
/// What stands in the way. With [`Existing::Resume`] the contents of a file that is there are left to [`write_file`].
pub fn check_output(path: &Path, existing: Existing) -> Result<(), Unplaced> {
    match Target::of(path)? {
        Target::Descriptor(descriptor) => drop(opened(descriptor)?),
        // To open a pipe and close it again would end it for its reader.
        Target::Stream(_) => {}
        Target::File(place) => {
            if place.exists() {
                if existing == Existing::Refuse {
                    return Err(Unplaced::Taken);
                }
                OpenOptions::new().append(true).open(&place)?;
            }
            tempfile::tempfile_in(folder_of(&place))?;
        }
    }
    Ok(())
}

/// Places a file with what `write` writes. Links are followed. A regular file appears whole or not at all, and what was
/// there stays until then; a pipe, a character device and an open descriptor are written to.
///
/// # Errors
/// [`Unplaced`], those of `write` and of the file system, with the path. No temporary file stays behind.
pub fn write_file(path: &Path, existing: Existing, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let at = || path.display().to_string();
    let cannot = || format!("{}: cannot write", path.display());
    let place = match Target::of(path).with_context(at)? {
        Target::File(place) => place,
        Target::Stream(stream) => {
            return write(&mut OpenOptions::new().write(true).open(stream).with_context(cannot)?).with_context(cannot);
        }
        Target::Descriptor(descriptor) => {
            return write(&mut opened(descriptor).with_context(cannot)?).with_context(cannot);
        }
    };
    if existing == Existing::Refuse && fs::symlink_metadata(&place).is_ok() {
        return Err(Unplaced::Taken).with_context(at);
    }
    clear_leftovers(&place);
    let mut temporary = Temporary::beside(&place).with_context(cannot)?;
    write(&mut temporary.file).with_context(cannot)?;
    temporary.file.sync_all().with_context(cannot)?;
    temporary.place(&place, existing).with_context(at)?;
    sync_folder(folder_of(&place))
}

/// Puts a new file with what `write` writes in the place of a locked one. Returns it open, and locked as well.
///
/// # Errors
/// As [`write_file`].
pub fn replace_locked(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<File> {
    let cannot = || format!("{}: cannot write", path.display());
    let place = fs::canonicalize(path).with_context(cannot)?;
    let mut temporary = Temporary::beside(&place).with_context(cannot)?;
    write(&mut temporary.file).with_context(cannot)?;
    let file = temporary.place(&place, Existing::Replace).with_context(|| path.display().to_string())?;
    sync_folder(folder_of(&place))?;
    Ok(file)
}

/// [`write_file`] for bytes that are there already.
///
/// # Errors
/// As [`write_file`].
pub fn write_bytes(path: &Path, existing: Existing, bytes: &[u8]) -> Result<()> {
    write_file(path, existing, |file| Ok(file.write_all(bytes)?))
}

/// [`write_file`] for an array, as numpy's `.npy`.
///
/// # Errors
/// As [`write_file`].
pub fn write_npy(path: &Path, existing: Existing, array: &impl WriteNpyExt) -> Result<()> {
    write_file(path, existing, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        array.write_npy(&mut out)?;
        Ok(out.flush()?)
    })
}

/// A file beside its place, locked, removed unless it is placed.
pub(super) struct Temporary {
    pub(super) file: File,
    path: TempPath,
}

impl Temporary {
    /// # Errors
    /// Those of the file system.
    pub(super) fn beside(place: &Path) -> io::Result<Self> {
        loop {
            let made = leftovers::beside(place, |builder, folder| {
                // The umask still applies; without this the file would be readable by its owner alone.
                #[cfg(unix)]
                builder.permissions(<Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666));
                builder.tempfile_in(folder)
            });
            let (file, path) = made?.into_parts();
            // Before it was locked, another process may have taken it for a leftover.
            if take_lock(&file) && is_at(&file, &path) {
                return Ok(Self { file, path });
            }
        }
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// [`Unplaced`].
    pub(super) fn place(mut self, place: &Path, existing: Existing) -> Result<File, Unplaced> {
        let placed = match existing {
            Existing::Replace => {
                if let Ok(there) = fs::metadata(place) {
                    // A file that others may not read stays so.
                    let _ = self.file.set_permissions(there.permissions());
                }
                fs::rename(&self.path, place)
            }
            Existing::Refuse | Existing::Resume => rename_new(&self.path, place),
        };
        match placed {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && existing == Existing::Refuse => Err(Unplaced::Taken),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && existing == Existing::Resume => {
                if same_contents(&mut self.file, place)? { Ok(self.file) } else { Err(Unplaced::Other) }
            }
            Err(e) => Err(e.into()),
            Ok(()) => {
                // Its name is another one now: there is nothing left to remove.
                let _ = self.path.keep();
                Ok(self.file)
            }
        }
    }
}

fn same_contents(written: &mut File, place: &Path) -> io::Result<bool> {
    use io::Seek;
    let there = fs::symlink_metadata(place)?;
    if !there.is_file() || there.len() != written.metadata()?.len() {
        return Ok(false);
    }
    written.rewind()?;
    let Ok(there) = input::open_with(OpenOptions::new().read(true), place)? else { return Ok(false) };
    let (mut ours, mut theirs) = (io::BufReader::new(written), io::BufReader::new(there));
    let (mut a, mut b) = ([0; 1 << 12], [0; 1 << 12]);
    loop {
        let read = ours.read(&mut a)?;
        if read == 0 {
            return Ok(true);
        }
        if theirs.read_exact(&mut b[..read]).is_err() || a[..read] != b[..read] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn refusal(done: Result<()>) -> Unplaced {
        done.unwrap_err().downcast().unwrap()
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_bytes(&path, Existing::Refuse, b"old").unwrap();
        let failed = write_file(&path, Existing::Replace, |file| {
            file.write_all(b"half of the n")?;
            bail!("disk on fire")
        });
        assert!(format!("{:#}", failed.unwrap_err()).contains("disk on fire"));
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"old".to_vec(), vec!["x".into()]));
        write_bytes(&path, Existing::Replace, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn what_is_there_is_replaced_only_where_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "old").unwrap();
        assert!(matches!(refusal(write_bytes(&path, Existing::Refuse, b"new")), Unplaced::Taken));
        assert!(matches!(refusal(write_bytes(&path, Existing::Resume, b"new")), Unplaced::Other));
        write_bytes(&path, Existing::Resume, b"old").unwrap();
        assert!(matches!(check_output(&path, Existing::Refuse), Err(Unplaced::Taken)));
        check_output(&path, Existing::Resume).unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"old".to_vec(), vec!["x".into()]));
    }

    #[test]
    fn what_appears_while_an_output_is_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        for existing in [Existing::Refuse, Existing::Resume] {
            let path = dir.path().join(format!("{existing:?}"));
            let done = write_file(&path, existing, |file| {
                fs::write(&path, "mine")?;
                Ok(file.write_all(b"ours")?)
            });
            assert!(matches!(refusal(done), Unplaced::Taken | Unplaced::Other));
            assert_eq!(fs::read(&path).unwrap(), b"mine");
        }
        assert_eq!(names(dir.path()), ["Refuse", "Resume"]);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let theirs =
            [".x.abcdef.part.gz", ".x.abcde.part", ".x.abc-ef.part", ".y.abcdef.part", ".x.part", ".x.abcdef.old"];
        for name in theirs.iter().chain(&[".x.abcdef.part", ".x.locked.part"]) {
            fs::write(path(name), "").unwrap();
        }
        fs::create_dir(path(".x.folder.part")).unwrap();
        let living = File::open(path(".x.locked.part")).unwrap();
        assert!(take_lock(&living));
        write_bytes(&path("x"), Existing::Refuse, b"").unwrap();
        let mut wanted: Vec<&str> = theirs.iter().copied().chain([".x.locked.part", "x"]).collect();
        wanted.sort_unstable();
        assert_eq!(names(dir.path()), wanted);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = write_bytes(Path::new("/nonexistent/folder/x"), Existing::Refuse, b"").unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Unplaced::NoFolder(folder)) if folder.ends_with("folder")));
        assert!(format!("{error:#}").starts_with("/nonexistent/folder/x: "));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("real")).unwrap();
        std::os::unix::fs::symlink("real/file", path("link")).unwrap();
        std::os::unix::fs::symlink("loop", path("loop")).unwrap();
        write_bytes(&path("link"), Existing::Refuse, b"one").unwrap();
        assert!(matches!(refusal(write_bytes(&path("link"), Existing::Refuse, b"two")), Unplaced::Taken));
        write_bytes(&path("link"), Existing::Replace, b"two").unwrap();
        assert!(path("link").is_symlink() && !path("real/file").is_symlink());
        assert_eq!(
            (fs::read(path("real/file")).unwrap(), names(&path("real"))),
            (b"two".to_vec(), vec!["file".into()])
        );
        assert!(same_place(&path("link"), &path("real/../real/file")) && !same_place(&path("link"), &path("file")));
        assert!(matches!(refusal(write_bytes(&path("loop"), Existing::Replace, b"")), Unplaced::Links));
    }

    #[cfg(unix)]
    #[test]
    fn a_private_file_stays_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_bytes(&path, Existing::Refuse, b"old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        write_bytes(&path, Existing::Replace, b"new").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn pipes_devices_and_descriptors_are_written_to() {
        use std::os::{fd::AsRawFd, unix::fs::FileTypeExt};
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let read = {
            let pipe = pipe.clone();
            std::thread::spawn(move || fs::read(pipe).unwrap())
        };
        write_bytes(&pipe, Existing::Refuse, b"through the pipe").unwrap();
        assert_eq!(read.join().unwrap(), b"through the pipe");
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        write_bytes(Path::new("/dev/null"), Existing::Replace, b"x").unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());

        let mut file = File::create(dir.path().join("open")).unwrap();
        file.write_all(b"text, ").unwrap();
        let names = [format!("/dev/fd/{}", file.as_raw_fd()), format!("/proc/self/fd/{}", file.as_raw_fd())];
        for name in &names {
            assert!(is_stream(Path::new(name)));
            write_bytes(Path::new(name), Existing::Refuse, b"json, ").unwrap();
        }
        file.write_all(b"text").unwrap();
        assert_eq!(fs::read(dir.path().join("open")).unwrap(), b"text, json, json, text");
        assert!(matches!(check_output(Path::new("/dev/fd/999"), Existing::Replace), Err(Unplaced::Io(_))));
    }
}
