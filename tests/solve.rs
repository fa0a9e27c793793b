//! `hrm solve` and `hrm eval` as a user runs them.

mod common;

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use common::{
    golden, hrm, ok,
    snapshot::Transcript,
    solver,
    tensors::{assert_near, json},
};
use serde_json::Value;

const PUZZLE: &str = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79";
const ANSWER: &str = "534678912672195348198342567859761423426853791713924856961537284287419635345286179";

fn solve(folder: &Path) -> Command {
    let mut command = hrm(folder);
    command.args("solve --checkpoint run --threads 1 --device cpu".split(' '));
    command
}

#[test]
fn answers_are_verified_and_said_to_be() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path()).measured();
    let at = folder.path();
    solver::write(&at.join("run"), 1)?;

    // The model shows what is given: a full board is solved.
    said.ok(solve(at).arg(ANSWER))?;

    // It does not solve a hard one, and says what is wrong.
    said.ok(solve(at).args([PUZZLE, "--passes", "9"]))?;

    said.ok(solve(at).args([PUZZLE, "--steps", "--stop", "never"]))?;
    said.ok(solve(at).args([PUZZLE, "--animate"]))?;
    said.matches("answers_are_verified_and_said_to_be");
    Ok(())
}

#[test]
fn none_and_several_solutions_are_told() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path()).measured();
    let at = folder.path();
    solver::write(&at.join("run"), 1)?;
    let several = format!("1{}", ".".repeat(80));
    let clash = format!("11{}", ".".repeat(79));
    fs::write(at.join("puzzles.txt"), format!("{ANSWER}\n{several}\n{clash}\n{PUZZLE}\n"))?;
    said.ok(solve(at).args(["-f", "puzzles.txt"]))?;

    let report: Value = serde_json::from_str(&ok(solve(at).args(["-f", "puzzles.txt", "--json", "-"]))?.stdout)?;
    let puzzles = report["puzzles"].as_array().context("puzzles")?;
    let counts: Vec<_> = puzzles.iter().filter_map(|p| p["solutions"].as_str()).collect();
    assert_eq!(counts, ["one", "several", "none", "one"]);
    assert_eq!(
        (&puzzles[0]["answer"], &puzzles[0]["verified"], &puzzles[0]["correct"]),
        (&ANSWER.into(), &true.into(), &true.into())
    );
    assert_eq!(puzzles[2]["answer"], Value::Null);
    assert_eq!((&puzzles[3]["solution"], &puzzles[3]["correct"]), (&ANSWER.into(), &false.into()));
    let steps = puzzles[3]["steps"].as_array().context("steps")?;
    assert_eq!(steps.len() as u64, puzzles[3]["segments_total"].as_u64().context("segments")?);
    assert!(steps[0]["changed"].as_array().is_some_and(|cells| cells.len() > 20));

    let mut child = solve(at).args(["-", "--json", "one.json"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("a pipe")?.write_all(PUZZLE.as_bytes())?;
    assert!(child.wait_with_output()?.status.success());
    let from_pipe: Value = serde_json::from_slice(&fs::read(at.join("one.json"))?)?;
    assert_eq!(from_pipe["puzzles"][0], puzzles[3]);
    said.matches("none_and_several_solutions_are_told");
    Ok(())
}

/// The answer is that of `hrm infer` under the same rule.
#[test]
fn solve_agrees_with_infer() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    solver::write(&at.join("run"), 1)?;
    fs::create_dir(at.join("lists"))?;
    let list = solver::csv(30)?;
    for split in ["train", "test"] {
        fs::write(at.join(format!("lists/{split}.csv")), &list)?;
    }
    ok(hrm(at).args(["build-dataset", "--source", "lists", "--output-dir", "data"]))?;
    let questions: Vec<&str> = list.lines().skip(1).filter_map(|l| l.split(',').nth(1)).collect();
    fs::write(at.join("questions.txt"), questions.join("\n"))?;
    for more in ["--passes 3 --symmetries --noise 0.1", "--passes 2 --random-start --stop halt"] {
        let more: Vec<&str> = more.split(' ').collect();
        let solved = ok(solve(at).args(["-f", "questions.txt", "--json", "-"]).args(&more))?.stdout;
        let solved: Value = serde_json::from_str(&solved)?;
        let mut infer = hrm(at);
        infer.args(
            "infer --checkpoint run --data-path data --threads 1 --device cpu --output r.jsonl --stop verified"
                .split(' '),
        );
        if more.contains(&"halt") {
            fs::remove_file(at.join("r.jsonl"))?;
        }
        let more: Vec<&str> = more.iter().map(|&m| if m == "--passes" { "--permutes" } else { m }).collect();
        if more.contains(&"halt") {
            let mut infer = hrm(at);
            infer.args("infer --checkpoint run --data-path data --threads 1 --device cpu --output r.jsonl".split(' '));
            ok(infer.args(&more))?;
        } else {
            ok(infer.args(&more))?;
        }
        for line in fs::read_to_string(at.join("r.jsonl"))?.lines() {
            let record: Value = serde_json::from_str(line)?;
            let Some(puzzle) = record["puzzle"].as_u64() else { continue };
            // Noise is drawn for each puzzle's place; puzzle 0 has the same one in both.
            if more.contains(&"--noise") && puzzle > 0 {
                continue;
            }
            let (found, passes) = (&solved["puzzles"][puzzle as usize], record["passes"].as_array().context("passes")?);
            assert_eq!(found["passes_run"], passes.len(), "puzzle {puzzle}");
            let pass = &passes[found["pass"].as_u64().context("a pass")? as usize];
            for key in ["answer", "segments", "verified", "halted"] {
                assert_eq!(found[key], pass[key], "puzzle {puzzle}: {key}");
            }
        }
    }
    Ok(())
}

#[test]
fn mazes_are_solved_and_drawn() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path()).measured();
    let at = folder.path();
    solver::write_of_size(&at.join("run"), 1, solver::maze_dims())?;
    // Start and goal side by side: no cell is to be marked. Then a way, and no way.
    let mazes = [
        "SG # \n   # \n# #  \n     \n   ##\n",
        "S  # \n   #G\n# #  \n     \n   ##\n",
        "S#   \n##  G\n# #  \n     \n   ##\n",
    ];
    for maze in mazes {
        fs::write(at.join("maze.txt"), maze)?;
        said.ok(solve(at).args(["-f", "maze.txt", "--passes", "2"]))?;
    }
    said.fails(solve(at).arg("S  x"))?;
    said.matches("mazes_are_solved_and_drawn");
    Ok(())
}

#[test]
fn bad_puzzles_are_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path());
    let at = folder.path();
    solver::write(&at.join("run"), 1)?;
    fs::write(at.join("binary"), [0xff, 0xfe, 0x00])?;
    for args in [
        vec!["12"],
        vec!["hello"],
        vec!["-f", "nowhere.txt"],
        vec!["-f", "binary"],
        vec!["-f", "."],
        vec![],
        vec![PUZZLE, "--passes", "10"],
        vec![PUZZLE, "--passes", "0"],
        vec![PUZZLE, "--checkpoint", "nowhere"],
    ] {
        said.fails(solve(at).args(&args))?;
    }
    said.matches("bad_puzzles_are_refused");
    Ok(())
}

const A: &str = "checkpoint/tiny ACT-torch/Model gold fish/step_12";

/// The JSON of `hrm eval` is upstream's evaluate.
#[test]
fn eval_writes_upstreams_metrics_and_outputs() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path()).measured();
    let wanted = json("e2e/evaluate.json");
    for (name, checkpoint) in [("A_step_12", A), ("B_step_30", "e2e/run_b/step_30")] {
        let mut command = hrm(folder.path());
        command.arg("eval").arg("--checkpoint").arg(golden(checkpoint)).arg("--data-path").arg(golden("e2e/data"));
        command.args(
            "--dtype f32 --threads 1 --device cpu --json out.json --save-outputs all.safetensors --force".split(' '),
        );
        said.ok(&mut command)?;
        let found: Value = serde_json::from_slice(&fs::read(folder.path().join("out.json"))?)?;
        for (set, metrics) in wanted["metrics"][name].as_object().context("sets")? {
            let metrics = metrics.as_object().context("metrics")?;
            assert_eq!(found[set].as_object().map(serde_json::Map::len), Some(metrics.len()));
            for (metric, value) in metrics {
                let (found, value) = (found[set][metric].as_f64(), value.as_f64());
                assert_near(metric, found.context("a metric")?, value.context("a number")?, 1e-3);
            }
        }
    }

    let bytes = fs::read(folder.path().join("all.safetensors"))?;
    let saved = safetensors::SafeTensors::deserialize(&bytes)?;
    let mut names = saved.names();
    names.sort_unstable();
    assert_eq!(names, ["inputs", "labels", "logits", "puzzle_identifiers", "q_continue_logits", "q_halt_logits"]);
    assert_eq!(saved.tensor("logits")?.shape(), [11, 81, 11], "padding is left out");

    let mut command = hrm(folder.path());
    command.arg("eval").arg("--checkpoint").arg(golden("e2e/run_b/step_30")).arg("--data-path").arg(golden("e2e/data"));
    command.args(
        "--dtype f32 --threads 1 --device cpu --batch-size 4 --save-outputs arrays --keys logits,inputs".split(' '),
    );
    ok(&mut command)?;
    assert_eq!(common::names(&folder.path().join("arrays"))?, ["inputs.npy", "logits.npy"]);
    let logits: ndarray::Array3<f32> = ndarray_npy::read_npy(folder.path().join("arrays/logits.npy"))?;
    let other = saved.tensor("logits")?;
    let other: Vec<f32> = other.data().chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    assert!(logits.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-4), "the same numbers in batches of 4");
    let inputs: ndarray::Array2<i32> = ndarray_npy::read_npy(folder.path().join("arrays/inputs.npy"))?;
    assert_eq!(inputs.dim(), (11, 81));
    said.fails(command.args(["--keys", "z"]))?;
    said.matches("eval_writes_upstreams_metrics_and_outputs");
    Ok(())
}
