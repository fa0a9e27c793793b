//! Files from elsewhere: no pipe or device is waited for, and neither a file nor a line is longer than it may be.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Cursor, ErrorKind, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Error, Result, bail, ensure};
use log::warn;
use serde::de::DeserializeOwned;

/// Opens a file to read.
///
/// # Errors
/// A file that is missing ([`is_missing`]) or cannot be read; a pipe, a device or a folder.
pub fn open(path: &Path) -> Result<File> {
    open_with(OpenOptions::new().read(true), path).with_context(|| format!("{}: cannot be read", path.display()))?
}

/// Opens a file with given options. The outer result is the system's answer, the inner one whether it is a regular file.
///
/// # Errors
/// As [`open`].
pub fn open_with(options: &mut OpenOptions, path: &Path) -> io::Result<Result<File>> {
    let file = open_at_once(options, path)?;
    let regular = file.metadata()?.is_file();
    Ok(if regular { Ok(file) } else { Err(not_regular(path)) })
}

fn not_regular(path: &Path) -> Error {
    Error::msg(format!("{}: not a regular file", path.display()))
}

/// Without waiting for the other end of a pipe.
fn open_at_once(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, libc::O_NONBLOCK);
    options.open(path)
}

/// Whether an error of this module says that there is no such file.
pub fn is_missing(error: &Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(kind, Some(ErrorKind::NotFound | ErrorKind::NotADirectory))
}

/// Opens a regular file, or a pipe into which another process writes, as a shell's `<(..)`.
///
/// # Errors
/// As [`open`]; a pipe that nobody writes into.
#[cfg(unix)]
pub fn open_stream(path: &Path) -> Result<impl Read + Send + use<>> {
    use std::os::{fd::AsRawFd, unix::fs::FileTypeExt};
    /// A process that was started beside this one has opened its end of the pipe by then.
    const PATIENCE_MS: i32 = 1000;

    let at = || format!("{}: cannot be read", path.display());
    let mut file = open_at_once(OpenOptions::new().read(true), path).with_context(at)?;
    let kind = file.metadata().with_context(at)?.file_type();
    let mut first = Vec::new();
    if kind.is_fifo() {
        let mut poll = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, which lives until the call returns.
        unsafe { libc::poll(&raw mut poll, 1, PATIENCE_MS) };
        let mut byte = [0];
        match file.read(&mut byte) {
            Ok(0) => bail!("{}: nothing comes out of this pipe: no process writes into it", path.display()),
            Ok(_) => first.extend(byte),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e).with_context(at),
        }
        // SAFETY: flags of a descriptor that is open.
        let waits = unsafe {
            let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
            libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK)
        };
        ensure!(waits == 0, "{}: {}", at(), io::Error::last_os_error());
    } else {
        ensure!(kind.is_file(), "{}: neither a regular file nor a pipe", path.display());
    }
    Ok(Cursor::new(first).chain(file))
}

/// Opens a regular file.
///
/// # Errors
/// As [`open`].
#[cfg(not(unix))]
pub fn open_stream(path: &Path) -> Result<impl Read + Send + use<>> {
    open(path)
}

/// A file of at most `most` bytes.
///
/// # Errors
/// As [`open`]; a file that is longer.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes);
    read.with_context(|| format!("{}: cannot be read", path.display()))?;
    ensure!(bytes.len() as u64 <= most, "{}: longer than {most} bytes", path.display());
    Ok(bytes)
}

/// [`read`] as text.
///
/// # Errors
/// As [`read`]; bytes that are not UTF-8.
pub fn read_text(path: &Path, most: u64) -> Result<String> {
    String::from_utf8(read(path, most)?).with_context(|| format!("{}: not UTF-8 text", path.display()))
}

/// How the reading of a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// With a newline.
    Whole,
    /// With the file, without one.
    Torn,
    /// With a newline, but it is longer than it may be.
    TooLong,
}

/// Appends the next line to `line`, its newline included; of one that is longer than `longest` bytes the first, and the rest
/// is passed over. Also returns how many bytes of the source it took.
///
/// # Errors
/// Those of the source.
pub fn read_line(source: &mut impl BufRead, longest: usize, line: &mut Vec<u8>) -> io::Result<(LineEnd, u64)> {
    let start = line.len();
    let mut taken = source.by_ref().take(longest as u64).read_until(b'\n', line)? as u64;
    if line[start..].ends_with(b"\n") {
        return Ok((LineEnd::Whole, taken));
    }
    if taken < longest as u64 || source.fill_buf()?.is_empty() {
        return Ok((LineEnd::Torn, taken));
    }
    loop {
        let part = source.fill_buf()?;
        let end = part.iter().position(|&byte| byte == b'\n');
        let passed = end.map_or(part.len(), |end| end + 1);
        let at_end = part.is_empty();
        source.consume(passed);
        taken += passed as u64;
        match end {
            Some(_) => return Ok((LineEnd::TooLong, taken)),
            None if at_end => return Ok((LineEnd::Torn, taken)),
            None => {}
        }
    }
}

/// The lines of a file, in order. A last one without its end is none of them: it was being written when a process died.
#[derive(Debug)]
pub struct Lines<R> {
    path: PathBuf,
    reader: BufReader<R>,
    longest: usize,
    /// The line that was read last.
    line: Vec<u8>,
    number: usize,
    end: u64,
    /// Bytes of the line that was read last.
    last: u64,
    torn: bool,
    damaged: Vec<usize>,
}

impl Lines<File> {
    /// Reads a file whose lines have at most `longest` bytes.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(path: &Path, longest: usize) -> Result<Self> {
        Ok(Self::new(path, open(path)?, longest))
    }
}

impl<R: Read> Lines<R> {
    /// Reads from a source; `path` stands for it in errors.
    pub fn new(path: &Path, source: R, longest: usize) -> Self {
        let reader = BufReader::with_capacity(1 << 16, source);
        let (line, damaged) = (Vec::new(), Vec::new());
        Self { path: path.to_owned(), reader, longest, line, number: 0, end: 0, last: 0, torn: false, damaged }
    }

    /// The next whole line, with its end. One that is too long comes as an empty line, without any.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>> {
        self.line.clear();
        let read = read_line(&mut self.reader, self.longest, &mut self.line);
        let (end, bytes) = read.with_context(|| format!("{}: cannot be read", self.path.display()))?;
        if end == LineEnd::Torn {
            self.torn = true;
            return Ok(None);
        }
        if end == LineEnd::TooLong {
            self.line.clear();
        }
        self.number += 1;
        self.end += bytes;
        self.last = bytes;
        Ok(Some(&self.line))
    }

    /// The next line as JSON. One that is damaged costs itself: it is passed over, and at the end of the file a warning
    /// names such lines.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn next_value<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        loop {
            let Some(line) = self.next_line()? else {
                self.warn_of_damage();
                return Ok(None);
            };
            match serde_json::from_slice(line) {
                Ok(value) => return Ok(Some(value)),
                Err(_) => self.damaged.push(self.number),
            }
        }
    }

    /// Warns of the damaged lines so far, for who ends before the file does.
    pub fn warn_of_damage(&self) {
        const SHOWN: usize = 8;
        let [shown @ .., last] = &self.damaged[..self.damaged.len().min(SHOWN)] else { return };
        let mut numbers: String = shown.iter().map(|number| format!("{number}, ")).collect();
        numbers.push_str(&last.to_string());
        match self.damaged.len() {
            1 => warn!("{}: line {numbers} is damaged and is passed over", self.path.display()),
            n if n <= SHOWN => warn!("{}: lines {numbers} are damaged and are passed over", self.path.display()),
            n => warn!("{}: {n} lines are damaged and are passed over: {numbers} ..", self.path.display()),
        }
    }

    /// Makes the line that was read last count as not read: [`Lines::end`] is where it begins.
    pub fn step_back(&mut self) {
        self.number -= self.number.min(1);
        self.end -= self.end.min(self.last);
        self.last = 0;
    }

    /// Numbers of the damaged lines, from 1.
    pub fn damaged(&self) -> &[usize] {
        &self.damaged
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
        if self.torn { &self.line } else { &[] }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn lines(text: &str, longest: usize) -> (Vec<String>, u64, Vec<u8>) {
        let mut lines = Lines::new(Path::new("f"), text.as_bytes(), longest);
        let mut found = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            found.push(String::from_utf8(line.to_vec()).unwrap());
        }
        (found, lines.end(), lines.torn().to_vec())
    }

    #[test]
    fn whole_lines_are_read_and_a_torn_one_is_told_apart() {
        assert_eq!(lines("", 4), (vec![], 0, vec![]));
        assert_eq!(lines("a\n\nbc\n", 4), (vec!["a\n".into(), "\n".into(), "bc\n".into()], 6, vec![]));
        assert_eq!(lines("a\nbc", 4), (vec!["a\n".into()], 2, b"bc".to_vec()));
        assert_eq!(lines("a\nabcd", 4), (vec!["a\n".into()], 2, b"abcd".to_vec()));
    }

    #[test]
    fn a_line_has_a_bound_and_costs_itself_alone() {
        assert_eq!(lines("abc\nabc\n", 4).0.len(), 2);
        let long = format!("{}\n", "x".repeat(1 << 20));
        assert_eq!(
            lines(&format!("a\n{long}b\n"), 4),
            (vec!["a\n".into(), String::new(), "b\n".into()], 5 + (1 << 20), vec![])
        );
        assert_eq!(lines(&"x".repeat(100), 4), (vec![], 0, b"xxxx".to_vec()), "torn");
    }

    #[test]
    fn damaged_lines_are_passed_over() {
        let text = "1\n2,\n\u{0}\n4\n12345678901234567890\n\n7\n8";
        let mut lines = Lines::new(Path::new("f"), text.as_bytes(), 9);
        let mut found = Vec::new();
        while let Some(value) = lines.next_value::<u64>().unwrap() {
            found.push((lines.number(), value));
        }
        assert_eq!(found, [(1, 1), (4, 4), (7, 7)]);
        assert_eq!(lines.damaged(), [2, 3, 5, 6]);
        assert_eq!(lines.torn(), b"8");
    }

    #[test]
    fn a_small_file_has_a_bound() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "abc").unwrap();
        assert_eq!(read_text(file.path(), 3).unwrap(), "abc");
        assert!(read(file.path(), 2).unwrap_err().to_string().ends_with("longer than 2 bytes"));
        fs::write(file.path(), [0xff]).unwrap();
        assert!(read_text(file.path(), 3).is_err());
        assert!(is_missing(&read(&file.path().join("x"), 3).unwrap_err()));
    }

    #[cfg(unix)]
    #[test]
    fn pipes_and_devices_are_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe.as_path(), Path::new("/dev/zero"), folder.path()] {
            assert_eq!(open(path).unwrap_err().to_string(), format!("{}: not a regular file", path.display()));
            assert!(read(path, 9).is_err() && open_stream(path).is_err());
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_with_a_writer_is_a_stream() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::write(pipe, "text")
        });
        let mut text = String::new();
        open_stream(&pipe).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        writer.join().unwrap().unwrap();
    }
}
