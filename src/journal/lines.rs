//! Files of lines that grow while work goes on, written by one process at a time.
//!
//! A last line without its end was being written when a process died. Readers ([`Lines`]) pass over it, writers cut it off.

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::{
    input::{self, Lines},
    store::{self, is_at, take_lock},
};

/// A file of lines that is open for appending, locked until it is dropped.
#[derive(Debug)]
pub struct LineFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl LineFile {
    /// Opens the file, made if it is missing. Nothing in it changes.
    ///
    /// # Errors
    /// A pipe or a device; one that cannot be written; one that another process has open, with `busy` as the reason.
    pub fn open(path: &Path, busy: &str) -> Result<Self> {
        let at = || format!("{}: cannot be written", path.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = input::open_with(&mut options, path).with_context(at)??;
        // One that was replaced in between is nobody's any more.
        ensure!(take_lock(&file) && is_at(&file, path), "{}: {busy}", path.display());
        file.seek(SeekFrom::End(0)).with_context(at)?;
        Ok(Self { path: path.to_owned(), file: BufWriter::with_capacity(1 << 16, file) })
    }

    /// Puts a new file with `first` as its line in the place of an open one, which is there until then.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn replaced(self, first: &impl Serialize) -> Result<Self> {
        let file = store::replace_locked(&self.path, |file| write_line(file, first))?;
        Ok(Self { path: self.path, file: BufWriter::with_capacity(1 << 16, file) })
    }

    /// Whether nothing was written yet.
    ///
    /// # Errors
    /// Those of the file system, with the path; as all that follow.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.file.get_ref().metadata().with_context(|| self.at())?.len() == 0)
    }

    /// Its lines from the first; to be followed by [`LineFile::cut`] before anything is written.
    pub fn lines(&mut self, longest: usize) -> Result<Lines<&File>> {
        let at = self.at();
        self.file.get_mut().seek(SeekFrom::Start(0)).context(at)?;
        Ok(Lines::new(&self.path, self.file.get_ref(), longest))
    }

    /// Cuts off what stands behind the first `end` bytes, and goes on there.
    pub fn cut(&mut self, end: u64) -> Result<()> {
        let at = self.at();
        let file = self.file.get_mut();
        file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).context(at)?;
        Ok(())
    }

    /// Adds a line, which reaches the file at the next [`LineFile::flush`].
    pub fn write(&mut self, value: &impl Serialize) -> Result<()> {
        write_line(&mut self.file, value).with_context(|| self.at())
    }

    /// Hands everything written so far to the system.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().with_context(|| format!("{}: cannot be written", self.path.display()))
    }

    /// Brings everything written so far onto the disk.
    pub fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.file.get_ref().sync_data().with_context(|| self.at())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn at(&self) -> String {
        format!("{}: cannot be written", self.path.display())
    }
}

/// Writes a value as one line of JSON.
///
/// # Errors
/// Those of `out`; a value that has no JSON form.
pub fn write_line(out: &mut impl Write, value: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_written_goes_on_where_it_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "1\n2\n3").unwrap();
        let mut file = LineFile::open(&path, "busy").unwrap();
        assert!(LineFile::open(&path, "busy").unwrap_err().to_string().ends_with("f: busy"));
        let mut lines = file.lines(9).unwrap();
        while lines.next_line().unwrap().is_some() {}
        let end = lines.end();
        file.cut(end).unwrap();
        file.write(&[4, 5]).unwrap();
        file.sync().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\n[4,5]\n");
    }

    #[cfg(unix)]
    #[test]
    fn pipes_and_devices_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe.as_path(), Path::new("/dev/null"), folder.path()] {
            let error = LineFile::open(path, "busy").unwrap_err();
            let told = [": not a regular file", ": cannot be written"];
            assert!(told.iter().any(|told| error.to_string() == format!("{}{told}", path.display())), "{error}");
        }
    }
}
