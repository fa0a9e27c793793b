//! `hrm viz landscape|flow`, `hrm analyze`, `hrm report` and `hrm trace` through the binary, on upstream's tiny golden
//! checkpoint.

mod common;

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use common::{golden, hrm, json, names, ok, snapshot::Transcript};
use hrm::{
    dataset::{Dataset, Split},
    puzzle::{Geometry, maze},
};
use ndarray::{Array2, Array3};
use ndarray_npy::read_npy;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

const CHECKPOINT: &str = "checkpoint/tiny ACT-torch/Model gold fish/step_12";

/// `hrm WORDS` on the golden checkpoint and its own test puzzles (11 rows), in f32.
fn on_golden(folder: &Path, words: &[&str]) -> Command {
    let mut command = hrm(folder);
    command.args(words).args(["--threads", "1", "--device", "cpu", "--dtype", "f32", "--checkpoint"]);
    command.arg(golden(CHECKPOINT)).arg("--data-path").arg(golden("e2e/data"));
    command
}

/// Without the counts of answers, which turn where two tokens are nearly as good.
fn transcript(folder: &Path) -> Transcript {
    let counts =
        r"(?m)^(right for good|wrong at the end|settled wrong|failures whose|(?:non-)?trivial \w+|pictures: s/modes).*";
    let said = Transcript::new(folder).measured().hide(counts, "$1 [counts]");
    said.hide(r"least error is \d+", "least error is N").hide(r"\d+ or more", "N or more")
}

fn is_png(path: &Path) -> Result<bool> {
    let mut reader = png::Decoder::new(std::io::BufReader::new(fs::File::open(path)?)).read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().context("a picture too large")?];
    reader.next_frame(&mut pixels)?;
    Ok(pixels.iter().filter(|&&v| v < 128).count() > 3_000)
}

fn lines(path: &Path) -> Result<Vec<Value>> {
    fs::read_to_string(path)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn array(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().context("an array")
}

#[test]
fn a_landscape_has_its_pictures_and_goes_on_where_it_was_cut() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = transcript(folder.path());
    let command = |extra: &[&str]| {
        let mut command = on_golden(folder.path(), &["viz", "landscape", "--grid", "-2..2", "--batch-size", "7"]);
        command.args(["--index", "3", "--output-dir", "l", "--format", "both", "--density", "1"]).args(extra);
        command
    };
    said.ok(&mut command(&[]))?;
    let l = folder.path().join("l");
    let written = [
        "end.npy",
        "error.npy",
        "landscape.json",
        "landscape.png",
        "landscape.svg",
        "points.jsonl",
        "surface.png",
        "surface.svg",
    ];
    assert_eq!(names(&l)?, written);
    assert!(is_png(&l.join("landscape.png"))? && is_png(&l.join("surface.png"))?);
    said.add_svg(&l.join("landscape.svg"))?;
    let whole = json(&l.join("landscape.json"))?;
    assert_eq!(array(&whole["points"])?.len(), 25);
    let error: Array2<f32> = read_npy(l.join("error.npy"))?;
    let end: Array3<f32> = read_npy(l.join("end.npy"))?;
    assert_eq!((error.dim(), end.dim()), ((5, 5), (5, 5, 2)));
    for (k, point) in array(&whole["points"])?.iter().enumerate() {
        let (i, j) = (k / 5, k % 5);
        assert_eq!(point["at"], Value::from(vec![i as f64 - 2.0, j as f64 - 2.0]), "the first index goes along PC1");
        assert_eq!(point["error"].as_f64(), Some(f64::from(error[[i, j]])));
        for axis in 0..2 {
            assert_eq!(point["path"][0][axis].as_f64().map(|x| x as f32), Some(end[[i, j, axis]]));
        }
    }
    said.fails(&mut command(&[]))?;

    // A process killed in the middle of a batch: nine points and half of one.
    let journal = fs::read_to_string(l.join("points.jsonl"))?;
    let kept: Vec<&str> = journal.lines().take(10).collect();
    fs::write(l.join("points.jsonl"), format!("{}\n{{\"at\":[0.0", kept.join("\n")))?;
    said.ok(&mut command(&["--resume"]))?;
    let resumed = json(&l.join("landscape.json"))?;
    for (a, b) in array(&resumed["points"])?.iter().zip(array(&whole["points"])?) {
        assert_eq!((&a["at"], &a["error"]), (&b["at"], &b["error"]));
        for k in 0..2 {
            let at = |p: &Value| p["path"][0][k].as_f64().unwrap_or(f64::NAN);
            // Batches of other sizes round otherwise.
            assert!((at(a) - at(b)).abs() < 1e-3, "{a} {b}");
        }
    }
    // Lines that are results, but not of this grid.
    let swapped: Vec<&str> = journal.lines().enumerate().map(|(i, l)| if i == 2 { kept[4] } else { l }).collect();
    fs::write(l.join("points.jsonl"), format!("{}\n", swapped.join("\n")))?;
    said.fails(&mut command(&["--resume"]))?;
    said.fails(&mut command(&["--resume", "--centre", "3"]))?;
    said.matches("a_landscape_has_its_pictures_and_goes_on_where_it_was_cut");
    Ok(())
}

#[test]
fn a_flow_finds_basins() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = on_golden(folder.path(), &["viz", "flow", "--grid", "-1..1", "--segments", "5", "--settle", "2"]);
    let report: Value = serde_json::from_str(&ok(command.args(["--json", "-"]))?.stdout)?;
    let points = array(&report["points"])?;
    assert_eq!(points.len(), 9);
    assert!(points.iter().all(|p| p["path"].as_array().is_some_and(|w| w.len() == 5)));
    let basins = array(&report["basins"])?;
    let settled = array(&report["basin_of_point"])?.iter().filter(|b| !b.is_null()).count() as u64;
    let members: u64 = basins.iter().filter_map(|b| b["points"].as_u64()).sum();
    assert_eq!(members, settled);
    // Each point's basin is the answer of its last two segments.
    for (point, basin) in points.iter().zip(array(&report["basin_of_point"])?) {
        let answers = array(&point["answers"])?;
        assert_eq!(answers[4] == answers[3], !basin.is_null());
        if let Some(k) = basin.as_u64() {
            assert_eq!(basins[k as usize]["answer"], answers[4]);
        }
    }
    assert!(is_png(&folder.path().join("flow/flow.png"))?);
    let basin: Array2<i32> = read_npy(folder.path().join("flow/basin.npy"))?;
    let listed = array(&report["basin_of_point"])?.iter().map(|b| b.as_i64().unwrap_or(-1) as i32);
    assert!(basin.dim() == (3, 3) && basin.iter().copied().eq(listed), "{basin}");
    let end: Array3<f32> = read_npy(folder.path().join("flow/end.npy"))?;
    assert_eq!(points[5]["path"][4][1].as_f64().map(|x| x as f32), Some(end[[1, 2, 1]]));
    Ok(())
}

#[test]
fn segments_modes_and_cells_share_their_runs() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = transcript(folder.path());
    let at = |name: &str| folder.path().join("s").join(name);
    let mut command = on_golden(folder.path(), &["analyze", "segments", "--output-dir", "s", "--batch-size", "4"]);
    said.ok(command.args(["--count", "all"]))?;
    assert!(is_png(&at("segments.png"))?);
    let runs = lines(&at("runs.jsonl"))?;
    assert_eq!(runs.len(), 12, "what was asked, and a line a puzzle");
    let summary = json(&at("segments.json"))?;
    // The means are those of the runs, and the grokking step is the first from which all is right.
    let last = &array(&summary["segments"])?[15];
    let of_runs = |key: &str| -> f64 { runs[1..].iter().filter_map(|r| r[key][15].as_f64()).sum::<f64>() / 11.0 };
    assert!((last["loss"].as_f64().context("loss")? - of_runs("loss")).abs() < 1e-9);
    let share = |r: &Value| Some(r["right"][15].as_f64()? / r["cells"].as_f64()?);
    let cells = runs[1..].iter().filter_map(share).sum::<f64>() / 11.0;
    assert!((last["cells"].as_f64().context("cells")? - cells).abs() < 1e-9);
    let solved: Vec<usize> = (0..11).filter(|i| runs[1 + i]["right"][15] == runs[1 + i]["cells"]).collect();
    let grokked = array(&summary["grokked_at"])?;
    assert_eq!((0..11).filter(|i| !grokked[*i].is_null()).collect::<Vec<_>>(), solved);
    // golden/e2e: some labels are what this checkpoint answers.
    assert!(solved.contains(&3) && solved.len() < 11, "{solved:?}");
    let loss: Array2<f64> = read_npy(at("loss.npy"))?;
    let exact: Array2<bool> = read_npy(at("exact.npy"))?;
    assert_eq!((loss.dim(), exact.dim()), ((11, 16), (11, 16)));
    for name in ["q_halt", "q_continue", "move_h", "move_l"] {
        let matrix: Array2<f32> = read_npy(at(&format!("{name}.npy")))?;
        assert_eq!(matrix.dim(), (11, 16));
        for ((puzzle, segment), value) in matrix.indexed_iter() {
            assert_eq!(runs[1 + puzzle][name][segment].as_f64().map(|x| x as f32), Some(*value), "{name}");
        }
    }
    for (puzzle, run) in runs[1..].iter().enumerate() {
        for segment in 0..16 {
            assert_eq!(run["loss"][segment].as_f64(), Some(loss[[puzzle, segment]]));
            assert_eq!(run["right"][segment] == run["cells"], exact[[puzzle, segment]]);
        }
    }
    let step = grokked[3].as_u64().context("puzzle 3")? as usize;
    let (right, all) = (array(&runs[4]["right"])?, &runs[4]["cells"]);
    assert!(right[step - 1..].iter().all(|r| r == all) && (step == 1 || right[step - 2] != *all));

    let mut command =
        on_golden(folder.path(), &["analyze", "modes", "--output-dir", "s", "--resume", "--count", "all"]);
    said.ok(command.args(["--quick", "16"]))?;
    let modes = json(&at("modes.json"))?;
    assert_eq!(modes["modes"][0]["puzzles"], Value::from(solved.clone()), "right by 16 is trivial where 16 is quick");
    let counts: u64 = array(&modes["modes"])?.iter().filter_map(|m| m["count"].as_u64()).sum();
    assert_eq!(counts, 11);
    assert!(is_png(&at("modes.png"))? && is_png(&at("mode-trivial-success.png"))?);
    let mut command =
        on_golden(folder.path(), &["analyze", "modes", "--output-dir", "s", "--resume", "--count", "all"]);
    ok(command.args(["--quick", "0"]))?;
    assert_eq!(
        json(&at("modes.json"))?["modes"][1]["puzzles"],
        Value::from(solved),
        "no success is trivial where 0 is"
    );

    let mut command =
        on_golden(folder.path(), &["analyze", "cells", "--output-dir", "s", "--resume", "--count", "all"]);
    ok(command.args(["--show", "3"]))?;
    let cells = json(&at("cells.json"))?;
    assert!(is_png(&at("cells.png"))?);
    let order = array(&cells["shown_right_from"])?;
    assert_eq!(order.iter().filter_map(Value::as_u64).max(), Some(step as u64), "the last cell makes the puzzle right");
    let from: Array2<i32> = read_npy(at("right_from.npy"))?;
    assert_eq!(from.dim(), (11, 81));
    assert!(from.row(3).iter().copied().eq(order.iter().map(|s| s.as_i64().unwrap_or(0) as i32)), "{from}");
    let confidence = runs[1]["confidence"][0].as_str().context("confidence")?;
    assert!(confidence.len() == 162 && confidence.bytes().all(|b| b.is_ascii_digit()));
    said.matches("segments_modes_and_cells_share_their_runs");
    Ok(())
}

/// The results of the first N puzzles are a beginning of those of more, and hold those of fewer.
#[test]
fn resume_takes_any_count() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = transcript(folder.path());
    let command = |out: &str, words: &str| {
        let mut command = on_golden(folder.path(), &["analyze", "segments", "--batch-size", "4", "--output-dir", out]);
        command.args(words.split(' '));
        command
    };
    let journal = folder.path().join("s/runs.jsonl");
    ok(&mut command("s", "--count 4"))?;
    ok(&mut command("whole", "--count 7"))?;
    said.ok(&mut command("s", "--count 7 --resume"))?;
    let seven = fs::read_to_string(&journal)?;
    assert!(seven == fs::read_to_string(folder.path().join("whole/runs.jsonl"))?, "as if 7 had been asked for at once");

    said.ok(&mut command("s", "--count 2 --resume"))?;
    assert_eq!(json(&folder.path().join("s/segments.json"))?["puzzles"], 2);
    assert!(seven == fs::read_to_string(&journal)?, "the others stay");

    // The first line of earlier versions said how many were asked for; and a process was killed in its last line.
    let (first, rest) = seven.split_once('\n').context("lines")?;
    let old = first.replace("\"first\":0", "\"first\":0,\"count\":7");
    assert_ne!(old, first);
    fs::write(&journal, format!("{old}\n{}", &rest[..rest.len() - 9]))?;
    said.ok(&mut command("s", "--count 8 --resume"))?;

    for words in ["--count 8 --first 1 --resume", "--count 8 --segments 3 --resume"] {
        said.fails(&mut command("s", words))?;
    }
    for (checkpoint, dtype) in [("e2e/run_b", "f32"), (CHECKPOINT, "bf16")] {
        let mut other = hrm(folder.path());
        other.args(["analyze", "segments", "--output-dir", "s", "--resume", "--device", "cpu", "--dtype", dtype]);
        other.arg("--checkpoint").arg(golden(checkpoint)).arg("--data-path").arg(golden("e2e/data"));
        said.fails(&mut other)?;
    }
    said.matches("resume_takes_any_count");
    Ok(())
}

/// What goes on with an earlier run compares the puzzles themselves, not the folder that they lie in.
#[test]
fn resume_knows_the_data_by_its_content() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path());
    let at = |name: &str| folder.path().join(name);
    ok(Command::new("cp").arg("-r").arg(golden("e2e/data")).arg(at("data")))?;
    let command = |words: &str, data: &str| {
        let mut command = hrm(folder.path());
        command.args(words.split(' ')).args(["--threads", "1", "--device", "cpu", "--data-path", data, "--checkpoint"]);
        command.arg(golden(CHECKPOINT)).args(["--output-dir", &words.replace(' ', "_")]);
        command
    };
    let works = [
        "analyze segments --count 2",
        "analyze modes --count 2",
        "analyze cells --count 2",
        "report --count 2",
        "trace --index 0,1",
    ];
    for work in works {
        ok(&mut command(work, "data"))?;
    }
    // Moved: the same puzzles.
    fs::rename(at("data"), at("moved"))?;
    for work in works {
        ok(command(work, "moved").arg("--resume"))?;
    }
    // Others in the same place.
    let (inputs, labels) = (at("moved/test/all__inputs.npy"), at("moved/test/all__labels.npy"));
    fs::write(&inputs, fs::read(&labels)?)?;
    for work in works {
        let error = said.fails(command(work, "moved").arg("--resume"))?;
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    said.matches("resume_knows_the_data_by_its_content");
    Ok(())
}

/// The first line of earlier versions tells the data's path alone, which is then compared.
#[test]
fn journals_without_a_fingerprint_are_resumed_by_the_path() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = transcript(folder.path());
    let command = |words: &[&str]| on_golden(folder.path(), words);
    let data = golden("e2e/data").display().to_string();
    let cases: [(&[&str], &str); 3] = [
        (&["analyze", "segments", "--count", "3", "--output-dir", "o"], "o/runs.jsonl"),
        (&["report", "--count", "3", "--output-dir", "o"], "o/runs-1.jsonl"),
        (&["trace", "--index", "0,3", "--output-dir", "o"], "o/rows.jsonl"),
    ];
    for (words, file) in cases {
        ok(&mut command(words))?;
        let path = folder.path().join(file);
        let text = fs::read_to_string(&path)?;
        let (first, rest) = text.split_once('\n').context("lines")?;
        let first: Value = serde_json::from_str(first)?;
        let (weights, segments) = (&first["weights"], 16);
        let old = match file {
            "o/rows.jsonl" => format!(
                "{{\"what\":\"trace\",\"weights\":{weights},\"data\":\"{data}\",\"rows\":[0,3],\"segments\":{segments},\
                 \"z_l\":false,\"f32\":false,\"dtype\":\"f32\"}}"
            ),
            _ => format!(
                "{{\"what\":\"runs\",\"weights\":{weights},\"puzzles\":{{\"data\":\"{data}\",\"first\":0}},\
                 \"segments\":{segments},\"dtype\":\"f32\"}}"
            ),
        };
        fs::write(&path, format!("{old}\n{rest}"))?;
        said.ok(command(words).arg("--resume"))?;
        fs::write(&path, format!("{}\n{rest}", old.replace(&data, "elsewhere")))?;
        said.fails(command(words).arg("--resume"))?;
    }
    said.matches("journals_without_a_fingerprint_are_resumed_by_the_path");
    Ok(())
}

#[test]
fn a_pipe_as_a_journal_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path());
    fs::create_dir(folder.path().join("s"))?;
    ensure!(Command::new("mkfifo").arg(folder.path().join("s/runs.jsonl")).status()?.success(), "mkfifo");
    for more in ["--resume", "--force", "--format=png"] {
        let mut command = on_golden(folder.path(), &["analyze", "modes", "--count", "2", "--output-dir", "s", more]);
        said.fails(&mut command)?;
    }
    said.matches("a_pipe_as_a_journal_is_refused");
    Ok(())
}

#[test]
fn one_process_at_a_time_writes_a_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path());
    let command = |words: &str| {
        let mut command = on_golden(folder.path(), &["analyze", "modes", "--count", "2", "--output-dir", "s"]);
        command.args(words.split_whitespace());
        command
    };
    ok(&mut command(""))?;
    let journal = folder.path().join("s/runs.jsonl");
    let before = fs::read(&journal)?;
    let held = fs::File::open(&journal)?;
    held.try_lock()?;
    for words in ["", "--resume", "--force"] {
        said.fails(&mut command(words))?;
    }
    assert!(fs::read(&journal)? == before);
    drop(held);
    ok(&mut command("--resume"))?;
    said.matches("one_process_at_a_time_writes_a_folder");
    Ok(())
}

/// A maze checkpoint through all commands: they work on it, or say in a line why not.
#[test]
fn mazes_go_through_every_command() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = transcript(folder.path());
    let at = |name: &str| folder.path().join(name);
    let run = |words: &str| {
        let mut command = hrm(folder.path());
        command.env("OMP_WAIT_POLICY", "passive").args(words.split_whitespace());
        command
    };
    ok(&mut run("build-dataset --dataset maze --subsample-size 20 --test-rows 6 --output-dir mazes"))?;
    ok(&mut run("train data_path=mazes checkpoint_path=run epochs=2 eval_interval=2 global_batch_size=10 lr=2e-3 \
                 lr_warmup_steps=1 arch.hidden_size=32 arch.num_heads=2 arch.H_layers=1 arch.L_layers=1 \
                 arch.H_cycles=1 arch.L_cycles=1 arch.halt_max_steps=4 --device cpu --dtype f32"))?;
    assert_eq!(json(&at("run/step_4/meta.json"))?["seq_len"], 900);
    let on = |words: &str| {
        let mut command = run(words);
        command.args(["--checkpoint", "run", "--device", "cpu"]);
        command
    };

    let metrics: Value = serde_json::from_str(&ok(&mut on("eval --json -"))?.stdout)?;
    let exact = metrics["all"]["segment_4_accuracy"].as_f64().context("accuracy")?;
    assert!((0.0..=1.0).contains(&exact) && metrics["all"]["steps"] == 4.0, "{metrics}");
    let found: Value = serde_json::from_str(&ok(&mut on("infer --permutes 2 --json -"))?.stdout)?;
    assert_eq!((&found["dataset"], &found["total"], array(&found["passes"])?.len()), (&"maze".into(), &6.into(), 2));
    ok(&mut on("viz trajectory --index 1 --output path.png"))?;
    ok(&mut on("viz trajectory --index 1 --output path.gif"))?;
    ok(&mut on("viz trajectory --index 0,1 --permutes 2 --output paths.png"))?;
    assert!(is_png(&at("path.png"))? && is_png(&at("paths.png"))?);
    assert!(fs::read(at("path.gif"))?.starts_with(b"GIF8"));

    ok(&mut on("analyze segments --count all --output-dir a"))?;
    let loss: Array2<f64> = read_npy(at("a/loss.npy"))?;
    assert_eq!(loss.dim(), (6, 4));
    ok(&mut on("analyze modes --count all --output-dir a --resume"))?;
    ok(&mut on("analyze cells --count all --output-dir a --resume --show 2"))?;
    assert!(is_png(&at("a/segments.png"))? && is_png(&at("a/modes.png"))? && is_png(&at("a/cells.png"))?);
    // Open are the free cells, and those alone can be right or wrong.
    let test = Dataset::open(&at("mazes"), Split::Test)?;
    let stored = test.sets()[0].rows_as_stored(&[0, 1, 2, 3, 4, 5])?;
    let free = stored.inputs.iter().filter(|t| **t == i32::from(maze::FREE)).count();
    assert_eq!(json(&at("a/cells.json"))?["open_cells"], free);
    said.ok(&mut on("analyze attention --output-dir b"))?;
    assert!(is_png(&at("b/attention.png"))?);

    let page: Value = serde_json::from_str(&ok(&mut on("report --explore 2 --output-dir r --json -"))?.stdout)?;
    assert!(page["bytes"].as_u64() > Some(100_000) && page["checkpoints"][0]["modes"]["puzzles"] == 6, "{page}");
    let traced: Value = serde_json::from_str(&ok(&mut on("trace --count 3 --output-dir t --json -"))?.stdout)?;
    assert_eq!(traced["arrays"]["logits"]["shape"], Value::from(vec![3, 4, 900, 6]));
    let printed = ok(&mut on("trace --index 2 --print"))?.stdout;
    let rows = printed.lines().filter(|line| line.chars().count() == 30).count();
    assert_eq!(rows, 4 * 30, "a maze for each segment: {printed}");

    let question: Vec<u8> = stored.inputs.row(2).iter().map(|&t| t as u8).collect();
    fs::write(
        at("maze.txt"),
        Geometry::maze(30).text(&question).as_bytes().chunks(30).collect::<Vec<_>>().join(&b'\n'),
    )?;
    let solved: Value = serde_json::from_str(&ok(&mut on("solve --passes 2 --json - -f maze.txt"))?.stdout)?;
    let only: Vec<u8> = stored.labels.row(2).iter().map(|&t| t as u8).collect();
    assert_eq!(solved["puzzles"][0]["solutions"], "one");
    assert_eq!(solved["puzzles"][0]["solution"], Geometry::maze(30).text(&only), "the search finds the dataset's path");

    for words in ["viz landscape", "viz flow", "analyze stability"] {
        said.fails(&mut on(words))?;
    }

    // Its puzzles gone, the bundled ones of its size take their place.
    fs::rename(at("mazes"), at("elsewhere"))?;
    said.ok(&mut on("analyze segments --count 2 --output-dir c"))?;
    let meta = fs::read_to_string(at("run/step_4/meta.json"))?;
    fs::write(at("run/step_4/meta.json"), meta.replace("\"seq_len\": 900", "\"seq_len\": 36"))?;
    fs::remove_file(at("run/step_4/manifest.json"))?;
    said.fails(&mut on("analyze segments --count 2 --output-dir d"))?;
    said.matches("mazes_go_through_every_command");
    Ok(())
}

#[test]
fn stability_compares_checkpoints_on_the_same_seeded_puzzles() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = transcript(folder.path());
    let mut run = |seed: &str, out: &str| -> Result<Value> {
        // The bundled puzzles: golden/e2e's labels are no Sudokus.
        let mut command = hrm(folder.path());
        command.args(["analyze", "stability", "--per-k", "3", "--segments", "18", "--threads", "1", "--device", "cpu"]);
        command.arg("--checkpoint").arg(golden(CHECKPOINT)).arg("--checkpoint").arg(golden("e2e/run_b"));
        command.args(["--blanks", "0,row,40", "--seed", seed, "--output-dir", out]);
        said.ok(&mut command)?;
        json(&folder.path().join(out).join("stability.json"))
    };
    let found = run("0", "a")?;
    let checkpoints = array(&found["checkpoints"])?;
    assert_eq!(checkpoints.len(), 2);
    for of in checkpoints {
        let rows = array(&of["rows"])?;
        assert_eq!(rows.iter().map(|r| r["puzzles"].as_u64()).collect::<Vec<_>>(), [Some(3); 3]);
        let total: u64 = array(&of["motions"])?.iter().filter_map(|m| m["puzzles"].as_u64()).sum();
        assert_eq!(total, 9);
    }
    let first = lines(&folder.path().join("a/runs-1.jsonl"))?;
    let open: Vec<Option<u64>> = first[1..].iter().map(|r| r["open"].as_u64()).collect();
    assert_eq!(open, [0, 0, 0, 9, 9, 9, 40, 40, 40].map(Some));
    assert!(first[1..].iter().all(|r| r["right"].as_array().is_some_and(|s| s.len() == 18)), "beyond halt_max_steps");
    assert!(is_png(&folder.path().join("a/stability.png"))?);
    run("0", "b")?;
    let read = |name: &str| fs::read_to_string(folder.path().join(name));
    assert_eq!(read("a/runs-2.jsonl")?, read("b/runs-2.jsonl")?, "the same seed gives the same puzzles");
    run("1", "c")?;
    assert_ne!(lines(&folder.path().join("c/runs-1.jsonl"))?[4..], first[4..]);
    said.matches("stability_compares_checkpoints_on_the_same_seeded_puzzles");
    Ok(())
}

#[test]
fn attention_is_recomputed_as_the_forward_pass_has_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = on_golden(folder.path(), &["analyze", "attention", "--index", "3", "--segment", "2"]);
    let report: Value =
        serde_json::from_str(&ok(command.args(["--layers", "L0,H0", "--cell", "5,5", "--json", "-"]))?.stdout)?;
    assert!(report["largest_difference"].as_f64().context("difference")? < 1e-5, "{report}");
    assert_eq!(report["cell"], Value::from(vec![5, 5]));
    for head in array(&report["heads"])? {
        let part = |key: &str| head[key].as_f64().unwrap_or(f64::NAN);
        let tied = 1.0 - part("itself") - part("elsewhere") - part("puzzle");
        assert!(tied > 0.0 && part("row") <= tied + 1e-6 && part("entropy") > 0.0, "{head}");
    }
    let table: Array2<f64> = read_npy(folder.path().join("analysis/attention/shares.npy"))?;
    let columns = ["itself", "row", "column", "cell_box", "elsewhere", "puzzle", "entropy"];
    assert_eq!(table.dim(), (array(&report["heads"])?.len(), 7));
    for ((head, column), share) in table.indexed_iter() {
        assert_eq!(report["heads"][head][columns[column]].as_f64(), Some(*share), "{}", columns[column]);
    }
    let bytes = fs::read(folder.path().join("analysis/attention/maps.safetensors"))?;
    let maps = SafeTensors::deserialize(&bytes)?;
    let map = maps.tensor("H0")?;
    assert_eq!(map.shape()[1..], [82, 82]);
    let values: Vec<f32> = map.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    assert!(values.chunks(82).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-4), "rows sum to 1");
    assert!(is_png(&folder.path().join("analysis/attention/attention.png"))?);
    Ok(())
}

#[test]
fn a_trace_holds_what_the_print_says() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = transcript(folder.path());
    said = said.hide(r"(?m)^ ?\[+[\d -]+\]+$", "[digits]");
    let printed = said.ok(&mut on_golden(folder.path(), &["trace", "--index", "3", "--print"]))?.stdout;
    assert_eq!(names(folder.path())?, Vec::<String>::new(), "--print writes nothing");

    let mut command = on_golden(folder.path(), &["trace", "--index", "0,3,1", "--z-l", "--batch-size", "2"]);
    said.ok(command.args(["--output-dir", "t"]))?;
    assert_eq!(names(&folder.path().join("t"))?, ["index.json", "rows.jsonl", "trace.safetensors"]);
    let index = json(&folder.path().join("t/index.json"))?;
    assert_eq!(index["rows"], Value::from(vec![0, 3, 1]));
    let bytes = fs::read(folder.path().join("t/trace.safetensors"))?;
    assert_eq!(index["bytes"], bytes.len());
    let file = SafeTensors::deserialize(&bytes)?;
    let shape = |name: &str| file.tensor(name).map(|t| (t.dtype(), t.shape().to_vec()));
    let hidden = shape("z_L")?.1[3];
    assert_eq!(shape("z_H")?, (Dtype::F32, vec![3, 32, 82, hidden]));
    assert_eq!(shape("z_L")?, (Dtype::F32, vec![3, 16, 82, hidden]));
    assert_eq!(shape("logits")?, (Dtype::F32, vec![3, 16, 81, 11]));
    assert_eq!(shape("q_halt")?, (Dtype::F32, vec![3, 16]));
    assert_eq!(shape("inputs")?, (Dtype::U8, vec![3, 81]));

    // Puzzle 3 is the second row: its last argmax is what was printed last.
    let floats = |name: &str| -> Result<Vec<f32>> {
        Ok(file.tensor(name)?.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
    };
    let logits = floats("logits")?;
    let last = &logits[(16 + 15) * 81 * 11..][..81 * 11];
    let best = |cell: &[f32]| {
        let top = cell.iter().enumerate().fold((0, f32::MIN), |b, (i, &v)| if v > b.1 { (i, v) } else { b });
        top.0 as i64 - 1
    };
    let digits: Vec<String> = last.chunks(11).map(|cell| best(cell).to_string()).collect();
    let board: Vec<String> = digits.chunks(9).map(|row| format!("[{}]", row.join(" "))).collect();
    assert!(printed.trim_end().ends_with(&format!("[{}]", board.join("\n "))), "{printed}");
    let q = floats("q_halt")?[16 + 15];
    assert!(printed.contains(&format!(" {q:.4}")), "{q} in {printed}");

    // A run that was killed after the first batch goes on and ends with the same bytes.
    let t = folder.path().join("t");
    let rows = fs::read_to_string(t.join("rows.jsonl"))?;
    fs::write(t.join("rows.jsonl"), rows.lines().take(3).map(|l| format!("{l}\n")).collect::<String>())?;
    let mut part = bytes.clone();
    let tail = part.len() - 81;
    part[tail..].fill(0);
    fs::write(t.join("trace.safetensors.part"), &part)?;
    fs::remove_file(t.join("trace.safetensors"))?;
    let mut command =
        on_golden(folder.path(), &["trace", "--index", "0,3,1", "--z-l", "--batch-size", "2", "--resume"]);
    ok(command.args(["--output-dir", "t"]))?;
    assert!(fs::read(t.join("trace.safetensors"))? == bytes);
    fs::write(t.join("rows.jsonl"), rows.lines().take(3).map(|l| format!("{l}\n")).collect::<String>())?;
    fs::write(t.join("trace.safetensors.part"), b"short")?;
    let mut command =
        on_golden(folder.path(), &["trace", "--index", "0,3,1", "--z-l", "--resume", "--output-dir", "t"]);
    said.fails(&mut command)?;
    said.matches("a_trace_holds_what_the_print_says");
    Ok(())
}

#[test]
fn a_report_is_one_file_that_loads_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = on_golden(folder.path(), &["report", "--count", "6", "--explore", "2", "--title", "A <b> & c"]);
    let facts: Value = serde_json::from_str(&ok(command.args(["--json", "-"]))?.stdout)?;
    let page = fs::read_to_string(folder.path().join("report/report.html"))?;
    assert_eq!(facts["bytes"], page.len());
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<title>A &lt;b&gt; &amp; c</title>"));
    assert_eq!(page.matches("<img ").count(), 2);
    for loads in ["src=\"http", "href=\"http", "url(", "@import", "fetch(", "XMLHttpRequest", "import("] {
        assert!(!page.contains(loads), "{loads}");
    }
    let data = page.split_once("id=\"data\">").and_then(|(_, rest)| rest.split_once("</script>")).context("data")?.0;
    let data: Value = serde_json::from_str(data)?;
    let puzzle = &data["models"][0]["puzzles"][0];
    assert_eq!(array(&puzzle["steps"])?.len(), 16);
    assert_eq!(array(&puzzle["points"])?.len(), 32);
    assert_eq!(puzzle["steps"][0]["confidence"].as_str().map(str::len), Some(162));
    Ok(())
}

#[test]
fn paths_share_a_plane_and_one_moves() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = transcript(folder.path());
    let trajectory = |extra: &[&str]| {
        let mut command = on_golden(folder.path(), &["viz", "trajectory"]);
        command.args(extra);
        command
    };
    said.ok(&mut trajectory(&["--index", "3,5", "-o", "two.svg", "--points", "segment"]))?;
    let svg = fs::read_to_string(folder.path().join("two.svg"))?;
    assert!(svg.contains("2 puzzles: ") && svg.contains(" of 2 paths end at the right answer"));
    let against = golden("e2e/run_b").display().to_string();
    let mut command =
        trajectory(&["--index", "3", "--permutes", "3", "-o", "six.png", "--json", "-", "--against", &against]);
    let report: Value = serde_json::from_str(&ok(&mut command)?.stdout)?;
    let paths = array(&report["paths"])?;
    assert_eq!(paths.len(), 6);
    assert!(paths[1]["name"].as_str().is_some_and(|n| n.contains("guess 1")), "{}", paths[1]["name"]);
    assert_ne!(paths[0]["puzzle"], paths[1]["puzzle"]);

    ok(&mut trajectory(&["--index", "3", "-o", "moves.gif"]))?;
    let bytes = fs::read(folder.path().join("moves.gif"))?;
    let mut decoder = gif::DecodeOptions::new().read_info(bytes.as_slice())?;
    let mut frames = 0;
    while decoder.read_next_frame()?.is_some() {
        frames += 1;
    }
    assert_eq!(frames, 33, "the puzzle, and a frame a point");
    said.fails(&mut trajectory(&["--index", "3,0", "-o", "two.gif"]))?;
    said.matches("paths_share_a_plane_and_one_moves");
    Ok(())
}

#[test]
fn bad_input_is_refused_in_a_line_and_leaves_no_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path());
    let cases: [(&[&str], &[&str]); 16] = [
        (&["viz", "landscape"], &["--grid", "3..1"]),
        (&["viz", "landscape"], &["--grid", "x"]),
        (&["viz", "landscape"], &["--step", "0"]),
        (&["viz", "landscape"], &["--step", "0.001"]),
        (&["viz", "landscape"], &["--centre", "17"]),
        (&["viz", "landscape"], &["--density", "2"]),
        (&["viz", "landscape"], &["--index", "1,2"]),
        (&["viz", "flow"], &["--settle", "9", "--segments", "4"]),
        (&["analyze", "segments"], &["--first", "11"]),
        (&["analyze", "segments"], &["--count", "0"]),
        (&["analyze", "modes"], &["--window", "1"]),
        (&["analyze", "stability"], &["--blanks", "82"]),
        (&["analyze", "stability"], &["--blanks", "2,2"]),
        (&["analyze", "attention"], &["--layers", "H9"]),
        (&["analyze", "attention"], &["--cell", "10,1"]),
        (&["trace"], &["--index", "11"]),
    ];
    for (words, flags) in cases {
        said.fails(on_golden(folder.path(), words).args(flags))?;
    }
    let mut maze = hrm(folder.path());
    maze.args(["viz", "landscape", "--device", "cpu", "--checkpoint"]).arg(golden(CHECKPOINT)).arg("--data-path");
    said.fails(maze.arg(golden("dataset/maze_noaug")))?;
    fs::write(folder.path().join("file"), "")?;
    said.fails(on_golden(folder.path(), &["report"]).args(["--output-dir", "file"]))?;
    assert_eq!(names(folder.path())?, ["file"]);
    said.matches("bad_input_is_refused_in_a_line_and_leaves_no_folder");
    Ok(())
}

/// A full disk, as a limit on the size of files: the error names the file, and what is there can be gone on with.
#[test]
fn a_full_disk_is_an_error_and_resume_goes_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = transcript(folder.path());
    let binary = env!("CARGO_BIN_EXE_hrm");
    let words = ["analyze", "segments", "--count", "8", "--batch-size", "2", "--output-dir", "s", "--threads", "1"];
    let mut limited = Command::new("bash");
    limited.current_dir(folder.path()).args(["-c", "ulimit -f 12; exec \"$0\" \"$@\"", binary]).args(words);
    limited.args(["--device", "cpu", "--dtype", "f32", "--checkpoint"]).arg(golden(CHECKPOINT)).arg("--data-path");
    said.fails(limited.arg(golden("e2e/data")))?;
    let mut rest = on_golden(folder.path(), &["analyze", "segments", "--count", "8", "--batch-size", "2"]);
    said.ok(rest.args(["--output-dir", "s", "--resume"]))?;
    let path = folder.path().join("s/runs.jsonl");
    assert_eq!(lines(&path)?.len(), 9);
    let text = fs::read_to_string(&path)?;
    fs::write(&path, text.replacen("\"q_halt\":[", "\"q_halt\":[0.5,", 1))?;
    let mut again = on_golden(folder.path(), &["analyze", "cells", "--count", "8", "--output-dir", "s", "--resume"]);
    said.fails(&mut again)?;
    said.matches("a_full_disk_is_an_error_and_resume_goes_on");
    Ok(())
}
