//! Other people's files, and what a kill or a full disk leaves: nothing that is there is replaced unasked, and the command
//! that is given again leaves the folder as an undisturbed one does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::unix::{fs::FileTypeExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    thread,
};

use anyhow::{Context, Result, ensure};
use clap::CommandFactory;
use serde_json::Value;

use crate::common::{
    fails, hrm, json, names, ok,
    training::{bench, train, trained},
};

const MINE: &str = "mine";
const CPU: [&str; 4] = ["--device", "cpu", "--threads", "1"];

/// `hrm WORDS` on the CPU.
fn command(folder: &Path, words: &str) -> Command {
    let mut command = hrm(folder);
    command.args(words.split_whitespace()).args(CPU);
    command
}

/// Every way of a command to write beside `--json`: its words, and whether it has `--force`. They write below `out`, and
/// read `data`, `run` and `r.jsonl`.
const WRITERS: &[(&str, bool)] = &[
    ("build-dataset --output-dir out --subsample-size 4 --test-rows 4", true),
    ("dataset generate --dataset maze --side 5 --count 2 --output out/m.csv", true),
    (
        "infer --checkpoint run --data-path data --num-batch 1 --batch-size 2 --output out/r.jsonl --plot out/p.svg",
        true,
    ),
    ("infer --merge r.jsonl --output out/m.jsonl --plot out/p.svg", true),
    ("eval --checkpoint run --data-path data --save-outputs out/o.safetensors", true),
    ("eval --checkpoint run --data-path data --save-outputs out --keys logits,inputs", true),
    ("viz trajectory --checkpoint run --data-path data -o out/t.svg", true),
    ("viz curves run -o out/c.svg", true),
    ("viz landscape --checkpoint run --data-path data --grid -1..1 --output-dir out --format svg", true),
    ("viz flow --checkpoint run --data-path data --grid -1..1 --output-dir out --format svg", true),
    ("analyze segments --checkpoint run --data-path data --count 2 --output-dir out --format svg", true),
    ("analyze modes --window 2 --checkpoint run --data-path data --count 2 --output-dir out --format both", true),
    ("analyze stability --checkpoint run --data-path data --blanks 1 --per-k 2 --output-dir out --format svg", true),
    ("analyze cells --checkpoint run --data-path data --count 2 --output-dir out --format svg", true),
    ("analyze attention --checkpoint run --data-path data --output-dir out --format svg", true),
    ("report --checkpoint run --data-path data --count 2 --explore 1 --output-dir out", true),
    ("trace --checkpoint run --data-path data --count 2 --output-dir out", true),
    ("checkpoint convert run out --to safetensors", true),
    ("checkpoint convert run out --to torch", true),
    (
        "bench train --dump out/step.safetensors --batch-size 2 --steps 1 --warm 0 arch.hidden_size=16 arch.num_heads=2 \
         arch.H_layers=1 arch.L_layers=1 arch.halt_max_steps=2",
        true,
    ),
    ("man --output-dir out", true),
    (
        "train data_path=data global_batch_size=16 epochs=1 eval_interval=1 checkpoint_path=out arch.hidden_size=16 \
      arch.num_heads=2 arch.H_layers=1 arch.L_layers=1 arch.L_cycles=1 arch.halt_max_steps=3",
        false,
    ),
];

/// Arguments that name something to write (`hrm bench infer` refuses its --dump).
const PLACES: [&str; 6] = ["output", "output_dir", "save_outputs", "plot", "dump", "dst"];

#[test]
fn the_table_asks_every_command_that_writes() {
    fn walk(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        for sub in command.get_subcommands() {
            let path = format!("{path} {}", sub.get_name());
            found.extend(sub.get_arguments().filter_map(|arg| {
                let id = PLACES.iter().find(|&&place| arg.get_id() == place)?;
                Some(format!("{} {id}", path.trim())).filter(|place| place != "bench infer dump")
            }));
            walk(sub, &path, found);
        }
    }
    let mut found = Vec::new();
    walk(&hrm::cli::Cli::command(), "", &mut found);
    assert!(found.len() > 12, "{found:?}");
    for place in found {
        let (command, id) = place.rsplit_once(' ').expect("a command and an argument");
        let flag = format!("--{}", id.replace('_', "-"));
        let asks = |words: &&(&str, bool)| {
            let rest = words.0.strip_prefix(command);
            rest.is_some_and(|rest| rest.contains(&flag) || rest.contains(" -o ") || id == "dst")
        };
        assert!(WRITERS.iter().any(|words| asks(&words)), "{place} is not in the table");
    }
}

/// All files below a folder with their contents, by their path in it.
fn tree(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for name in names(folder)? {
        let path = folder.join(&name);
        if path.is_dir() {
            found.extend(tree(&path)?.into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            found.insert(name, fs::read(&path)?);
        }
    }
    Ok(found)
}

fn lay(folder: &Path, name: &str) -> Result<()> {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().context("a folder")?)?;
    Ok(fs::write(path, MINE)?)
}

#[test]
fn no_command_replaces_what_is_there_without_force() -> Result<()> {
    let folder = trained()?;
    let (at, out) = (folder.path(), folder.path().join("out"));
    ok(&mut command(at, "infer --checkpoint run --data-path data --output r.jsonl"))?;
    let fresh = || -> Result<()> {
        if out.exists() {
            fs::remove_dir_all(&out)?;
        }
        Ok(fs::create_dir(&out)?)
    };
    for &(words, has_force) in WRITERS {
        fresh()?;
        ok(&mut command(at, words))?;
        let written: Vec<String> = tree(&out)?.into_keys().collect();
        ensure!(!written.is_empty() && written.iter().all(|name| !name.contains("/.")), "{words}: {written:?}");
        for name in &written {
            fresh()?;
            lay(&out, name)?;
            let error = fails(&mut command(at, words)).with_context(|| format!("{name} is there"))?;
            ensure!(error.contains("out") && error.trim_end().lines().count() == 1, "{words}: {error}");
            ensure!(
                tree(&out)? == BTreeMap::from([(name.clone(), MINE.into())]),
                "{words}: {name}, {:?}",
                names(&out)?
            );
        }
        if has_force {
            fresh()?;
            written.iter().try_for_each(|name| lay(&out, name))?;
            ok(command(at, words).arg("--force"))?;
            let now = tree(&out)?;
            ensure!(now.keys().eq(&written), "{words} --force: {:?} of {written:?}", now.keys());
            ensure!(now.values().all(|bytes| bytes != MINE.as_bytes()), "{words} --force");
        }
    }
    Ok(())
}

#[test]
fn json_replaces_a_file_and_writes_to_all_else() -> Result<()> {
    let folder = bench()?;
    let at = folder.path();
    let inspect = |json: &str| {
        let mut command = command(at, "dataset inspect data --show 0 --no-fingerprint");
        command.args(["--json", json]);
        command
    };
    let is_whole = |path: &Path| json(path).map(|found| found["splits"].is_array());
    for name in ["new.json", "old.json", "link.json"] {
        if name == "old.json" {
            fs::write(at.join(name), MINE)?;
            std::os::unix::fs::symlink("linked.json", at.join("link.json"))?;
        }
        ok(&mut inspect(name))?;
        ensure!(is_whole(&at.join(name))?, "{name}");
    }
    ensure!(at.join("link.json").is_symlink() && at.join("linked.json").is_file(), "a link is followed");

    ok(&mut inspect("/dev/null"))?;
    ensure!(fs::metadata("/dev/null")?.file_type().is_char_device());
    ensure!(Command::new("mkfifo").arg(at.join("pipe")).status()?.success());
    let reader = {
        let pipe = at.join("pipe");
        thread::spawn(move || fs::read_to_string(pipe))
    };
    ok(&mut inspect("pipe"))?;
    let through: Value = serde_json::from_str(&reader.join().ok().context("the reader ends")??)?;
    ensure!(through["splits"].is_array(), "{through}");
    ensure!(fs::metadata(at.join("pipe"))?.file_type().is_fifo());

    // Text and document share what standard output leads to.
    ensure!(inspect("/dev/stdout").stdout(File::create(at.join("both"))?).status()?.success());
    let both = fs::read_to_string(at.join("both"))?;
    let document = both.find("\n{").context("the document is behind the text")?;
    let document: Value = serde_json::from_str(&both[document..])?;
    ensure!(both.starts_with("train: ") && document["splits"].is_array(), "{both}");
    let left = names(at)?;
    ensure!(left.iter().all(|name| !name.starts_with('.')), "{left:?}");

    for (json, wanted) in
        [("data", "this is a folder"), ("no/j.json", "there is no folder no"), ("old.json/j", "old.json/j")]
    {
        ensure!(fails(&mut inspect(json))?.contains(wanted), "{json}");
    }
    let same = "viz curves data -o c.svg --json ./c.svg";
    ensure!(fails(&mut command(at, same))?.contains("c.svg: --json would replace it"), "two outputs in one place");
    Ok(())
}

#[test]
fn lists_go_through_pipes_and_devices_stay() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    let generate =
        |output: &str| command(at, &format!("dataset generate --dataset maze --side 5 --count 2 --output {output}"));
    ok(&mut generate("m.csv"))?;
    ok(generate("/dev/null").arg("--force"))?;
    ensure!(fs::metadata("/dev/null")?.file_type().is_char_device());
    ensure!(Command::new("mkfifo").arg(at.join("pipe")).status()?.success());
    let pipe = at.join("pipe");
    let reader = thread::spawn(move || fs::read(pipe));
    ok(&mut generate("pipe"))?;
    ensure!(reader.join().ok().context("the reader ends")?? == fs::read(at.join("m.csv"))?);
    ensure!(names(at)? == ["m.csv", "pipe"], "{:?}", names(at)?);
    Ok(())
}

#[test]
fn a_joined_file_replaces_no_other_results() -> Result<()> {
    let folder = trained()?;
    let at = folder.path();
    let words = "infer --checkpoint run --data-path data --batch-size 4 --output all.jsonl";
    fs::write(at.join("all.jsonl"), MINE)?;
    let ranks = |more: &str| command(at, &format!("{words} --nproc-per-node 2 {more}"));
    ensure!(fails(&mut ranks(""))?.contains("all.jsonl: is there already"));
    ensure!(fails(&mut ranks("--resume"))?.contains("all.jsonl: is there already, and its parts are not complete"));
    ensure!(fs::read(at.join("all.jsonl"))? == MINE.as_bytes());
    ok(&mut ranks("--resume --force"))?;
    // The last line tells the seconds.
    let results = || -> Result<Vec<String>> {
        let mut lines: Vec<String> = fs::read_to_string(at.join("all.jsonl"))?.lines().map(str::to_owned).collect();
        lines.pop();
        Ok(lines)
    };
    let joined = results()?;
    ok(&mut ranks("--resume"))?;
    ensure!(joined.len() == 21 && results()? == joined, "{joined:?}");
    Ok(())
}

#[test]
fn an_earlier_set_aside_stays() -> Result<()> {
    let folder = trained()?;
    let at = folder.path();
    for aside in ["step_32.aside", "step_32.aside-2"] {
        fs::create_dir(at.join("run").join(aside))?;
        lay(&at.join("run").join(aside), "note")?;
    }
    ok(&mut command(at, "train --resume run/step_16"))?;
    let run = names(&at.join("run"))?;
    ensure!(run.contains(&"step_32.aside-3".to_owned()) && run.contains(&"step_32".to_owned()), "{run:?}");
    for aside in ["step_32.aside", "step_32.aside-2"] {
        ensure!(fs::read_to_string(at.join("run").join(aside).join("note"))? == MINE);
    }
    Ok(())
}

/// A library that disturbs one call, see disk.c.
static DISK: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let library = folder.path().join("disk.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/disk.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl");
    assert!(compiler.status().expect("a C compiler").success());
    (folder, library)
});

/// Disturbs a command at the `nth` call on a path with that part in it, see disk.c.
fn disturb(command: &mut Command, at: &Path, (call, path, nth, how): (&str, &str, u32, &str)) -> Result<()> {
    command.env("LD_PRELOAD", &DISK.1).env("FAULT_ROOT", at).env("FAULT_NTH", nth.to_string());
    command.env("FAULT_CALL", call).env("FAULT_PATH", path).env("FAULT_HOW", how);
    let output = command.output()?;
    let killed = output.status.signal() == Some(libc::SIGKILL);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match how {
        "before" | "after" => ensure!(killed, "{call} {path} {nth}: not reached: {said}"),
        "full" => ensure!(!output.status.success() && said.contains("No space left"), "{call} {path} {nth}: {said}"),
        _ => {}
    }
    ensure!(!said.contains("panicked"), "{said}");
    Ok(())
}

#[test]
fn a_full_disk_leaves_the_old_json() -> Result<()> {
    let folder = bench()?;
    let at = folder.path();
    for (call, path) in
        [("open", ".old.json."), ("write", ".old.json."), ("fsync", ".old.json."), ("rename", "/old.json")]
    {
        fs::write(at.join("old.json"), MINE)?;
        let mut inspect = command(at, "dataset inspect data --json old.json");
        disturb(&mut inspect, at, (call, path, 1, "full"))?;
        ensure!(fs::read_to_string(at.join("old.json"))? == MINE, "{call}");
        ensure!(names(at)? == ["data", "old.json"], "{call}: {:?}", names(at)?);
    }
    Ok(())
}

#[test]
fn a_generation_ends_wherever_it_was_killed() -> Result<()> {
    let words = "dataset generate --dataset maze --side 7 --count 40 --output m.csv.gz --json j.json --resume";
    let whole = tempfile::tempdir()?;
    ok(&mut command(whole.path(), words))?;
    let list = fs::read(whole.path().join("m.csv.gz"))?;
    for point in [
        ("open", ".m.csv.gz.", 1, "after"),
        ("write", ".m.csv.gz.", 1, "full"),
        ("rename", "/m.csv.gz", 1, "before"),
        ("rename", "/m.csv.gz", 1, "after"),
        ("rename", "/j.json", 1, "full"),
        ("unlink", ".partial", 1, "before"),
        ("unlink", ".partial", 1, "once"),
        ("unlink", ".partial", 1, "after"),
    ] {
        let folder = tempfile::tempdir()?;
        disturb(&mut command(folder.path(), words), folder.path(), point)?;
        ok(&mut command(folder.path(), words)).with_context(|| format!("{point:?}"))?;
        ensure!(names(folder.path())? == ["j.json", "m.csv.gz"], "{point:?}: {:?}", names(folder.path())?);
        ensure!(fs::read(folder.path().join("m.csv.gz"))? == list, "{point:?}");
    }
    Ok(())
}

/// Steps with values in the event files of a run.
fn event_steps(run: &Path) -> Result<BTreeSet<u64>> {
    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = bytes.split_first()?;
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
    /// The step of an event that has a summary.
    fn step(mut event: &[u8]) -> Option<u64> {
        let (mut step, mut summary) = (0, false);
        while !event.is_empty() {
            let tag = varint(&mut event)?;
            match (tag >> 3, tag & 7) {
                (2, 0) => step = varint(&mut event)?,
                (_, 0) => drop(varint(&mut event)?),
                (_, 1) => event = event.get(8..)?,
                (field, 2) => {
                    let length = usize::try_from(varint(&mut event)?).ok()?;
                    event = event.get(length..)?;
                    summary |= field == 5;
                }
                _ => return None,
            }
        }
        summary.then_some(step)
    }
    let mut steps = BTreeSet::new();
    for name in names(run)?.iter().filter(|name| name.starts_with("events.")) {
        let bytes = fs::read(run.join(name))?;
        let mut rest = &bytes[..];
        while let Some((length, behind)) = rest.split_first_chunk::<8>() {
            let length = usize::try_from(u64::from_le_bytes(*length))?;
            let Some(event) = behind.get(4..4 + length) else { break };
            steps.extend(step(event));
            rest = behind.get(8 + length..).unwrap_or_default();
        }
    }
    Ok(steps)
}

/// Contents by name.
type Files = BTreeMap<String, Vec<u8>>;

/// What a run's folder holds: names, without what is different for every process, and the files that are the same.
fn left_of(run: &Path) -> Result<(BTreeSet<String>, Files)> {
    let mut all = tree(run)?;
    let names = all.keys().filter(|name| !name.starts_with("events.")).cloned().collect();
    all.retain(|name, _| name.ends_with(".safetensors") || ["latest", "best.json"].contains(&name.as_str()));
    Ok((names, all))
}

#[test]
fn a_killed_run_that_goes_on_leaves_what_an_undisturbed_one_does() -> Result<()> {
    let folder = bench()?;
    let at = folder.path();
    let words = "checkpoint_path=run keep_last=3 checkpoint_every_steps=6 --tensorboard --resume auto --json j.json";
    let (run, steps) = (at.join("run"), (1..=32).collect::<BTreeSet<u64>>());
    ok(&mut train(at, words))?;
    let undisturbed = left_of(&run)?;
    let evaluated = json(&at.join("j.json"))?["evaluation"].clone();
    ensure!(event_steps(&run)? == steps && evaluated.is_object());
    for point in [
        // In the middle of a checkpoint, and where it has its name and nothing else is done.
        ("write", ".step_24.part/.model.safetensors.", 1, "before"),
        ("rename", "/step_24", 1, "after"),
        ("rename", "/latest", 3, "before"),
        ("open", ".best.json.", 2, "after"),
        // Pruning: the manifest, the files of the training state, a whole folder.
        ("open", "step_6/.manifest.json.", 1, "after"),
        ("rename", "step_6/manifest.json", 1, "after"),
        ("unlink", "step_6/training.json", 1, "before"),
        ("unlink", "step_6/training.safetensors", 1, "once"),
        ("unlink", "all_config.yaml", 1, "after"),
        // The last checkpoint: nothing is left to train.
        ("rename", "/step_32", 1, "after"),
        ("open", ".j.json.", 1, "before"),
        // The disk is full.
        ("write", "/run/metrics.jsonl", 2, "full"),
        ("rename", "/latest", 2, "full"),
    ] {
        fs::remove_dir_all(&run)?;
        fs::remove_file(at.join("j.json"))?;
        disturb(&mut train(at, words), at, point)?;
        if point.1 == "/step_24" {
            ensure!(event_steps(&run)?.is_superset(&(1..=24).collect()), "steps of a checkpoint are in no event file");
        }
        let said = ok(&mut train(at, words)).with_context(|| format!("{point:?}"))?.stderr;
        ensure!(!said.contains("warning"), "{point:?}: {said}");
        let left = left_of(&run)?;
        ensure!(left.0 == undisturbed.0, "{point:?}: {:?} instead of {:?}", left.0, undisturbed.0);
        ensure!(left.1 == undisturbed.1, "{point:?}: other contents");
        ensure!(event_steps(&run)? == steps, "{point:?}: {:?}", event_steps(&run)?);
        ensure!(json(&at.join("j.json"))?["evaluation"] == evaluated, "{point:?}");
    }
    Ok(())
}

#[test]
fn a_trace_is_finished_wherever_it_was_disturbed() -> Result<()> {
    let folder = trained()?;
    let at = folder.path();
    let words =
        "trace --checkpoint run --data-path data --count 4 --batch-size 2 --output-dir o --resume --json j.json";
    ok(&mut command(at, words))?;
    let (whole, document) = (tree(&at.join("o"))?, json(&at.join("j.json"))?);
    for point in [
        ("open", ".index.json.", 1, "full"),
        ("rename", "o/trace.safetensors", 1, "before"),
        ("rename", "o/trace.safetensors", 1, "after"),
        ("rename", "o/index.json", 1, "after"),
        ("write", "trace.safetensors.part", 4, "before"),
    ] {
        fs::remove_dir_all(at.join("o"))?;
        fs::remove_file(at.join("j.json"))?;
        disturb(&mut command(at, words), at, point)?;
        ok(&mut command(at, words)).with_context(|| format!("{point:?}"))?;
        ensure!(tree(&at.join("o"))? == whole, "{point:?}: {:?}", names(&at.join("o"))?);
        ensure!(json(&at.join("j.json"))? == document, "{point:?}");
    }
    // What is there is compared with what is asked.
    let path = at.join("o/trace.safetensors");
    let mut bytes = fs::read(&path)?;
    bytes.pop();
    fs::write(&path, bytes)?;
    ensure!(fails(&mut command(at, words))?.contains("o/trace.safetensors: not the trace that was asked for"));
    Ok(())
}

#[test]
fn results_pictures_and_documents_are_finished_by_resume() -> Result<()> {
    let folder = trained()?;
    let at = folder.path();
    for (words, of, points) in [
        (
            "infer --checkpoint run --data-path data --output o/r.jsonl --plot o/p.svg --resume --json o/j.json",
            "o/p.svg",
            [("open", "o/.p.svg.", 1, "after"), ("rename", "o/p.svg", 1, "after"), ("write", "o/.j.json.", 1, "full")],
        ),
        (
            "analyze modes --window 2 --checkpoint run --data-path data --count 4 --output-dir o --format svg --resume --json o/j.json",
            "o/modes.svg",
            [
                ("open", "o/.modes.svg.", 1, "after"),
                ("rename", "o/modes.svg", 1, "after"),
                ("write", "o/.modes.json.", 1, "full"),
            ],
        ),
        (
            "analyze attention --checkpoint run --data-path data --output-dir o --format svg --resume --json o/j.json",
            "o/attention.svg",
            [
                ("open", "o/.maps.", 1, "after"),
                ("rename", "o/shares.npy", 1, "after"),
                ("write", "o/.shares.json.", 1, "full"),
            ],
        ),
    ] {
        fs::create_dir(at.join("o"))?;
        ok(&mut command(at, words))?;
        let (left, picture) = (names(&at.join("o"))?, fs::read(at.join(of))?);
        for point in points {
            fs::remove_dir_all(at.join("o"))?;
            fs::create_dir(at.join("o"))?;
            disturb(&mut command(at, words), at, point)?;
            ok(&mut command(at, words)).with_context(|| format!("{point:?}"))?;
            ensure!(names(&at.join("o"))? == left, "{point:?}: {:?}", names(&at.join("o"))?);
            ensure!(fs::read(at.join(of))? == picture, "{point:?}");
        }
        fs::remove_dir_all(at.join("o"))?;
    }
    Ok(())
}

#[test]
fn force_leaves_the_one_or_the_other_at_every_moment() -> Result<()> {
    let folder = trained()?;
    let at = folder.path();
    for (first, second, place, points) in [
        (
            "build-dataset --output-dir d --subsample-size 4 --test-rows 4 --force",
            "build-dataset --output-dir d --subsample-size 8 --test-rows 8 --force",
            "d",
            [
                ("fsync", ".part/train", 1, "before"),
                ("rename", "/d", 1, "before"),
                ("rename", "/d", 1, "after"),
                ("unlink", "all__", 1, "after"),
            ],
        ),
        (
            "checkpoint convert run/step_16 m --to safetensors --force",
            "checkpoint convert run/step_32 m --to safetensors --force",
            "m",
            [
                ("write", ".model.safetensors.", 1, "full"),
                ("rename", "/m", 1, "before"),
                ("rename", "/m", 1, "after"),
                ("unlink", "meta.json", 1, "after"),
            ],
        ),
    ] {
        let trees = [second, first].map(|words| ok(&mut command(at, words)).and_then(|_| tree(&at.join(place))));
        let [new, old] = trees.into_iter().collect::<Result<Vec<_>>>()?.try_into().ok().context("two")?;
        let before = names(at)?;
        for point in points {
            ok(&mut command(at, first))?;
            disturb(&mut command(at, second), at, point)?;
            let now = tree(&at.join(place))?;
            ensure!(now == old || now == new, "{point:?}: {:?}", now.keys());
            ok(&mut command(at, second)).with_context(|| format!("{point:?}"))?;
            ensure!(tree(&at.join(place))? == new && names(at)? == before, "{point:?}: {:?}", names(at)?);
        }
    }
    Ok(())
}

#[test]
fn journals_are_begun_anew_in_one_step() -> Result<()> {
    let folder = trained()?;
    let at = folder.path();
    let words = "analyze segments --checkpoint run --data-path data --count 2 --output-dir o --format svg";
    ok(&mut command(at, words))?;
    let old = fs::read(at.join("o/runs.jsonl"))?;
    let forced = || {
        let mut command = command(at, words);
        command.args(["--force", "--segments", "2"]);
        command
    };
    disturb(&mut forced(), at, ("rename", "o/runs.jsonl", 1, "before"))?;
    ensure!(fs::read(at.join("o/runs.jsonl"))? == old);
    disturb(&mut forced(), at, ("rename", "o/runs.jsonl", 1, "after"))?;
    let begun = fs::read_to_string(at.join("o/runs.jsonl"))?;
    ensure!(begun.lines().count() == 1 && begun.contains("\"segments\":2") && begun.ends_with('\n'), "{begun}");
    ok(command(at, words).args(["--resume", "--segments", "2"]))?;
    ensure!(names(&at.join("o"))?.iter().all(|name| !name.starts_with('.')), "{:?}", names(&at.join("o"))?);
    Ok(())
}
