//! `hrm train` on several processes (CPU, Gloo): the same run as on one, and an end for all of them when one is lost.

mod common;

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use common::{
    hrm, names, ok,
    processes::{Started, alive, at_work, children, port, signal, wait_for},
    snapshot::Transcript,
    training::{self, TINY, bench_of, figures},
};
use hrm::{
    checkpoint::{RawTensor, safetensors_file},
    dtype::Dtype,
    model::to_tensor,
};
use serde_json::Value;
use tempfile::TempDir;

/// A shorter run: 16 steps in all.
const SHORT: &str = "epochs=4 eval_interval=2 --dtype f32";
const STEPS: f64 = 16.0;
const LR: f64 = 2e-3;

/// 22 test puzzles: the last batch of 16 is short, on four ranks one has none.
fn bench() -> Result<TempDir> {
    bench_of(22)
}

fn train(folder: &Path, more: &str) -> Command {
    let mut command = training::train(folder, SHORT);
    command.args(more.split_whitespace());
    for name in ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"] {
        command.env_remove(name);
    }
    command
}

/// Every figure of two runs is the same up to the order of sums.
fn same_figures(one: &Path, other: &Path) -> Result<()> {
    let (one, other) = (figures(one)?, figures(other)?);
    assert_eq!(one.len(), other.len());
    for (a, b) in one.iter().zip(&other) {
        let (a, b) = (a.as_object().context("an object")?, b.as_object().context("an object")?);
        assert!(a.keys().eq(b.keys()), "{a:?} {b:?}");
        for (key, value) in a.iter().filter(|(key, _)| *key != "time") {
            let (x, y) = (value.as_f64().context("a number")?, b[key].as_f64().context("a number")?);
            // Of 22 boards with 81 cells, two whose best tokens are as good as even may turn.
            let even = if key.ends_with("accuracy") { 2.0 / (22.0 * 81.0) } else { 0.0 };
            assert!((x - y).abs() <= 1e-4 + 1e-4 * x.abs() + even, "step {}: {key} is {x} and {y}", a["step"]);
        }
    }
    Ok(())
}

/// The tolerance of the golden tests: at most one parameter in a thousand further off than 1e-5, and none further than
/// 2 lr a step.
fn same_weights(one: &Path, other: &Path) -> Result<()> {
    let (one, other) = (safetensors_file::read(one)?, safetensors_file::read(other)?);
    let (mut outliers, mut all) = (0, 0);
    for ((name, a), (other_name, b)) in one.iter().zip(&other) {
        assert_eq!(name, other_name);
        let off = |a: &RawTensor, b: &RawTensor| (to_tensor(a) - to_tensor(b)).abs();
        assert_eq!(a.dtype, Dtype::F32);
        let difference = off(a, b);
        assert!(difference.max().double_value(&[]) <= 2.0 * LR * STEPS, "{name}");
        outliers += difference.gt(1e-5).sum(tch::Kind::Int64).int64_value(&[]);
        all += difference.numel() as i64;
    }
    assert!(outliers * 1000 <= all, "{outliers} of {all} parameters differ");
    Ok(())
}

#[test]
fn two_and_four_ranks_make_the_run_of_one() -> Result<()> {
    let folder = bench()?;
    let at = |name: &str| folder.path().join(name);
    let extras = "ema_decay=0.9 log_grad_norm=true augment=online augment_hint=true";
    ok(&mut train(folder.path(), &format!("checkpoint_path=one {extras}")))?;
    for (run, flags) in [("two", "--nproc-per-node 2 grad_accum=2"), ("four", "--nproc-per-node 4 --tensorboard")] {
        let output = ok(&mut train(folder.path(), &format!("checkpoint_path={run} {extras} {flags}")))?;
        assert_eq!(output.stdout.matches("done: 16 steps").count(), 1, "one rank speaks: {}", output.stdout);
        assert_eq!(output.stderr, "", "{run}");
        same_figures(&at("one"), &at(run))?;
        for file in ["model.safetensors", "ema.safetensors"] {
            same_weights(&at("one").join("step_16").join(file), &at(run).join("step_16").join(file))?;
        }
    }
    let events = |name: &String| name.starts_with("events.out.tfevents.");
    let (found, written): (Vec<_>, Vec<_>) = names(&at("four"))?.into_iter().partition(events);
    assert_eq!(written, names(&at("one"))?, "rank 0 alone writes");
    assert_eq!(found.len(), 1, "{found:?}");
    Ok(())
}

#[test]
fn a_checkpoint_does_not_depend_on_the_number_of_ranks() -> Result<()> {
    let folder = bench()?;
    let at = |name: &str| folder.path().join(name);
    ok(&mut train(folder.path(), "checkpoint_path=whole --nproc-per-node 2"))?;
    ok(&mut train(folder.path(), "checkpoint_path=half --nproc-per-node 2 checkpoint_every_steps=6"))?;
    for step in ["step_8", "step_16"] {
        fs::remove_dir_all(at("half").join(step))?;
    }
    // Step 12 is left, in the midst of the second pass.
    assert!(names(&at("half"))?.contains(&"step_12".to_owned()));
    for run in ["by_one", "by_two"] {
        ok(Command::new("cp").args(["-r", "half", run]).current_dir(folder.path()))?;
    }
    ok(&mut train(folder.path(), "--resume by_two --nproc-per-node 2"))?;
    ok(&mut train(folder.path(), "--resume by_one"))?;
    let weights = |run: &str| at(run).join("step_16/model.safetensors");
    assert_eq!(fs::read(weights("whole"))?, fs::read(weights("by_two"))?, "bit for bit on as many ranks");
    same_weights(&weights("whole"), &weights("by_one"))?;
    same_figures(&at("whole"), &at("by_one"))?;
    Ok(())
}

/// Two launchers of two ranks each on this host.
fn two_hosts(folder: &Path, more: [&str; 2]) -> Result<[Started; 2]> {
    let port = port()?;
    let start = |node: usize, more: &str| {
        let flags = format!(
            "--nproc-per-node 2 --nnodes 2 --node-rank {node} --master-addr 127.0.0.1 --master-port {port} {more}"
        );
        Started::new(&mut train(folder, &flags))
    };
    Ok([start(0, more[0])?, start(1, more[1])?])
}

#[test]
fn two_hosts_make_the_run_of_one() -> Result<()> {
    let folder = bench()?;
    let mut said = Transcript::new(folder.path());
    let at = |name: &str| folder.path().join(name);
    ok(&mut train(folder.path(), "checkpoint_path=one"))?;
    let path = "checkpoint_path=two";
    for child in two_hosts(folder.path(), [path, path])? {
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    same_figures(&at("one"), &at("two"))?;
    same_weights(&at("one/step_16/model.safetensors"), &at("two/step_16/model.safetensors"))?;

    let [first, second] = two_hosts(folder.path(), ["checkpoint_path=a", "checkpoint_path=a weight_decay=0.5"])?;
    let (first, second) = (first.wait_with_output()?, second.wait_with_output()?);
    assert!(!first.status.success() && !second.status.success());
    let error = String::from_utf8_lossy(&first.stderr).into_owned();
    said.add("another run on the second host", error.lines().next().unwrap_or_default());
    assert!(!at("a").exists(), "nothing was begun");
    said.matches("two_hosts_make_the_run_of_one");
    Ok(())
}

/// A run that goes on until it is disturbed, at work: its launcher, and its ranks in the order of their numbers.
fn endless(folder: &Path, more: &str) -> Result<(Started, Vec<u32>)> {
    let flags = format!("checkpoint_path=run epochs=4000000 eval_interval=4000000 --nproc-per-node 2 {more}");
    let child = Started::new(&mut train(folder, &flags))?;
    wait_for("the first lines", || at_work(folder))?;
    let ranks = children(child.id())?;
    assert_eq!(ranks.len(), 2);
    Ok((child, ranks))
}

#[test]
fn one_rank_killed_ends_all() -> Result<()> {
    let mut said = Transcript::default();
    for victim in [0, 1] {
        let folder = bench()?;
        let (child, ranks) = endless(folder.path(), "")?;
        signal(ranks[victim], libc::SIGKILL);
        let start = Instant::now();
        let output = child.wait_with_output()?;
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        assert_eq!(output.status.code(), Some(1));
        said.add(&format!("rank {victim} killed"), &String::from_utf8_lossy(&output.stderr));
        assert!(ranks.iter().all(|&pid| !alive(pid)));
    }
    said.matches("one_rank_killed_ends_all");
    Ok(())
}

#[test]
fn a_host_that_fails_ends_the_others() -> Result<()> {
    let folder = bench()?;
    let long = "checkpoint_path=run epochs=4000000 eval_interval=4000000";
    let [first, second] = two_hosts(folder.path(), [long, long])?;
    wait_for("the first lines", || at_work(folder.path()))?;
    let all: Vec<u32> = [children(first.id())?, children(second.id())?].concat();
    assert_eq!(all.len(), 4);
    signal(all[3], libc::SIGKILL);
    let start = Instant::now();
    let (first, second) = (first.wait_with_output()?, second.wait_with_output()?);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let mut said = Transcript::new(folder.path());
    for (host, output) in [first, second].iter().enumerate() {
        assert_eq!(output.status.code(), Some(1), "host {host}");
        said.add(&format!("host {host}, rank 3 killed"), &String::from_utf8_lossy(&output.stderr));
    }
    said.matches("a_host_that_fails_ends_the_others");
    assert!(all.iter().all(|&pid| !alive(pid)));
    Ok(())
}

#[test]
fn a_launcher_killed_takes_its_ranks_along() -> Result<()> {
    let folder = bench()?;
    let (child, ranks) = endless(folder.path(), "")?;
    signal(child.id(), libc::SIGKILL);
    child.wait_with_output()?;
    wait_for("the ranks' end", || Ok(ranks.iter().all(|&pid| !alive(pid))))?;
    Ok(())
}

#[test]
fn a_stop_is_everybodys_and_leaves_a_checkpoint() -> Result<()> {
    let folder = bench()?;
    // To the launcher, and to one rank alone, as a batch system may send it.
    for (number, to_rank) in [(libc::SIGINT, None), (libc::SIGTERM, Some(1)), (libc::SIGUSR1, None)] {
        let (child, ranks) = endless(folder.path(), "")?;
        signal(to_rank.map_or(child.id(), |rank: usize| ranks[rank]), number);
        let output = child.wait_with_output()?;
        assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
        let listed = ok(hrm(folder.path()).args(["runs", ".", "--json", "-"]))?;
        let listed: Value = serde_json::from_str(&listed.stdout)?;
        assert_eq!(listed[0]["state"], "stopped", "{listed}");
        assert!(ranks.iter().all(|&pid| !alive(pid)));
        fs::remove_dir_all(folder.path().join("run"))?;
    }
    Ok(())
}

#[test]
fn a_peer_that_never_comes_is_named() -> Result<()> {
    let folder = bench()?;
    let port = port()?.to_string();
    let mut said = Transcript::new(folder.path()).hide(&format!(r"\b{port}\b"), "[port]");
    let lonely = |rank: &str| {
        let mut command = train(folder.path(), "checkpoint_path=run");
        command.envs([("RANK", rank), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &port)]);
        command.env("HRM_PEER_TIMEOUT", "1");
        command
    };
    said.fails(&mut lonely("0"))?;
    said.fails(&mut lonely("1"))?;
    let flags = format!("--nproc-per-node 1 --nnodes 2 --master-addr 127.0.0.1 --master-port {port} --peer-timeout 1");
    said.fails(&mut train(folder.path(), &format!("{flags} --node-rank 1")))?;
    said.fails(&mut train(folder.path(), &format!("{flags} --node-rank 0")))?;
    assert!(!folder.path().join("run").exists(), "nothing was begun");
    said.matches("a_peer_that_never_comes_is_named");
    Ok(())
}

#[test]
fn what_cannot_be_launched_is_told_before_anything_starts() -> Result<()> {
    let folder = bench()?;
    let mut said = Transcript::new(folder.path()).measured();
    for flags in [
        "--nproc-per-node 3",
        "--nproc-per-node 4 grad_accum=8",
        "--nproc-per-node none",
        "--nnodes 2",
        "--nproc-per-node 1 --nnodes 2 --master-addr x",
        "--nproc-per-node 1 --nnodes 2 --node-rank 2 --master-addr x",
        "--nproc-per-node 1 --nnodes 2 --node-rank 1",
        "--nproc-per-node 2 --peer-timeout soon",
        "--nproc-per-node 2 lr=x",
    ] {
        said.fails(&mut train(folder.path(), flags))?;
    }
    let mut twice = train(folder.path(), "--nproc-per-node 2");
    twice.envs([("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")]);
    said.fails(&mut twice)?;
    assert_eq!(names(folder.path())?, ["data"]);
    said.ok(&mut train(folder.path(), "--nproc-per-node 4 --dry-run"))?;
    said.matches("what_cannot_be_launched_is_told_before_anything_starts");
    Ok(())
}

#[test]
fn a_slurm_job_saves_before_its_limit_and_goes_on() -> Result<()> {
    let folder = bench()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/slurm_train.sbatch");
    // What Slurm would do: put the job into the queue again.
    let queue = folder.path().join("scontrol");
    fs::write(&queue, "#!/bin/sh\necho \"$@\" >> requeued\n")?;
    ok(Command::new("chmod").arg("+x").arg(&queue))?;
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH")?);
    let job = |more: &str| {
        let mut command = Command::new("bash");
        command
            .arg(&script)
            .args(TINY.split_whitespace())
            .args(SHORT.split(' '))
            .args(["checkpoint_path=run"])
            .args(more.split_whitespace());
        command.current_dir(folder.path()).env("PATH", &path).env("HRM", env!("CARGO_BIN_EXE_hrm"));
        command.env("HRM_PROCESSES", "2").env("SLURM_JOB_ID", "7");
        command
    };
    let long = "epochs=4000000 eval_interval=4000000";
    let first = Started::new(&mut job(long))?;
    wait_for("the first lines", || at_work(folder.path()))?;
    signal(first.id(), libc::SIGUSR1);
    let first = first.wait_with_output()?;
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert_eq!(fs::read_to_string(folder.path().join("requeued"))?, "requeue 7\n");

    let told = ok(&mut job(&format!("{long} max_minutes=0.0001")))?.stdout;
    assert!(told.contains("run/step_"), "it goes on from a checkpoint: {told}");
    Ok(())
}

#[test]
fn a_batch_too_large_for_the_memory_is_one_line() -> Result<()> {
    let folder = bench()?;
    let mut said = Transcript::new(folder.path());
    // A carry of 2.8 TB, in a process that may have 30 GB.
    let huge = "global_batch_size=16777216 epochs=1000000 eval_interval=1000000 arch.hidden_size=512";
    let command = train(folder.path(), huge);
    let mut limited = Command::new("bash");
    limited.args(["-c", "ulimit -v 30000000; exec \"$@\"", "bash"]).arg(command.get_program()).args(command.get_args());
    said.fails(limited.current_dir(folder.path()))?;
    said.matches("a_batch_too_large_for_the_memory_is_one_line");
    Ok(())
}
