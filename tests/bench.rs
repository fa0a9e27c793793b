//! `hrm bench` on a model small enough for a test: its figures, its JSON, the step that `--dump` records.

mod common;

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context, Result};
use common::{hrm, json, names, ok, snapshot::Transcript};
use safetensors::{Dtype, SafeTensors};

const TINY: [&str; 4] = ["arch.hidden_size=32", "arch.num_heads=2", "arch.H_layers=1", "arch.L_layers=1"];

/// One timed step and no other, on the CPU.
fn bench(folder: &std::path::Path, what: &str, more: &[&str]) -> Command {
    let mut command = hrm(folder);
    command.args(["bench", what, "--device", "cpu", "--warm", "0", "--steps", "1"]).args(TINY).args(more);
    command
}

#[test]
fn json_has_a_line_for_every_batch_size() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path()).measured();
    for (what, dtype) in [("train", "bf16"), ("infer", "f32")] {
        said.ok(&mut bench(folder.path(), what, &["--batch-size", "2,3", "--dtype", dtype, "--json", "r.json"]))?;
        let report = json(&folder.path().join("r.json"))?;
        assert_eq!((report["device"].as_str(), report["dtype"].as_str()), (Some("cpu"), Some(dtype)));
        assert!(report["version"].as_str().is_some_and(|v| v.contains("libtorch 2.11")), "{report}");
        assert!(report["matmul_tflop_per_s"].as_f64().is_some_and(|r| r > 0.0), "{report}");
        let results = report["results"].as_array().context("results")?;
        assert_eq!(results.len(), 2);
        for (line, rows) in results.iter().zip([2.0, 3.0]) {
            assert_eq!((line["what"].as_str(), line["batch_size"].as_f64()), (Some(what), Some(rows)));
            let of = |key: &str| line[key].as_f64().filter(|x| *x > 0.0).with_context(|| format!("{key} of {line}"));
            assert!((of("puzzles_per_s")? * of("ms")? / 1e3 / rows - 1.0).abs() < 1e-6, "{line}");
            assert!(of("tflop_per_s")? > 0.0 && of("share_of_matmul_rate")? > 0.0);
            assert!(line["peak_memory_gib"].is_null(), "the CPU has no memory of its own: {line}");
        }
    }
    said.matches("json_has_a_line_for_every_batch_size");
    Ok(())
}

#[test]
fn the_dump_holds_a_whole_step_and_a_seed_repeats_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dump = |name: &str, seed: &str| -> Result<Vec<u8>> {
        ok(&mut bench(folder.path(), "train", &["--batch-size", "2", "--dump", name, "--seed", seed]))?;
        Ok(fs::read(folder.path().join(name))?)
    };
    let bytes = dump("a", "5")?;
    let file = SafeTensors::deserialize(&bytes)?;
    let found: BTreeMap<String, (Dtype, Vec<usize>)> =
        file.tensors().into_iter().map(|(name, t)| (name, (t.dtype(), t.shape().to_vec()))).collect();

    // I = 256, the smallest multiple of 256 that is no less than 4 * 32 * 2/3.
    let mut parameters = BTreeMap::from([
        ("embed_tokens.embedding_weight".to_owned(), vec![11, 32]),
        ("lm_head.weight".to_owned(), vec![11, 32]),
        ("q_head.weight".to_owned(), vec![2, 32]),
        ("q_head.bias".to_owned(), vec![2]),
    ]);
    for level in ["H", "L"] {
        for (name, shape) in [
            ("self_attn.qkv_proj", [96, 32]),
            ("self_attn.o_proj", [32, 32]),
            ("mlp.gate_up_proj", [512, 32]),
            ("mlp.down_proj", [32, 256]),
        ] {
            parameters.insert(format!("{level}_level.layers.0.{name}.weight"), shape.to_vec());
        }
    }
    let mut wanted = BTreeMap::from([
        ("batch.inputs".to_owned(), (Dtype::I32, vec![2, 81])),
        ("batch.labels".to_owned(), (Dtype::I32, vec![2, 81])),
        ("draws.uniform".to_owned(), (Dtype::F32, vec![2])),
        ("model.inner.H_init".to_owned(), (Dtype::BF16, vec![32])),
        ("model.inner.L_init".to_owned(), (Dtype::BF16, vec![32])),
        ("model.inner.puzzle_emb.weights".to_owned(), (Dtype::F32, vec![1, 32])),
    ]);
    for (name, shape) in parameters {
        wanted.insert(format!("model.inner.{name}"), (Dtype::F32, shape.clone()));
        wanted.insert(format!("grad.model.inner.{name}"), (Dtype::F32, shape));
    }
    for (name, tensor) in &wanted {
        assert_eq!(found.get(name), Some(tensor), "{name}");
    }
    let others: Vec<&str> = found.keys().filter(|name| !wanted.contains_key(*name)).map(String::as_str).collect();
    assert_eq!(others, ["draws.min_steps", "loss"]);

    assert!(bytes == dump("b", "5")?, "the same seed records the same step");
    assert!(bytes != dump("c", "6")?, "another seed another");
    Ok(())
}

#[test]
fn bad_flags_are_refused_and_nothing_is_written() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path());
    for (what, flags) in [
        ("train", vec!["--batch-size", "0"]),
        ("train", vec!["--batch-size", "2,x"]),
        ("infer", vec!["--batch-size", "2", "--dump", "x"]),
        ("train", vec!["--batch-size", "2", "--dump", "none/x"]),
        ("train", vec!["--batch-size", "2", "--dump", "."]),
        ("train", vec!["arch.num_heads=3"]),
        ("train", vec!["arch.hiden_size=32"]),
        ("train", vec!["tiny"]),
        ("train", vec!["--dtype", "f16"]),
        ("train", vec!["--json", "none/x"]),
    ] {
        said.fails(&mut bench(folder.path(), what, &flags))?;
    }
    assert!(names(folder.path())?.is_empty());
    said.matches("bad_flags_are_refused_and_nothing_is_written");
    Ok(())
}
