//! The Hugging Face hub: the real binary against a small HTTP server that speaks the hub's paths, and against servers that
//! do not.

mod common;
#[path = "common/hostile_hub.rs"]
mod hostile_hub;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    io::{BufRead, BufReader, Write},
    mem,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, ensure};
use common::{fails, golden, hrm, names, ok, sha256, snapshot::Transcript};
use hostile_hub::{Hostile, Rest, Stage, Twist, hostile};
use sha1::{Digest, Sha1};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server holds and does.
#[derive(Default)]
struct Content {
    /// By `datasets/org/name/file` or `org/name/file`.
    files: HashMap<String, Vec<u8>>,
    /// Bodies of the large files (those that are redirected) are cut in half this many times.
    cuts: AtomicUsize,
    /// Bodies of the large files stop in the middle this many times, the connection kept open.
    stalls: AtomicUsize,
    /// Answer with this status whatever is asked.
    refuse: Option<u16>,
    /// Send other bytes than the ETag names.
    corrupt: bool,
    /// Wanted as `Authorization: Bearer ..`.
    token: Option<String>,
    /// Request lines with their Range.
    seen: Mutex<Vec<String>>,
}

struct Server {
    address: String,
    content: Arc<Content>,
}

/// What `git hash-object` says.
fn git_hash(bytes: &[u8]) -> String {
    hex::encode(Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

/// Serves until the test program ends.
fn serve(content: Content) -> Result<Server> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}", listener.local_addr()?);
    let content = Arc::new(content);
    let (shared, at) = (Arc::clone(&content), address.clone());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that went away is no fault of the server's.
            let _ = answer(stream, &shared, &at);
        }
    });
    Ok(Server { address, content })
}

fn answer(mut stream: TcpStream, content: &Content, address: &str) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let path = first.split(' ').nth(1).context("a path")?.trim_start_matches('/').to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let range = headers.get("range").cloned().unwrap_or_default();
    content.seen.lock().ok().context("a lock")?.push(format!("{path} {range}"));
    let mut reply = |status: &str, more: &str, body: &[u8], send: usize| -> Result<()> {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{more}\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        Ok(stream.write_all(&body[..send])?)
    };
    if let Some(status) = content.refuse {
        return reply(&format!("{status} No"), "", b"", 0);
    }
    if let Some(token) = &content.token
        && !path.starts_with("cdn/")
        && headers.get("authorization") != Some(&format!("Bearer {token}"))
    {
        return reply("401 Unauthorized", "", b"", 0);
    }
    if let Some(repo) = path.strip_prefix("api/models/").and_then(|rest| rest.strip_suffix("/revision/main")) {
        let names = content.files.keys().filter_map(|file| file.strip_prefix(&format!("{repo}/")));
        let names = names.collect::<BTreeSet<_>>().into_iter();
        let siblings: Vec<_> = names.map(|name| serde_json::json!({"rfilename": name})).collect();
        let body = serde_json::json!({"siblings": siblings, "sha": COMMIT}).to_string();
        return reply("200 OK", "Content-Type: application/json\r\n", body.as_bytes(), body.len());
    }
    let name = path.replacen("/resolve/main/", "/", 1);
    let large = path.starts_with("cdn/");
    let Some(bytes) = content.files.get(name.trim_start_matches("cdn/")) else {
        return reply("404 Not Found", "", b"", 0);
    };
    // As the hub: files of more than a kilobyte lie elsewhere, under their SHA-256; what is there has an ETag of its own.
    let etag = if bytes.len() > 1000 { sha256(bytes) } else { git_hash(bytes) };
    let commit = format!("X-Repo-Commit: {COMMIT}\r\n");
    if !large && bytes.len() > 1000 {
        let more = format!("{commit}X-Linked-Etag: \"{etag}\"\r\nLocation: {address}/cdn/{name}\r\n");
        return reply("302 Found", &more, b"", 0);
    }
    let (start, end) = match range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) {
        Some((start, end)) => (start.parse()?, end.parse::<usize>().map_or(bytes.len(), |end| end + 1)),
        None => (0, bytes.len()),
    };
    if start >= bytes.len() {
        return reply("416 Range Not Satisfiable", "", b"", 0);
    }
    let mut body = bytes[start..end.min(bytes.len())].to_vec();
    if content.corrupt && body.len() > 1 {
        body[0] ^= 1;
    }
    let names =
        if large { "ETag: \"d41d8cd98f00b204-2\"\r\n".to_owned() } else { format!("{commit}ETag: \"{etag}\"\r\n") };
    let more = format!("{names}Content-Range: bytes {start}-{}/{}\r\n", end - 1, bytes.len());
    let cut = large && body.len() > 1 && content.cuts.load(Ordering::SeqCst) > 0;
    if cut {
        content.cuts.fetch_sub(1, Ordering::SeqCst);
    }
    let stall = large && body.len() > 1 && content.stalls.load(Ordering::SeqCst) > 0;
    let send = if cut || stall { body.len() / 2 } else { body.len() };
    reply("206 Partial Content", &more, &body, send)?;
    if stall {
        content.stalls.fetch_sub(1, Ordering::SeqCst);
        mem::forget(stream);
    }
    Ok(())
}

/// The binary with the server as its hub and `folder/hf` as its cache.
fn with_hub(folder: &Path, server: &Server) -> Command {
    let mut command = hrm(folder);
    clear_hub(&mut command);
    command.env("HF_ENDPOINT", &server.address).env("HF_HOME", folder.join("hf")).env("OMP_NUM_THREADS", "1");
    command
}

/// Takes away what the environment says of the hub.
fn clear_hub(command: &mut Command) {
    for name in [
        "HF_HUB_CACHE",
        "HF_TOKEN",
        "HF_TOKEN_PATH",
        "HF_HUB_OFFLINE",
        "HF_HUB_DOWNLOAD_TIMEOUT",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
}

fn build(folder: &Path, server: &Server, output: &str) -> Command {
    let mut command = with_hub(folder, server);
    command.args(["build-dataset", "--source-repo", "someone/puzzles", "--output-dir", output]);
    command
}

fn puzzles() -> Result<Content> {
    let mut content = Content::default();
    for name in ["train.csv", "test.csv"] {
        let bytes = fs::read(golden("dataset/sudoku_csv").join(name))?;
        content.files.insert(format!("datasets/someone/puzzles/{name}"), bytes);
    }
    Ok(content)
}

#[test]
fn a_dataset_comes_from_the_hub_once_and_lies_where_python_looks() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut said = Transcript::new(temp.path()).measured();
    let server = serve(puzzles()?)?;
    said.ok(&mut build(temp.path(), &server, "out"))?;
    let built = fs::read(temp.path().join("out/train/all__inputs.npy"))?;
    assert_eq!(built, fs::read(golden("dataset/sudoku_noaug/train/all__inputs.npy"))?);

    let cache = temp.path().join("hf/hub/datasets--someone--puzzles");
    assert_eq!(fs::read_to_string(cache.join("refs/main"))?, COMMIT);
    let cached = cache.join("snapshots").join(COMMIT);
    assert_eq!(names(&cached)?, ["test.csv", "train.csv"]);
    let blob = fs::read_link(cached.join("train.csv"))?;
    let hash = sha256(&fs::read(cached.join("train.csv"))?);
    assert_eq!(blob, Path::new("../../blobs").join(hash), "a relative link to the file's SHA-256");

    let before = server.content.seen.lock().ok().context("a lock")?.len();
    ok(&mut build(temp.path(), &server, "again"))?;
    ok(build(temp.path(), &server, "offline").env("HF_HUB_OFFLINE", "1"))?;
    assert_eq!(server.content.seen.lock().ok().context("a lock")?.len(), before, "the cache answers");

    let elsewhere = temp.path().join("elsewhere");
    said.fails(build(temp.path(), &server, "x").env("HF_HUB_OFFLINE", "1").env("HF_HUB_CACHE", &elsewhere))?;
    ok(build(temp.path(), &server, "y").env("HF_HUB_CACHE", &elsewhere))?;
    assert_eq!(names(&elsewhere)?, [".locks", "datasets--someone--puzzles"]);
    said.matches("a_dataset_comes_from_the_hub_once_and_lies_where_python_looks");
    Ok(())
}

#[test]
fn a_cut_download_goes_on_where_it_ended() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut said = Transcript::new(temp.path());
    let mut content = puzzles()?;
    content.cuts = 2.into();
    let server = serve(content)?;
    ok(&mut build(temp.path(), &server, "out"))?;
    let built = fs::read(temp.path().join("out/train/all__inputs.npy"))?;
    assert_eq!(built, fs::read(golden("dataset/sudoku_noaug/train/all__inputs.npy"))?);
    let seen = server.content.seen.lock().ok().context("a lock")?.clone();
    let resumed = seen.iter().filter(|line| line.starts_with("cdn/") && !line.contains("bytes=0-")).count();
    assert_eq!(resumed, 2, "{seen:#?}");

    // Cut in every attempt of one command: an error, and the next command goes on.
    let mut content = puzzles()?;
    content.cuts = 4.into();
    let server = serve(content)?;
    let fresh = tempfile::tempdir()?;
    said.fails(&mut build(fresh.path(), &server, "out"))?;
    assert_eq!(names(fresh.path())?, ["hf"]);
    ok(&mut build(fresh.path(), &server, "out"))?;
    assert_eq!(fs::read(fresh.path().join("out/train/all__inputs.npy"))?, built);
    said.matches("a_cut_download_goes_on_where_it_ended");
    Ok(())
}

/// A hub that takes the request and says nothing, and one that stops in the middle of a file.
#[test]
fn a_silent_hub_is_not_waited_for() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut said = Transcript::new(temp.path());
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let silent = Server { address: format!("http://{}", listener.local_addr()?), content: Arc::default() };
    said.fails(build(temp.path(), &silent, "out").env("HF_HUB_DOWNLOAD_TIMEOUT", "1"))?;
    let inspect = ["checkpoint", "inspect", "hf://someone/model"];
    said.fails(with_hub(temp.path(), &silent).args(inspect).env("HF_HUB_DOWNLOAD_TIMEOUT", "1"))?;
    said.fails(build(temp.path(), &silent, "out").env("HF_HUB_DOWNLOAD_TIMEOUT", "soon"))?;

    let mut content = puzzles()?;
    content.stalls = 1.into();
    let server = serve(content)?;
    said.fails(build(temp.path(), &server, "out").env("HF_HUB_DOWNLOAD_TIMEOUT", "1"))?;
    ok(&mut build(temp.path(), &server, "out"))?;
    let built = fs::read(temp.path().join("out/train/all__inputs.npy"))?;
    assert_eq!(built, fs::read(golden("dataset/sudoku_noaug/train/all__inputs.npy"))?);
    let seen = server.content.seen.lock().ok().context("a lock")?.clone();
    let resumed = seen.iter().filter(|line| line.starts_with("cdn/") && !line.contains("bytes=0-")).count();
    assert_eq!(resumed, 1, "{seen:#?}");
    said.matches("a_silent_hub_is_not_waited_for");
    Ok(())
}

/// No bar where there is no terminal, and nothing but the document on standard output.
#[test]
fn a_download_leaves_the_output_clean() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let server = serve(puzzles()?)?;
    let mut said = Transcript::new(temp.path());
    let output = said.ok(build(temp.path(), &server, "out").args(["--json", "-"]))?;
    let report: serde_json::Value = serde_json::from_str(&output.stdout)?;
    assert_eq!(report["output_dir"], "out");
    said.matches("a_download_leaves_the_output_clean");
    Ok(())
}

#[test]
fn failures_are_errors_that_name_the_way_out() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut said = Transcript::new(temp.path());
    for (what, content) in [
        ("no such file", Content::default()),
        ("503", Content { refuse: Some(503), ..puzzles()? }),
        ("403", Content { refuse: Some(403), ..puzzles()? }),
        ("a token is asked for", Content { token: Some("secret".into()), ..puzzles()? }),
        ("other bytes", Content { corrupt: true, ..puzzles()? }),
    ] {
        said.add(what, &fails(&mut build(temp.path(), &serve(content)?, "out"))?);
        assert!(!temp.path().join("out").exists());
    }
    let gone = Server { address: "http://127.0.0.1:9".into(), content: Arc::default() };
    said.fails(&mut build(temp.path(), &gone, "out"))?;

    let server = serve(Content { token: Some("secret".into()), ..puzzles()? })?;
    ok(build(temp.path(), &server, "out").env("HF_TOKEN", "secret"))?;
    fs::write(temp.path().join("token"), "secret\n")?;
    let command = &mut build(temp.path(), &server, "out2");
    ok(command.env("HF_TOKEN_PATH", temp.path().join("token")).env("HF_HUB_CACHE", temp.path().join("other")))?;

    said.fails(hrm(temp.path()).args(["build-dataset", "--source-repo", "../../etc"]))?;
    said.fails(hrm(temp.path()).args(["build-dataset", "--source-repo", "a/b", "--source", "bundled"]))?;
    said.matches("failures_are_errors_that_name_the_way_out");
    Ok(())
}

#[test]
fn a_checkpoint_is_read_by_its_address() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut said = Transcript::new(temp.path());
    let mut content = Content::default();
    for name in ["step_30", "all_config.yaml"] {
        content.files.insert(format!("someone/model/{name}"), fs::read(golden("e2e/run_b").join(name))?);
    }
    let server = serve(content)?;
    for address in ["hf://someone/model", "hf://someone/model/step_30"] {
        let output = ok(with_hub(temp.path(), &server).args(["checkpoint", "inspect", address]))?;
        let local = ok(hrm(temp.path()).args(["checkpoint", "inspect"]).arg(golden("e2e/run_b")))?;
        let tensors = |text: &str| text.lines().filter(|line| line.contains("model.inner")).count();
        assert!(tensors(&output.stdout) == tensors(&local.stdout), "{}", output.stdout);
        assert!(output.stdout.contains("models--someone--model"), "{}", output.stdout);
    }
    said.fails(with_hub(temp.path(), &server).args(["checkpoint", "inspect", "hf://someone/model/step_31"]))?;
    said.fails(with_hub(temp.path(), &server).args(["checkpoint", "inspect", "hf://someone/else"]))?;
    said.fails(with_hub(temp.path(), &server).args(["checkpoint", "inspect", "hf://someone"]))?;
    let mut offline = with_hub(temp.path(), &server);
    ok(offline.args(["checkpoint", "inspect", "hf://someone/model"]).env("HF_HUB_OFFLINE", "1"))?;
    said.matches("a_checkpoint_is_read_by_its_address");
    Ok(())
}

/// The binary with a token, that is to inspect the checkpoint of a hostile hub.
fn inspect(folder: &Path, server: &Hostile) -> Command {
    let mut command = hrm(folder);
    clear_hub(&mut command);
    command.env("HF_ENDPOINT", &server.address).env("HF_HOME", folder.join("hf")).env("HF_TOKEN", "hf_SECRET");
    command.env("OMP_NUM_THREADS", "1").args(["checkpoint", "inspect", "hf://someone/model"]);
    command
}

/// Every file below a folder, links to files too.
fn everything(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    Ok(files)
}

/// Nothing new lies outside the cache, and under the name of a blob nothing but what has that hash.
fn check_cache(temp: &Path, folder: &Path) -> Result<()> {
    let hub = folder.join("hf/hub");
    for path in everything(temp)? {
        let bytes = fs::read(&path)?;
        if path == temp.join("victim") {
            ensure!(bytes == b"mine", "the victim is {bytes:?}");
            continue;
        }
        let inside = path.starts_with(hub.join(".locks")) || path.starts_with(hub.join("models--someone--model"));
        ensure!(inside, "{path:?} was written");
        let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
        if path.parent().is_some_and(|folder| folder.ends_with("blobs")) && !name.ends_with(".incomplete") {
            ensure!(name == sha256(&bytes) || name == git_hash(&bytes), "{path:?} has other bytes");
        }
    }
    Ok(())
}

/// What a hostile hub does to one answer.
struct Case(&'static str, Stage, Twist);

#[expect(clippy::too_many_lines, reason = "a table")]
fn hostile_cases() -> Vec<Case> {
    use Stage::{Bytes, Listing, Metadata};
    vec![
        // Names of files.
        Case("second ETag a path", Bytes, |a, r| r.set("ETag", &format!("\"{}\"", a.victim.display()))),
        Case("first ETag a path", Metadata, |a, r| r.set("ETag", &format!("\"{}\"", a.victim.display()))),
        Case("linked ETag a path", Metadata, |a, r| r.set("X-Linked-Etag", &a.victim.display().to_string())),
        Case("ETag climbs", Metadata, |_, r| r.set("ETag", "\"../../../x\"")),
        Case("ETag too short", Metadata, |_, r| r.set("ETag", "\"0123456789abcdef\"")),
        Case("no ETag", Metadata, |_, r| r.remove("ETag")),
        Case("two commits", Metadata, |_, r| r.add("X-Repo-Commit", COMMIT)),
        Case("second commit climbs", Bytes, |_, r| r.set("X-Repo-Commit", "../../../../../x")),
        Case("first commit climbs", Metadata, |_, r| r.set("X-Repo-Commit", "../../../../../x")),
        Case("commit too long", Metadata, |_, r| r.set("X-Repo-Commit", &COMMIT.repeat(2))),
        Case("no commit", Metadata, |_, r| r.remove("X-Repo-Commit")),
        // Statuses and redirects.
        Case("redirect to nowhere", Metadata, |_, r| r.status = 302),
        Case("bytes nowhere", Bytes, |_, r| r.status = 307),
        Case("304", Metadata, |_, r| r.status = 304),
        Case("304 for the bytes", Bytes, |_, r| r.status = 304),
        Case("101", Metadata, |_, r| r.status = 101),
        Case("204", Bytes, |_, r| r.status = 204),
        Case("429", Metadata, |_, r| r.status = 429),
        Case("500", Bytes, |_, r| r.status = 500),
        Case("circle", Metadata, |a, r| r.redirect(&format!("/{}", a.path))),
        Case("circle of the bytes", Bytes, |a, r| r.redirect(&format!("/{}", a.path))),
        Case("file:", Metadata, |_, r| r.redirect("file:///etc/passwd")),
        Case("file: for the bytes", Bytes, |_, r| r.redirect("file:///etc/passwd")),
        Case("no address", Metadata, |_, r| r.redirect("http://[::1")),
        Case("with a password", Metadata, |_, r| r.redirect("http://me:pw@127.0.0.1/")),
        Case("*", Metadata, |_, r| r.redirect("*")),
        Case("elsewhere, nameless", Metadata, |a, r| {
            r.remove("ETag");
            r.redirect(&format!("{}/{}", a.other, a.path));
        }),
        // Sizes and bytes.
        Case("a petabyte", Metadata, |_, r| r.set("Content-Range", "bytes 0-0/1000000000000000")),
        Case("less than nothing", Metadata, |_, r| r.set("Content-Range", "bytes 0-0/-5")),
        Case("nothing", Metadata, |_, r| r.set("Content-Range", "bytes 0-0/0")),
        Case("no size", Metadata, |_, r| r.remove("Content-Range")),
        Case("two sizes", Metadata, |_, r| r.set("X-Linked-Size", "7")),
        Case("too small", Metadata, |_, r| r.set("Content-Range", "bytes 0-0/100")),
        Case("another part", Bytes, |_, r| r.set("Content-Range", "bytes 5-9/114550")),
        Case("another whole", Bytes, |_, r| {
            r.status = 200;
            r.body.truncate(50);
        }),
        Case("endless", Bytes, |_, r| {
            r.status = 200;
            r.rest = Rest::Endless(b"10000\r\n", b"\r\n", 0x10000);
            r.set("Transfer-Encoding", "chunked");
        }),
        Case("endless to the end", Bytes, |_, r| {
            r.status = 200;
            r.rest = Rest::Endless(b"", b"", 0x10000);
            r.set("Connection", "close");
        }),
        Case("compressed", Bytes, |_, r| r.set("Content-Encoding", "gzip")),
        Case("other bytes", Bytes, |_, r| r.body.fill(0)),
        Case("cut", Bytes, |_, r| r.keep = r.body.len() / 2),
        Case("drip", Bytes, |_, r| (r.keep, r.rest) = (9, Rest::Drip)),
        Case("dripping headers", Metadata, |_, r| r.raw(b"HTTP/1.1 206 X\r\nX: ", Rest::Drip)),
        Case("endless headers", Metadata, |_, r| {
            r.raw(b"HTTP/1.1 206 X\r\n", Rest::Endless(b"X: ", b"\r\n", 1000));
        }),
        Case("no HTTP", Metadata, |_, r| r.raw(b"\x1b[31m220 ready\r\n\r\n", Rest::Nothing)),
        // The listing.
        Case("no list", Listing, |_, r| r.body = b"{}".to_vec()),
        Case("deep list", Listing, |_, r| r.body = b"[".repeat(200_000)),
        Case("deep field", Listing, |_, r| {
            r.body = [b"{\"x\":".to_vec(), b"[".repeat(200_000)].concat();
        }),
        Case("long list", Listing, |_, r| r.list(&["x"; 100_001])),
        Case("endless list", Listing, |_, r| {
            r.rest = Rest::Endless(b"10000\r\n", b"\r\n", 0x10000);
            r.set("Transfer-Encoding", "chunked");
        }),
        Case("list in a circle", Listing, |a, r| r.redirect(&format!("/{}", a.path))),
        Case("list is a file:", Listing, |_, r| r.redirect("file:///etc/passwd")),
        Case("compressed list", Listing, |_, r| r.set("Content-Encoding", "gzip")),
        Case("name climbs", Listing, |_, r| r.list(&["step_30", "step_9/../../../x/checkpoint"])),
        Case("name from the root", Listing, |_, r| r.list(&["step_30", "/etc/passwd"])),
        Case("name with a line", Listing, |_, r| r.list(&["step_30", "step_99\n"])),
        Case("name with an escape", Listing, |_, r| r.list(&["step_30", "\u{1b}[2J"])),
        Case("name with a backslash", Listing, |_, r| r.list(&["step_30", "..\\x"])),
        Case("no name", Listing, |_, r| r.list(&["step_30", ""])),
    ]
}

/// Each ends in one line and status 1, writes nothing outside the cache, and shows the token to nobody else.
#[test]
fn a_hostile_hub_gets_nothing() -> Result<()> {
    let mut said = Transcript::default().hide(r"sent \d+ bytes in", "sent N bytes in");
    for Case(name, stage, twist) in hostile_cases() {
        let temp = tempfile::tempdir()?;
        let folder = temp.path().join("some/levels/down");
        fs::create_dir_all(&folder)?;
        fs::write(temp.path().join("victim"), "mine")?;
        let other = hostile("127.0.0.2:0", Stage::Metadata, temp.path(), "", |_, _| {})?;
        let server = hostile("127.0.0.1:0", stage, temp.path(), &other.address, twist)?;
        let mut command = inspect(&folder, &server);
        if name.starts_with("drip") {
            command.env("HF_HUB_DOWNLOAD_TIMEOUT", "1");
        }
        let output = command.output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{name}: {}\n{error}", output.status);
        ensure!(error.lines().count() == 1 && error.contains("hf://someone/model"), "{name}: {error}");
        said.add(name, &error);
        ensure!(!error.contains("hf_SECRET") && !error.contains('\u{1b}'), "{name}: {error}");
        ensure!(other.tokens()?.iter().all(Option::is_none), "{name}");
        check_cache(temp.path(), &folder).with_context(|| name)?;
    }
    said.matches("a_hostile_hub_gets_nothing");
    Ok(())
}

/// Another port is another server, another host too. A redirect that names no host, as a renamed repository's, stays.
#[test]
fn the_token_goes_to_the_endpoint_alone() -> Result<()> {
    let away: Twist = |a, r| r.redirect(&format!("{}/{}", a.other, a.path));
    let renamed: Twist = |a, r| {
        if !a.path.ends_with("?moved") {
            r.redirect("?moved");
        }
    };
    for (other, stage, twist, asked) in [
        ("127.0.0.1:0", Stage::Metadata, away, true),
        ("127.0.0.2:0", Stage::Metadata, away, true),
        ("127.0.0.2:0", Stage::Listing, away, true),
        ("127.0.0.2:0", Stage::Metadata, renamed, false),
    ] {
        let temp = tempfile::tempdir()?;
        let other = hostile(other, Stage::Metadata, temp.path(), "", |_, _| {})?;
        let server = hostile("127.0.0.1:0", stage, temp.path(), &other.address, twist)?;
        ok(&mut inspect(temp.path(), &server))?;
        let (seen, at_other) = (server.tokens()?, other.tokens()?);
        assert!(seen.iter().all(|token| token.as_deref() == Some("Bearer hf_SECRET")), "{seen:?}");
        assert!(at_other.is_empty() != asked && at_other.iter().all(Option::is_none), "{at_other:?}");
    }
    Ok(())
}

/// Files of two commits do not make one checkpoint.
#[test]
fn new_weights_bring_their_own_configuration() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let server = hostile("127.0.0.1:0", Stage::Metadata, temp.path(), "", |_, _| {})?;
    ok(inspect(temp.path(), &server).env("HF_HUB_DOWNLOAD_TIMEOUT", u64::MAX.to_string()))?;
    // As after a fetch of an older commit, that did not have these weights yet.
    let (cache, old) = (temp.path().join("hf/hub/models--someone--model"), "a".repeat(40));
    fs::rename(cache.join("snapshots").join(COMMIT), cache.join("snapshots").join(&old))?;
    fs::remove_file(cache.join("snapshots").join(&old).join("step_30"))?;
    fs::write(cache.join("refs/main"), &old)?;
    ok(&mut inspect(temp.path(), &server))?;
    assert_eq!(names(&cache.join("snapshots").join(COMMIT))?, ["all_config.yaml", "step_30"]);
    Ok(())
}

/// As an earlier version left it, that was killed before it compared.
#[test]
fn a_damaged_blob_is_noticed() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut said = Transcript::new(temp.path());
    let server = hostile("127.0.0.1:0", Stage::Metadata, temp.path(), "", |_, _| {})?;
    ok(&mut inspect(temp.path(), &server))?;
    let snapshot = temp.path().join("hf/hub/models--someone--model/snapshots").join(COMMIT);
    for name in ["step_30", "all_config.yaml"] {
        let path = snapshot.join(name);
        let whole = fs::read(&path)?;
        let mut damaged = whole.clone();
        *damaged.last_mut().context("a byte")? ^= 1;
        fs::write(&path, &damaged)?;
        said.fails(inspect(temp.path(), &server).env("HF_HUB_OFFLINE", "1"))?;
        ok(&mut inspect(temp.path(), &server))?;
        assert_eq!(fs::read(&path)?, whole, "{name}");
        assert!(fs::read_link(&path)?.starts_with("../../blobs"), "{name}");
        ok(inspect(temp.path(), &server).env("HF_HUB_OFFLINE", "1"))?;
    }
    said.matches("a_damaged_blob_is_noticed");
    Ok(())
}

/// What lies there from before is gone on with where it fits, and given up where it does not.
#[test]
fn what_an_earlier_download_left_is_no_trap() -> Result<()> {
    let whole = fs::read(golden("e2e/run_b/step_30"))?;
    let half = whole.len() / 2;
    let deaf: Twist = |a, r| {
        r.status = 200;
        r.body = a.bytes.unwrap_or_default().to_vec();
        r.remove("Content-Range");
    };
    for (left, twist) in [
        (whole[..half].to_vec(), None),
        (whole[..half].to_vec(), Some(deaf)),
        (vec![1; half], None),
        (vec![1; whole.len()], None),
        (vec![1; 2 * whole.len()], None),
        (whole.clone(), None),
    ] {
        let temp = tempfile::tempdir()?;
        let blobs = temp.path().join("hf/hub/models--someone--model/blobs");
        fs::create_dir_all(&blobs)?;
        fs::write(blobs.join(format!("{}.incomplete", sha256(&whole))), &left)?;
        let server = hostile("127.0.0.1:0", Stage::Bytes, temp.path(), "", twist.unwrap_or(|_, _| {}))?;
        ok(&mut inspect(temp.path(), &server))?;
        assert_eq!(fs::read(blobs.join(sha256(&whole)))?, whole);
        assert_eq!(names(&blobs)?.len(), 2, "no temporary file stays");
    }
    Ok(())
}

#[test]
fn two_commands_fetch_a_file_once() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let server = hostile("127.0.0.1:0", Stage::Metadata, temp.path(), "", |_, _| {})?;
    let start = || Ok(inspect(temp.path(), &server).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let running = [start(), start(), start()].into_iter().collect::<Result<Vec<_>>>()?;
    for mut child in running {
        assert!(child.wait()?.success());
    }
    let fetched = server.seen()?.iter().filter(|line| line.ends_with("step_30 bytes=0-")).count();
    assert_eq!(fetched, 1, "{:#?}", server.seen()?);
    Ok(())
}
