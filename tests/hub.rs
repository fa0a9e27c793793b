//! The Hugging Face hub: the real binary against a small HTTP server that speaks the hub's paths.

mod common;

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Write},
    mem,
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};
use common::{fails, golden, hrm, names, ok, sha256};

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
        let siblings: Vec<_> = names.map(|name| serde_json::json!({"rfilename": name})).collect();
        let body = serde_json::json!({"siblings": siblings, "sha": COMMIT}).to_string();
        return reply("200 OK", "Content-Type: application/json\r\n", body.as_bytes(), body.len());
    }
    let name = path.replacen("/resolve/main/", "/", 1);
    let large = path.starts_with("cdn/");
    let Some(bytes) = content.files.get(name.trim_start_matches("cdn/")) else {
        return reply("404 Not Found", "", b"", 0);
    };
    // As the hub: files of more than a kilobyte lie elsewhere, under their SHA-256.
    let etag = sha256(bytes);
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
    let more =
        format!("{commit}ETag: \"{}\"\r\nContent-Range: bytes {start}-{}/{}\r\n", &etag[..40], end - 1, bytes.len());
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
    command.env("HF_ENDPOINT", &server.address).env("HF_HOME", folder.join("hf")).env("OMP_NUM_THREADS", "1");
    command
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
    let server = serve(puzzles()?)?;
    let output = ok(&mut build(temp.path(), &server, "out"))?;
    assert!(output.stdout.contains("train.csv of someone/puzzles"), "{}", output.stdout);
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
    let error = fails(build(temp.path(), &server, "x").env("HF_HUB_OFFLINE", "1").env("HF_HUB_CACHE", &elsewhere))?;
    assert!(error.contains("HF_HUB_OFFLINE is set") && error.contains("--source bundled"), "{error}");
    ok(build(temp.path(), &server, "y").env("HF_HUB_CACHE", &elsewhere))?;
    assert_eq!(names(&elsewhere)?, ["datasets--someone--puzzles"]);
    Ok(())
}

#[test]
fn a_cut_download_goes_on_where_it_ended() -> Result<()> {
    let temp = tempfile::tempdir()?;
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
    let error = fails(&mut build(fresh.path(), &server, "out"))?;
    assert!(error.contains("the connection broke 4 times") && error.contains("--source bundled"), "{error}");
    assert_eq!(names(fresh.path())?, ["hf"]);
    ok(&mut build(fresh.path(), &server, "out"))?;
    assert_eq!(fs::read(fresh.path().join("out/train/all__inputs.npy"))?, built);
    Ok(())
}

/// A hub that takes the request and says nothing, and one that stops in the middle of a file.
#[test]
fn a_silent_hub_is_not_waited_for() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let silent = Server { address: format!("http://{}", listener.local_addr()?), content: Arc::default() };
    let error = fails(build(temp.path(), &silent, "out").env("HF_HUB_DOWNLOAD_TIMEOUT", "1"))?;
    let wanted = format!("{} has sent nothing for 1 s (HF_HUB_DOWNLOAD_TIMEOUT)", silent.address);
    assert!(error.contains(&wanted) && error.contains("--source bundled"), "{error}");
    let inspect = ["checkpoint", "inspect", "hf://someone/model"];
    let error = fails(with_hub(temp.path(), &silent).args(inspect).env("HF_HUB_DOWNLOAD_TIMEOUT", "1"))?;
    assert!(error.contains(&wanted), "{error}");
    let error = fails(build(temp.path(), &silent, "out").env("HF_HUB_DOWNLOAD_TIMEOUT", "soon"))?;
    assert!(error.contains("HF_HUB_DOWNLOAD_TIMEOUT is \"soon\"; wanted whole seconds"), "{error}");

    let mut content = puzzles()?;
    content.stalls = 1.into();
    let server = serve(content)?;
    let error = fails(build(temp.path(), &server, "out").env("HF_HUB_DOWNLOAD_TIMEOUT", "1"))?;
    assert!(error.contains("has sent nothing for 1 s") && error.contains("goes on where it ended"), "{error}");
    ok(&mut build(temp.path(), &server, "out"))?;
    let built = fs::read(temp.path().join("out/train/all__inputs.npy"))?;
    assert_eq!(built, fs::read(golden("dataset/sudoku_noaug/train/all__inputs.npy"))?);
    let seen = server.content.seen.lock().ok().context("a lock")?.clone();
    let resumed = seen.iter().filter(|line| line.starts_with("cdn/") && !line.contains("bytes=0-")).count();
    assert_eq!(resumed, 1, "{seen:#?}");
    Ok(())
}

/// No bar where there is no terminal, and nothing but the document on standard output.
#[test]
fn a_download_leaves_the_output_clean() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let server = serve(puzzles()?)?;
    let output = ok(build(temp.path(), &server, "out").args(["--json", "-"]))?;
    let report: serde_json::Value = serde_json::from_str(&output.stdout)?;
    assert_eq!(report["output_dir"], "out");
    assert!(output.stderr.contains("train.csv of someone/puzzles"), "{}", output.stderr);
    assert!(!output.stderr.contains(['\r', '\u{1b}']) && !output.stderr.contains("fetching"), "{}", output.stderr);
    Ok(())
}

#[test]
fn failures_are_errors_that_name_the_way_out() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let fail = |content: Content, wanted: &[&str]| -> Result<()> {
        let server = serve(content)?;
        let error = fails(&mut build(temp.path(), &server, "out"))?;
        let all = wanted.iter().chain(&["someone/puzzles", "test.csv", "--source bundled"]);
        assert!(all.clone().all(|wanted| error.contains(wanted)), "{error}\nwanted {wanted:?}");
        assert!(!temp.path().join("out").exists());
        Ok(())
    };
    fail(Content::default(), &["404"])?;
    fail(Content { refuse: Some(503), ..puzzles()? }, &["503"])?;
    fail(Content { refuse: Some(403), ..puzzles()? }, &["403", "HF_TOKEN"])?;
    fail(Content { token: Some("secret".into()), ..puzzles()? }, &["401", "set HF_TOKEN"])?;
    fail(Content { corrupt: true, ..puzzles()? }, &["SHA-256"])?;
    let gone = Server { address: "http://127.0.0.1:9".into(), content: Arc::default() };
    let error = fails(&mut build(temp.path(), &gone, "out"))?;
    assert!(error.contains("cannot be fetched from http://127.0.0.1:9"), "{error}");

    let server = serve(Content { token: Some("secret".into()), ..puzzles()? })?;
    ok(build(temp.path(), &server, "out").env("HF_TOKEN", "secret"))?;
    fs::write(temp.path().join("token"), "secret\n")?;
    let command = &mut build(temp.path(), &server, "out2");
    ok(command.env("HF_TOKEN_PATH", temp.path().join("token")).env("HF_HUB_CACHE", temp.path().join("other")))?;

    let error = fails(hrm(temp.path()).args(["build-dataset", "--source-repo", "../../etc"]))?;
    assert!(error.contains("is no repository of the hub"), "{error}");
    let error = fails(hrm(temp.path()).args(["build-dataset", "--source-repo", "a/b", "--source", "bundled"]))?;
    assert!(error.contains("cannot be used with"), "{error}");
    Ok(())
}

#[test]
fn a_checkpoint_is_read_by_its_address() -> Result<()> {
    let temp = tempfile::tempdir()?;
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
    let error = fails(with_hub(temp.path(), &server).args(["checkpoint", "inspect", "hf://someone/model/step_31"]))?;
    assert!(error.contains("it has no file step_31") && error.contains("step_30"), "{error}");
    let error = fails(with_hub(temp.path(), &server).args(["checkpoint", "inspect", "hf://someone/else"]))?;
    assert!(error.contains("hf://someone/else"), "{error}");
    let error = fails(with_hub(temp.path(), &server).args(["checkpoint", "inspect", "hf://someone"]))?;
    assert!(error.contains("hf://ORG/NAME"), "{error}");
    let mut offline = with_hub(temp.path(), &server);
    ok(offline.args(["checkpoint", "inspect", "hf://someone/model"]).env("HF_HUB_OFFLINE", "1"))?;
    Ok(())
}
