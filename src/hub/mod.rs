//! Files of the Hugging Face hub, in the cache that Python's huggingface_hub uses.
//!
//! What a server says is taken for granted nowhere: `http` bounds what it can make us do, `download` checks what it
//! says and sends, and `cache` knows which names there are.

mod cache;
mod download;
mod hash;
mod http;
mod listing;
mod part;

use std::{
    env, fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use cache::{Cached, RepoCache};
use http::Client;
use url::Url;

pub(crate) use cache::RepoKind;

use crate::input;

/// Seconds of silence after which the hub counts as gone, unless [`PATIENCE_VARIABLE`] says otherwise.
const PATIENCE: u64 = 30;
/// A day: nobody waits longer, and times cannot overflow.
const LONGEST_PATIENCE: u64 = 86_400;
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
            Err(format!("{text:?} is not a repository of the hub; expected ORG/NAME, as in sapientinc/sudoku-extreme"))
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
    cache: PathBuf,
    client: Client,
    offline: bool,
}

/// A repository on the hub and in the cache.
pub(crate) struct Repo {
    id: RepoId,
    kind: RepoKind,
    cache: RepoCache,
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
            None => input::read_text(&token_file, 1 << 16).ok(),
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
                let seconds = text.to_str().and_then(|text| text.trim().parse::<u64>().ok()).filter(|&n| n > 0);
                seconds
                    .with_context(|| format!("{PATIENCE_VARIABLE} is {text:?}; expected whole seconds, 1 or more"))?
                    .min(LONGEST_PATIENCE)
            }
        };
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let client = Client::new(&endpoint, token.as_deref(), Duration::from_secs(patience))?;
        Ok(Self { cache, client, offline })
    }

    /// Path of a dataset's file, from the cache if it is there, else downloaded into it.
    ///
    /// # Errors
    /// Not in the cache while `HF_HUB_OFFLINE` is set; what the hub or the network says, with repository and file.
    pub fn dataset_file(&self, id: &RepoId, file: &str) -> Result<PathBuf> {
        self.get(&self.repo(id, RepoKind::Dataset), file)
    }

    pub(crate) fn repo(&self, id: &RepoId, kind: RepoKind) -> Repo {
        Repo { id: id.clone(), kind, cache: RepoCache::new(&self.cache, kind, id) }
    }

    /// As [`Hub::dataset_file`], of any repository.
    pub(crate) fn get(&self, repo: &Repo, file: &str) -> Result<PathBuf> {
        let at = || format!("hub repository {}, file {file}", repo.id);
        ensure!(is_file_name(file), "hub repository {}, file {file:?}: not a file name", repo.id);
        match repo.cache.find(file).with_context(at)? {
            Cached::Whole(path) => return Ok(path),
            Cached::Damaged(blob) if self.offline => {
                bail!("{}: {} is damaged, and HF_HUB_OFFLINE is set", at(), blob.display())
            }
            Cached::Damaged(_) => {}
            Cached::Nothing => {
                let cache = self.cache.display();
                ensure!(!self.offline, "{}: not in the cache {cache}, and HF_HUB_OFFLINE is set", at());
            }
        }
        self.download(repo, file).with_context(at)
    }

    fn file_url(&self, repo: &Repo, file: &str) -> Url {
        let kind = match repo.kind {
            RepoKind::Model => None,
            RepoKind::Dataset => Some("datasets"),
        };
        let name = repo.id.name.split('/');
        self.client.url(kind.into_iter().chain(name).chain(["resolve", &repo.id.revision]).chain(file.split('/')))
    }
}

/// A path inside a repository that can be one inside a folder.
fn is_file_name(file: &str) -> bool {
    file.len() <= 1024
        && file.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && !file.contains(|c: char| c == '\\' || c.is_control())
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
