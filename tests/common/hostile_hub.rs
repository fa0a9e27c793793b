//! A hub that answers as it should but for what a test twists.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    COMMIT,
    common::{golden, sha256},
    git_hash,
};

/// Which answer is twisted. Those for files are twisted for the weights alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Listing,
    /// The first answer, that says what a file is.
    Metadata,
    /// The second, with its bytes.
    Bytes,
}

pub type Twist = fn(&Asked, &mut Reply);

/// A request.
pub struct Asked<'a> {
    pub path: &'a str,
    /// The file asked for, if it is one.
    pub bytes: Option<&'a [u8]>,
    /// The address of another server.
    pub other: &'a str,
    /// What must not be overwritten.
    pub victim: PathBuf,
}

/// An answer as it will be sent.
pub struct Reply {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Bytes of the body that are sent before the connection is closed or `rest` comes.
    pub keep: usize,
    pub rest: Rest,
    raw: Option<&'static [u8]>,
}

/// What comes after the body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    Nothing,
    /// Again and again: what goes before, what goes after so many bytes.
    Endless(&'static [u8], &'static [u8], usize),
    /// A byte now and then.
    Drip,
}

impl Reply {
    pub fn remove(&mut self, name: &str) {
        self.headers.retain(|(other, _)| other != name);
    }

    pub fn add(&mut self, name: &str, value: &str) {
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.add(name, value);
    }

    pub fn redirect(&mut self, location: &str) {
        self.status = 302;
        self.set("Location", location);
    }

    pub fn list(&mut self, names: &[&str]) {
        let siblings: Vec<_> = names.iter().map(|name| serde_json::json!({"rfilename": name})).collect();
        self.body = serde_json::json!({"siblings": siblings, "sha": COMMIT}).to_string().into_bytes();
    }

    /// Sends this in place of an answer.
    pub fn raw(&mut self, bytes: &'static [u8], rest: Rest) {
        (self.raw, self.rest) = (Some(bytes), rest);
    }

    fn send(mut self, stream: &mut TcpStream) -> Result<()> {
        if let Some(raw) = self.raw {
            stream.write_all(raw)?;
        } else {
            if !matches!(self.rest, Rest::Endless(..)) {
                self.add("Content-Length", &self.body.len().to_string());
            }
            let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            write!(stream, "HTTP/1.1 {} X\r\n{headers}\r\n", self.status)?;
            if !matches!(self.rest, Rest::Endless(..)) {
                stream.write_all(&self.body[..self.keep.min(self.body.len())])?;
            }
        }
        match self.rest {
            Rest::Nothing => {}
            Rest::Endless(before, after, n) => {
                let piece = [before, &vec![b'z'; n], after].concat();
                while stream.write_all(&piece).is_ok() {}
            }
            Rest::Drip => {
                stream.set_read_timeout(Some(Duration::from_millis(50)))?;
                // Until the client goes away.
                while !matches!(stream.read(&mut [0]), Ok(0)) && stream.write_all(b"z").is_ok() {}
            }
        }
        Ok(())
    }
}

/// Path and Range of each request, and its `Authorization`.
type Log = Mutex<Vec<(String, Option<String>)>>;

pub struct Hostile {
    pub address: String,
    log: Arc<Log>,
}

impl Hostile {
    /// The `Authorization` of each request.
    pub fn tokens(&self) -> Result<Vec<Option<String>>> {
        Ok(self.log.lock().ok().context("a lock")?.iter().map(|(_, token)| token.clone()).collect())
    }

    /// Path and Range of each request.
    pub fn seen(&self) -> Result<Vec<String>> {
        Ok(self.log.lock().ok().context("a lock")?.iter().map(|(line, _)| line.clone()).collect())
    }
}

/// Serves a checkpoint until the test program ends, each connection on a thread of its own.
pub fn hostile(bind: &str, stage: Stage, folder: &Path, other: &str, twist: Twist) -> Result<Hostile> {
    let listener = TcpListener::bind(bind)?;
    let address = format!("http://{}", listener.local_addr()?);
    let log = Arc::new(Log::default());
    let (shared, victim, other) = (Arc::clone(&log), folder.join("victim"), other.to_owned());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (shared, victim, other) = (Arc::clone(&shared), victim.clone(), other.clone());
            // A client that went away is no fault of the server's.
            thread::spawn(move || answer(stream, &shared, victim, &other, stage, twist));
        }
    });
    Ok(Hostile { address, log })
}

fn answer(mut stream: TcpStream, log: &Log, victim: PathBuf, other: &str, stage: Stage, twist: Twist) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().context("a request")??;
    let path = first.split(' ').nth(1).context("a path")?.trim_start_matches('/').to_owned();
    let (mut token, mut range) = (None, String::new());
    for line in lines {
        let line = line?;
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => token = Some(value.to_owned()),
            Some((name, value)) if name.eq_ignore_ascii_case("range") => value.clone_into(&mut range),
            Some(_) => {}
            None => break,
        }
    }
    log.lock().ok().context("a lock")?.push((format!("{path} {range}"), token));

    let file = path.strip_prefix("someone/model/resolve/main/").map(|file| file.replace("?moved", ""));
    let known = file.as_deref().filter(|file| ["step_30", "all_config.yaml"].contains(file));
    let bytes = known.map(|file| fs::read(golden("e2e/run_b").join(file))).transpose()?;
    let headers = vec![("Connection".to_owned(), "close".to_owned())];
    let mut reply = Reply { status: 404, headers, body: Vec::new(), keep: usize::MAX, rest: Rest::Nothing, raw: None };
    if let Some(bytes) = &bytes {
        let asked = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).context("a range")?;
        let (start, end) = (asked.0.parse::<usize>()?, asked.1.parse().unwrap_or(bytes.len() - 1));
        reply.status = 206;
        reply.add("Content-Range", &format!("bytes {start}-{end}/{}", bytes.len()));
        reply.add("ETag", &format!("\"{}\"", if bytes.len() > 1000 { sha256(bytes) } else { git_hash(bytes) }));
        reply.add("X-Repo-Commit", COMMIT);
        reply.body = bytes[start..=end].to_vec();
    } else if path == "api/models/someone/model/revision/main" {
        reply.status = 200;
        reply.list(&["step_30", "all_config.yaml", "README.md"]);
    }
    let at = match (file.as_deref(), range.as_str()) {
        (None, _) => Stage::Listing,
        (_, "bytes=0-0") => Stage::Metadata,
        _ => Stage::Bytes,
    };
    if at == stage && (at == Stage::Listing || file.as_deref() == Some("step_30")) {
        twist(&Asked { path: &path, bytes: bytes.as_deref(), other, victim }, &mut reply);
    }
    reply.send(&mut stream)
}
