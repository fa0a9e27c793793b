//! Files that are damaged or lie: every one is refused by its name, whatever path it is read by.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use hrm::{
    checkpoint::{Manifest, RawTensor, safetensors_file, torch_file, torch_writer},
    dtype::Dtype,
    store::Existing,
};

use crate::common::{
    fails, hrm, json, ok,
    training::{resume, train, trained},
};

/// A change that makes a file lie.
type Damage<T> = Box<dyn Fn(&mut T)>;
type Tensors = Vec<(String, RawTensor)>;

const PUZZLE: &str = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79";

/// Flips a bit of a file, some way from its end.
fn damage(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let at = bytes.len().checked_sub(40).context("a file of some length")?;
    bytes[at] ^= 0x40;
    Ok(fs::write(path, bytes)?)
}

/// Every command that reads weights, given those at `path`.
fn readers(path: &str) -> Vec<Vec<&str>> {
    let cpu = ["--device", "cpu", "--threads", "1"];
    let with = |words: &[&'static str], more: &[&'static str]| {
        let mut all: Vec<&str> = words.to_vec();
        all.push(path);
        all.extend(more);
        all
    };
    let mut all = vec![
        with(&["checkpoint", "inspect"], &[]),
        with(&["checkpoint", "convert"], &["out", "--to", "torch"]),
        with(&["checkpoint", "convert"], &["out", "--to", "safetensors"]),
    ];
    for mut command in [
        with(&["infer", "--data-path", "data", "--checkpoint", "run", "--checkpoint"], &[]),
        with(&["infer", "--data-path", "data", "--checkpoint"], &[]),
        with(&["eval", "--data-path", "data", "--checkpoint"], &[]),
        with(&["solve", "--checkpoint"], &[PUZZLE]),
        with(&["trace", "--data-path", "data", "--output-dir", "out", "--checkpoint"], &["--count", "2"]),
        with(&["analyze", "segments", "--data-path", "data", "--output-dir", "out", "--checkpoint"], &["--count", "2"]),
        with(&["analyze", "attention", "--data-path", "data", "--output-dir", "out", "--checkpoint"], &[]),
    ] {
        command.extend(cpu);
        all.push(command);
    }
    all
}

#[test]
fn a_damaged_step_folder_is_used_by_no_command() -> Result<()> {
    let folder = trained()?;
    let at = folder.path();
    damage(&at.join("run/step_32/model.safetensors"))?;
    for (k, name) in ["run/step_32", "run/step_32/model.safetensors"].into_iter().enumerate() {
        for words in readers(name) {
            let error = fails(hrm(at).args(&words))?;
            let wanted = "run/step_32/model.safetensors: its contents do not match the manifest.json";
            ensure!(error.contains(wanted) && error.lines().count() == 1, "{words:?}: {error}");
        }
        let mut start = train(at, &format!("checkpoint_path=new_{k} init_from={name}"));
        ensure!(fails(&mut start)?.contains("its contents do not match the manifest.json"));
    }
    ensure!(!at.join("out/model.safetensors").exists() && !at.join("out/step_32").exists(), "nothing was passed on");
    Ok(())
}

#[test]
fn a_changed_configuration_of_a_step_folder_is_not_used() -> Result<()> {
    let folder = trained()?;
    let path = folder.path().join("run/step_32/all_config.yaml");
    let text = fs::read_to_string(&path)?;
    fs::write(&path, text.replace("halt_max_steps: 3", "halt_max_steps: 2"))?;
    let error = fails(hrm(folder.path()).args(["checkpoint", "inspect", "run/step_32"]))?;
    ensure!(error.contains("run/step_32/all_config.yaml: its contents do not match the manifest.json"), "{error}");
    Ok(())
}

/// The tensors of the run's last checkpoint, changed, as a checkpoint of its own in the folder `bad`.
fn write_bad(at: &Path, change: impl Fn(&mut RawTensor)) -> Result<()> {
    fs::create_dir_all(at.join("bad"))?;
    fs::copy(at.join("run/step_32/all_config.yaml"), at.join("bad/all_config.yaml"))?;
    let mut tensors = safetensors_file::read(&at.join("run/step_32/model.safetensors"))?;
    let lm_head = tensors.iter_mut().find(|(name, _)| name.ends_with("lm_head.weight")).context("lm_head")?;
    change(&mut lm_head.1);
    safetensors_file::write(&at.join("bad/model.safetensors"), Existing::Replace, &tensors)
}

#[test]
fn weights_that_are_no_finite_numbers_are_used_by_no_command() -> Result<()> {
    let folder = trained()?;
    let at = folder.path();
    let floats = |value: f32| {
        move |raw: &mut RawTensor| {
            raw.data.as_chunks_mut().0.iter_mut().for_each(|x: &mut [u8; 4]| *x = value.to_le_bytes())
        }
    };
    let kind = |dtype: Dtype| {
        move |raw: &mut RawTensor| {
            let numel = raw.numel();
            *raw = RawTensor { dtype, shape: raw.shape.clone(), data: vec![1; numel * dtype.size()] };
        }
    };
    let infinite = "model.inner.lm_head.weight holds NaN or infinite values";
    let cases: [(Damage<RawTensor>, &str); 4] = [
        (Box::new(floats(f32::NAN)), infinite),
        (Box::new(floats(f32::NEG_INFINITY)), infinite),
        (Box::new(kind(Dtype::I64)), "model.inner.lm_head.weight is int64, and weights are floating-point numbers"),
        (Box::new(kind(Dtype::Bool)), "model.inner.lm_head.weight is bool"),
    ];
    for (k, (change, wanted)) in cases.into_iter().enumerate() {
        write_bad(at, change)?;
        // What is wrong decides nothing about which commands look.
        let commands = if k == 0 { readers("bad") } else { readers("bad").drain(..4).collect() };
        for words in commands {
            let error = fails(hrm(at).args(&words))?;
            ensure!(error.contains(wanted) && error.lines().count() == 1, "{words:?}: {error}");
        }
        ensure!(fails(&mut train(at, &format!("checkpoint_path=new_{k} init_from=bad")))?.contains(wanted));
    }
    Ok(())
}

#[test]
fn a_conversion_that_would_make_weights_infinite_is_refused() -> Result<()> {
    let folder = trained()?;
    let at = folder.path();
    write_bad(at, |raw| raw.data[..4].copy_from_slice(&f32::MAX.to_le_bytes()))?;
    let convert = |dtype: &str| {
        let mut command = hrm(at);
        command.args(["checkpoint", "convert", "bad", dtype, "--to", "torch", "--dtype", dtype]);
        command
    };
    let error = fails(&mut convert("bf16"))?;
    ensure!(error.contains("lm_head.weight holds 3.4028234663852886e38 (element 0), more than a bfloat16"), "{error}");
    ok(&mut convert("f32"))?;
    Ok(())
}

#[test]
fn weights_of_python_are_checked_like_ours() -> Result<()> {
    let folder = trained()?;
    let at = folder.path();
    ok(hrm(at).args(["checkpoint", "convert", "run/step_32", "python", "--to", "torch"]))?;
    // The archive's checksums hold: the NaN was saved so.
    let mut tensors = torch_file::read(&at.join("python/step_32"))?;
    let lm_head = tensors.iter_mut().find(|(name, _)| name.ends_with("lm_head.weight")).context("lm_head")?;
    lm_head.1.data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut file = fs::File::create(at.join("python/step_32"))?;
    torch_writer::write_to(&mut file, "step_32", &tensors)?;
    for words in readers("python/step_32").drain(..4) {
        let error = fails(hrm(at).args(&words))?;
        ensure!(error.contains("holds NaN or infinite values (the first is element 0)"), "{words:?}: {error}");
    }
    Ok(())
}

/// Rewrites the training state of the last checkpoint, and the manifest so that it matches.
fn with_state(at: &Path, change: impl Fn(&mut Vec<(String, RawTensor)>)) -> Result<()> {
    let folder = at.join("run/step_16");
    let path = folder.join("training.safetensors");
    let mut tensors = safetensors_file::read(&path)?;
    change(&mut tensors);
    safetensors_file::write(&path, Existing::Replace, &tensors)?;
    Manifest::of(&folder)?.write(&folder)
}

#[test]
fn a_training_state_that_does_not_fit_is_an_error() -> Result<()> {
    let folder = trained()?;
    let at = folder.path();
    let first = |name: &'static str, bytes: &'static [u8]| {
        move |tensors: &mut Vec<(String, RawTensor)>| {
            for (_, raw) in tensors.iter_mut().filter(|(found, _)| found == name) {
                raw.data[..bytes.len()].copy_from_slice(bytes);
            }
        }
    };
    let shape = |name: &'static str, dtype: Dtype, shape: &'static [usize]| {
        move |tensors: &mut Vec<(String, RawTensor)>| {
            for (_, raw) in tensors.iter_mut().filter(|(found, _)| found == name) {
                let data = vec![0; shape.iter().product::<usize>() * dtype.size()];
                *raw = RawTensor { dtype, shape: shape.to_vec(), data };
            }
        }
    };
    const NAN: &[u8] = &[0, 0, 0xc0, 0x7f];
    let good = fs::read(at.join("run/step_16/training.safetensors"))?;
    let cases: [(Damage<Tensors>, &str); 10] = [
        (Box::new(shape("carry.z_H", Dtype::F32, &[])), "carry.z_H is [] float32, this run has [16, "),
        (Box::new(shape("carry.steps", Dtype::I32, &[1])), "carry.steps is [1] int32, this run has [16] Int"),
        (Box::new(shape("carry.inputs", Dtype::I64, &[16, 81])), "carry.inputs is [16, 81] int64"),
        (Box::new(|tensors| tensors.retain(|(name, _)| name != "carry.halted")), "there is no carry.halted"),
        (Box::new(first("carry.inputs", &[11])), "carry.inputs holds 11 (element 0), which is none of 0..11"),
        (Box::new(first("carry.puzzle_identifiers", &[0xff; 4])), "carry.puzzle_identifiers holds -1"),
        (Box::new(first("carry.steps", &[4])), "carry.steps holds 4 (element 0), which is none of 0..4"),
        (Box::new(first("carry.halted", &[7])), "carry.halted holds 7"),
        (Box::new(first("adam.v.model.inner.lm_head.weight", NAN)), "adam.v.model.inner.lm_head.weight holds NaN"),
        (Box::new(shape("adam.m.model.inner.lm_head.weight", Dtype::F32, &[3])), "lm_head.weight is [3]"),
    ];
    fs::remove_dir_all(at.join("run/step_32"))?;
    for (change, wanted) in cases {
        fs::write(at.join("run/step_16/training.safetensors"), &good)?;
        with_state(at, change)?;
        let error = fails(&mut resume(at, ""))?;
        ensure!(error.contains("run/step_16") && error.contains(wanted) && !error.contains("panicked"), "{error}");
    }
    fs::write(at.join("run/step_16/training.safetensors"), &good)?;
    let state = fs::read_to_string(at.join("run/step_16/training.json"))?;
    fs::write(at.join("run/step_16/training.json"), state.replacen("\"step\": 16", "\"step\": 17", 1))?;
    with_state(at, |_| {})?;
    ensure!(fails(&mut resume(at, ""))?.contains("its training state is that of step 17"));
    fs::write(at.join("run/step_16/training.json"), state)?;
    with_state(at, |_| {})?;
    ok(&mut resume(at, ""))?;
    Ok(())
}

#[test]
fn a_damaged_line_of_the_metrics_costs_that_line() -> Result<()> {
    let folder = trained()?;
    let at = folder.path();
    let path = at.join("run/metrics.jsonl");
    let whole = fs::read_to_string(&path)?;
    fs::remove_dir_all(at.join("run/step_32"))?;
    fs::write(&path, whole.replacen("{\"step\":5,", "{\"step\":\u{0}5,", 1))?;
    let told = ok(&mut resume(at, ""))?.stderr;
    ensure!(told.contains("run/metrics.jsonl: line 6 is damaged and is passed over"), "{told}");
    let steps = |text: &str| text.lines().filter(|line| line.contains("\"train/lr\"")).count();
    let resumed = fs::read_to_string(&path)?;
    ensure!(steps(&whole) == 32 && steps(&resumed) == 32, "the others are there, {}", steps(&resumed));
    let runs = ok(hrm(at).args(["runs", "."]))?;
    ensure!(runs.stdout.contains("finished  32 of 32"), "{}", runs.stdout);
    Ok(())
}

#[test]
fn a_damaged_line_of_a_journal_costs_that_line() -> Result<()> {
    let folder = trained()?;
    let at = folder.path();
    let words = "analyze segments --checkpoint run --data-path data --count 6 --batch-size 2 --output-dir out --device cpu \
                 --threads 1";
    let run = |more: &str| {
        let mut command = hrm(at);
        command.args(words.split_whitespace()).args(more.split_whitespace());
        command
    };
    ok(&mut run(""))?;
    let (path, report) = (at.join("out/runs.jsonl"), at.join("out/segments.json"));
    let (whole, wanted) = (fs::read_to_string(&path)?, fs::read_to_string(&report)?);
    let lines: Vec<&str> = whole.lines().collect();
    fs::write(&path, [lines[0], lines[1], lines[2], "{\"index\":2,", lines[4], lines[5], lines[6], ""].join("\n"))?;
    let told = ok(&mut run("--resume"))?;
    ensure!(told.stderr.contains("out/runs.jsonl: line 4 is damaged and is passed over"), "{}", told.stderr);
    ensure!(told.stdout.contains("5 of 6 puzzles were run already"), "{}", told.stdout);
    ensure!(fs::read_to_string(&report)? == wanted);
    let told = ok(&mut run("--resume"))?;
    ensure!(told.stdout.contains("6 of 6 puzzles were run already"), "{}", told.stdout);
    ensure!(fs::read_to_string(&report)? == wanted, "the line that was written again stands in its place");
    Ok(())
}

#[test]
fn a_damaged_line_of_results_costs_that_line() -> Result<()> {
    let folder = trained()?;
    let at = folder.path();
    let words = "infer --checkpoint run --data-path data --num-batch 1 --batch-size 6 --output r.jsonl --device cpu \
                 --threads 1";
    let run = |more: &str| {
        let mut command = hrm(at);
        command.args(words.split_whitespace()).args(more.split_whitespace());
        command
    };
    ok(&mut run("--json a"))?;
    let whole = fs::read_to_string(at.join("r.jsonl"))?;
    fs::write(at.join("r.jsonl"), whole.replacen("{\"puzzle\":2,", "{\"puzzle\":2;", 1))?;
    let error = fails(hrm(at).args(["infer", "--merge", "r.jsonl"]))?;
    ensure!(error.contains("r.jsonl: 1 puzzles are not done, the first is 2: finish it with --resume"), "{error}");
    let told = ok(&mut run("--resume --json b"))?;
    ensure!(told.stderr.contains("r.jsonl: line 4 is damaged and is passed over"), "{}", told.stderr);
    let scores = |name: &str| -> Result<serde_json::Value> { Ok(json(&at.join(name))?["passes"].clone()) };
    ensure!(scores("a")? == scores("b")? && !scores("a")?.is_null());
    Ok(())
}

/// Every kind of input, in turn as a pipe that nobody writes into and as a device.
#[test]
fn no_input_may_be_a_pipe_or_a_device() -> Result<()> {
    let folder = trained()?;
    let at = folder.path();
    ok(hrm(at).args("infer --checkpoint run --data-path data --output r.jsonl --device cpu --threads 1".split(' ')))?;
    let cpu = " --device cpu --threads 1";
    let train = format!("train config.yaml{cpu}");
    let infer = format!("infer --checkpoint run/step_32 --data-path data{cpu}");
    let against = format!("{infer} --against r.jsonl");
    let on = format!("train --resume run/step_32{cpu}");
    for (file, words) in [
        ("run/step_32/model.safetensors", infer.as_str()),
        ("run/step_32/manifest.json", &infer),
        ("run/step_32/model.safetensors", "checkpoint inspect run/step_32/model.safetensors"),
        ("data/test/dataset.json", &infer),
        ("data/test/all__inputs.npy", &infer),
        ("data/test/all__group_indices.npy", &infer),
        ("data/test/all__rows.csv", "dataset inspect data"),
        ("r.jsonl", &against),
        ("r.jsonl", "infer --merge r.jsonl"),
        ("run/step_32/training.json", &on),
        ("run/metrics.jsonl", &on),
        ("run/metrics.jsonl", "viz curves run"),
        ("list.csv", "build-dataset --source list.csv --output-dir built"),
        ("list.txt", "solve --checkpoint run --file list.txt --device cpu --threads 1"),
        ("config.yaml", &train),
    ] {
        let path = at.join(file);
        let aside = at.join("aside");
        let there = path.exists();
        if there {
            fs::rename(&path, &aside)?;
        }
        for kind in ["pipe", "device"] {
            match kind {
                "pipe" => ensure!(Command::new("mkfifo").arg(&path).status()?.success(), "mkfifo"),
                _ => std::os::unix::fs::symlink("/dev/zero", &path)?,
            }
            // A command that waits is stopped, and then has no error of its own.
            let mut command = Command::new("timeout");
            command.current_dir(at).args(["60", env!("CARGO_BIN_EXE_hrm")]).args(words.split(' '));
            let error = fails(&mut command).with_context(|| format!("{words}: {file} is a {kind}"))?;
            ensure!(error.contains(file.rsplit('/').next().unwrap_or(file)), "{words}, {kind}: {error}");
            ensure!(!error.contains("panicked"), "{words}, {kind}: {error}");
            fs::remove_file(&path)?;
        }
        if there {
            fs::rename(&aside, &path)?;
        }
    }
    Ok(())
}

#[test]
fn a_list_may_come_through_a_pipe_that_is_written_to() -> Result<()> {
    let folder = trained()?;
    let mut command = Command::new("bash");
    let script = format!("\"$0\" solve --checkpoint run --file <(echo {PUZZLE}) --device cpu --threads 1");
    ok(command.current_dir(folder.path()).args(["-c", &script, env!("CARGO_BIN_EXE_hrm")]))?;
    Ok(())
}
