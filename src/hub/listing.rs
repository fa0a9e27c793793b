//! The names of a repository's files.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;

use super::{
    Hub, Repo,
    http::{Failed, origin},
    is_file_name,
};

/// The most bytes of a listing.
const LARGEST: usize = 16 << 20;
/// The most files of a repository; the hub advises against more.
const MOST: usize = 100_000;
/// How long a listing may take in all.
const LONGEST: Duration = Duration::from_secs(300);

#[derive(Deserialize)]
struct Listing {
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Hub {
    /// The names of a repository's files, of the cached ones while `HF_HUB_OFFLINE` is set.
    ///
    /// # Errors
    /// What the hub or the network says; a listing that is too long, or holds what is no file's name.
    pub(crate) fn list(&self, repo: &Repo) -> Result<Vec<String>> {
        let at = || format!("hub repository {}", repo.id);
        if self.offline {
            let missing = || format!("not in the cache {}, and HF_HUB_OFFLINE is set", self.cache.display());
            return repo
                .cache
                .snapshot()
                .with_context(missing)
                .and_then(|folder| list_folder(&folder))
                .with_context(at);
        }
        self.list_online(repo).map_err(Failed::into_error).with_context(at)
    }

    fn list_online(&self, repo: &Repo) -> Result<Vec<String>, Failed> {
        let name = repo.id.name.split('/');
        let url = self.client.url(["api", "models"].into_iter().chain(name).chain(["revision", &repo.id.revision]));
        let mut answer = self.client.follow(&url, None, LONGEST)?;
        self.check_status(&answer)?;
        answer.check_encoding()?;
        let origin = origin(&answer.url);
        let mut text = Vec::new();
        let mut body = self.client.body(&mut answer);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = body.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            text.extend_from_slice(&buffer[..n]);
            if text.len() > LARGEST {
                return Err(anyhow!("{origin} lists too many files: more than {LARGEST} bytes").into());
            }
        }
        let listing: Listing =
            serde_json::from_slice(&text).with_context(|| format!("{origin} lists no files that can be read"))?;
        let files: Vec<String> = listing.siblings.into_iter().map(|file| file.rfilename).collect();
        Ok(check(files).with_context(|| format!("the listing of {origin}"))?)
    }
}

fn check(files: Vec<String>) -> Result<Vec<String>> {
    ensure!(files.len() <= MOST, "it has {} files, more than {MOST}", files.len());
    for file in &files {
        ensure!(is_file_name(file), "{file:?} is not a file name");
    }
    Ok(files)
}

fn list_folder(snapshot: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut folders: Vec<PathBuf> = vec![snapshot.to_owned()];
    while let Some(folder) = folders.pop() {
        let at = || format!("{}: cannot be listed", folder.display());
        for entry in fs::read_dir(&folder).with_context(at)? {
            let entry = entry.with_context(at)?;
            let path = entry.path();
            if entry.file_type().with_context(at)?.is_dir() {
                folders.push(path);
            } else if let Some(name) = path.strip_prefix(snapshot).ok().and_then(Path::to_str) {
                names.push(name.to_owned());
            }
        }
    }
    Ok(names)
}
