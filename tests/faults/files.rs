//! Files that are damaged or lie: every one is refused by its name, whatever path it is read by.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use hrm::{
    checkpoint::{RawTensor, safetensors_file, torch_file, torch_writer},
    dtype::Dtype,
};

use crate::common::{
    fails, hrm, ok,
    training::{train, trained},
};

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
            let wanted = "run/step_32/model.safetensors: its contents are not what was written";
            ensure!(error.contains(wanted) && error.lines().count() == 1, "{words:?}: {error}");
        }
        let mut start = train(at, &format!("checkpoint_path=new_{k} init_from={name}"));
        ensure!(fails(&mut start)?.contains("its contents are not what was written"));
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
    ensure!(error.contains("run/step_32/all_config.yaml: its contents are not what was written"), "{error}");
    Ok(())
}

/// The tensors of the run's last checkpoint, changed, as a checkpoint of its own in the folder `bad`.
fn write_bad(at: &Path, change: impl Fn(&mut RawTensor)) -> Result<()> {
    fs::create_dir_all(at.join("bad"))?;
    fs::copy(at.join("run/step_32/all_config.yaml"), at.join("bad/all_config.yaml"))?;
    let mut tensors = safetensors_file::read(&at.join("run/step_32/model.safetensors"))?;
    let lm_head = tensors.iter_mut().find(|(name, _)| name.ends_with("lm_head.weight")).context("lm_head")?;
    change(&mut lm_head.1);
    safetensors_file::write(&at.join("bad/model.safetensors"), &tensors)
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
    let cases: [(Box<dyn Fn(&mut RawTensor)>, &str); 4] = [
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
