//! Files of lines that grow while work goes on: read with a bound on each line, written by one process at a time.
//!
//! A last line without its end was being written when a process died. Readers pass over it, writers cut it off.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::store::take_lock;

/// Opens a file to read.
///
/// # Errors
/// A file that is missing or cannot be read; a pipe or a device, which might never end.
pub fn open_regular(path: &Path) -> Result<File> {
    let at = || format!("{}: cannot be read", path.display());
    ensure!(fs::metadata(path).with_context(at)?.is_file(), "{}: not a regular file", path.display());
    File::open(path).with_context(at)
}

/// The whole lines of a file, in order.
#[derive(Debug)]
pub struct Lines<R> {
    path: PathBuf,
    reader: BufReader<R>,
    longest: usize,
    /// The line that was read last, with its end unless it is torn.
    line: Vec<u8>,
    number: usize,
    end: u64,
}

impl Lines<File> {
    /// Reads a file whose lines have at most `longest` bytes.
    ///
    /// # Errors
    /// As [`open_regular`].
    pub fn open(path: &Path, longest: usize) -> Result<Self> {
        Ok(Self::of(path, open_regular(path)?, longest))
    }
}

impl<R: Read> Lines<R> {
    fn of(path: &Path, file: R, longest: usize) -> Self {
        let reader = BufReader::with_capacity(1 << 16, file);
        Self { path: path.to_owned(), reader, longest, line: Vec::new(), number: 0, end: 0 }
    }

    /// The next line, with its end; none at the end of the file or where the last line is torn.
    ///
    /// # Errors
    /// Those of the file system; a line that is too long.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>> {
        self.line.clear();
        let mut bounded = (&mut self.reader).take(self.longest as u64 + 1);
        let read = bounded.read_until(b'\n', &mut self.line);
        let read = read.with_context(|| format!("{}: cannot be read", self.path.display()))?;
        let number = self.number + 1;
        ensure!(read <= self.longest, "{}:{number}: longer than {} bytes", self.path.display(), self.longest);
        if !self.line.ends_with(b"\n") {
            return Ok(None);
        }
        self.number = number;
        self.end += read as u64;
        Ok(Some(&self.line))
    }

    /// The number of the line that was read last, from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Bytes up to the end of the line that was read last.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// What stands behind the last whole line, once there is no further one.
    pub fn torn(&self) -> &[u8] {
        if self.line.ends_with(b"\n") { &[] } else { &self.line }
    }
}

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
        let there = fs::metadata(path);
        ensure!(there.map_or(true, |there| there.is_file()), "{}: not a regular file", path.display());
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.with_context(at)?;
        ensure!(take_lock(&file), "{}: {busy}", path.display());
        file.seek(SeekFrom::End(0)).with_context(at)?;
        Ok(Self { path: path.to_owned(), file: BufWriter::with_capacity(1 << 16, file) })
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
        Ok(Lines::of(&self.path, self.file.get_ref(), longest))
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
    use super::*;

    fn read(text: &str, longest: usize) -> Result<(Vec<String>, u64, Vec<u8>)> {
        let mut lines = Lines::of(Path::new("f"), text.as_bytes(), longest);
        let mut found = Vec::new();
        while let Some(line) = lines.next_line()? {
            found.push(String::from_utf8(line.to_vec())?);
        }
        Ok((found, lines.end(), lines.torn().to_vec()))
    }

    #[test]
    fn whole_lines_are_read_and_a_torn_one_is_told_apart() {
        assert_eq!(read("", 4).unwrap(), (vec![], 0, vec![]));
        assert_eq!(read("a\n\nbc\n", 4).unwrap(), (vec!["a\n".into(), "\n".into(), "bc\n".into()], 6, vec![]));
        assert_eq!(read("a\nbc", 4).unwrap(), (vec!["a\n".into()], 2, b"bc".to_vec()));
    }

    #[test]
    fn a_line_has_a_bound() {
        assert_eq!(read("abc\nabc\n", 4).unwrap().0.len(), 2);
        let error = read("abc\nabcd\n", 4).unwrap_err();
        assert_eq!(error.to_string(), "f:2: longer than 4 bytes");
        assert!(read(&"x".repeat(100), 4).is_err(), "torn or not");
    }

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
            for error in [Lines::open(path, 9).unwrap_err(), LineFile::open(path, "busy").unwrap_err()] {
                assert_eq!(error.to_string(), format!("{}: not a regular file", path.display()));
            }
        }
    }
}
