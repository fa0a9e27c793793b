//! The hash that the hub names a file's bytes by. It comes as an ETag and becomes the name of a blob in the cache.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// SHA-256 of a file that lies in large file storage, else the SHA-1 that Git gives a blob; lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContentHash(String);

impl ContentHash {
    /// The name of a blob. Anything that is no hash is none.
    pub fn from_name(name: &str) -> Option<Self> {
        (is_hex(name, 64) || is_hex(name, 40)).then(|| Self(name.to_owned()))
    }

    /// An ETag, with its quotes and a `W/` in front if need be.
    pub fn from_etag(etag: &str) -> Option<Self> {
        let etag = etag.strip_prefix("W/").unwrap_or(etag);
        let quoted = etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"'));
        Self::from_name(quoted.unwrap_or(etag))
    }

    /// For a file of `size` bytes: Git hashes the size too.
    pub fn hasher(&self, size: u64) -> Hasher {
        if self.0.len() == 64 {
            Hasher::Sha256(Sha256::new())
        } else {
            Hasher::Git(Sha1::new_with_prefix(format!("blob {size}\0")))
        }
    }

    /// Whether a file has this hash; reads it to its end.
    ///
    /// # Errors
    /// Those of reading.
    pub fn is_of(&self, file: &mut File) -> io::Result<bool> {
        let mut hasher = self.hasher(file.metadata()?.len());
        hasher.update_from(file)?;
        Ok(hasher.finish() == self.0)
    }

    pub fn is(&self, hasher: Hasher) -> bool {
        hasher.finish() == self.0
    }

    /// What kind of hash it is, for messages.
    pub fn kind(&self) -> &'static str {
        if self.0.len() == 64 { "SHA-256" } else { "Git hash" }
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text is `len` lower-case hexadecimal digits.
pub(super) fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Hashes what is given to it piece by piece.
pub(super) enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Git(hash) => hash.update(bytes),
        }
    }

    /// All that is left of a file.
    ///
    /// # Errors
    /// Those of reading.
    pub fn update_from(&mut self, file: &mut File) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 18];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => self.update(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn finish(self) -> String {
        match self {
            Self::Sha256(hash) => hex::encode(hash.finalize()),
            Self::Git(hash) => hex::encode(hash.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_are_hashes_or_nothing() {
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        for (etag, wanted) in
            [(format!("\"{sha256}\""), sha256), (format!("W/\"{git}\""), git), (sha256.to_owned(), sha256)]
        {
            assert_eq!(ContentHash::from_etag(&etag).map(|hash| hash.to_string()).as_deref(), Some(wanted), "{etag}");
        }
        let upper = git.to_uppercase();
        for bad in ["", "\"\"", "\"/etc/passwd\"", "\"../../x\"", &git[1..], &format!("{git}0"), &upper, "W/"] {
            assert_eq!(ContentHash::from_etag(bad), None, "{bad}");
        }
    }

    /// `printf 'hello\n' | sha256sum` and `| git hash-object --stdin`.
    #[test]
    fn hashes_are_those_of_the_hub() {
        for name in [
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
            "ce013625030ba8dba906f756967f9e9ca394464a",
        ] {
            let hash = ContentHash::from_name(name);
            let whole = hash.as_ref().is_some_and(|hash| {
                let mut hasher = hash.hasher(6);
                hasher.update(b"hel");
                hasher.update(b"lo\n");
                hash.is(hasher)
            });
            assert!(whole, "{name}");
        }
    }
}
