//! `hrm viz landscape|flow`, `hrm analyze`, `hrm report` and `hrm trace` through the binary, on upstream's tiny golden
//! checkpoint.

mod common;

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use common::{fails, golden, hrm, json, names, ok};
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

fn is_png(path: &Path) -> Result<bool> {
    let mut reader = png::Decoder::new(std::io::BufReader::new(fs::File::open(path)?)).read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size()];
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
    let command = |extra: &[&str]| {
        let mut command = on_golden(folder.path(), &["viz", "landscape", "--grid", "-2..2", "--batch-size", "7"]);
        command.args(["--index", "3", "--output-dir", "l", "--format", "both", "--density", "1"]).args(extra);
        command
    };
    let text = ok(&mut command(&[]))?.stdout;
    assert!(text.contains("25 grid points x 1 segment(s)"), "{text}");
    let l = folder.path().join("l");
    assert_eq!(
        names(&l)?,
        ["landscape.json", "landscape.png", "landscape.svg", "points.jsonl", "surface.png", "surface.svg"]
    );
    assert!(is_png(&l.join("landscape.png"))? && is_png(&l.join("surface.png"))?);
    let svg = fs::read_to_string(l.join("landscape.svg"))?;
    for wanted in ["PC1 (", "PC2 (", "error: broken rules", "the trace of z_H", "Sudoku 3: "] {
        assert!(svg.contains(wanted), "{wanted:?} is missing");
    }
    let whole = json(&l.join("landscape.json"))?;
    assert_eq!(array(&whole["points"])?.len(), 25);
    let again = fails(&mut command(&[]))?;
    assert!(again.contains("points.jsonl") && again.contains("--resume"), "{again}");

    // A process killed in the middle of a batch: nine points and half of one.
    let journal = fs::read_to_string(l.join("points.jsonl"))?;
    let kept: Vec<&str> = journal.lines().take(10).collect();
    fs::write(l.join("points.jsonl"), format!("{}\n{{\"at\":[0.0", kept.join("\n")))?;
    let text = ok(&mut command(&["--resume"]))?.stdout;
    assert!(text.contains("9 of 25 points were there already") && text.contains("16 grid points"), "{text}");
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
    let foreign = fails(&mut command(&["--resume"]))?;
    assert!(foreign.contains("points.jsonl: line 3 is not that grid point"), "{foreign}");
    let other = fails(&mut command(&["--resume", "--centre", "3"]))?;
    assert!(other.contains("centre is 16 there, now 3"), "{other}");
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
    Ok(())
}

#[test]
fn segments_modes_and_cells_share_their_runs() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join("s").join(name);
    let mut command = on_golden(folder.path(), &["analyze", "segments", "--output-dir", "s", "--batch-size", "4"]);
    let text = ok(command.args(["--count", "all"]))?.stdout;
    assert!(text.contains("11 puzzles x 16 segments"), "{text}");
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
    let step = grokked[3].as_u64().context("puzzle 3")? as usize;
    let (right, all) = (array(&runs[4]["right"])?, &runs[4]["cells"]);
    assert!(right[step - 1..].iter().all(|r| r == all) && (step == 1 || right[step - 2] != *all));

    let mut command =
        on_golden(folder.path(), &["analyze", "modes", "--output-dir", "s", "--resume", "--count", "all"]);
    let text = ok(command.args(["--quick", "16"]))?.stdout;
    assert!(text.contains("11 of 11 puzzles were run already") && !text.contains("puzzles/s"), "{text}");
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
    let confidence = runs[1]["confidence"][0].as_str().context("confidence")?;
    assert!(confidence.len() == 162 && confidence.bytes().all(|b| b.is_ascii_digit()));
    Ok(())
}

#[test]
fn stability_compares_checkpoints_on_the_same_seeded_puzzles() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = |seed: &str, out: &str| -> Result<Value> {
        // The bundled puzzles: golden/e2e's labels are no Sudokus.
        let mut command = hrm(folder.path());
        command.args(["analyze", "stability", "--per-k", "3", "--segments", "18", "--threads", "1", "--device", "cpu"]);
        command.arg("--checkpoint").arg(golden(CHECKPOINT)).arg("--checkpoint").arg(golden("e2e/run_b"));
        command.args(["--blanks", "0,row,40", "--seed", seed, "--output-dir", out]);
        let text = ok(&mut command)?.stdout;
        ensure!(text.contains("right@16") && text.contains("right@18") && text.contains("row"), "{text}");
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
    let printed = ok(&mut on_golden(folder.path(), &["trace", "--index", "3", "--print"]))?.stdout;
    assert_eq!(printed.matches("Step ").count(), 16, "{printed}");
    assert!(
        printed.contains("Step 16, Loss ") && printed.contains(", q_halt ") && printed.contains("\n[["),
        "{printed}"
    );
    assert_eq!(names(folder.path())?, Vec::<String>::new(), "--print writes nothing");

    let mut command = on_golden(folder.path(), &["trace", "--index", "0,3,1", "--z-l", "--batch-size", "2"]);
    let text = ok(command.args(["--output-dir", "t"]))?.stdout;
    assert!(text.contains("3 puzzles x 16 segments will take"), "{text}");
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
    assert!(printed.contains(&format!("q_halt {q:.4}")), "{q} in {printed}");

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
    assert!(fails(&mut command)?.contains("trace.safetensors.part: 5 bytes"));
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
    let trajectory = |extra: &[&str]| {
        let mut command = on_golden(folder.path(), &["viz", "trajectory"]);
        command.args(extra);
        command
    };
    let text = ok(&mut trajectory(&["--index", "3,5", "-o", "two.svg", "--points", "segment"]))?.stdout;
    assert!(text.contains("Sudoku 3: first right at segment") && text.contains("Sudoku 5: first right"), "{text}");
    let svg = fs::read_to_string(folder.path().join("two.svg"))?;
    assert!(svg.contains("2 puzzles: ") && svg.contains(" of 2 paths end at the right answer"));
    let against = golden("e2e/run_b").display().to_string();
    let mut command =
        trajectory(&["--index", "3", "--permutes", "3", "-o", "six.png", "--json", "-", "--against", &against]);
    let report: Value = serde_json::from_str(&ok(&mut command)?.stdout)?;
    let paths = array(&report["paths"])?;
    assert_eq!(paths.len(), 6);
    assert!(paths[1]["name"].as_str().is_some_and(|n| n.contains("permutation 1")), "{}", paths[1]["name"]);
    assert_ne!(paths[0]["puzzle"], paths[1]["puzzle"]);

    ok(&mut trajectory(&["--index", "3", "-o", "moves.gif"]))?;
    let bytes = fs::read(folder.path().join("moves.gif"))?;
    let mut decoder = gif::DecodeOptions::new().read_info(bytes.as_slice())?;
    let mut frames = 0;
    while decoder.read_next_frame()?.is_some() {
        frames += 1;
    }
    assert_eq!(frames, 33, "the puzzle, and a frame a point");
    let error = fails(&mut trajectory(&["--index", "3,0", "-o", "two.gif"]))?;
    assert!(error.contains("a GIF shows one path"), "{error}");
    Ok(())
}

#[test]
fn bad_input_is_refused_in_a_line_and_leaves_no_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cases: [(&[&str], &[&str], &str); 16] = [
        (&["viz", "landscape"], &["--grid", "3..1"], "the first number must be the smaller"),
        (&["viz", "landscape"], &["--grid", "x"], "two numbers like -20..20"),
        (&["viz", "landscape"], &["--step", "0"], "--step 0"),
        (&["viz", "landscape"], &["--step", "0.001"], "more than 1,000 points a side"),
        (&["viz", "landscape"], &["--centre", "17"], "segments 1 to 16"),
        (&["viz", "landscape"], &["--density", "2"], "a share from 0 to 1"),
        (&["viz", "landscape"], &["--index", "1,2"], "of one puzzle"),
        (&["viz", "flow"], &["--settle", "9", "--segments", "4"], "cannot stay for longer"),
        (&["analyze", "segments"], &["--first", "11"], "give 0 to 10"),
        (&["analyze", "segments"], &["--count", "0"], "a number from 1, or `all`"),
        (&["analyze", "modes"], &["--window", "1"], "--window 1"),
        (&["analyze", "stability"], &["--blanks", "82"], "from 0 to 81"),
        (&["analyze", "stability"], &["--blanks", "2,2"], "there twice"),
        (&["analyze", "attention"], &["--layers", "H9"], "this model has H0"),
        (&["analyze", "attention"], &["--cell", "10,1"], "from 1 to 9"),
        (&["trace"], &["--index", "11"], "give 0 to 10"),
    ];
    for (words, flags, wanted) in cases {
        let error = fails(on_golden(folder.path(), words).args(flags))?;
        assert!(error.contains(wanted), "{words:?} {flags:?}: {error}");
    }
    let mut maze = hrm(folder.path());
    maze.args(["viz", "landscape", "--device", "cpu", "--checkpoint"]).arg(golden(CHECKPOINT)).arg("--data-path");
    let error = fails(maze.arg(golden("dataset/maze_noaug")))?;
    assert!(error.contains("another kind of puzzle"), "{error}");
    fs::write(folder.path().join("file"), "")?;
    let error = fails(on_golden(folder.path(), &["report"]).args(["--output-dir", "file"]))?;
    assert!(error.contains("this is a file"), "{error}");
    assert_eq!(names(folder.path())?, ["file"]);
    Ok(())
}

/// A full disk, as a limit on the size of files: the error names the file, and what is there can be gone on with.
#[test]
fn a_full_disk_is_an_error_and_resume_goes_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let binary = env!("CARGO_BIN_EXE_hrm");
    let words = ["analyze", "segments", "--count", "8", "--batch-size", "2", "--output-dir", "s", "--threads", "1"];
    let mut limited = Command::new("bash");
    limited.current_dir(folder.path()).args(["-c", "ulimit -f 12; exec \"$0\" \"$@\"", binary]).args(words);
    limited.args(["--device", "cpu", "--dtype", "f32", "--checkpoint"]).arg(golden(CHECKPOINT)).arg("--data-path");
    let error = fails(limited.arg(golden("e2e/data")))?;
    assert!(error.contains("runs.jsonl"), "{error}");
    let mut rest = on_golden(folder.path(), &["analyze", "segments", "--count", "8", "--batch-size", "2"]);
    let text = ok(rest.args(["--output-dir", "s", "--resume"]))?.stdout;
    assert!(text.contains("of 8 puzzles were run already"), "{text}");
    let path = folder.path().join("s/runs.jsonl");
    assert_eq!(lines(&path)?.len(), 9);
    let text = fs::read_to_string(&path)?;
    fs::write(&path, text.replacen("\"q_halt\":[", "\"q_halt\":[0.5,", 1))?;
    let mut again = on_golden(folder.path(), &["analyze", "cells", "--count", "8", "--output-dir", "s", "--resume"]);
    let error = fails(&mut again)?;
    assert!(error.contains("runs.jsonl: line 2 is not the run of puzzle 0"), "{error}");
    Ok(())
}
