//! `hrm runs` and `hrm viz curves` on run folders as `hrm train` leaves them.

mod common;

use std::{
    fmt::Write,
    fs::{self, File},
    path::Path,
};

use anyhow::{Context, Result};
use common::{fails, hrm, names, ok};
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
    let shown = ok(hrm(folder.path()).arg("runs"))?;
    let words = |name: &str| {
        let line =
            shown.stdout.lines().find(|line| line.contains(&format!("P/{name} "))).context(shown.stdout.clone())?;
        Ok::<_, anyhow::Error>(line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" "))
    };
    assert!(words("ended")?.starts_with("checkpoints/P/ended finished 40 of 43 50.00 % at 20 "), "{}", shown.stdout);
    assert!(words("killed")?.contains(" dead 25 of 43 50.00 % at 20 "));
    assert!(words("paused")?.contains(" stopped 31 of 43 50.00 % at 20 "));
    assert!(words("working")?.contains(" running 5 of 43 - "));

    let listed = ok(hrm(folder.path()).args(["runs", "checkpoints/P", "--json", "-"]))?;
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
    let shown = ok(hrm(folder.path()).arg("runs"))?;
    assert!(shown.stderr.contains("P/ended/metrics.jsonl: line 2 is damaged and is passed over"), "{}", shown.stderr);
    assert!(shown.stdout.contains("P/ended") && shown.stdout.contains("40 of 43"), "{}", shown.stdout);
    let many: String = (0..10_001).map(|i| format!("{{\"step\":{i},\"a{i}\":1}}\n")).collect();
    fs::write(&ended, many)?;
    let output = hrm(folder.path()).arg("runs").output()?;
    let (shown, told) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    assert!(told.contains("P/ended/metrics.jsonl:10001: more than 10000 metrics"), "{told}");
    assert!(told.contains("error: 1 of 4 runs cannot be read") && output.status.code() == Some(1), "{told}");
    assert!(shown.contains("P/paused"));
    fs::write(&ended, whole)?;
    assert!(ok(hrm(folder.path()).args(["runs", "checkpoints/P/ended/.."]))?.stdout.contains("paused"));
    assert!(fails(hrm(folder.path()).args(["runs", "nowhere"]))?.contains("nowhere: no such folder"));
    fs::create_dir(folder.path().join("empty"))?;
    assert_eq!(ok(hrm(folder.path()).args(["runs", "empty"]))?.stdout, "empty: no runs\n");
    Ok(())
}

#[test]
fn curves_of_several_runs_are_one_picture() -> Result<()> {
    let folder = tempfile::tempdir()?;
    run(folder.path(), "first", 40, true)?;
    run(folder.path(), "second", 12, false)?;
    let mut viz = hrm(folder.path());
    viz.args([
        "viz",
        "curves",
        "checkpoints/P/first",
        "checkpoints/P/second/metrics.jsonl",
        "-o",
        "both.svg",
        "--json",
        "r",
    ]);
    let shown = ok(&mut viz)?;
    assert!(shown.stdout.contains("first: step 40, best exact accuracy 50.00 % at step 20"), "{}", shown.stdout);
    let svg = fs::read_to_string(folder.path().join("both.svg"))?;
    for word in
        ["Training of 2 runs", "1  first", "2  second", "Token loss", "Exact accuracy", "Halting", "Run 2: exact"]
    {
        assert!(svg.contains(word), "{word}");
    }
    let report: Value = serde_json::from_slice(&fs::read(folder.path().join("r"))?)?;
    assert_eq!(report["runs"][0]["exact_by_segment"][0], json!([[10.0, 0.2], [20.0, 0.25], [30.0, 0.2], [40.0, 0.15]]));
    assert_eq!(report["runs"][1]["loss"].as_array().map(Vec::len), Some(12));
    assert_eq!(report["runs"][1]["exact"], json!([[10.0, 0.4]]));

    // The run that was written to last, as PNG.
    let shown = ok(hrm(folder.path()).args(["viz", "curves"]))?;
    assert!(shown.stdout.contains("run: checkpoints/P/second"), "{}", shown.stdout);
    let png = fs::read(folder.path().join("curves.png"))?;
    assert!(png.starts_with(b"\x89PNG") && png.len() > 10_000, "{}", png.len());
    Ok(())
}

#[test]
fn curves_of_nothing_are_an_error() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let said = |args: &str| fails(hrm(folder.path()).args(["viz", "curves"]).args(args.split_whitespace()));
    assert!(said("")?.contains("checkpoints: no such folder"));
    assert!(said("nowhere")?.contains("nowhere: not a run: there is no metrics.jsonl"));
    fs::create_dir_all(folder.path().join("checkpoints/P/new"))?;
    assert!(said("")?.contains("there is no run"));
    fs::write(folder.path().join("checkpoints/P/new/metrics.jsonl"), "{\"num_params\": 1}\n{\"step\": 1, \"tra")?;
    assert!(said("")?.contains("metrics.jsonl holds no step yet"));
    run(folder.path(), "some", 3, false)?;
    assert!(said("checkpoints/P/some -o x.gif")?.contains("must end in .png or .svg"));
    assert!(said("checkpoints/P/some -o no/x.png")?.contains("there is no folder no"));
    assert!(said(&"checkpoints/P/some ".repeat(8))?.contains("at most 7"));
    assert_eq!(names(folder.path())?, ["checkpoints"]);
    Ok(())
}
