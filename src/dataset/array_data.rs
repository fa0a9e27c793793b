//! The elements of an array file, which must stay what they were while they are in use.
//!
//! They are read where they are wanted and not mapped: a mapped file that somebody cuts short ends the process by SIGBUS,
//! and one that is overwritten changes what was checked.

use std::{
    fs::File,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result, ensure};

/// Bytes that are read at a time where all are looked at.
const CHUNK: usize = 1 << 20;

/// What tells that a file was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { bytes: metadata.len(), modified: metadata.modified().ok() })
    }
}

/// Elements in a file, behind its header.
#[derive(Debug)]
pub(super) struct ArrayData {
    path: PathBuf,
    file: File,
    start: u64,
    bytes: usize,
    stamp: Stamp,
}

impl ArrayData {
    /// The bytes of `file` from `start` to its end.
    pub(super) fn new(path: &Path, file: File, start: usize) -> Result<Self> {
        let stamp = Stamp::of(&file).with_context(|| path.display().to_string())?;
        let start = start as u64;
        let bytes = usize::try_from(stamp.bytes.saturating_sub(start))?;
        Ok(Self { path: path.to_owned(), file, start, bytes, stamp })
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Copies bytes from `at` on, which must be there. Whether they are what they were is told by
    /// [`ArrayData::check_unchanged`] afterwards.
    ///
    /// # Errors
    /// A file that was cut short; those of the file system.
    pub(super) fn copy(&self, at: usize, out: &mut [u8]) -> Result<()> {
        match read_exact_at(&self.file, out, self.start + at as u64) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => self.check_unchanged(),
            read => read.with_context(|| format!("{}: cannot be read", self.path.display())),
        }
    }

    /// Whether nobody wrote to the file since it was opened.
    ///
    /// # Errors
    /// The file was changed or cut short.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        let now = Stamp::of(&self.file).with_context(|| self.path.display().to_string())?;
        ensure!(
            now == self.stamp,
            "{}: was changed while it was in use; a dataset may be replaced by another one, but not written to",
            self.path.display()
        );
        Ok(())
    }

    /// Shows all bytes in order, in parts whose lengths are multiples of `size` as far as the whole is.
    ///
    /// # Errors
    /// Those of `act`; a file that was changed; those of the file system.
    pub(super) fn each_chunk(&self, size: usize, mut act: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut buffer = vec![0; (CHUNK / size * size).min(self.bytes)];
        for at in (0..self.bytes).step_by(buffer.len().max(1)) {
            let part = buffer.len().min(self.bytes - at);
            self.copy(at, &mut buffer[..part])?;
            act(&buffer[..part])?;
        }
        self.check_unchanged()
    }

    /// All bytes.
    ///
    /// # Errors
    /// As [`ArrayData::each_chunk`].
    pub(super) fn to_vec(&self) -> Result<Vec<u8>> {
        let mut all = vec![0; self.bytes];
        self.copy(0, &mut all)?;
        self.check_unchanged()?;
        Ok(all)
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, out: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, at)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut out: &mut [u8], mut at: u64) -> io::Result<()> {
    while !out.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, out, at)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        (out, at) = (&mut out[read..], at + read as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn data(file: &tempfile::NamedTempFile, start: usize) -> ArrayData {
        ArrayData::new(file.path(), File::open(file.path()).unwrap(), start).unwrap()
    }

    #[test]
    fn bytes_behind_the_header_are_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..3 * CHUNK + 8).map(|i| (i % 251) as u8).collect();
        fs::write(file.path(), &content).unwrap();
        let data = data(&file, 8);
        let mut seen: Vec<u8> = Vec::new();
        data.each_chunk(3, |part| {
            assert!(part.len().is_multiple_of(3) || seen.len() + part.len() == data.len());
            seen.extend(part);
            Ok(())
        })
        .unwrap();
        assert!(seen == content[8..] && data.to_vec().unwrap() == seen);
        let mut some = [0; 5];
        data.copy(10, &mut some).unwrap();
        assert_eq!(some, content[18..23]);
    }

    #[test]
    fn a_file_that_is_changed_in_use_is_an_error() {
        let changes: [fn(&File) -> io::Result<()>; 2] = [
            |file| file.set_len(9),
            |file| file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(7)),
        ];
        for change in changes {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), [1; 32]).unwrap();
            let data = data(&file, 8);
            data.check_unchanged().unwrap();
            change(file.as_file()).unwrap();
            let read = data.copy(0, &mut [0; 24]).and_then(|()| data.check_unchanged());
            assert!(read.unwrap_err().to_string().contains("was changed while it was in use"));
            assert!(data.to_vec().is_err() && data.each_chunk(1, |_| Ok(())).is_err());
        }
    }
}
