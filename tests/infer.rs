//! Batched inference against golden/e2e: upstream's batch_inference on two tiny checkpoints and 11 puzzles, f32.

mod common;

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use common::{
    golden, hrm, ok,
    snapshot::Transcript,
    solver,
    tensors::{Tensors, assert_near, json},
};
use hrm::{
    checkpoint::Checkpoint,
    dataset::{Dataset, Split},
    dtype::Dtype,
    eval::{
        guess::{GuessOptions, guesses},
        infer::{Event, InferPlan, infer, permuted_rows},
        results_file,
        scores::{Stop, Tally},
    },
    model::{DeviceBatch, Dims, Model, loss_head},
    puzzle::Geometry,
};
use serde_json::Value;
use tch::{Device, Kind};

const A: &str = "checkpoint/tiny ACT-torch/Model gold fish/step_12";
const B: &str = "e2e/run_b/step_30";

fn numbers(value: &Value) -> Vec<i64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_i64).collect()
}

fn dataset() -> Result<Dataset> {
    Dataset::open(&golden("e2e/data"), Split::Test)
}

fn models(case: &Value) -> Result<Vec<Model>> {
    let names = case["checkpoints"].as_str().context("checkpoints")?;
    let paths: &[&str] = if names.starts_with("a/step_12,b") { &[A, B] } else { &[A] };
    let dims = Dims::from(dataset()?.meta());
    let load = |path: &&str| {
        let loaded = Checkpoint::load(&golden(path))?;
        loaded.checkpoint.model(dims, Device::Cpu, Some(Dtype::F32))
    };
    paths.iter().map(load).collect()
}

/// Every call's predictions and halts, and what the voting made of them. Upstream calls the model for each batch, in it
/// for each checkpoint, in it for each permutation.
fn check_calls(name: &str) -> Result<()> {
    tch::set_num_threads(1);
    let all = json("e2e/batch_inference.json");
    let case = &all[name];
    let wanted = Tensors::load(&format!("e2e/batch_inference_{name}.safetensors"));
    let calls = case["calls"].as_array().context("calls")?;
    let size = |key: &str| case[key].as_u64().unwrap() as usize;
    let (permutes, batch_size) = (size("permutes"), size("batch_size"));
    let data = dataset()?;
    let puzzles = (size("num_batch") * batch_size).min(data.len());
    let models = models(case)?;
    // Slots of another number than upstream's batches: passes do not depend on it.
    for slots in [batch_size, 4] {
        let plan = InferPlan::upstream(Geometry::SUDOKU, permutes as u32, slots, 0..puzzles);
        let list = guesses(Geometry::SUDOKU, permutes as u32, &GuessOptions::default())?;
        let mut passes = BTreeMap::new();
        let outcome = infer(&models, &data.sets()[0], &plan, BTreeMap::new(), |event| {
            if let Event::Pass { puzzle, pass, .. } = event {
                passes.insert((puzzle, pass.pass.number(list.len()) as usize), pass.clone());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        assert_eq!(passes.len(), puzzles * models.len() * permutes, "{name}");
        for (call, facts) in calls.iter().enumerate() {
            let (batch, pass) = (call / (models.len() * permutes), call % (models.len() * permutes));
            let tokens = wanted.get(&format!("call{call}.predictions")).to_kind(Kind::Int).contiguous().view([-1]);
            let tokens: Vec<i32> = Vec::try_from(tokens)?;
            let halts = numbers(&facts["act_halt"]);
            for (row, (tokens, halt)) in tokens.chunks(81).zip(halts).enumerate() {
                let found = &passes[&(batch * batch_size + row, pass)];
                let answer = list[pass % permutes].transform.undo(&tokens.iter().map(|&t| t as u8).collect::<Vec<_>>());
                let what = format!("{name}, call {call}, row {row}");
                assert_eq!(found.end.answer, Geometry::SUDOKU.text(&answer), "{what}");
                assert_eq!(found.end.halted, halt != 0, "{what}");
                assert_eq!(found.end.segments, 16, "{what}");
            }
        }
        let solved = outcome.tally.upstream().context("all segments ran")?;
        let solved: Vec<i64> = solved.iter().map(|&s| i64::from(s)).collect();
        assert_eq!(solved, numbers(&case["all_correct"]), "{name}");
    }
    Ok(())
}

/// A results file as the version before wrote it: read, and written again, byte by byte; scored without a pass run anew.
#[test]
fn stored_results_are_read_and_written_as_they_were() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stored/results.jsonl");
    let text = fs::read_to_string(&path)?;
    let stored = results_file::read(&path)?;
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("{\"puzzle\"")).collect();
    assert_eq!((lines.len(), stored.records.len(), stored.complete), (3, 3, true));
    for (line, record) in lines.iter().zip(stored.records.values()) {
        let numbered = record.clone().numbered(stored.run.shape.guesses as usize);
        assert_eq!(serde_json::to_string(&numbered)?, *line);
    }
    let header: Value = serde_json::from_str(text.lines().next().context("a header")?)?;
    assert_eq!(serde_json::to_value(&stored.run)?, header["run"]);

    let ends: Vec<_> = stored.records.values().flat_map(|r| &r.passes).map(|p| (p.end.exact, p.end.cells)).collect();
    let (right, wrong) = ((Some(true), Some(81)), |cells| (Some(false), Some(cells)));
    assert_eq!(ends, [right, right, right, wrong(69), wrong(40), wrong(42)]);
    let mut tally = Tally::new(stored.run.shape.clone());
    stored.records.values().for_each(|record| tally.add(record));
    let stops = tally.stops(1.0);
    let counts = |stop: Option<Stop>| stop.map(|s| (s.scores.vote.correct, s.passes_run, s.segments));
    assert_eq!(counts(stops.never), Some((2, 6, 96)));
    assert_eq!(counts(stops.halt), Some((2, 6, 56)));
    assert_eq!(counts(stops.verified), Some((2, 4, 47)));
    Ok(())
}

#[test]
fn one_checkpoint_one_permutation() -> Result<()> {
    check_calls("A_1perm")
}

#[test]
fn one_checkpoint_three_permutations() -> Result<()> {
    check_calls("A_3perm")
}

#[test]
fn two_checkpoints_one_permutation() -> Result<()> {
    check_calls("AB_1perm")
}

#[test]
fn two_checkpoints_three_permutations() -> Result<()> {
    check_calls("AB_3perm")
}

/// The loss of all 16 segments of every call: the carry goes on as upstream's does.
#[test]
fn segment_losses_match_upstream() -> Result<()> {
    tch::set_num_threads(1);
    let all = json("e2e/batch_inference.json");
    let case = &all["AB_3perm"];
    let data = dataset()?;
    let models = models(case)?;
    for (call, facts) in case["calls"].as_array().context("calls")?.iter().enumerate() {
        let model = &models[call / 3];
        let rows = permuted_rows(&data.sets()[0], 0..11, Geometry::SUDOKU, (call % 3) as u32)?;
        let mut losses = Vec::new();
        model.all_segments(&DeviceBatch::upload(&rows, Device::Cpu), |segment| {
            let loss_type = model.config().loss_type;
            losses.push(loss_head(model.ops(), loss_type, segment, None, 1.0).loss.double_value(&[]));
        });
        let wanted = facts["segment_losses"].as_array().context("segment_losses")?;
        assert_eq!(losses.len(), wanted.len());
        for (segment, (found, wanted)) in losses.iter().zip(wanted).enumerate() {
            let what = format!("call {call}, segment {}", segment + 1);
            assert_near(&what, *found, wanted.as_f64().context("a loss")?, 5e-4);
        }
    }
    Ok(())
}

/// `hrm infer` on the golden data, in a folder where no default can be found.
fn infer_command(folder: &Path, checkpoints: &str, more: &[&str]) -> Command {
    let mut command = hrm(folder);
    let checkpoints: Vec<String> = checkpoints.split(',').map(|c| golden(c).display().to_string()).collect();
    command.args(["infer", "--checkpoints", &checkpoints.join(","), "--dtype", "f32", "--threads", "1"]);
    command.args(["--device", "cpu"]);
    command.arg("--data-path").arg(golden("e2e/data")).args(more);
    command
}

#[test]
fn the_binary_prints_upstreams_line_and_the_json() -> Result<()> {
    let all = json("e2e/batch_inference.json");
    for (name, checkpoints, more) in [
        ("A_1perm", A.to_owned(), "--num-batch 2 --batch-size 5"),
        ("A_3perm", A.to_owned(), "--num_batch 2 --batch_size 5 --permutes 3"),
        ("AB_1perm", format!("{A},{B}"), "--num-batch=2 --batch-size=5"),
        ("AB_3perm", format!("{A},e2e/run_b"), "--num-batch 1 --batch-size 11 --permutes 3 --dataset sudoku"),
    ] {
        let case = &all[name];
        let folder = tempfile::tempdir()?;
        let more: Vec<&str> = more.split(' ').chain(["--json", "out.json"]).collect();
        let output = ok(&mut infer_command(folder.path(), &checkpoints, &more))?;
        assert_eq!(output.stdout.lines().last(), case["summary_line"].as_str(), "{name}");

        let report: Value = serde_json::from_slice(&std::fs::read(folder.path().join("out.json"))?)?;
        let total = numbers(&case["all_correct"]).len();
        assert_eq!(report["total"], total, "{name}");
        assert_eq!(report["solved"], case["all_correct"], "{name}");
        let correct: i64 = numbers(&case["all_correct"]).iter().sum();
        assert_eq!(report["upstream_rule"]["correct"], correct);
        assert_eq!(report["upstream_rule"]["total"], total);
        assert_eq!(report["upstream_rule"]["accuracy"], correct as f64 / total as f64);

        let passes = report["passes"].as_array().context("passes")?;
        let permutes = case["permutes"].as_u64().context("permutes")?;
        assert_eq!(passes.len() as u64, permutes * checkpoints.split(',').count() as u64, "{name}");
        for (i, pass) in passes.iter().enumerate() {
            assert_eq!(pass["permutation"], i as u64 % permutes);
            assert!(pass["checkpoint"].as_str().context("checkpoint")?.contains("step_"));
        }
        for (key, of_pass) in [("exact_accuracy", "exact"), ("cell_accuracy", "cell")] {
            let mean = passes.iter().filter_map(|p| p[of_pass].as_f64()).sum::<f64>() / passes.len() as f64;
            assert_near(key, report[key].as_f64().context("a share")?, mean, 1e-12);
            let interval = &report[format!("{key}_interval")];
            assert!(interval["low"].as_f64() <= report[key].as_f64(), "{interval}");
            assert!(interval["high"].as_f64() >= report[key].as_f64(), "{interval}");
        }
        let method = if passes.len() == 1 { "wilson" } else { "bootstrap" };
        assert_eq!(report["exact_accuracy_interval"]["method"], method);
        // Halts of upstream's first call are those of our first pass over the first batch.
        if name == "AB_3perm" {
            let halts = numbers(&case["calls"][0]["act_halt"]);
            let share = halts.iter().sum::<i64>() as f64 / halts.len() as f64;
            assert_near("halted", passes[0]["halted"].as_f64().context("halted")?, share, 1e-12);
        }
    }
    Ok(())
}

/// Where upstream raises: 11 puzzles in batches of 5.
#[test]
fn by_default_all_rows_are_run_and_the_last_batch_may_be_short() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = |more: &[&str]| -> Result<Value> {
        let mut command = infer_command(folder.path(), A, more);
        Ok(serde_json::from_str(&ok(command.args(["--json", "-"]))?.stdout)?)
    };
    let five = run(&["--batch-size", "5"])?;
    let eleven = run(&[])?;
    let too_many = run(&["--batch-size", "4", "--num-batch", "100"])?;
    assert_eq!(five["total"], 11);
    assert_eq!(five["batch_size"], 5);
    assert_eq!(eleven["batch_size"], 91);
    for key in ["solved", "total", "upstream_rule", "exact_accuracy"] {
        assert_eq!(five[key], eleven[key], "{key}");
        assert_eq!(five[key], too_many[key], "{key}");
    }
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_intervals() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let interval = |seed: &str| -> Result<Value> {
        let mut command = infer_command(folder.path(), A, &["--permutes", "2", "--seed", seed, "--json", "-"]);
        let report: Value = serde_json::from_str(&ok(&mut command)?.stdout)?;
        Ok(report["cell_accuracy_interval"].clone())
    };
    assert_eq!(interval("3")?, interval("3")?);
    assert_ne!(interval("3")?, interval("4")?);
    Ok(())
}

/// The golden checkpoint's own data_path is nowhere: the bundled rows stand in, and that is said.
#[test]
fn defaults_are_said() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path()).measured();
    let run = folder.path().join("checkpoints/tiny ACT-torch/first");
    std::fs::create_dir_all(&run)?;
    for name in ["step_12", "all_config.yaml"] {
        std::fs::copy(golden(A).with_file_name(name), run.join(name))?;
    }
    let flags = "infer --num-batch 1 --batch-size 3 --threads 1 --device cpu";
    said.ok(hrm(folder.path()).args(flags.split(' ')))?;

    let test = folder.path().join("data/tiny-public/test");
    std::fs::create_dir_all(&test)?;
    for entry in std::fs::read_dir(golden("e2e/data/test"))? {
        let path = entry?.path();
        std::fs::copy(&path, test.join(path.file_name().context("a file name")?))?;
    }
    said.ok(hrm(folder.path()).args(flags.split(' ')))?;
    said.matches("defaults_are_said");
    Ok(())
}

#[test]
fn bad_input_is_refused_before_anything_runs() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path());
    for more in [
        "--permutes 0",
        "--permutes 10",
        "--dataset maze",
        "--dataset chess",
        "--batch-size 0",
        "--num-batch 0",
        "--seed x",
        "--permutes -1",
        "--seed -1",
        "--batchsize 3",
    ] {
        let more: Vec<&str> = more.split(' ').chain(["--json", "out.json"]).collect();
        said.fails(&mut infer_command(folder.path(), A, &more))?;
    }
    let mazes = golden("dataset/maze_noaug").display().to_string();
    let a = golden(A).display().to_string();
    for flags in [
        vec!["--checkpoint", &a, "--data-path", &mazes],
        vec!["--checkpoint", &a, "--data-path", &mazes, "--permutes", "3"],
        vec!["--checkpoint", &a, "--data-path", "nowhere"],
        vec!["--checkpoint", "nowhere"],
        vec!["--checkpoint", ""],
        vec![],
    ] {
        said.fails(hrm(folder.path()).arg("infer").args(&flags))?;
    }
    assert_eq!(common::names(folder.path())?, Vec::<String>::new(), "nothing is left behind");
    said.matches("bad_input_is_refused_before_anything_runs");
    Ok(())
}

/// Ctrl-C: says how far it got, writes nothing, exit code 130.
#[cfg(unix)]
#[test]
fn an_interrupt_stops_cleanly() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = hrm(folder.path());
    command.args(["infer", "--checkpoint"]).arg(golden(A));
    command.args("--batch-size 1 --permutes 9 --dtype f32 --threads 1 --device cpu --json out.json".split(' '));
    let out = PathBuf::from(folder.path()).join("text");
    let mut child = command.stdout(std::fs::File::create(&out)?).spawn()?;
    // 18,000 passes take far longer.
    let said = || std::fs::read_to_string(&out).unwrap_or_default();
    let pid = child.id();
    common::until(&mut child, said, || common::catches(pid, libc::SIGINT))?;
    // SAFETY: a signal to a child that is not waited for yet.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let status = child.wait()?;
    let text = std::fs::read_to_string(&out)?;
    assert_eq!(status.code(), Some(130), "{text}");
    let mut said = Transcript::new(folder.path()).hide(r"\b\d+ of 2000 puzzles", "N of 2000 puzzles").measured();
    said.add("interrupted", &text);
    said.matches("an_interrupt_stops_cleanly");
    assert!(!folder.path().join("out.json").exists());
    Ok(())
}

/// Rows of random tokens: 16 cells and the vocabulary of a Sudoku of 81.
fn write_unknown(root: &Path) -> Result<()> {
    for split in ["train", "test"] {
        let folder = root.join(split);
        fs::create_dir_all(&folder)?;
        let labels = ndarray::Array2::from_shape_fn((20, 16), |(row, cell)| (2 + (7 * row + 5 * cell) % 9) as u8);
        let inputs = ndarray::Array2::from_shape_fn((20, 16), |at| if at.1 % 2 == 0 { 1 } else { labels[at] });
        ndarray_npy::write_npy(folder.join("all__inputs.npy"), &inputs)?;
        ndarray_npy::write_npy(folder.join("all__labels.npy"), &labels)?;
        for (name, count) in [("puzzle_identifiers", 20), ("puzzle_indices", 21), ("group_indices", 21)] {
            let values = (0..count).map(|i| if count == 20 { 0 } else { i });
            ndarray_npy::write_npy(folder.join(format!("all__{name}.npy")), &values.collect::<ndarray::Array1<i32>>())?;
        }
        let meta = serde_json::json!({
            "pad_id": 0, "ignore_label_id": 0, "blank_identifier_id": 0, "vocab_size": 11, "seq_len": 16,
            "num_puzzle_identifiers": 1, "total_groups": 20, "mean_puzzle_examples": 1.0, "sets": ["all"],
        });
        fs::write(folder.join("dataset.json"), meta.to_string())?;
    }
    Ok(())
}

/// Eleven tokens alone make no Sudoku: such data train and infer without rules, and what needs rules says so.
#[test]
fn an_unknown_kind_is_trained_on_and_refused_by_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path()).measured();
    write_unknown(&folder.path().join("x"))?;
    let run = |words: &str| {
        let mut command = hrm(folder.path());
        command.args(words.split_whitespace());
        command
    };
    let tiny = "arch.hidden_size=32 arch.num_heads=2 arch.H_layers=1 arch.L_layers=1 arch.H_cycles=1 arch.L_cycles=1 \
                arch.halt_max_steps=3 arch.forward_dtype=float32 global_batch_size=10 lr_warmup_steps=1 epochs=2 \
                eval_interval=2 --device cpu --threads 1";
    ok(&mut run(&format!("train data_path=x checkpoint_path=r {tiny}")))?;
    let on = |words: &str| run(&format!("{words} --checkpoint r --data-path x --device cpu --threads 1"));
    said.ok(&mut on("infer --output all.jsonl"))?;
    ok(&mut on("infer --output all.jsonl --resume"))?;
    let report: Value = serde_json::from_str(&ok(&mut on("infer --json - --permutes 3 --noise 0.1"))?.stdout)?;
    assert_eq!(
        (&report["dataset"], &report["total"], &report["upstream_rule"]),
        (&Value::Null, &20.into(), &Value::Null)
    );
    let no_rules = ["/scores", "/stops/never/scores", "/passes/0", "/pass_at_k/0", "/puzzles"];
    for place in no_rules.map(|place| format!("{place}/verified")) {
        assert_eq!(report.pointer(&place), Some(&Value::Null), "{place}");
    }
    let metrics: Value = serde_json::from_str(&ok(&mut on("eval --json -"))?.stdout)?;
    assert!(metrics["all"]["accuracy"].is_number(), "{metrics}");

    for words in [
        "infer --permutes 2",
        "infer --relabel",
        "infer --stop verified",
        "infer --compare-stops",
        "analyze segments --output-dir o",
        "analyze stability --output-dir o",
        "viz landscape --grid -1..1 --output-dir o",
        "report --output-dir o",
        "trace --output-dir o",
    ] {
        said.fails(&mut on(words))?;
        assert!(!folder.path().join("o").exists(), "{words}");
    }
    said.fails(&mut run(&format!("train data_path=x checkpoint_path=s augment=online {tiny}")))?;
    said.fails(&mut run("dataset check x"))?;
    said.ok(&mut run("dataset inspect x"))?;
    said.matches("an_unknown_kind_is_trained_on_and_refused_by_name");
    Ok(())
}

/// A checkpoint of smaller mazes works on larger ones, and that is said.
#[test]
fn another_size_than_in_training_is_told() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path()).measured();
    solver::write_of_size(&folder.path().join("run"), 1, solver::maze_dims())?;
    let meta = folder.path().join("run/step_1/meta.json");
    let mut of_step: Value = serde_json::from_slice(&fs::read(&meta)?)?;
    of_step["seq_len"] = 25.into();
    fs::write(&meta, of_step.to_string())?;
    let mut build = hrm(folder.path());
    ok(build.args(
        "build-dataset --dataset maze --source bundled-small --test-rows 3 --subsample-size 3 --output-dir m"
            .split(' '),
    ))?;
    let mut infer = hrm(folder.path());
    said.ok(infer.args("infer --checkpoint run --data-path m --device cpu --threads 1".split(' ')))?;
    let mut solve = hrm(folder.path());
    said.ok(solve.args(["solve", "S  ## ##G", "--checkpoint", "run", "--device", "cpu", "--threads", "1"]))?;
    said.matches("another_size_than_in_training_is_told");
    Ok(())
}
