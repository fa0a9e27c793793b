//! TensorBoard event files: scalars as TensorBoard reads them, without its libraries.
//!
//! A file is a row of records `length u64 | masked crc32c of it | bytes | masked crc32c of them`, all little-endian; the
//! bytes are an `Event` in protobuf's wire format. Source: tensorboard/compat/proto/{event,summary}.proto, and
//! tensorflow's record_writer.h for the frame.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};

/// What `Event.file_version` must say.
const VERSION: &str = "brain.Event:2";

/// Field numbers of `Event`.
mod event {
    pub const WALL_TIME: u32 = 1;
    pub const STEP: u32 = 2;
    pub const FILE_VERSION: u32 = 3;
    pub const SUMMARY: u32 = 5;
    pub const SESSION_LOG: u32 = 7;
}

/// `SessionLog.status`: what was logged from the event's step on is void.
const SESSION_START: u64 = 1;

/// So many bytes are held back at most before they are written.
const HELD_BACK: usize = 1 << 16;

/// An event file of one run. What cannot be written is kept, and written once that is possible.
#[derive(Debug)]
pub struct EventFile {
    folder: PathBuf,
    /// Made when something is written for the first time.
    file: Option<(PathBuf, File)>,
    /// Bytes of whole records in the file.
    written: u64,
    /// Records that are not in the file yet.
    pending: Vec<u8>,
}

impl EventFile {
    /// A new file in a run folder, which is made by the first [`EventFile::flush`]. A run that goes on at `resumed_at` (its
    /// next step) lets TensorBoard forget what earlier files hold of that step and later ones.
    pub fn new(folder: &Path, resumed_at: Option<i64>) -> Self {
        let mut events = Self { folder: folder.to_owned(), file: None, written: 0, pending: Vec::new() };
        let time = now();
        events.record(&message(|m| {
            m.double(event::WALL_TIME, time);
            m.bytes(event::FILE_VERSION, VERSION.as_bytes());
        }));
        if let Some(step) = resumed_at {
            events.record(&message(|m| {
                m.double(event::WALL_TIME, time);
                m.varint(event::STEP, step.cast_unsigned());
                m.bytes(event::SESSION_LOG, &message(|log| log.varint(1, SESSION_START)));
            }));
        }
        events
    }

    /// Values of one step.
    ///
    /// # Errors
    /// Those of [`EventFile::flush`]; the values are kept.
    pub fn scalars<'a>(&mut self, step: i64, values: impl IntoIterator<Item = (&'a str, f64)>) -> Result<()> {
        let summary = message(|summary| {
            for (tag, value) in values {
                summary.bytes(
                    1,
                    &message(|v| {
                        v.bytes(1, tag.as_bytes());
                        v.float(2, value as f32);
                    }),
                );
            }
        });
        self.record(&message(|m| {
            m.double(event::WALL_TIME, now());
            m.varint(event::STEP, step.cast_unsigned());
            m.bytes(event::SUMMARY, &summary);
        }));
        if self.file.is_none() || self.pending.len() > HELD_BACK { self.flush() } else { Ok(()) }
    }

    /// Makes what was recorded visible to a TensorBoard that watches.
    ///
    /// # Errors
    /// Those of the file system, with the path. The file then ends with a whole record, and what is missing is kept.
    pub fn flush(&mut self) -> Result<()> {
        let (path, file) = match &mut self.file {
            Some(open) => open,
            none => none.insert(fresh_file(&self.folder)?),
        };
        let at = || format!("{}: cannot write", path.display());
        if let Err(e) = file.write_all(&self.pending) {
            file.set_len(self.written).with_context(at)?;
            return Err(e).with_context(at);
        }
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// Brings everything recorded so far onto the disk.
    ///
    /// # Errors
    /// As [`EventFile::flush`].
    pub fn sync(&mut self) -> Result<()> {
        self.flush()?;
        match &self.file {
            Some((path, file)) => file.sync_data().with_context(|| format!("{}: cannot write", path.display())),
            None => Ok(()),
        }
    }

    fn record(&mut self, bytes: &[u8]) {
        let length = (bytes.len() as u64).to_le_bytes();
        for part in [&length[..], &masked_crc(&length), bytes, &masked_crc(bytes)] {
            self.pending.extend_from_slice(part);
        }
    }
}

/// `events.out.tfevents.<seconds>.<host>.<pid>.<n>`, which TensorBoard sorts by name.
fn fresh_file(folder: &Path) -> Result<(PathBuf, File)> {
    let seconds = now() as u64;
    for n in 0..1000 {
        let name = format!("events.out.tfevents.{seconds:010}.{}.{}.{n}", host_name(), process::id());
        let path = folder.join(name);
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).with_context(|| format!("{}: cannot start", path.display())),
        }
    }
    bail!("{}: contains a thousand event files of this second", folder.display())
}

/// This machine's name, as far as it suits a file name.
fn host_name() -> String {
    let mut room = [0_u8; 256];
    // SAFETY: the buffer is as long as is said; one byte is left for the end.
    let failed = unsafe { libc::gethostname(room.as_mut_ptr().cast(), room.len() - 1) } != 0;
    let name = if failed { &[][..] } else { room.split(|&b| b == 0).next().unwrap_or_default() };
    let name: String =
        String::from_utf8_lossy(name).chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
    if name.is_empty() { "host".into() } else { name }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// A CRC that may stand beside the data it is of: rotated, plus a constant.
fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// A protobuf message under construction.
struct Message(Vec<u8>);

fn message(fill: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message(Vec::new());
    fill(&mut message);
    message.0
}

impl Message {
    fn tag(&mut self, field: u32, wire_type: u32) {
        self.raw_varint(u64::from(field << 3 | wire_type));
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u32, value: u64) {
        self.tag(field, 0);
        self.raw_varint(value);
    }

    fn double(&mut self, field: u32, value: f64) {
        self.tag(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u32, value: f32) {
        self.tag(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.tag(field, 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_masked_crc32c() {
        // RFC 3720, B.4: the CRC of 32 zero bytes is 0x8a9136aa. Rotated right by 15 and 0xa282ead8 added: 0x0fd7fffa.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(masked_crc(&[0; 32]), 0x0fd7_fffa_u32.to_le_bytes());
    }

    #[test]
    fn a_message_has_protobufs_wire_format() {
        // protobuf's own documentation: field 1 = 150 is 08 96 01; field 2 = "testing" is 12 07 74 65 73 74 69 6e 67.
        assert_eq!(message(|m| m.varint(1, 150)), [0x08, 0x96, 0x01]);
        assert_eq!(message(|m| m.bytes(2, b"testing")), *b"\x12\x07testing");
    }

    #[test]
    fn two_files_of_one_second_have_two_names() {
        let dir = tempfile::tempdir().unwrap();
        EventFile::new(dir.path(), None).flush().unwrap();
        EventFile::new(dir.path(), Some(3)).flush().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        let missing = EventFile::new(&dir.path().join("no"), None).flush().unwrap_err();
        assert!(format!("{missing:#}").contains("no/events.out.tfevents."), "{missing:#}");
    }

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("run");
        let mut events = EventFile::new(&place, None);
        assert!(events.scalars(1, [("a", 1.0)]).is_err() && events.scalars(2, [("a", 2.0)]).is_err());
        std::fs::create_dir(&place).unwrap();
        events.scalars(3, [("a", 3.0)]).unwrap();
        events.sync().unwrap();
        let file = std::fs::read_dir(&place).unwrap().next().unwrap().unwrap().path();
        let one = std::fs::metadata(&file).unwrap().len();
        events.scalars(4, [("a", 4.0)]).unwrap();
        events.flush().unwrap();
        // A version record and three of the same length, then a fourth.
        let record = std::fs::metadata(&file).unwrap().len() - one;
        let version = one - 3 * record;
        assert_eq!(version, 8 + 4 + 4 + (1 + 8) + (2 + VERSION.len() as u64));
    }
}
