//! `hrm train` through the binary: what a run leaves behind, what it refuses, and how it ends when it is disturbed.

mod common;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use common::{
    hrm, names, ok,
    snapshot::Transcript,
    tensors::assert_near,
    training::{self, TINY, bench, lines},
    until,
};
use hrm::dataset::{Dataset, Split};
use serde_json::Value;

const STEP_FILES: [&str; 6] =
    ["all_config.yaml", "manifest.json", "meta.json", "model.safetensors", "training.json", "training.safetensors"];

/// `hrm train` with the tiny model, in f32.
fn train(folder: &Path, more: &str) -> Command {
    let mut command = training::train(folder, "--dtype f32");
    command.args(more.split_whitespace());
    command
}

/// The lines after the first, without the times.
fn figures(run: &Path) -> Result<Vec<Value>> {
    let mut lines = lines(run)?;
    for line in &mut lines {
        let time = line.as_object_mut().and_then(|line| line.remove("time")).context("time")?;
        ensure!(time.as_f64().is_some_and(|t| t > 1.6e9), "{time} is no time");
    }
    Ok(lines.split_off(1))
}

fn losses(run: &Path) -> Result<Vec<f64>> {
    Ok(figures(run)?.iter().filter_map(|line| line["train/lm_loss"].as_f64()).collect())
}

/// Names of the checkpoints in a run folder, each of which must be whole.
fn whole_checkpoints(run: &Path) -> Result<Vec<String>> {
    let steps: Vec<String> = names(run)?.into_iter().filter(|name| name.starts_with("step_")).collect();
    for step in &steps {
        // The training state stays in the newest two alone.
        let files = names(&run.join(step))?.into_iter().filter(|name| !name.starts_with("training."));
        let wanted = STEP_FILES.into_iter().filter(|name| !name.starts_with("training."));
        assert!(files.eq(wanted), "{step}");
        let shown = ok(hrm(run).args(["checkpoint", "inspect", step, "--json", "-"]))?;
        let shown: Value = serde_json::from_str(&shown.stdout)?;
        assert_eq!(shown["step"].as_u64(), step.trim_start_matches("step_").parse().ok(), "{shown}");
    }
    Ok(steps)
}

#[test]
fn a_run_leaves_its_config_its_metrics_and_checkpoints_that_work() -> Result<()> {
    let folder = bench()?;
    let mut said = Transcript::new(folder.path()).measured();
    said.ok(&mut train(folder.path(), "--json summary.json"))?;
    let projects = folder.path().join("checkpoints/Data ACT-torch");
    let [name] = <[String; 1]>::try_from(names(&projects)?).map_err(|found| anyhow::anyhow!("{found:?}"))?;
    let slug = name.strip_prefix("HierarchicalReasoningModel_ACTV1 ").context("the model's name")?;
    assert!(slug.split('-').count() == 2 && slug.chars().all(|c| c == '-' || c.is_ascii_lowercase()), "{slug}");
    let run = projects.join(&name);
    assert_eq!(names(&run)?, ["all_config.yaml", "best.json", "latest", "metrics.jsonl", "step_16", "step_32"]);
    assert_eq!(fs::read_to_string(run.join("latest"))?, "step_32\n");
    assert_eq!(names(&run.join("step_32"))?, STEP_FILES);
    assert_eq!(whole_checkpoints(&run)?, ["step_16", "step_32"]);

    let all = lines(&run)?;
    let first = &all[0];
    // Upstream's count: puzzle embedding and initial states are no parameters there.
    let (h, i) = (16, 256);
    assert_eq!(first["num_params"], 2 * 11 * h + 2 * h + 2 + 2 * (4 * h * h + 3 * h * i));
    assert_eq!(first["config"]["data_path"], "data");
    assert_eq!(first["config"]["arch"]["puzzle_emb_ndim"], 16);
    assert_eq!(first["hrm_version"], env!("CARGO_PKG_VERSION"));
    assert!(first["torch_version"].as_str().is_some_and(|v| v.starts_with("2.11.0")), "{first}");
    let typed = first["command_line"].as_array().context("command_line")?;
    assert!(typed.iter().any(|word| word == "epochs=8"), "{typed:?}");
    let fingerprint = Dataset::open(&folder.path().join("data"), Split::Train)?.fingerprint()?;
    assert_eq!(first["data_fingerprint"], *fingerprint);

    let (training, evaluations): (Vec<_>, Vec<_>) = all[1..].iter().partition(|line| line.get("train/lr").is_some());
    let steps: Vec<_> = training.iter().filter_map(|line| line["step"].as_i64()).collect();
    assert_eq!(steps, (1..=32).collect::<Vec<_>>());
    let metrics = ["count", "accuracy", "exact_accuracy", "q_halt_accuracy", "steps"];
    for line in &training {
        let losses = ["lm_loss", "q_halt_loss", "q_continue_loss"];
        for metric in metrics.iter().chain(&losses) {
            assert!(line[format!("train/{metric}")].is_f64(), "{metric} in {line}");
        }
    }
    assert_near("warm-up", training[0]["train/lr"].as_f64().context("lr")?, 2e-3 / 5.0, 1e-12);
    assert_near("lr", training[31]["train/lr"].as_f64().context("lr")?, 2e-3, 1e-12);
    assert_eq!(evaluations.iter().filter_map(|line| line["step"].as_i64()).collect::<Vec<_>>(), [16, 32]);
    for line in &evaluations {
        let keys: Vec<_> = line.as_object().context("an object")?.keys().collect();
        assert_eq!(keys.len(), 2 + 6 + 3 * 3, "{keys:?}");
        assert_eq!(line["all/steps"], 3.0);
        assert_eq!(line["all/segment_3_loss"], line["all/lm_loss"]);
        assert_eq!(line["all/segment_3_exact_accuracy"], line["all/exact_accuracy"]);
        assert!(line["all/segment_1_accuracy"].is_f64() && line.get("all/count").is_none());
    }

    let meta: Value = serde_json::from_slice(&fs::read(run.join("step_32/meta.json"))?)?;
    assert_eq!(meta["step"], 32);
    assert_eq!(meta["data_fingerprint"], *fingerprint);
    assert_eq!(meta["hrm_version"], env!("CARGO_PKG_VERSION"));
    assert!(meta["command_line"].to_string().contains("eval_interval=4"));
    let config = fs::read_to_string(run.join("all_config.yaml"))?;
    assert_eq!(config, fs::read_to_string(run.join("step_32/all_config.yaml"))?);
    for line in ["  hidden_size: 16", "  forward_dtype: float32", "lr: 0.002", "project_name: Data ACT-torch"] {
        assert!(config.lines().any(|found| found == line), "{line} is missing: {config}");
    }

    let summary: Value = serde_json::from_slice(&fs::read(folder.path().join("summary.json"))?)?;
    assert_eq!((&summary["steps"], &summary["total_steps"]), (&32.into(), &32.into()));
    assert_eq!(summary["stopped"], false);
    assert!(summary["checkpoint"].as_str().is_some_and(|at| at.ends_with("step_32")), "{summary}");
    assert_eq!(summary["evaluation"]["all"]["accuracy"], evaluations[1]["all/accuracy"]);

    // The newest step of the newest run, its own data: no flag needed. The same figures as the evaluation's.
    let flags = "infer --threads 1 --device cpu --json -";
    let report: Value = serde_json::from_str(&ok(hrm(folder.path()).args(flags.split(' ')))?.stdout)?;
    assert_eq!(report["total"], 20);
    assert_eq!(report["checkpoints"][0]["step"], 32);
    let cells = report["cell_accuracy"].as_f64().context("cell_accuracy")?;
    assert_near("cells", cells, evaluations[1]["all/accuracy"].as_f64().context("accuracy")?, 1e-6);
    said.matches("a_run_leaves_its_config_its_metrics_and_checkpoints_that_work");
    Ok(())
}

#[test]
fn a_seed_decides_everything() -> Result<()> {
    let folder = bench()?;
    for (name, seed) in [("a", "--seed 5"), ("b", "seed=5"), ("c", "--seed 6")] {
        ok(&mut train(folder.path(), &format!("checkpoint_path={name} {seed}")))?;
    }
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
    assert_eq!(figures(&a)?, figures(&b)?);
    assert_eq!(fs::read(a.join("step_32/model.safetensors"))?, fs::read(b.join("step_32/model.safetensors"))?);
    let (one, other) = (losses(&a)?, losses(&c)?);
    assert_eq!((one.len(), other.len()), (32, 32));
    assert!(one.iter().zip(&other).all(|(x, y)| x != y), "another seed gives other batches and weights");
    Ok(())
}

#[test]
fn the_loss_falls() -> Result<()> {
    let folder = bench()?;
    ok(&mut train(folder.path(), "checkpoint_path=run epochs=40 eval_interval=40"))?;
    let losses = losses(&folder.path().join("run"))?;
    assert_eq!(losses.len(), 160);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (before, after) = (mean(&losses[..6]), mean(&losses[148..]));
    assert!(after < 0.8 * before, "from {before} to {after}");
    Ok(())
}

/// Upstream's evaluation asserts 16 segments.
#[test]
fn any_number_of_segments_is_evaluated() -> Result<()> {
    let folder = bench()?;
    for segments in [1, 2, 5] {
        let run = format!("run{segments}");
        let more = format!("checkpoint_path={run} epochs=1 eval_interval=null arch.halt_max_steps={segments}");
        ok(&mut train(folder.path(), &more))?;
        let figures = figures(&folder.path().join(run))?;
        let last = figures.last().context("an evaluation")?;
        let counted = (1..=20).filter(|k| last.get(format!("all/segment_{k}_loss")).is_some()).count();
        assert_eq!(counted, segments, "{last}");
        assert_eq!(last["all/steps"], segments as f64);
        assert_eq!(figures[0].get("train/q_continue_loss").is_some(), segments > 1, "no target Q for one segment");
    }
    Ok(())
}

#[test]
fn whatever_is_wrong_is_said_before_anything_starts() -> Result<()> {
    let folder = bench()?;
    let mut said = Transcript::new(folder.path());
    for more in [
        "epoch=3",
        "arch.hiden_size=8",
        "epochs=many",
        "lr=fast",
        "eval_interval=3",
        "data_path=nowhere/x",
        "arch.num_heads=3",
        "arch.expansion=0.001",
        "global_batch_size=1000",
        "recipe=chess",
        "arch.preset=chess",
        "--seed 3 seed=4",
        "eval_save_outputs=[logits]",
        "--config nowhere.yaml",
        "--dtype f16",
        "--lr 3",
    ] {
        said.fails(&mut train(folder.path(), more))?;
    }
    fs::write(folder.path().join("bad.yaml"), "epochs: 3\nlearning_rate: 1\n")?;
    said.fails(&mut train(folder.path(), "--config bad.yaml"))?;
    // Bare: the recipe of the 27M model, on a dataset that is not there.
    said.fails(hrm(folder.path()).arg("train"))?;
    assert_eq!(names(folder.path())?, ["bad.yaml", "data"], "nothing is left behind");
    said.matches("whatever_is_wrong_is_said_before_anything_starts");
    Ok(())
}

/// A name that is not UTF-8 is a name like any other.
#[cfg(unix)]
#[test]
fn arguments_need_not_be_utf8() -> Result<()> {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let folder = bench()?;
    let mut command = train(folder.path(), "checkpoint_path=run epochs=1 eval_interval=1 --json");
    ok(command.arg(OsStr::from_bytes(b"x\xff.json")))?;
    assert!(folder.path().join(OsStr::from_bytes(b"x\xff.json")).is_file());
    assert_eq!(lines(&folder.path().join("run"))?[0]["command_line"].as_array().map(Vec::is_empty), Some(false));
    Ok(())
}

#[test]
fn a_run_is_never_overwritten() -> Result<()> {
    let folder = bench()?;
    let mut said = Transcript::new(folder.path());
    let more = "checkpoint_path=run epochs=1 eval_interval=1";
    ok(&mut train(folder.path(), more))?;
    let before = fs::read(folder.path().join("run/metrics.jsonl"))?;
    said.fails(&mut train(folder.path(), more))?;
    assert_eq!(fs::read(folder.path().join("run/metrics.jsonl"))?, before);
    said.matches("a_run_is_never_overwritten");
    Ok(())
}

#[test]
fn a_dry_run_tells_the_plan_and_writes_nothing() -> Result<()> {
    let folder = bench()?;
    let mut said = Transcript::new(folder.path());
    let output = said.ok(&mut train(folder.path(), "--dry-run --json -"))?;
    let plan: Value = serde_json::from_str(&output.stdout)?;
    assert_eq!(plan["derived"]["total_steps"], 32);
    assert_eq!(plan["derived"]["tokens_per_step"], 16 * 81);
    assert!(plan["derived"]["flops_per_step"].as_f64().is_some_and(|f| f > 1e6));
    assert_eq!(plan["config"]["arch"]["hidden_size"], 16);
    said.matches("a_dry_run_tells_the_plan_and_writes_nothing");
    assert_eq!(names(folder.path())?, ["data"]);

    // The published model and recipe: what the paper's training comes to.
    let published = "train data_path=data recipe=sudoku arch.preset=sudoku --device cpu --dry-run --json -";
    let plan: Value = serde_json::from_str(&ok(hrm(folder.path()).args(published.split(' ')))?.stdout)?;
    assert_eq!(plan["derived"]["parameters"], 27_275_266);
    assert_eq!(plan["config"]["lr"], 1e-4);
    assert_eq!(plan["derived"]["total_steps"], 40_000 * 64 / 768);
    Ok(())
}

/// What a run of [`long_run`] wrote.
fn said(folder: &Path) -> String {
    fs::read_to_string(folder.join("text")).unwrap_or_default()
}

/// Starts a run that would take hours, and waits until it has made that many checkpoints.
fn long_run(folder: &Path, checkpoints: usize) -> Result<Child> {
    let more = "checkpoint_path=run epochs=400000 eval_interval=1 --json summary.json";
    let out = File::create(folder.join("text"))?;
    let mut command = train(folder, more);
    let mut child = command.stdout(out.try_clone()?).stderr(out).stdin(Stdio::null()).spawn()?;
    let run = folder.join("run");
    let made = || names(&run).unwrap_or_default().iter().filter(|n| n.starts_with("step_")).count();
    until(&mut child, || said(folder), || made() >= checkpoints)?;
    Ok(child)
}

#[cfg(unix)]
#[test]
fn an_interrupt_writes_a_checkpoint_and_stops() -> Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let folder = bench()?;
        let mut child = long_run(folder.path(), 1)?;
        training::send(&child, signal);
        let status = child.wait()?;
        let text = fs::read_to_string(folder.path().join("text"))?;
        assert_eq!(status.code(), Some(130), "{text}");
        let run = folder.path().join("run");
        let summary: Value = serde_json::from_slice(&fs::read(folder.path().join("summary.json"))?)?;
        assert_eq!(summary["stopped"], true);
        let done = summary["steps"].as_u64().context("steps")?;
        assert!(whole_checkpoints(&run)?.contains(&format!("step_{done}")), "the last step is saved: {text}");
        assert_eq!(losses(&run)?.len() as u64, done, "every step has its line");
    }
    Ok(())
}

/// The folder of a checkpoint that is being written.
fn part(run: &Path) -> Option<PathBuf> {
    let name = names(run).ok()?.into_iter().find(|name| name.starts_with(".step_") && name.ends_with(".part"))?;
    Some(run.join(name))
}

/// At whatever moment a run is killed, what is called step_N is whole, and what is not is never taken for one.
#[cfg(unix)]
#[test]
fn a_killed_run_leaves_only_whole_checkpoints() -> Result<()> {
    // After a checkpoint, in the middle of one, and between its files.
    for (round, moment) in ["at once", "in a part", "model.safetensors", "manifest.json"].into_iter().enumerate() {
        let reached = |run: &Path| match moment {
            "at once" => true,
            "in a part" => part(run).is_some(),
            file => part(run).is_some_and(|part| part.join(file).exists()),
        };
        let folder = bench()?;
        let run = folder.path().join("run");
        let mut child = long_run(folder.path(), 1 + round)?;
        until(&mut child, || format!("{moment}: {}", said(folder.path())), || reached(&run))?;
        training::send(&child, libc::SIGKILL);
        child.wait()?;
        let steps = whole_checkpoints(&run)?;
        assert!(steps.len() > round);
        let largest =
            steps.iter().filter_map(|s| s.strip_prefix("step_")?.parse::<u64>().ok()).max().context("steps")?;

        // A part that looks complete, of a later step: as if killed just before the rename.
        let part = run.join(".step_99999999.part");
        fs::create_dir(&part)?;
        for file in STEP_FILES {
            fs::copy(run.join(format!("step_{largest}")).join(file), part.join(file))?;
        }
        let shown = ok(hrm(folder.path()).args(["checkpoint", "inspect", "run", "--json", "-"]))?;
        let shown: Value = serde_json::from_str(&shown.stdout)?;
        assert_eq!(shown["step"], largest);
    }
    Ok(())
}

/// `ulimit -f` stands for a full disk. Its unit is 1024 bytes in bash.
#[cfg(unix)]
fn limited(folder: &Path, kilobytes: u32, more: &str) -> Command {
    let mut command = Command::new("bash");
    let script = format!("ulimit -f {kilobytes}; exec \"$0\" \"$@\"");
    command.current_dir(folder).args(["-c", &script, env!("CARGO_BIN_EXE_hrm"), "train"]);
    command.args(TINY.split_whitespace()).args(["--dtype", "f32"]).args(more.split_whitespace());
    command
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_that_names_the_file() -> Result<()> {
    let folder = bench()?;
    let mut said = Transcript::new(folder.path()).measured();
    let run: PathBuf = folder.path().join("run");
    said.fails(&mut limited(folder.path(), 40, "checkpoint_path=run"))?;
    assert_eq!(names(&run)?, ["all_config.yaml", "metrics.jsonl"], "no part is left");

    // The weights fit, the growing metrics do not.
    let more = "checkpoint_path=late global_batch_size=4 arch.hidden_size=8 epochs=4000 eval_interval=20";
    said.fails(&mut limited(folder.path(), 150, more))?;
    let kept = whole_checkpoints(&folder.path().join("late"))?;
    assert!(kept.contains(&"step_320".to_owned()), "{kept:?}");
    said.matches("a_full_disk_is_an_error_that_names_the_file");
    Ok(())
}

/// Every form of the same weights gives the same answers.
#[test]
fn converting_changes_no_answer() -> Result<()> {
    let folder = bench()?;
    ok(&mut train(folder.path(), "checkpoint_path=run"))?;
    for (from, to, form) in [("run", "torch", "torch"), ("torch", "back", "safetensors")] {
        ok(hrm(folder.path()).args(["checkpoint", "convert", from, to, "--to", form]))?;
    }
    let answers = |checkpoint: &str| -> Result<Value> {
        let flags = "--permutes 3 --threads 1 --device cpu --json - --checkpoint";
        let output = ok(hrm(folder.path()).arg("infer").args(flags.split(' ')).arg(checkpoint))?;
        let mut report: Value = serde_json::from_str(&output.stdout)?;
        for pass in report["passes"].as_array_mut().context("passes")? {
            pass["checkpoint"] = Value::Null;
        }
        for key in ["seconds", "puzzles_per_second", "setup_seconds"] {
            report[key] = Value::Null;
        }
        for stop in report["stops"].as_object_mut().context("stops")?.values_mut().filter(|s| s.is_object()) {
            stop["seconds"] = Value::Null;
        }
        report["checkpoints"][0]["path"] = Value::Null;
        Ok(report)
    };
    let trained = answers("run")?;
    assert!(trained["cell_accuracy"].as_f64().is_some_and(|share| share > 0.0));
    assert_eq!(answers("torch")?, trained);
    assert_eq!(answers("back")?, trained);
    let weights = |at: &str| fs::read(folder.path().join(at).join("model.safetensors"));
    assert_eq!(weights("run/step_32")?, weights("back")?, "there and back changes no bit");
    Ok(())
}
