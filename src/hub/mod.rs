//! Files of the Hugging Face hub, in the cache that Python's huggingface_hub uses.
//!
//! The hf-hub crate does the downloading. What it does not read of the environment is read here: `HF_TOKEN`,
//! `HF_TOKEN_PATH`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`, `XDG_CACHE_HOME`. A download that was cut goes on where it ended, in
//! this call or a later one, and what arrives is held against the size and, where the hub names it, the SHA-256.
//!
//! hf-hub makes its HTTP clients itself and sets no timeouts. So each request runs on a thread of its own, and where
//! nothing is heard of it for a while, the caller goes on without it.

mod checkpoint;

use std::{
    env, fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hf_hub::{
    Cache, Repo, RepoType,
    api::{
        Progress,
        sync::{Api, ApiBuilder, ApiError},
    },
};
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};

pub use checkpoint::fetch_checkpoint;

use crate::terminal::progress_bar;

/// Requests for one file before a broken connection is an error.
const ATTEMPTS: usize = 4;
/// Seconds of silence after which the hub counts as gone, unless [`PATIENCE_VARIABLE`] says otherwise.
const PATIENCE: u64 = 30;
/// As Python's huggingface_hub names it.
const PATIENCE_VARIABLE: &str = "HF_HUB_DOWNLOAD_TIMEOUT";

/// `org/name`, with `@revision` where it is not `main`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoId {
    name: String,
    revision: String,
}

impl FromStr for RepoId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let named = name.split('/').count() == 2 && name.split('/').all(plain);
        if named && revision.split('/').all(plain) {
            Ok(Self { name: name.to_owned(), revision: revision.to_owned() })
        } else {
            Err(format!("{text:?} is no repository of the hub; wanted ORG/NAME, as in sapientinc/sudoku-extreme"))
        }
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.revision == "main" { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// The hub as the environment describes it.
#[derive(Clone, Debug)]
pub struct Hub {
    cache: Cache,
    endpoint: String,
    token: Option<String>,
    offline: bool,
    /// The longest silence.
    patience: Duration,
}

impl Hub {
    /// Reads the environment; nothing is asked of the hub yet.
    ///
    /// # Errors
    /// No folder for the cache can be told; a time limit that is no number of seconds.
    pub fn from_env() -> Result<Self> {
        let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let home = match (var("HF_HOME"), var("XDG_CACHE_HOME"), var("HOME")) {
            (Some(home), ..) => PathBuf::from(home),
            (None, Some(cache), _) => Path::new(&cache).join("huggingface"),
            (None, None, Some(home)) => Path::new(&home).join(".cache/huggingface"),
            (None, None, None) => bail!("no folder for the hub's cache: set HF_HOME"),
        };
        let cache = std::path::absolute(var("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from))?;
        let token_file = var("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let token = match var("HF_TOKEN") {
            Some(token) => token.into_string().ok(),
            None => fs::read_to_string(token_file).ok(),
        };
        let endpoint = var("HF_ENDPOINT").and_then(|value| value.into_string().ok());
        let endpoint = endpoint.unwrap_or_else(|| "https://huggingface.co".to_owned());
        let offline = var("HF_HUB_OFFLINE").is_some_and(|value| {
            let value = value.to_string_lossy().to_uppercase();
            ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
        });
        let patience = match var(PATIENCE_VARIABLE) {
            None => PATIENCE,
            Some(text) => {
                let seconds = text.to_str().and_then(|text| text.trim().parse().ok()).filter(|&seconds| seconds > 0);
                seconds.with_context(|| format!("{PATIENCE_VARIABLE} is {text:?}; wanted whole seconds, 1 or more"))?
            }
        };
        Ok(Self {
            cache: Cache::new(cache),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            offline,
            patience: Duration::from_secs(patience),
        })
    }

    /// Path of a dataset's file, from the cache if it is there, else downloaded into it.
    ///
    /// # Errors
    /// Not in the cache while `HF_HUB_OFFLINE` is set; what the hub or the network says, with repository and file.
    pub fn dataset_file(&self, id: &RepoId, file: &str) -> Result<PathBuf> {
        self.get(id, RepoType::Dataset, file)
    }

    fn get(&self, id: &RepoId, kind: RepoType, file: &str) -> Result<PathBuf> {
        let at = || format!("hub repository {id}, file {file}");
        let inside = !file.is_empty() && file.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        ensure!(inside && !file.contains(['\\', '?', '#', '%']), "{}: no name of a file", at());
        let repo = id.repo(kind);
        if let Some(path) = self.cache.repo(repo.clone()).get(file) {
            return Ok(path);
        }
        ensure!(!self.offline, "{}: not in the cache {}, and HF_HUB_OFFLINE is set", at(), self.cache.path().display());
        self.download(&repo, file).with_context(at)
    }

    fn api(&self) -> Result<Api> {
        let builder = ApiBuilder::from_cache(self.cache.clone())
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_user_agent("hrm", env!("CARGO_PKG_VERSION"));
        Ok(builder.build()?)
    }

    fn download(&self, repo: &Repo, file: &str) -> Result<PathBuf> {
        let api = self.api()?;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match self.try_download(&api, repo, file) {
                Ok(path) => return Ok(path),
                Err(Failed::Final(e)) => return Err(e),
                Err(Failed::Passing(e)) => last = Some(e),
            }
        }
        let e = last.unwrap_or_else(|| anyhow!("nothing was tried"));
        Err(e.context(format!("the connection broke {ATTEMPTS} times; the same command goes on where it ended")))
    }

    fn try_download(&self, api: &Api, repo: &Repo, file: &str) -> Result<PathBuf, Failed> {
        let (remote, client, name) = (api.repo(repo.clone()), api.clone(), file.to_owned());
        let url = remote.url(file);
        let metadata = self.hear(move |_| client.metadata(&url))?;
        let (etag, size) = (metadata.etag(), metadata.size() as u64);
        // Both become names of files.
        let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !plain(etag) || !plain(metadata.commit_hash()) {
            return Err(Failed::Final(anyhow!("the server's ETag {etag:?} or commit is none of the hub's")));
        }
        let cached = self.cache.repo(repo.clone());
        let blob = cached.blob_path(etag);
        let part = blob.with_extension("part");
        // A part that is whole already, or longer than the file, cannot be gone on with.
        if fs::metadata(&part).is_ok_and(|part| part.len() >= size) {
            fs::remove_file(&part).map_err(|e| Failed::Final(e.into()))?;
        }
        let path = self.hear(move |signs| remote.download_with_progress(&name, signs))?;
        let forget = |why: String| {
            let _ = fs::remove_file(&path);
            let _ = fs::remove_file(&blob);
            Failed::Passing(anyhow!(why))
        };
        let found = fs::metadata(&path).map_err(|e| Failed::Final(e.into()))?.len();
        if found != size {
            return Err(forget(format!("{found} bytes arrived of {size}")));
        }
        // Large files are named by their SHA-256, small ones by Git's hash.
        if etag.len() == 64 && sha256(&path).map_err(|e| Failed::Final(e.into()))? != etag {
            return Err(forget(format!("what arrived has not the SHA-256 {etag}")));
        }
        Ok(path)
    }

    /// Does what asks the hub, as long as it gives signs of life in time. A thread that is given up ends with the process
    /// at the latest.
    fn hear<T: Send + 'static>(
        &self,
        ask: impl FnOnce(Signs<T>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, Failed> {
        let (signs, heard) = mpsc::channel();
        thread::spawn(move || {
            let answer = ask(Signs(signs.clone()));
            // Nobody waits for it any more: that was told already.
            let _ = signs.send(Sign::Answer(answer));
        });
        let mut bar = ProgressBar::hidden();
        let answer = loop {
            match heard.recv_timeout(self.patience) {
                Ok(Sign::Begins { name, size }) => {
                    bar.finish_and_clear();
                    bar = progress_bar(size, &format!("fetching {name}"), "bytes");
                }
                Ok(Sign::Bytes(n)) => bar.inc(n),
                Ok(Sign::Answer(answer)) => break answer.map_err(|e| self.explain(e)),
                Err(RecvTimeoutError::Timeout) => {
                    let (endpoint, seconds) = (&self.endpoint, self.patience.as_secs());
                    // Not tried again: the thread that waits has the file's lock.
                    break Err(Failed::Final(anyhow!(
                        "{endpoint} has sent nothing for {seconds} s ({PATIENCE_VARIABLE}); the same command goes on \
                         where it ended"
                    )));
                }
                Err(RecvTimeoutError::Disconnected) => break Err(Failed::Final(anyhow!("the download broke off"))),
            }
        };
        bar.finish_and_clear();
        answer
    }

    /// Tells what can pass from what will stay, and names the way out.
    fn explain(&self, error: ApiError) -> Failed {
        let status = match &error {
            ApiError::RequestError(e) => match **e {
                ureq::Error::StatusCode(status) => Some(status),
                _ => None,
            },
            _ => None,
        };
        match status {
            Some(404) => Failed::Final(anyhow!("{} has no such file (404)", self.endpoint)),
            Some(status @ (401 | 403)) => {
                let token = if self.token.is_some() { "the token was refused" } else { "set HF_TOKEN" };
                Failed::Final(anyhow!("{} asks for permission ({status}): {token}", self.endpoint))
            }
            Some(status @ 400..500) if status != 429 => Failed::Final(anyhow!("{} answers {status}", self.endpoint)),
            Some(status) => Failed::Passing(anyhow!("{} answers {status}", self.endpoint)),
            None => {
                let e = anyhow::Error::new(error).context(format!("cannot be fetched from {}", self.endpoint));
                Failed::Passing(e)
            }
        }
    }

    /// The names of a model repository's files.
    fn list(&self, id: &RepoId) -> Result<Vec<String>> {
        let at = || format!("hub repository {id}");
        let repo = id.repo(RepoType::Model);
        if self.offline {
            return self.list_cached(&repo).with_context(at);
        }
        let remote = self.api()?.repo(repo);
        match self.hear(move |_| remote.info()) {
            Ok(info) => Ok(info.siblings.into_iter().map(|file| file.rfilename).collect()),
            Err(Failed::Final(e) | Failed::Passing(e)) => Err(e.context(at())),
        }
    }

    fn list_cached(&self, repo: &Repo) -> Result<Vec<String>> {
        let folder = self.cache.path().join(repo.folder_name());
        let missing = || format!("not in the cache {}, and HF_HUB_OFFLINE is set", self.cache.path().display());
        let commit = fs::read_to_string(folder.join("refs").join(repo.revision())).with_context(missing)?;
        let snapshot = folder.join("snapshots").join(commit.trim());
        let mut names = Vec::new();
        let mut folders = vec![snapshot.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(missing)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Some(name) = path.strip_prefix(&snapshot).ok().and_then(Path::to_str) {
                    names.push(name.to_owned());
                }
            }
        }
        Ok(names)
    }
}

impl RepoId {
    fn repo(&self, kind: RepoType) -> Repo {
        Repo::with_revision(self.name.clone(), kind, self.revision.clone())
    }
}

enum Failed {
    /// Trying again would not help.
    Final(anyhow::Error),
    Passing(anyhow::Error),
}

/// What a thread that asks the hub tells.
enum Sign<T> {
    Begins { name: String, size: u64 },
    Bytes(u64),
    Answer(Result<T, ApiError>),
}

struct Signs<T>(Sender<Sign<T>>);

impl<T> Progress for Signs<T> {
    fn init(&mut self, size: usize, name: &str) {
        let _ = self.0.send(Sign::Begins { name: name.to_owned(), size: size as u64 });
    }

    fn update(&mut self, size: usize) {
        let _ = self.0.send(Sign::Bytes(size as u64));
    }

    fn finish(&mut self) {}
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut HashWriter(&mut hash))?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories() {
        let shown = |text: &str| text.parse::<RepoId>().map(|id| (id.to_string(), id.revision));
        assert_eq!(shown("org/name"), Ok(("org/name".into(), "main".into())));
        assert_eq!(shown("org/na.me@v1"), Ok(("org/na.me@v1".into(), "v1".into())));
        assert_eq!(shown("org/name@refs/pr/1").map(|id| id.1), Ok("refs/pr/1".into()));
        for bad in ["", "name", "a/b/c", "../x", "a/..", "a/b@", "a/b@../..", "a b/c", "a/b?c", "/b"] {
            assert!(bad.parse::<RepoId>().is_err(), "{bad}");
        }
    }
}
