//! `hrm infer` on large runs: results as they come, killed and resumed, in shards, under a launcher, merged; all stop rules
//! from one run. The model solves some easy boards at some segments (common/solver.rs).

mod common;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use common::{fails, hrm, names, ok, size, snapshot::Transcript, solver, until};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a dataset and two checkpoints.
fn prepared(puzzles: usize) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    for seed in [1, 2] {
        solver::write(&at.join(format!("run{seed}")), seed)?;
    }
    fs::create_dir(at.join("lists"))?;
    for split in ["train", "test"] {
        fs::write(at.join(format!("lists/{split}.csv")), solver::csv(puzzles)?)?;
    }
    ok(hrm(at).args(["build-dataset", "--source", "lists", "--output-dir", "data"]))?;
    Ok(folder)
}

fn infer(folder: &Path, more: &str) -> Command {
    let mut command = hrm(folder);
    command.args("infer --checkpoints run1,run2 --data-path data --threads 1 --device cpu".split(' '));
    command.args(more.split_whitespace());
    command
}

/// The JSON document without what depends on the clock, the batch and the shards.
fn report(folder: &Path, more: &str) -> Result<Value> {
    let mut command = infer(folder, more);
    without_time(serde_json::from_str(&ok(command.args(["--json", "-"]))?.stdout)?)
}

fn without_time(mut value: Value) -> Result<Value> {
    let keys = value.as_object_mut().context("an object")?;
    for key in
        ["seconds", "puzzles_per_second", "batch_size", "device", "row_segments", "shard", "setup_seconds", "against"]
    {
        keys.remove(key).with_context(|| format!("the report lacks {key}"))?;
    }
    for rule in ["never", "halt", "verified"] {
        if let Some(stop) = keys["stops"][rule].as_object_mut() {
            stop.remove("seconds");
        }
    }
    Ok(value)
}

#[track_caller]
fn assert_same(what: &str, found: &Value, wanted: &Value) {
    for (key, value) in wanted.as_object().expect("an object") {
        assert_eq!(&found[key], value, "{what}: {key}");
    }
    assert_eq!(found.as_object().map(serde_json::Map::len), wanted.as_object().map(serde_json::Map::len), "{what}");
}

const RUN: &str = "--permutes 3 --batch-size 8";

#[test]
fn one_full_run_scores_every_stop_rule_as_runs_of_their_own_do() -> Result<()> {
    let folder = prepared(40)?;
    let all = report(folder.path(), &format!("{RUN} --compare-stops --plot passes.png"))?;
    for rule in ["never", "halt", "verified"] {
        let own = report(folder.path(), &format!("{RUN} --stop {rule}"))?;
        let (mut found, mut wanted) = (all["stops"][rule].clone(), own["stops"][rule].clone());
        assert_eq!(wanted["measured"], true);
        assert_eq!(found["measured"], rule == "never");
        for stop in [&mut found, &mut wanted] {
            stop.as_object_mut().context("a rule")?.remove("measured");
        }
        assert_same(rule, &found, &wanted);
        assert_eq!(own["scores"], own["stops"][rule]["scores"], "{rule}");
        let nothing = own["upstream_rule"].is_null() && own["solved"].is_null();
        assert_eq!(nothing, rule != "never", "{rule}: upstream's rule is of the last of all segments");
    }
    let of = |rule: &str, key: &str| all["stops"][rule][key].as_f64().context("a number");
    assert_eq!(of("never", "segments")?, of("never", "segments_nominal")?);
    assert!(of("halt", "segments")? < of("never", "segments")?);
    assert!(of("verified", "segments")? < of("never", "segments")?);
    assert!(of("verified", "passes_skipped")? > 0.0);
    // The model leaves right answers again: more are verified at some segment than at the last.
    let verified = |rule: &str| all["stops"][rule]["scores"]["verified"]["correct"].as_u64().context("a number");
    assert!(verified("verified")? > verified("never")?);
    for score in ["verified", "vote", "best_halt"] {
        let score = &all["scores"][score];
        let (low, high) = (score["ci95"][0].as_f64(), score["ci95"][1].as_f64());
        assert!(low <= score["accuracy"].as_f64() && score["accuracy"].as_f64() <= high, "{score}");
    }
    assert_eq!(all["pass_at_k"].as_array().map(Vec::len), Some(6));
    let sources = all["breakdown"]["by_source"].as_object().context("sources")?;
    assert_eq!(sources.keys().collect::<Vec<_>>(), ["puzzles0", "puzzles1"]);
    let rated: u64 =
        all["breakdown"]["by_rating"].as_array().into_iter().flatten().filter_map(|g| g["total"].as_u64()).sum();
    assert_eq!(rated, 40);
    assert_eq!(all["puzzles"]["solved_by"].as_array().map(Vec::len), Some(40));
    assert!(fs::read(folder.path().join("passes.png"))?.starts_with(b"\x89PNG"));
    Ok(())
}

/// The refilled engine has the answers of the full run, whatever the batch: on a CPU in f32 all of them.
#[test]
fn answers_are_counted_against_a_full_run() -> Result<()> {
    let folder = prepared(20)?;
    let mut said = Transcript::new(folder.path());
    let at = folder.path();
    ok(&mut infer(at, &format!("{RUN} --compare-stops --output full.jsonl")))?;
    for more in ["--stop halt", "--stop verified", "--stop never --batch-size 5"] {
        let more = format!("--permutes 3 {more} --against full.jsonl --json -");
        let found: Value = serde_json::from_str(&ok(&mut infer(at, &more))?.stdout)?;
        let against = &found["against"];
        assert_eq!((&against["answers"], &against["stops"]), (&0.into(), &0.into()), "{more}");
        assert!(against["passes"].as_u64() >= Some(20), "{more}: {against}");
    }
    said.fails(&mut infer(at, "--permutes 2 --against full.jsonl"))?;
    ok(&mut infer(at, "--stop halt --output halt.jsonl"))?;
    said.fails(&mut infer(at, "--against halt.jsonl"))?;
    said.matches("answers_are_counted_against_a_full_run");
    Ok(())
}

/// Kills a run again and again as its results grow; what is resumed in the end has the results of an undisturbed run.
#[test]
fn a_killed_run_goes_on_where_it_was() -> Result<()> {
    let folder = prepared(90)?;
    for rule in ["never", "verified"] {
        let run = format!("{RUN} --stop {rule}");
        let wanted = report(folder.path(), &run)?;
        let output = format!("{rule}.jsonl");
        let with_file = format!("{run} --output {output} --resume");
        let mut sizes = Vec::new();
        for more in [0, 1, 3_000, 9_000] {
            let mut child = infer(folder.path(), &with_file).stdout(Stdio::null()).spawn()?;
            let (path, before) = (folder.path().join(&output), sizes.last().copied().unwrap_or(0));
            // A run that has ended by then has nothing left to lose.
            let _ = until(&mut child, String::new, || size(&path) >= before + more);
            child.kill()?;
            child.wait()?;
            sizes.push(size(&path));
        }
        assert!(sizes.windows(2).all(|pair| pair[0] <= pair[1] + 400), "more than a torn line was lost: {sizes:?}");
        // A line that was being written.
        if sizes.last().is_some_and(|&size| size > 0) {
            let mut bytes = fs::read(folder.path().join(&output))?;
            bytes.extend_from_slice(br#"{"puzzle":89,"passes":[{"pass":0,"ans"#);
            fs::write(folder.path().join(&output), bytes)?;
        }
        assert_same(rule, &report(folder.path(), &with_file)?, &wanted);
        assert_same("nothing left to do", &report(folder.path(), &with_file)?, &wanted);
        assert_same("from the file alone", &merged(folder.path(), &[&output])?, &wanted);
    }
    Ok(())
}

/// A results file that an earlier version wrote, cut off in the middle of a line.
#[test]
fn results_of_earlier_versions_are_resumed_and_merged() -> Result<()> {
    let folder = prepared(4)?;
    let at = folder.path();
    let wanted = report(at, &format!("{RUN} --output new.jsonl"))?;
    let new = fs::read_to_string(at.join("new.jsonl"))?;
    let lines: Vec<Value> = new.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let run = &lines[0]["run"];
    let text = format!(
        concat!(
            "{{\"hrm_results\":1,\"run\":{{\"shape\":{{\"kind\":\"sudoku\",\"cells\":81,\"segments\":[6,6],\"guesses\":3,",
            "\"stop\":\"never\"}},\"compare_stops\":false,\"options\":{{\"relabel\":false,\"symmetries\":false,",
            "\"random_start\":false,\"noise\":0.0,\"seed\":0}},\"checkpoints\":[{{\"weights\":{},\"step\":1,\"dtype\":\"f32\",",
            "\"path\":\"elsewhere/a\"}},{{\"weights\":{},\"step\":1,\"dtype\":\"f32\",\"path\":\"elsewhere/b\"}}],",
            "\"data_fingerprint\":{},\"data\":\"elsewhere\",\"puzzles\":4}},\"first\":0,\"end\":4}}\n{}\n",
            "{{\"seconds\":1.5,\"complete\":false}}\n{{\"puzzle\":3,\"pas"
        ),
        run["checkpoints"][0]["weights"], run["checkpoints"][1]["weights"], run["data_fingerprint"], lines[1]
    );
    fs::write(at.join("old.jsonl"), text)?;
    let resumed = report(at, &format!("{RUN} --output old.jsonl --resume"))?;
    assert_same("resumed", &resumed, &wanted);
    assert_eq!(merged(at, &["old.jsonl"])?["total"], 4);
    Ok(())
}

#[test]
fn a_pipe_or_a_device_is_no_results_file() -> Result<()> {
    let folder = prepared(2)?;
    let mut said = Transcript::new(folder.path());
    let at = folder.path();
    ensure!(Command::new("mkfifo").arg(at.join("pipe")).status()?.success(), "mkfifo");
    for file in ["pipe", "/dev/zero"] {
        for mut command in [infer(at, &format!("--output {file} --resume")), infer(at, &format!("--against {file}"))] {
            said.fails(&mut command)?;
        }
        said.fails(hrm(at).args(["infer", "--merge", file]))?;
    }
    said.matches("a_pipe_or_a_device_is_no_results_file");
    Ok(())
}

#[test]
fn one_process_at_a_time_writes_the_results() -> Result<()> {
    let folder = prepared(4)?;
    let mut said = Transcript::new(folder.path());
    let run = format!("{RUN} --output r.jsonl");
    ok(&mut infer(folder.path(), &run))?;
    let path = folder.path().join("r.jsonl");
    let before = fs::read(&path)?;
    let other = fs::File::open(&path)?;
    other.lock()?; // as a process that is writing it has it
    said.fails(&mut infer(folder.path(), &format!("{run} --resume")))?;
    assert_eq!(fs::read(&path)?, before);
    drop(other);
    ok(&mut infer(folder.path(), &format!("{run} --resume")))?;
    said.matches("one_process_at_a_time_writes_the_results");
    Ok(())
}

fn merged(folder: &Path, files: &[&str]) -> Result<Value> {
    let mut command = hrm(folder);
    command.args(["infer", "--json", "-", "--merge"]).args(files);
    without_time(serde_json::from_str(&ok(&mut command)?.stdout)?)
}

#[test]
fn shards_and_ranks_give_what_one_process_gives() -> Result<()> {
    let folder = prepared(31)?;
    let mut said = Transcript::new(folder.path());
    let at = folder.path();
    let run = format!("{RUN} --compare-stops --relabel --noise 0.1 --seed 4");
    let whole = report(at, &run)?;
    let files = ["a.jsonl", "b.jsonl", "c.jsonl"];
    for (i, file) in files.iter().enumerate() {
        let part = report(
            at,
            &format!("{run} --batch-size {} --shard {}/3 --output {file}", 3 + i, i + 1).replace(RUN, "--permutes 3"),
        )?;
        assert!([10, 11].contains(&part["total"].as_u64().context("total")?));
    }
    assert_same("shards", &merged(at, &["c.jsonl", "a.jsonl", "b.jsonl"])?, &whole);
    said.fails(hrm(at).args(["infer", "--merge", "a.jsonl", "c.jsonl"]))?;

    let rank = |rank: &str, json: &str| -> Result<Child> {
        let mut command = infer(at, &format!("{run} --output ranks.jsonl --json {json}"));
        command.env("RANK", rank).env("WORLD_SIZE", "2").env("LOCAL_RANK", rank);
        Ok(command.stdout(Stdio::piped()).spawn()?)
    };
    let children = [rank("0", "ranks.json")?, rank("1", "no.json")?];
    for (i, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "rank {i}");
        assert_eq!(output.stdout.is_empty(), i > 0, "only the first process speaks");
    }
    assert_same("ranks", &without_time(serde_json::from_slice(&fs::read(at.join("ranks.json"))?)?)?, &whole);
    assert!(!at.join("no.json").exists());
    assert_same("the joined file", &merged(at, &["ranks.jsonl"])?, &whole);
    said.fails(infer(at, RUN).env("RANK", "0").env("WORLD_SIZE", "2"))?;
    said.fails(infer(at, &format!("{RUN} --output x.jsonl")).env("RANK", "2").env("WORLD_SIZE", "2"))?;
    said.matches("shards_and_ranks_give_what_one_process_gives");
    Ok(())
}

/// Here other puzzles and fewer checkpoints than its own arguments name.
#[test]
fn a_rank_takes_what_its_launcher_decided() -> Result<()> {
    let folder = prepared(4)?;
    let at = folder.path();
    let job = json!({ "checkpoints": [at.join("run1")], "source": { "sudokus": 3 } });
    let mut rank = infer(at, "--output r.jsonl");
    rank.env("HRM_LAUNCHED", json!({ "device": "Cpu", "job": job }).to_string());
    ok(rank.env("RANK", "1").env("WORLD_SIZE", "2"))?;
    let part = fs::read_to_string(at.join("r.shard-2-of-2.jsonl"))?;
    let header: Value = serde_json::from_str(part.lines().next().context("a header")?)?;
    assert_eq!(header["run"]["data"], "the first 3 bundled Sudoku-Extreme test rows");
    assert_eq!(header["run"]["checkpoints"].as_array().map(Vec::len), Some(1));
    Ok(())
}

/// `--nproc-per-node`: from one command, with nothing set by hand.
#[test]
fn processes_of_one_command_give_what_one_process_gives() -> Result<()> {
    let folder = prepared(13)?;
    let mut said = Transcript::new(folder.path());
    let at = folder.path();
    let whole = report(at, RUN)?;
    let many = format!("{RUN} --nproc-per-node 2");
    assert_same("two processes", &report(at, &format!("{many} --output r.jsonl"))?, &whole);
    assert_same("the joined file", &merged(at, &["r.jsonl"])?, &whole);
    for part in 1..=2 {
        let file = fs::read_to_string(at.join(format!("r.shard-{part}-of-2.jsonl")))?;
        assert!(file.lines().filter(|line| line.starts_with("{\"puzzle\":")).count() >= 6, "each did its part: {file}");
    }
    assert_same("resumed", &report(at, &format!("{many} --output r.jsonl --resume"))?, &whole);

    for more in ["", "--output r.jsonl", "--output s.jsonl --shard 1/2"] {
        said.fails(&mut infer(at, &format!("{many} {more}")))?;
    }
    fs::remove_file(at.join("r.jsonl"))?;
    fs::remove_file(at.join("r.shard-1-of-2.jsonl"))?;
    said.fails(&mut infer(at, &format!("{many} --output r.jsonl")))?;
    // What only one process finds wrong ends all: the first would wait for its part for ever.
    fs::write(at.join("r.shard-2-of-2.jsonl"), "notes")?;
    // Whether the first has printed anything by then is chance.
    let error = fails(&mut infer(at, &format!("{many} --output r.jsonl --resume")))?;
    said.add("the second part is another file", &error);
    assert!(!at.join("r.jsonl").exists() && !at.join("s.jsonl").exists());
    said.fails(hrm(at).args(["infer", "--merge", "r.jsonl", "--nproc-per-node", "2"]))?;
    said.matches("processes_of_one_command_give_what_one_process_gives");
    Ok(())
}

/// Ranks that another program started: nobody but rank 0 sees that one of them is gone.
#[test]
fn a_rank_that_does_not_come_or_ends_early_is_named_within_the_peer_timeout() -> Result<()> {
    let folder = prepared(6)?;
    let mut said = Transcript::new(folder.path());
    let at = folder.path();
    let rank = |rank: &str, more: &str| {
        let mut command = infer(at, &format!("{RUN} --output r.jsonl {more}"));
        command.env("RANK", rank).env("WORLD_SIZE", "2").env("LOCAL_RANK", rank);
        command
    };
    said.fails(&mut rank("0", "--peer-timeout 0.2"))?;

    // Rank 1 is killed in the midst of its part.
    let mut peer = infer(at, "--permutes 9 --relabel --output r.jsonl --batch-size 1 --segments 100000");
    peer.env("RANK", "1").env("WORLD_SIZE", "2").env("LOCAL_RANK", "1");
    let (mut peer, part) = (peer.stdout(Stdio::null()).spawn()?, at.join("r.shard-2-of-2.jsonl"));
    until(&mut peer, || "rank 1 ended by itself".to_owned(), || part.exists())?;
    peer.kill()?;
    peer.wait()?;
    let mut lonely = rank("0", "--resume");
    said.fails(lonely.env("HRM_PEER_TIMEOUT", "0.2"))?;
    assert!(!at.join("r.jsonl").exists(), "nothing was joined");
    said.matches("a_rank_that_does_not_come_or_ends_early_is_named_within_the_peer_timeout");
    Ok(())
}

#[test]
fn another_run_is_refused_by_what_differs() -> Result<()> {
    let folder = prepared(6)?;
    let mut said = Transcript::new(folder.path());
    let at = folder.path();
    ok(&mut infer(at, "--permutes 2 --output r.jsonl"))?;
    for more in [
        "--permutes 3",
        "--permutes 2 --stop halt",
        "--permutes 2 --compare-stops",
        "--permutes 2 --seed 7",
        "--permutes 2 --segments 3",
        "--permutes 2 --num-batch 1 --batch-size 4",
        "--permutes 2 --shard 1/2",
    ] {
        said.fails(&mut infer(at, &format!("{more} --output r.jsonl --resume")))?;
    }
    fs::rename(at.join("run2"), at.join("old"))?;
    solver::write(&at.join("run2"), 3)?;
    said.fails(&mut infer(at, "--permutes 2 --output r.jsonl --resume"))?;
    fs::remove_dir_all(at.join("run2"))?;
    fs::rename(at.join("old"), at.join("run2"))?;

    said.fails(&mut infer(at, "--permutes 2 --output r.jsonl"))?;
    // What stands at the data's path decides, not the path.
    fs::rename(at.join("data"), at.join("kept"))?;
    let (list, mut lines) = (solver::csv(7)?, Vec::new());
    lines.extend(list.lines().enumerate().filter(|(i, _)| *i != 1).map(|(_, line)| line));
    fs::write(at.join("lists/test.csv"), lines.join("\n") + "\n")?;
    ok(hrm(at).args(["build-dataset", "--source", "lists", "--output-dir", "data"]))?;
    said.fails(&mut infer(at, "--permutes 2 --num-batch 1 --batch-size 6 --output r.jsonl --resume"))?;
    fs::remove_dir_all(at.join("data"))?;
    fs::rename(at.join("kept"), at.join("data"))?;
    // The name of the data and where checkpoints lie do not matter.
    fs::rename(at.join("data"), at.join("moved"))?;
    ok(hrm(at).args(
        "infer --checkpoints run1/step_1,run2 --data-path moved --permutes 2 --batch-size 3 --output r.jsonl --resume --device cpu"
            .split(' '),
    ))?;
    said.matches("another_run_is_refused_by_what_differs");
    Ok(())
}

#[test]
fn damaged_files_and_bad_flags_are_refused() -> Result<()> {
    let folder = prepared(6)?;
    let mut said = Transcript::new(folder.path());
    let at = folder.path();
    ok(&mut infer(at, "--output r.jsonl"))?;
    let good = fs::read_to_string(at.join("r.jsonl"))?;
    let lines: Vec<&str> = good.lines().collect();
    let changed = |pass: usize, key: &str, value: Value| -> Result<String> {
        let mut line: Value = serde_json::from_str(lines[1])?;
        line["passes"][pass][key] = value;
        Ok(format!("{}\n{line}\n", lines[0]))
    };
    for text in [
        String::new(),
        "hello\n".into(),
        lines[0].to_owned(),
        good.replacen("\"hrm_results\":1", "\"hrm_results\":9", 1),
        good.replacen("\"puzzle\":1,", "\"puzzle\":77,", 1),
        good.replacen("\"pass\":1,", "\"pass\":9,", 1),
        good.replacen("\"passes\"", "\"pases\"", 1),
        lines[..3].join("\n") + "\n",
        good.replacen("\"guesses\":1", "\"guesses\":4294967295", 1),
        good.replacen("\"segments\":[6,6]", "\"segments\":[6]", 1),
        changed(1, "pass", 0.into())?,
        changed(0, "cells", u32::MAX.into())?,
        changed(0, "segments", 7.into())?,
        changed(0, "answer", "1".into())?,
        (good.replace("\"puzzles\":6", "\"puzzles\":1000000000000").replace("\"end\":6", "\"end\":1000000000000")),
    ] {
        fs::write(at.join("bad.jsonl"), &text)?;
        said.fails(hrm(at).args(["infer", "--merge", "bad.jsonl"]))?;
    }
    let other = good.replacen("\"stop\":\"never\"", "\"stop\":\"halt\"", 1);
    fs::write(at.join("bad.jsonl"), other)?;
    said.fails(hrm(at).args(["infer", "--merge", "r.jsonl", "bad.jsonl"]))?;

    // Two files that have the same pass otherwise.
    let (before, rest) = good.split_once("\"answer\":\"").context("an answer")?;
    let turned = if rest.starts_with('1') { "2" } else { "1" };
    fs::write(at.join("bad.jsonl"), format!("{before}\"answer\":\"{turned}{}", &rest[1..]))?;
    for files in [["r.jsonl", "bad.jsonl"], ["bad.jsonl", "r.jsonl"]] {
        said.fails(hrm(at).args(["infer", "--merge"]).args(files))?;
    }

    for more in [
        "--shard 1/2",
        "--resume",
        "--shard 0/2 --output x",
        "--compare-stops --stop halt",
        "--permutes 10",
        "--noise -1",
        "--noise nan",
        "--plot x.gif",
        "--output nowhere/x",
        "--segments 0",
        "--stop soon",
        "--merge nothere",
    ] {
        said.fails(&mut infer(at, more))?;
    }
    said.fails(hrm(at).args(["infer", "--merge", "nothere.jsonl"]))?;
    assert!(!names(at)?.iter().any(|name| name == "x"), "nothing is left behind");
    said.matches("damaged_files_and_bad_flags_are_refused");
    Ok(())
}

/// Ctrl-C keeps what is done, puzzles that are half done too; a file that was left in its first line is begun again.
#[cfg(unix)]
#[test]
fn an_interrupted_run_goes_on() -> Result<()> {
    let folder = prepared(60)?;
    let mut said = Transcript::new(folder.path());
    let at = folder.path();
    let run = "--permutes 9 --batch-size 4 --stop verified";
    let wanted = report(at, run)?;
    let mut child = infer(at, &format!("{run} --output r.jsonl")).stdout(Stdio::piped()).spawn()?;
    until(&mut child, String::new, || size(&at.join("r.jsonl")) >= 2000)?;
    // SAFETY: a signal to a child that is not waited for yet.
    unsafe { libc::kill(i32::try_from(child.id())?, libc::SIGINT) };
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.code() == Some(130) {
        let mut told = Transcript::new(at).hide(r"\b\d+ of 60 puzzles", "N of 60 puzzles").measured();
        told.add("an interrupted run", &text);
        told.matches("an_interrupted_run_says_what_it_has");
    }
    assert_same("resumed", &report(at, &format!("{run} --output r.jsonl --resume"))?, &wanted);

    for begun in ["", "{\"hrm_results\":1,\"run\":{\"sha"] {
        fs::write(at.join("r.jsonl"), begun)?;
        assert_same("begun again", &report(at, &format!("{run} --output r.jsonl --resume"))?, &wanted);
    }
    fs::write(at.join("r.jsonl"), "notes")?;
    said.fails(&mut infer(at, &format!("{run} --output r.jsonl --resume")))?;
    assert_eq!(fs::read_to_string(at.join("r.jsonl"))?, "notes", "another file is left alone");
    said.matches("an_interrupted_run_goes_on");
    Ok(())
}

/// `ulimit -f` stands for a full disk: the run ends with the file's name, and goes on when there is room.
#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_that_a_resume_gets_over() -> Result<()> {
    let folder = prepared(60)?;
    let mut said = Transcript::new(folder.path());
    let at = folder.path();
    let wanted = report(at, "--permutes 2")?;
    let mut limited = Command::new("bash");
    limited.current_dir(at).args(["-c", "ulimit -f 12; exec \"$0\" \"$@\""]).arg(env!("CARGO_BIN_EXE_hrm"));
    limited.args("infer --checkpoints run1,run2 --data-path data --threads 1 --device cpu".split(' '));
    said.fails(limited.args("--permutes 2 --output full.jsonl".split(' ')))?;
    assert_same("resumed", &report(at, "--permutes 2 --output full.jsonl --resume")?, &wanted);
    said.matches("a_full_disk_is_an_error_that_a_resume_gets_over");
    Ok(())
}

/// More segments than the checkpoint was trained for; more guesses than the cyclic ones, each pass 0 the plain one.
#[test]
fn more_segments_and_more_guesses() -> Result<()> {
    let folder = prepared(8)?;
    let at = folder.path();
    let plain = report(at, "--permutes 1 --stop verified")?;
    let longer = report(at, "--permutes 1 --stop verified --segments 20")?;
    assert_eq!(longer["checkpoints"][0]["segments"], 20);
    let verified = |report: &Value| report["scores"]["verified"]["correct"].as_u64().context("a number");
    assert!(verified(&longer)? >= verified(&plain)?);
    for more in ["--relabel --symmetries", "--random-start", "--symmetries --noise 0.1"] {
        let found = report(at, &format!("--permutes 10 {more}"))?;
        assert_eq!(found["passes"].as_array().map(Vec::len), Some(20), "{more}");
        let key = |value: &Value, pass: usize| value["passes"][pass]["exact"].clone();
        let wanted = report(at, "--permutes 1")?;
        assert_eq!((key(&found, 0), key(&found, 10)), (key(&wanted, 0), key(&wanted, 1)), "{more}");
        assert_eq!(found, report(at, &format!("--permutes 10 {more} --batch-size 7"))?, "{more}: the same seed");
    }
    Ok(())
}

/// `scripts/reproduce_table1.sh` in `folder` on its data; what the folder `out` gets.
fn table(folder: &Path, out: &str, arguments: &[&str]) -> Result<common::Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/reproduce_table1.sh");
    let mut command = Command::new("bash");
    command.current_dir(folder).arg(script).args(arguments).env("HRM_BIN", env!("CARGO_BIN_EXE_hrm"));
    command.envs([("OUT", out), ("DATA", "data"), ("CUDA_VISIBLE_DEVICES", "")]).env("OMP_NUM_THREADS", "1");
    ok(&mut command)
}

#[test]
fn halves_of_the_papers_table_are_run_alone_and_joined() -> Result<()> {
    let folder = prepared(6)?;
    let at = folder.path();
    table(at, "whole", &["run1", "run2", "--", "run2", "run1"])?;
    table(at, "vanilla", &["run1", "run2", "--"])?;
    table(at, "hint", &["--", "run2", "run1"])?;
    let joined = table(at, "unused", &["--table", "vanilla", "hint"])?;
    let read = |file: &str| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(at.join(file))?)?) };
    let (mut whole, mut parts) = (read("whole/table1.json")?, read("vanilla/table1.json")?);
    for name in ["vanilla", "vanilla-relabelled", "vanilla-checkpoints", "hint", "all"] {
        for rows in [&mut whole, &mut parts] {
            rows["rows"][name].as_object_mut().context(name)?.remove("gpu_minutes").context("minutes")?;
        }
    }
    assert_eq!(whole, parts);
    // The row of both checkpoints and nine relabellings beside the command's own report.
    let own = "infer --checkpoints run2,run1 --data-path data --permutes 9 --compare-stops --json - --device cpu";
    let own: Value = serde_json::from_str(&ok(hrm(at).args(own.split(' ')))?.stdout)?;
    assert_eq!(
        whole["rows"]["all"]["verified"]["accuracy"],
        own["stops"]["verified"]["scores"]["verified"]["accuracy"]
    );
    assert_eq!(whole["rows"]["all"]["upstream_rule"]["accuracy"], own["upstream_rule"]["accuracy"]);
    assert!(whole["rows"]["all"]["verified"]["accuracy"].as_f64().context("a share")? > 0.0);
    assert_eq!(joined.stdout.lines().count(), 7, "{}", joined.stdout);
    Ok(())
}
