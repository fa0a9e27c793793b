//! The bytes of a file that have arrived so far.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};

use super::{
    hash::{ContentHash, Hasher},
    http::Failed,
};

/// A file that grows to `size` bytes, hashed as it does.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    hash: ContentHash,
    hasher: Hasher,
    size: u64,
    have: u64,
    /// Some of the bytes are from an earlier time.
    resumed: bool,
}

impl Part {
    /// Goes on with what lies at `path`, if something does; what is too long is begun again.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(path: PathBuf, hash: &ContentHash, size: u64) -> Result<Self> {
        let at = || format!("{}: cannot be resumed", path.display());
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.with_context(at)?;
        let mut have = file.metadata().with_context(at)?.len();
        if have > size {
            file.set_len(0).with_context(at)?;
            have = 0;
        }
        let mut hasher = hash.hasher(size);
        hasher.update_from(&mut file).with_context(at)?;
        Ok(Self { path, file, hash: hash.clone(), hasher, size, have, resumed: have > 0 })
    }

    pub fn have(&self) -> u64 {
        self.have
    }

    pub fn is_whole(&self) -> bool {
        self.have == self.size
    }

    /// Begins again.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0))).with_context(|| self.at())?;
        self.hasher = self.hash.hasher(self.size);
        (self.have, self.resumed) = (0, false);
        Ok(())
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// There are more than were announced, and all are thrown away; those of the file system.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.have += bytes.len() as u64;
        if self.have > self.size {
            self.remove()?;
            return Err(anyhow!("more bytes than the announced {} were received", self.size));
        }
        self.file.write_all(bytes).with_context(|| self.at())?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Compares what is there with the hash, and has it on disk. What has another hash is removed.
    ///
    /// # Errors
    /// Some bytes are missing, which stay; the hash is another; those of the file system.
    pub fn finish(self) -> Result<(), Failed> {
        if !self.is_whole() {
            return Err(Failed::Passing(anyhow!("{} bytes received of {}", self.have, self.size)));
        }
        self.file.sync_all().with_context(|| self.at())?;
        let Self { path, hash, hasher, resumed, .. } = self;
        if hash.is(hasher) {
            return Ok(());
        }
        remove(&path)?;
        let e = anyhow!("the received bytes do not have the {} {}", hash.kind(), hash);
        // The fault may lie in what was there before.
        Err(if resumed { Failed::Passing(e) } else { Failed::Final(e) })
    }

    /// Throws all of it away.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove(&self) -> Result<()> {
        remove(&self.path)
    }

    fn at(&self) -> String {
        format!("{}: cannot be written", self.path.display())
    }
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("{}: cannot be removed", path.display()))
}
