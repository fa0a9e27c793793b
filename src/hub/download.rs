//! One file from the hub into the cache.
//!
//! One answer decides the file's hash, commit and size, and each of them is checked before it names anything. Its bytes
//! are hashed as they arrive, and get the name of a blob when length and hash are right.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, ensure};
use indicatif::ProgressBar;
use url::Url;

use super::{
    Hub, Repo,
    hash::{ContentHash, is_hex},
    http::{Answer, Failed, REDIRECTS, origin, too_many_redirects},
    part::Part,
};
use crate::terminal::progress_bar;

/// Requests for one file before a broken connection is an error.
const ATTEMPTS: usize = 4;
/// Asked for where only the headers matter.
const FIRST_BYTE: &str = "bytes=0-0";

/// What the hub says of a file.
struct Metadata {
    hash: ContentHash,
    commit: String,
    size: u64,
    /// Where its bytes are.
    location: Url,
    /// That is not where its name is: what is there may have names of its own.
    elsewhere: bool,
}

impl Hub {
    /// Fetches a file that the cache does not have, or has damaged.
    ///
    /// # Errors
    /// What the hub, the network or the file system says; whatever the hub says that cannot be.
    pub(super) fn download(&self, repo: &Repo, file: &str) -> Result<PathBuf> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match self.try_download(repo, file) {
                Ok(path) => return Ok(path),
                Err(Failed::Final(e)) => return Err(e),
                Err(Failed::Passing(e)) => last = Some(e),
            }
        }
        let e = last.unwrap_or_else(|| anyhow!("no attempt was made"));
        Err(e.context(format!("the connection failed {ATTEMPTS} times; the same command resumes the download")))
    }

    fn try_download(&self, repo: &Repo, file: &str) -> Result<PathBuf, Failed> {
        let meta = self.metadata(repo, file)?;
        let cache = &repo.cache;
        let _lock = cache.lock(&meta.hash, file)?;
        if !cache.has(&meta.hash)? {
            self.fetch(&meta, cache.incomplete(&meta.hash), file)?;
            cache.place(&meta.hash)?;
        }
        Ok(cache.link(&meta.commit, file, &meta.hash)?)
    }

    /// Asks what a file is. As Python does, follows redirects that name no host; another one says where the bytes are.
    fn metadata(&self, repo: &Repo, file: &str) -> Result<Metadata, Failed> {
        let mut url = self.file_url(repo, file);
        for _ in 0..=REDIRECTS {
            let answer = self.client.ask(&url, Some(FIRST_BYTE), self.client.longest(1))?;
            let redirect = answer.redirect()?;
            if redirect.is_none() {
                self.check_status(&answer)?;
            }
            let known = answer.header("x-repo-commit")?.is_some();
            match redirect {
                Some(next) if next.relative || (!known && self.client.is_endpoint(&next.url)) => url = next.url,
                next => return self.read_metadata(&answer, next.map_or(url, |next| next.url)),
            }
        }
        Err(too_many_redirects(&url))
    }

    fn read_metadata(&self, answer: &Answer, location: Url) -> Result<Metadata, Failed> {
        let origin = origin(&answer.url);
        let (hash, commit) = identity(answer)?;
        let hash = hash.with_context(|| format!("{origin} sends no ETag, so it is not a hub"))?;
        let commit = commit.with_context(|| format!("{origin} names no commit, so it is not a hub"))?;
        let linked = answer.size("x-linked-size")?;
        // A redirect's length is that of the redirect.
        let total = if matches!(answer.status, 200 | 206) { answer.total()? } else { None };
        let size = match (linked, total) {
            (Some(linked), Some(total)) if linked != total => {
                return Err(anyhow!("{origin} announces {linked} bytes and {total} bytes").into());
            }
            (Some(size), _) | (None, Some(size)) => size,
            (None, None) => self.size_at(&location)?,
        };
        Ok(Metadata { hash, commit, size, elsewhere: location != answer.url, location })
    }

    /// The size of what lies elsewhere, where the hub did not tell it.
    fn size_at(&self, location: &Url) -> Result<u64, Failed> {
        let answer = self.client.follow(location, Some(FIRST_BYTE), self.client.longest(1))?;
        self.check_status(&answer)?;
        let origin = origin(&answer.url);
        Ok(answer.total()?.with_context(|| format!("{origin} does not say how large the file is"))?)
    }

    /// Brings the file's bytes to where they lie until they are whole, after those that are there already.
    fn fetch(&self, meta: &Metadata, path: PathBuf, name: &str) -> Result<(), Failed> {
        let mut part = Part::open(path, &meta.hash, meta.size)?;
        if !part.is_whole() {
            let range = format!("bytes={}-", part.have());
            let mut answer = self.client.follow(&meta.location, Some(&range), self.client.longest(meta.size))?;
            if answer.status == 416 && part.have() > 0 {
                part.remove()?;
                let e = anyhow!("{} does not resume at byte {}", origin(&answer.url), part.have());
                return Err(Failed::Passing(e));
            }
            self.check_status(&answer)?;
            if !meta.elsewhere {
                check_identity(&answer, meta)?;
            }
            if start(&answer, part.have(), meta.size)? != part.have() {
                part.restart()?;
            }
            let bar = progress_bar(meta.size, &format!("fetching {name}"), "bytes");
            bar.inc(part.have());
            let received = self.receive(&mut answer, &mut part, &bar);
            bar.finish_and_clear();
            received?;
        }
        part.finish()
    }

    fn receive(&self, answer: &mut Answer, part: &mut Part, bar: &ProgressBar) -> Result<(), Failed> {
        let mut body = self.client.body(answer);
        let mut buffer = vec![0; 1 << 17];
        loop {
            let n = body.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            part.write(&buffer[..n])?;
            bar.inc(n as u64);
        }
    }

    /// Tells what can pass from what will stay, and names the way out.
    pub(super) fn check_status(&self, answer: &Answer) -> Result<(), Failed> {
        let (origin, status) = (origin(&answer.url), answer.status);
        let e = match status {
            200 | 206 => return Ok(()),
            404 => anyhow!("{origin} has no such file (404)"),
            401 | 403 if self.client.is_endpoint(&answer.url) => {
                let token = if self.client.has_token() { "the token was refused" } else { "set HF_TOKEN" };
                anyhow!("{origin} asks for permission ({status}): {token}")
            }
            _ => anyhow!("{origin} answers {status}"),
        };
        // An address elsewhere holds for a while only.
        let passing = status >= 500 || status == 429 || (status == 403 && !self.client.is_endpoint(&answer.url));
        Err(if passing { Failed::Passing(e) } else { Failed::Final(e) })
    }
}

/// The hash and the commit that an answer names, as far as it does.
fn identity(answer: &Answer) -> Result<(Option<ContentHash>, Option<String>)> {
    let etag = match answer.header("x-linked-etag")? {
        Some(etag) => Some(etag),
        None => answer.header("etag")?,
    };
    let hash = etag.map(|etag| {
        ContentHash::from_etag(etag).with_context(|| format!("the server's ETag {etag:?} is not valid for the hub"))
    });
    let commit = answer.header("x-repo-commit")?;
    if let Some(commit) = commit {
        ensure!(is_hex(commit, 40), "the server's commit {commit:?} is not valid for the hub");
    }
    Ok((hash.transpose()?, commit.map(str::to_owned)))
}

/// The answer with the bytes names the same file as the one before.
fn check_identity(answer: &Answer, meta: &Metadata) -> Result<(), Failed> {
    let (hash, commit) = identity(answer)?;
    if hash.is_some_and(|hash| hash != meta.hash) || commit.is_some_and(|commit| commit != meta.commit) {
        return Err(Failed::Passing(anyhow!("{} has changed the file in the meantime", origin(&answer.url))));
    }
    Ok(())
}

/// The byte at which an answer with a file's bytes starts, where those from `have` on were asked for.
fn start(answer: &Answer, have: u64, size: u64) -> Result<u64> {
    answer.check_encoding()?;
    let (start, end, total) = if answer.status == 206 {
        answer.content_range().map(|(first, last, total)| (first, last + 1, total))?
    } else {
        let length = answer.content_length()?.unwrap_or(size);
        (0, length, length)
    };
    ensure!(
        total == size && end == size && (start == have || answer.status == 200),
        "{} sends bytes {start} to {end} of {total}, where those from {have} on of {size} were requested",
        origin(&answer.url)
    );
    Ok(start)
}
