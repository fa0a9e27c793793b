//! `hrm train --resume`: a run that was stopped, killed or damaged goes on as if it had never been disturbed.

mod common;

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use common::{
    at_start, hrm, names, ok, sha256,
    snapshot::Transcript,
    training::{self, bench, train},
};
use serde_json::Value;

const FLAGS: &str = "--threads 1 --device cpu";

/// The run's own settings hold: only what is new is given.
fn resume(folder: &Path, more: &str) -> Command {
    let mut command = hrm(folder);
    command.args(["train", "--resume"]).args(more.split_whitespace()).args(FLAGS.split(' '));
    command
}

/// What was trained and measured, without the times.
fn figures(run: &Path) -> Result<Vec<Value>> {
    let mut lines = training::figures(run)?;
    for line in &mut lines {
        line.as_object_mut().context("an object")?.remove("time");
    }
    Ok(lines)
}

/// Hashes of everything that a checkpoint holds of the training; meta.json has the command line, and so differs.
fn contents(step: &Path) -> Result<Vec<(String, String)>> {
    let files = names(step)?.into_iter().filter(|n| !["meta.json", "manifest.json", "all_config.yaml"].contains(&&**n));
    files.map(|name| Ok((name.clone(), sha256(&fs::read(step.join(name))?)))).collect()
}

fn same_run(one: &Path, other: &Path, step: i64) -> Result<()> {
    assert_eq!(figures(one)?, figures(other)?);
    let step = format!("step_{step}");
    assert_eq!(contents(&one.join(&step))?, contents(&other.join(&step))?);
    Ok(())
}

fn summary(folder: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(folder.join("summary.json"))?)?)
}

/// N steps, a stop in the middle of a pass, and the rest, bit for bit as 2N steps; in every variant of training.
#[test]
fn half_a_run_and_the_rest_are_the_whole_run() -> Result<()> {
    let folder = bench()?;
    let at = |name: &str| folder.path().join(name);
    let mut said = Transcript::new(folder.path()).measured();
    for more in [
        "--dtype f32 ema_decay=0.9 grad_accum=4 log_grad_norm=true",
        "--dtype bf16 augment=online augment_hint=true arch.no_act_continue=true",
    ] {
        ok(&mut train(folder.path(), &format!("checkpoint_path=whole {more}")))?;
        // Saved at step 20, between evaluations at 16 and 32, and cut off there: steps 21 to 32 are forgotten.
        ok(&mut train(folder.path(), &format!("checkpoint_path=half checkpoint_every_steps=20 {more}")))?;
        let half = at("half");
        fs::remove_dir_all(half.join("step_32"))?;
        said.ok(&mut resume(folder.path(), "half --json summary.json"))?;
        assert_eq!(summary(folder.path())?["resumed_at"], 20);
        same_run(&at("whole"), &half, 32)?;
        assert_eq!(figures(&half)?.len(), 32 + 2, "no line is missing, none is there twice");

        // At its end a run has nothing left to do, and says so without harm.
        said.ok(&mut resume(folder.path(), "half"))?;
        same_run(&at("whole"), &half, 32)?;
        fs::remove_dir_all(at("whole"))?;
        fs::remove_dir_all(half)?;
    }
    said.matches("half_a_run_and_the_rest_are_the_whole_run");
    Ok(())
}

fn start(command: &mut Command, text: &Path) -> Result<Child> {
    let out = File::create(text)?;
    Ok(command.stdout(out.try_clone()?).stderr(out).stdin(Stdio::null()).spawn()?)
}

/// Waits for something to become true of a run.
fn until(child: &mut Child, text: &Path, what: impl Fn() -> bool) -> Result<()> {
    common::until(child, || fs::read_to_string(text).unwrap_or_default(), what)
}

/// Stopped by signals again and again, wherever that happens to be: in a pass or in an evaluation.
#[cfg(unix)]
#[test]
fn interrupted_runs_end_as_undisturbed_ones() -> Result<()> {
    let folder = bench()?;
    let (text, broken) = (folder.path().join("text"), folder.path().join("broken"));
    ok(&mut train(folder.path(), "checkpoint_path=whole epochs=24 eval_interval=8"))?;
    let mut child = start(&mut train(folder.path(), "checkpoint_path=broken epochs=24 eval_interval=8"), &text)?;
    let mut rounds = 0;
    loop {
        let steps = || figures(&broken).map_or(0, |lines| lines.len());
        let before = steps();
        let _ = until(&mut child, &text, || steps() > before + 20);
        training::send(&child, if rounds % 2 == 0 { libc::SIGINT } else { libc::SIGTERM });
        let status = child.wait()?;
        if status.success() {
            break;
        }
        assert_eq!(status.code(), Some(130), "{}", fs::read_to_string(&text)?);
        rounds += 1;
        child = start(&mut resume(folder.path(), "broken"), &text)?;
    }
    assert!(rounds >= 2, "{rounds} interruptions");
    same_run(&folder.path().join("whole"), &broken, 96)
}

/// As under nohup: what was ignored at the start stays so, in a single process and under a launcher.
#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() -> Result<()> {
    let folder = bench()?;
    let text = folder.path().join("text");
    for name in ["one", "two --nproc-per-node 2"] {
        let more = format!("epochs=4000000 eval_interval=4000000 checkpoint_path={name}");
        let mut command = train(folder.path(), &more);
        at_start(&mut command, libc::SIGHUP, libc::SIG_IGN);
        let mut child = start(&mut command, &text)?;
        let metrics = folder.path().join(&name[..3]).join("metrics.jsonl");
        let lines = || fs::read(&metrics).map_or(0, |text| text.iter().filter(|&&byte| byte == b'\n').count());
        until(&mut child, &text, || lines() > 1)?;
        training::send(&child, libc::SIGHUP);
        let before = lines();
        until(&mut child, &text, || lines() > before + 50)?;
        training::send(&child, libc::SIGTERM);
        assert_eq!(child.wait()?.code(), Some(130), "{}", fs::read_to_string(&text)?);
    }
    Ok(())
}

/// A first interrupt ends a run after its step, with a checkpoint; a second one at once.
#[test]
fn a_second_interrupt_ends_at_once() -> Result<()> {
    let folder = bench()?;
    let (text, run) = (folder.path().join("text"), folder.path().join("run"));
    let errors = folder.path().join("errors");
    // A step takes seconds.
    let large = "checkpoint_path=run epochs=4000 eval_interval=4000 arch.hidden_size=512 arch.num_heads=8 \
                 arch.H_layers=4 arch.L_layers=4 global_batch_size=64";
    let mut command = train(folder.path(), large);
    command.env("CUDA_VISIBLE_DEVICES", "").stdout(File::create(&text)?).stderr(File::create(&errors)?);
    let mut child = command.stdin(Stdio::null()).spawn()?;
    let pid = child.id();
    until(&mut child, &errors, || common::catches(pid, libc::SIGINT) && run.join("all_config.yaml").exists())?;
    training::send(&child, libc::SIGINT);
    let told = || fs::read_to_string(&errors).unwrap_or_default();
    until(&mut child, &errors, || told().ends_with('\n'))?;
    training::send(&child, libc::SIGINT);
    assert_eq!(child.wait()?.code(), Some(130), "{}", told());
    let mut said = Transcript::new(folder.path());
    said.add("standard error", &told());
    said.matches("a_second_interrupt_ends_at_once");
    assert!(!names(&run)?.iter().any(|name| name.contains("step_")), "it wrote a checkpoint: {:?}", names(&run)?);
    Ok(())
}

/// Fifty times killed, mostly while it saves: each time the run goes on, and no checkpoint that was
/// finished is lost.
#[cfg(unix)]
#[test]
fn fifty_kills_lose_nothing() -> Result<()> {
    let folder = bench()?;
    let (text, run) = (folder.path().join("text"), folder.path().join("run"));
    let more = "checkpoint_path=run epochs=4000 eval_interval=4000 checkpoint_every_steps=1 keep_last=3 ema_decay=0.9";
    let latest =
        || -> Option<i64> { fs::read_to_string(run.join("latest")).ok()?.trim().strip_prefix("step_")?.parse().ok() };
    // The moments of a save, one after the other: nothing yet, a part, its weights, its manifest, a checkpoint more.
    let part = || names(&run).ok()?.into_iter().find(|name| name.ends_with(".part")).map(|name| run.join(name));
    let in_part = |file: &str| part().is_some_and(|part| part.join(file).exists());
    for round in 0..50 {
        let mut child = start(&mut train(folder.path(), &format!("{more} --resume auto")), &text)?;
        let before = latest();
        until(&mut child, &text, || latest() > before)?;
        let saved = latest();
        until(&mut child, &text, || match round % 5 {
            0 => true,
            1 => part().is_some(),
            2 => in_part("model.safetensors"),
            3 => in_part("manifest.json"),
            _ => latest() > saved,
        })?;
        training::send(&child, libc::SIGKILL);
        child.wait()?;
        let said = fs::read_to_string(&text)?;
        let aside = names(&run)?.into_iter().find(|name| name.ends_with(".aside"));
        assert_eq!(aside, None, "round {round}: a finished checkpoint was damaged: {said}");
        // The first line says where it goes on.
        let from = said.lines().next().and_then(|line| line.split("run/step_").nth(1)?.parse::<i64>().ok());
        assert!(from >= before, "round {round}: step {before:?} was lost: {said}");
    }
    // Undisturbed to the same step: the same weights after all.
    let reached = latest().context("latest")?;
    let checkpoint = run.join(format!("step_{reached}"));
    let steps = format!("checkpoint_path=whole {} max_minutes=60", more.split_once(' ').context("keys")?.1);
    let steps =
        steps.replace("keep_last=3", "keep_last=1000000").replace("every_steps=1", &format!("every_steps={reached}"));
    let mut child = start(&mut train(folder.path(), &steps), &text)?;
    let whole = folder.path().join(format!("whole/step_{reached}"));
    until(&mut child, &text, || whole.is_dir())?;
    child.kill()?;
    child.wait()?;
    assert_eq!(contents(&checkpoint)?, contents(&whole)?, "after {reached} steps");
    Ok(())
}

#[test]
fn a_damaged_checkpoint_is_passed_over() -> Result<()> {
    type Damage = fn(&Path) -> std::io::Result<()>;
    let damages: [(&str, Damage); 5] = [
        ("weights changed", |step| {
            let mut bytes = fs::read(step.join("model.safetensors"))?;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(step.join("model.safetensors"), bytes)
        }),
        ("training state cut off", |step| {
            let bytes = fs::read(step.join("training.safetensors"))?;
            fs::write(step.join("training.safetensors"), &bytes[..bytes.len() - 100])
        }),
        ("no weights", |step| fs::remove_file(step.join("model.safetensors"))),
        ("manifest damaged", |step| fs::write(step.join("manifest.json"), "{")),
        ("no manifest", |step| fs::remove_file(step.join("manifest.json"))),
    ];
    let folder = bench()?;
    let mut said = Transcript::new(folder.path()).measured();
    ok(&mut train(folder.path(), "checkpoint_path=whole"))?;
    for (what, damage) in damages {
        let run = folder.path().join("run");
        ok(Command::new("cp").current_dir(folder.path()).args(["-r", "whole", "run"]))?;
        damage(&run.join("step_32"))?;
        said.add(what, "");
        said.ok(&mut resume(folder.path(), "run"))?;
        same_run(&folder.path().join("whole"), &run, 32)?;
        assert!(run.join("step_32.aside").is_dir(), "{what}: what is damaged stays, under another name");
        fs::remove_dir_all(&run)?;
    }

    // An older checkpoint on purpose: the newer one makes way too.
    ok(Command::new("cp").current_dir(folder.path()).args(["-r", "whole", "run"]))?;
    said.ok(&mut resume(folder.path(), "run/step_16"))?;
    same_run(&folder.path().join("whole"), &folder.path().join("run"), 32)?;

    // Whoever reads weights alone sees the damage to them too.
    let run = folder.path().join("whole");
    damages[0].1(&run.join("step_32"))?;
    said.ok(hrm(folder.path()).args(["checkpoint", "inspect", "whole"]))?;
    damages[2].1(&run.join("step_16"))?;
    said.fails(&mut resume(folder.path(), "whole"))?;
    said.fails(hrm(folder.path()).args(["checkpoint", "inspect", "whole"]))?;
    said.matches("a_damaged_checkpoint_is_passed_over");
    Ok(())
}

#[test]
fn what_changed_is_named_and_refused() -> Result<()> {
    let folder = bench()?;
    ok(&mut train(folder.path(), "checkpoint_path=run checkpoint_every_steps=20"))?;
    fs::remove_dir_all(folder.path().join("run/step_32"))?;
    let mut said = Transcript::new(folder.path()).measured();
    for more in ["run lr=3e-3", "run arch.hidden_size=32", "run --seed 9", "run --dtype f32", "nowhere", "data"] {
        said.fails(&mut resume(folder.path(), more))?;
    }
    said.fails(hrm(folder.path()).args(["train", "--force"]))?;
    // The same settings spelled out are no change; neither is what decides only the saving.
    said.ok(&mut train(folder.path(), "checkpoint_path=run --resume run --dtype bf16 keep_last=1 --dry-run"))?;

    // Other test puzzles alone; a state of earlier versions does not tell of them.
    let (inputs, state) =
        (folder.path().join("data/test/all__inputs.npy"), folder.path().join("run/step_20/training.json"));
    let own = fs::read(&inputs)?;
    fs::write(&inputs, fs::read(folder.path().join("data/test/all__labels.npy"))?)?;
    said.fails(&mut resume(folder.path(), "run"))?;
    assert!(fs::read_to_string(&state)?.contains("\"test_data_fingerprint\": \""), "told by its content");
    fs::write(&inputs, own)?;

    // Other data, the same words.
    fs::rename(folder.path().join("data"), folder.path().join("old"))?;
    let flags = "build-dataset --output-dir data --subsample-size 64 --test-rows 20 --hint --threads 1 --seed 4";
    ok(hrm(folder.path()).args(flags.split(' ')))?;
    said.fails(&mut resume(folder.path(), "run"))?;
    ok(&mut resume(folder.path(), "run --force lr=3e-3"))?;
    let lines = figures(&folder.path().join("run"))?;
    assert_eq!(lines.iter().filter(|l| l["train/lr"] == 3e-3).count(), 12, "steps 21 to 32");

    // Another batch size: weights and moments go on, the puzzles begin anew.
    fs::remove_dir_all(folder.path().join("run/step_32"))?;
    said.ok(&mut resume(folder.path(), "run --force global_batch_size=8"))?;
    said.matches("what_changed_is_named_and_refused");
    Ok(())
}

#[test]
fn auto_finds_the_run_or_starts_one() -> Result<()> {
    let folder = bench()?;
    let mut said = Transcript::new(folder.path()).measured().hide(r"ACTV1 \w+-\w+", "ACTV1 [name]");
    let mut run = |more: &str| said.ok(&mut train(folder.path(), &format!("--resume auto {more}"))).map(drop);
    run("checkpoint_every_steps=20")?;
    let project = folder.path().join("checkpoints/Data ACT-torch");
    let [first] = <[String; 1]>::try_from(names(&project)?).map_err(|found| anyhow::anyhow!("{found:?}"))?;
    fs::remove_dir_all(project.join(&first).join("step_32"))?;
    // No name is given: the newest run with these settings is meant.
    run("")?;
    assert!(project.join(&first).join("step_32").is_dir());
    run("lr=1e-3")?;
    assert_eq!(names(&project)?.len(), 2, "other settings are another run");
    run("run_name=mine")?;
    run("run_name=mine")?;
    // Killed before its first checkpoint: nothing but the metrics is there.
    let young = project.join("young");
    fs::create_dir(&young)?;
    fs::write(young.join("metrics.jsonl"), "{\"num_params\": 1}\n{\"step\": 1, \"tra")?;
    run("run_name=young")?;
    assert_eq!(figures(&young)?.len(), 32 + 2);
    said.matches("auto_finds_the_run_or_starts_one");
    Ok(())
}

#[test]
fn one_process_at_a_time() -> Result<()> {
    let folder = bench()?;
    let (text, run) = (folder.path().join("text"), folder.path().join("run"));
    let more = "checkpoint_path=run epochs=400000 eval_interval=4";
    let mut child = start(&mut train(folder.path(), more), &text)?;
    until(&mut child, &text, || run.join("latest").exists())?;
    let mut said = Transcript::new(folder.path()).hide(r"(step[ _])\d+", "${1}N");
    let refused = said.fails(&mut train(folder.path(), &format!("{more} --resume run")));
    child.kill()?;
    child.wait()?;
    refused?;
    said.matches("one_process_at_a_time");
    Ok(())
}

#[test]
fn old_checkpoints_go_and_the_best_stays() -> Result<()> {
    let folder = bench()?;
    let run = folder.path().join("run");
    ok(&mut train(
        folder.path(),
        "checkpoint_path=run epochs=16 eval_interval=2 checkpoint_every_steps=3 keep_last=2",
    ))?;
    let best: Value = serde_json::from_slice(&fs::read(run.join("best.json"))?)?;
    let best = format!("step_{}", best["step"]);
    let mut kept = vec!["step_63".to_owned(), "step_64".to_owned(), best.clone()];
    kept.sort();
    kept.dedup();
    let found: Vec<_> = names(&run)?.into_iter().filter(|n| n.contains("step_")).collect();
    assert_eq!(found, kept);
    assert!(!run.join(&best).join("training.json").exists(), "the best is older than the newest two");
    // Without keep_last all weights stay, and training states in the newest two.
    ok(&mut train(folder.path(), "checkpoint_path=all epochs=16 eval_interval=4"))?;
    let all = folder.path().join("all");
    let mut said = Transcript::new(folder.path());
    said.fails(&mut resume(folder.path(), "all/step_16"))?;
    said.matches("old_checkpoints_go_and_the_best_stays");
    for (step, has_state) in [(16, false), (32, false), (48, true), (64, true)] {
        let step = all.join(format!("step_{step}"));
        assert!(step.join("model.safetensors").is_file());
        assert_eq!(step.join("training.safetensors").exists(), has_state, "{}", step.display());
        assert_eq!(step.join("training.json").exists(), has_state, "{}", step.display());
    }
    Ok(())
}

#[test]
fn what_a_killed_process_left_is_cleared_away() -> Result<()> {
    let folder = bench()?;
    let run = folder.path().join("run");
    ok(&mut train(folder.path(), "checkpoint_path=run checkpoint_every_steps=20"))?;
    // Killed between the two renames of a checkpoint that replaces one, and in the middle of another.
    fs::rename(run.join("step_32"), run.join(".step_32.old"))?;
    fs::create_dir(run.join(".step_99.part"))?;
    fs::write(run.join(".step_99.part/model.safetensors"), "half")?;
    ok(&mut resume(folder.path(), "run"))?;
    assert!(names(&run)?.iter().all(|n| !n.starts_with('.')), "{:?}", names(&run)?);
    assert!(run.join("step_32").is_dir());
    Ok(())
}

#[test]
fn a_time_limit_saves_and_stops() -> Result<()> {
    let folder = bench()?;
    let more = "checkpoint_path=run epochs=400000 eval_interval=400 max_minutes=0.03 --json summary.json";
    ok(&mut train(folder.path(), more))?;
    let found = summary(folder.path())?;
    assert_eq!((&found["stopped"], &found["stopped_by"]), (&true.into(), &"max_minutes".into()));
    let steps = found["steps"].as_i64().context("steps")?;
    assert!(steps > 0 && folder.path().join(format!("run/step_{steps}/training.json")).exists(), "{found}");
    ok(&mut resume(folder.path(), "run max_minutes=0.02 --json summary.json"))?;
    assert_eq!(summary(folder.path())?["resumed_at"], steps);
    assert!(summary(folder.path())?["steps"].as_i64() > Some(steps));
    Ok(())
}

#[test]
fn a_loss_that_is_no_number_stops_with_the_batch() -> Result<()> {
    let folder = bench()?;
    let more =
        "checkpoint_path=run checkpoint_every_steps=4 lr=1e30 lr_warmup_steps=1000000 epochs=400 eval_interval=400";
    let mut said = Transcript::new(folder.path()).measured().hide(r"(step[ _])\d+", "${1}N");
    said = said.hide(r"examples [\d, ]+", "examples [numbers]");
    said.fails(&mut train(folder.path(), &format!("{more} --dtype f32")))?;
    said.matches("a_loss_that_is_no_number_stops_with_the_batch");
    let run = folder.path().join("run");
    let name = names(&run)?.into_iter().find(|name| name.starts_with("not_finite_step_")).context("a report")?;
    let report: Value = serde_json::from_slice(&fs::read(run.join(name))?)?;
    assert_eq!(report["examples"].as_array().context("examples")?.len(), 16);
    assert!(report["examples"].as_array().context("examples")?.iter().all(|e| e.as_u64() < Some(128)), "{report}");
    Ok(())
}

/// `ulimit -f` stands for a full disk. Its unit is 1024 bytes in bash.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_earlier_checkpoints_to_go_on_from() -> Result<()> {
    let folder = bench()?;
    ok(&mut train(folder.path(), "checkpoint_path=whole"))?;
    ok(&mut train(folder.path(), "checkpoint_path=run checkpoint_every_steps=20"))?;
    let run = folder.path().join("run");
    fs::remove_dir_all(run.join("step_32"))?;
    let mut limited = Command::new("bash");
    limited.current_dir(folder.path()).args(["-c", "ulimit -f 60; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_hrm")]);
    let mut said = Transcript::new(folder.path()).measured();
    said.fails(limited.args(["train", "--resume", "run"]).args(FLAGS.split(' ')))?;
    said.matches("a_full_disk_leaves_earlier_checkpoints_to_go_on_from");
    assert!(!run.join("step_32").exists() && !run.join(".step_32.part").exists());
    ok(&mut resume(folder.path(), "run"))?;
    same_run(&folder.path().join("whole"), &run, 32)
}

/// The average is saved, evaluated and taken by every command unless told otherwise.
#[test]
fn averaged_weights_are_saved_evaluated_and_chosen() -> Result<()> {
    let folder = bench()?;
    let mut said = Transcript::new(folder.path()).measured();
    ok(&mut train(folder.path(), "checkpoint_path=run ema_decay=0.9"))?;
    let evaluation = figures(&folder.path().join("run"))?.pop().context("an evaluation")?;
    assert_ne!(evaluation["all/lm_loss"], evaluation["ema/all/lm_loss"]);
    for (weights, set) in [("auto", "ema/all"), ("ema", "ema/all"), ("raw", "all")] {
        let flags = format!("infer --threads 1 --device cpu --json - --checkpoint run --weights {weights}");
        let report: Value = serde_json::from_str(&said.ok(hrm(folder.path()).args(flags.split(' ')))?.stdout)?;
        let (found, wanted) = (report["cell_accuracy"].as_f64(), evaluation[format!("{set}/accuracy")].as_f64());
        let difference = found.context("cell_accuracy")? - wanted.context("accuracy")?;
        assert!(difference.abs() < 1e-6, "{weights}: {found:?}, {wanted:?}");
    }
    // A converted average remembers what it is; a run without one is no average.
    ok(hrm(folder.path()).args(["checkpoint", "convert", "run", "average", "--to", "safetensors"]))?;
    let raw = ["checkpoint", "inspect", "average", "--weights", "raw"];
    said.fails(hrm(folder.path()).args(raw))?;
    ok(&mut train(folder.path(), "checkpoint_path=plain"))?;
    said.fails(hrm(folder.path()).args(["checkpoint", "inspect", "plain", "--weights", "ema"]))?;
    said.matches("averaged_weights_are_saved_evaluated_and_chosen");
    // A new run can begin with them.
    ok(&mut train(folder.path(), "checkpoint_path=second init_from=average epochs=4"))?;
    let first = |run: &str| -> Result<f64> {
        figures(&folder.path().join(run))?[0]["train/lm_loss"].as_f64().context("a loss")
    };
    assert!(first("second")? < 0.9 * first("run")?, "{} after {}", first("second")?, first("run")?);
    Ok(())
}
