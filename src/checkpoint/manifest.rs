//! `manifest.json`: size and SHA-256 of every file of a checkpoint folder, so that damage is found before it is used.

use std::{collections::BTreeMap, fs, io::Read, path::Path};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    input,
    store::{self, Existing},
};

/// The file's name in a checkpoint folder.
pub const MANIFEST_FILE: &str = "manifest.json";

/// No manifest is nearly this long.
const MOST_BYTES: u64 = 1 << 20;

/// What a checkpoint folder consists of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// By name within the folder.
    pub files: BTreeMap<String, FileRecord>,
}

/// One file as it was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Size of the file.
    pub bytes: u64,
    /// Hexadecimal.
    pub sha256: String,
}

impl FileRecord {
    /// That of a file on disk.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of(path: &Path) -> Result<Self> {
        let at = || format!("{}: cannot read", path.display());
        let mut file = input::open(path)?;
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = file.read(&mut buffer).with_context(at)?;
            if n == 0 {
                break;
            }
            hash.update(&buffer[..n]);
            bytes += n as u64;
        }
        Ok(Self { bytes, sha256: hex::encode(hash.finalize()) })
    }
}

impl Manifest {
    /// That of the files in a folder, itself not counted.
    ///
    /// # Errors
    /// A folder or file that cannot be read.
    pub fn of(folder: &Path) -> Result<Self> {
        let at = || format!("{}: cannot list the folder", folder.display());
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(folder).with_context(at)? {
            let path = entry.with_context(at)?.path();
            let name = path.file_name().and_then(|n| n.to_str()).map(str::to_owned);
            if let Some(name) = name.filter(|n| n != MANIFEST_FILE && !n.starts_with('.')) {
                files.insert(name, FileRecord::of(&path)?);
            }
        }
        Ok(Self { files })
    }

    /// Reads the manifest of a folder; none where there is none.
    ///
    /// # Errors
    /// A file that is no such JSON, too large, or that names files outside of the folder.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(MANIFEST_FILE);
        let at = || format!("{}: not readable as a manifest", path.display());
        let text = match input::read(&path, MOST_BYTES) {
            Err(e) if input::is_missing(&e) => return Ok(None),
            text => text?,
        };
        let manifest: Self = serde_json::from_slice(&text).with_context(at)?;
        let outside = manifest.files.keys().find(|name| name.contains(['/', '\\']) || name.as_str() == "..");
        ensure!(outside.is_none(), "{}: it names {:?}", at(), outside.map(String::as_str).unwrap_or_default());
        Ok(Some(manifest))
    }

    /// Compares a file with the manifest beside it, where there is one that tells of it.
    ///
    /// # Errors
    /// As [`Manifest::read`] and [`Manifest::verify`].
    pub fn verify_beside(path: &Path) -> Result<()> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        let Some(mut manifest) = Self::read(folder)? else { return Ok(()) };
        manifest.files.retain(|file, _| name == file.as_str());
        manifest.verify(folder)
    }

    /// Writes the manifest into a folder.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let text = format!("{}\n", serde_json::to_string_pretty(self)?);
        store::write_bytes(&folder.join(MANIFEST_FILE), Existing::Replace, text.as_bytes())
    }

    /// Compares every file with what was written.
    ///
    /// # Errors
    /// The first file that is missing, shorter or longer, or has other contents, by path.
    pub fn verify(&self, folder: &Path) -> Result<()> {
        for (name, wanted) in &self.files {
            let path = folder.join(name);
            let bytes = fs::metadata(&path).with_context(|| format!("{}: it is missing", path.display()))?.len();
            ensure!(bytes == wanted.bytes, "{}: {bytes} bytes, but {} were written", path.display(), wanted.bytes);
            if FileRecord::of(&path)? != *wanted {
                bail!("{}: its contents do not match the {MANIFEST_FILE} beside it", path.display());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, b"weights").unwrap();
        fs::write(&b, b"moments").unwrap();
        let manifest = Manifest::of(dir.path()).unwrap();
        manifest.write(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap().as_ref(), Some(&manifest));
        assert_eq!(Manifest::of(dir.path()).unwrap(), manifest, "the manifest does not count itself");
        manifest.verify(dir.path()).unwrap();
        let fault = |wanted: &str| {
            let text = format!("{:#}", manifest.verify(dir.path()).unwrap_err());
            assert!(text.contains(wanted), "{text}");
        };
        fs::write(&a, b"weighty").unwrap();
        fault("a: its contents");
        fs::write(&a, b"weight").unwrap();
        fault("a: 6 bytes, but 7 were written");
        fs::write(&a, b"weights").unwrap();
        fs::remove_file(&b).unwrap();
        fault("b: it is missing");
    }

    #[test]
    fn a_hostile_manifest_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), None);
        for text in ["", "[", "{}", r#"{"files": {"../x": {"bytes": 1, "sha256": "00"}}}"#, r#"{"files": 3}"#] {
            fs::write(dir.path().join(MANIFEST_FILE), text).unwrap();
            let error = Manifest::read(dir.path()).map(|m| m.map(|m| m.files.len()));
            assert!(error.is_err(), "{text}: {error:?}");
        }
    }
}
