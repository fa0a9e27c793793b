//! `hrm runs` and `hrm viz curves` on run folders as `hrm train` leaves them.

mod common;

use std::{
    fmt::Write,
    fs::{self, File},
    path::Path,
};

use anyhow::{Context, Result};
use common::{hrm, names, snapshot::Transcript};
use hrm::{
    dataset::SamplerState,
    train::{STATE_FILE, TrainingState},
};
use serde_json::{Value, json};

/// A run of `steps` steps with an evaluation at every tenth and at most four of them; its last step was saved, or not. As in
/// upstream's recipe, the schedule counts more steps than the batches make.
fn run(folder: &Path, name: &str, steps: i64, saved: bool) -> Result<()> {
    let at = folder.join("checkpoints/P").join(name);
    fs::create_dir_all(&at)?;
    let mut text = format!("{}\n", json!({ "num_params": 7, "total_steps": 43, "passes": 4, "config": {} }));
    for step in 1..=steps {
        let x = step as f64;
        let line = json!({ "step": step, "time": 1.0, "train/lm_loss": 3.0 / x, "train/exact_accuracy": x / 80.0,
            "train/steps": 4.0, "train/q_halt_accuracy": 0.9, "train/lr": 1e-4 });
        writeln!(text, "{line}")?;
        if step % 10 == 0 {
            // Best at step 20.
            let exact = 0.5 - (x - 20.0).abs() / 100.0;
            let line = json!({ "step": step, "all/lm_loss": 4.0 / x, "all/exact_accuracy": exact,
                "all/segment_1_exact_accuracy": exact / 2.0, "all/segment_2_exact_accuracy": exact });
            writeln!(text, "{line}")?;
        }
    }
    fs::write(at.join("metrics.jsonl"), text)?;
    if saved {
        let step = at.join(format!("step_{steps}"));
        fs::create_dir(&step)?;
        let sampler = SamplerState {
            seed: 0,
            global_batch_size: 1,
            epochs_per_pass: 1,
            iterations_done: 0,
            set: 0,
            batches_taken: 0,
        };
        let state = TrainingState {
            version: TrainingState::VERSION,
            step: steps,
            adam_steps: 0,
            passes: steps / 10,
            sampler,
            data_fingerprint: String::new(),
            test_data_fingerprint: None,
            best: None,
        };
        fs::write(step.join(STATE_FILE), serde_json::to_string(&state)?)?;
    }
    Ok(())
}

#[test]
fn runs_are_listed_with_their_state() -> Result<()> {
    let folder = tempfile::tempdir()?;
    run(folder.path(), "ended", 40, true)?;
    run(folder.path(), "killed", 25, false)?;
    run(folder.path(), "paused", 31, true)?;
    run(folder.path(), "working", 5, false)?;
    let held = File::open(folder.path().join("checkpoints/P/working/metrics.jsonl"))?;
    held.lock()?;
    let mut said = Transcript::new(folder.path());
    said.ok(hrm(folder.path()).arg("runs"))?;

    let listed = said.ok(hrm(folder.path()).args(["runs", "checkpoints/P", "--json", "-"]))?;
    let listed: Value = serde_json::from_str(&listed.stdout)?;
    let paused = listed.as_array().and_then(|runs| runs.get(2)).context("four runs")?;
    assert_eq!(paused["run"], "checkpoints/P/paused");
    assert_eq!(
        (&paused["state"], &paused["step"], &paused["total_steps"]),
        (&json!("stopped"), &json!(31), &json!(43))
    );
    assert_eq!((&paused["best_exact_accuracy"], &paused["best_step"]), (&json!(0.5), &json!(20)));

    // One damaged run does not hide the others.
    let ended = folder.path().join("checkpoints/P/ended/metrics.jsonl");
    let whole = fs::read_to_string(&ended)?;
    fs::write(&ended, whole.replacen("{\"step\"", "{step", 1))?;
    said.ok(hrm(folder.path()).arg("runs"))?;
    let many: String = (0..10_001).map(|i| format!("{{\"step\":{i},\"a{i}\":1}}\n")).collect();
    fs::write(&ended, many)?;
    said.fails(hrm(folder.path()).arg("runs"))?;
    fs::write(&ended, whole)?;
    said.ok(hrm(folder.path()).args(["runs", "checkpoints/P/ended/.."]))?;
    said.fails(hrm(folder.path()).args(["runs", "nowhere"]))?;
    fs::create_dir(folder.path().join("empty"))?;
    said.ok(hrm(folder.path()).args(["runs", "empty"]))?;
    said.matches("runs_are_listed_with_their_state");
    Ok(())
}

#[test]
fn curves_of_several_runs_are_one_picture() -> Result<()> {
    let folder = tempfile::tempdir()?;
    run(folder.path(), "first", 40, true)?;
    run(folder.path(), "second", 12, false)?;
    let mut said = Transcript::new(folder.path());
    let words = "viz curves checkpoints/P/first checkpoints/P/second/metrics.jsonl -o both.svg --json r";
    said.ok(hrm(folder.path()).args(words.split(' ')))?;
    said.add_svg(&folder.path().join("both.svg"))?;
    let report: Value = serde_json::from_slice(&fs::read(folder.path().join("r"))?)?;
    assert_eq!(report["runs"][0]["exact_by_segment"][0], json!([[10.0, 0.2], [20.0, 0.25], [30.0, 0.2], [40.0, 0.15]]));
    assert_eq!(report["runs"][1]["loss"].as_array().map(Vec::len), Some(12));
    assert_eq!(report["runs"][1]["exact"], json!([[10.0, 0.4]]));

    // The run that was written to last, as PNG.
    said.ok(hrm(folder.path()).args(["viz", "curves"]))?;
    said.matches("curves_of_several_runs_are_one_picture");
    let png = fs::read(folder.path().join("curves.png"))?;
    assert!(png.starts_with(b"\x89PNG") && png.len() > 10_000, "{}", png.len());
    Ok(())
}

#[test]
fn curves_of_nothing_are_an_error() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path());
    let mut fails = |args: &str| {
        let mut command = hrm(folder.path());
        said.fails(command.args(["viz", "curves"]).args(args.split_whitespace())).map(drop)
    };
    fails("")?;
    fails("nowhere")?;
    fs::create_dir_all(folder.path().join("checkpoints/P/new"))?;
    fails("")?;
    fs::write(folder.path().join("checkpoints/P/new/metrics.jsonl"), "{\"num_params\": 1}\n{\"step\": 1, \"tra")?;
    fails("")?;
    run(folder.path(), "some", 3, false)?;
    fails("checkpoints/P/some -o x.gif")?;
    fails("checkpoints/P/some -o no/x.png")?;
    fails(&"checkpoints/P/some ".repeat(8))?;
    said.matches("curves_of_nothing_are_an_error");
    assert_eq!(names(folder.path())?, ["checkpoints"]);
    Ok(())
}
