//! `hrm dataset inspect`, `check` and `generate`, and mazes from the bundled sample.

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use common::{fails, golden, hrm, json, names, ok, sha256, snapshot::Transcript, until};
use hrm::{
    dataset::{Dataset, Split},
    puzzle::{Board, SudokuShuffle},
    rng::{Purpose, stream},
};

const HEADER: &str = "source,question,answer,rating";

fn dataset(folder: &Path, args: &[&str]) -> Command {
    let mut command = hrm(folder);
    command.arg("dataset").args(args);
    command
}

/// The first rows of a golden list, as (question, answer).
fn rows() -> Result<Vec<(Board, Board)>> {
    let text = fs::read_to_string(golden("dataset/sudoku_csv/train.csv"))?;
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        Ok((fields[1].parse()?, fields[2].parse()?))
    };
    text.lines().skip(1).map(row).collect()
}

fn list(rows: &[(Board, Board)]) -> String {
    let lines = rows.iter().map(|(question, answer)| format!("x,{question},{answer},0\n"));
    format!("{HEADER}\n{}", lines.collect::<String>())
}

#[test]
fn inspect_tells_what_a_dataset_holds() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut said = Transcript::new(temp.path()).measured();
    ok(hrm(temp.path()).args([
        "build-dataset",
        "--output-dir",
        "out",
        "--num-aug",
        "3",
        "--hint",
        "--subsample-size",
        "50",
    ]))?;
    said.ok(&mut dataset(temp.path(), &["inspect", "out", "--show", "2", "--json", "report.json"]))?;

    let report = json(&temp.path().join("report.json"))?;
    let (train, test) = (&report["splits"][0], &report["splits"][1]);
    for (split, name) in [(Split::Train, train), (Split::Test, test)] {
        let fingerprint = Dataset::open(&temp.path().join("out"), split)?.fingerprint()?;
        assert_eq!(name["fingerprint"], fingerprint, "as training records it");
        let boards: u64 = name["cells"].as_object().context("cells")?.values().filter_map(|n| n.as_u64()).sum();
        assert_eq!(name["boards"], boards);
    }
    assert_eq!(
        (&train["mapped_bytes"], &train["boards_per_group"]),
        (&0.into(), &8.0.into()),
        "small arrays are copied"
    );
    assert_eq!(test["ratings"]["sources"].as_object().context("sources")?.len(), 7);
    let rated: u64 =
        test["ratings"]["histogram"].as_object().context("ratings")?.values().filter_map(|n| n.as_u64()).sum();
    assert_eq!(rated, 2000);

    said.fails(&mut dataset(temp.path(), &["inspect", "nowhere"]))?;
    said.matches("inspect_tells_what_a_dataset_holds");
    Ok(())
}

#[test]
fn check_finds_every_planted_fault() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut said = Transcript::new(temp.path()).measured();
    let rows = rows()?;
    let mut rng = stream(Purpose::Augment, 11, 0, 0);
    let mut equivalent = |row: usize| {
        let shuffle = SudokuShuffle::draw(&mut rng);
        (shuffle.apply(&rows[row].0), shuffle.apply(&rows[row].1))
    };
    let mut train = rows[..6].to_vec();
    train.push(equivalent(2));
    // Without its givens a puzzle has many solutions.
    train.push((Board::from_digits([0; 81])?, rows[7].1));
    let test = vec![rows[10], equivalent(4), rows[11], equivalent(10)];
    fs::create_dir(temp.path().join("lists"))?;
    fs::write(temp.path().join("lists/train.csv"), list(&train))?;
    fs::write(temp.path().join("lists/test.csv"), list(&test))?;

    said.fails(&mut dataset(temp.path(), &["check", "lists", "--json", "report.json"]))?;
    let report = json(&temp.path().join("report.json"))?;
    assert_eq!(report["checked"][0]["duplicates"]["examples"][0], "row 6 is row 2");
    assert_eq!(report["checked"][0]["several_solutions"]["examples"][0], "row 7: it has another solution");
    assert_eq!(report["checked"][1]["duplicates"]["examples"][0], "row 3 is row 0");
    assert_eq!(report["leakage"]["test_boards"]["examples"][0], "row 1 is training row 4");

    // The same through a dataset: versions of one puzzle are no duplicates, and a wrong label is found.
    ok(hrm(temp.path()).args([
        "build-dataset",
        "--source",
        "lists",
        "--output-dir",
        "out",
        "--num-aug",
        "5",
        "--hint",
    ]))?;
    let labels = temp.path().join("out/test/all__labels.npy");
    let mut bytes = fs::read(&labels)?;
    let last = bytes.len() - 1;
    bytes[last] = if bytes[last] == 2 { 3 } else { 2 };
    fs::write(&labels, bytes)?;
    said.fails(&mut dataset(temp.path(), &["check", "out", "--json", "report.json"]))?;
    let report = json(&temp.path().join("report.json"))?;
    assert_eq!((&report["checked"][0]["boards"], &report["checked"][0]["groups"]), (&96.into(), &8.into()));
    assert_eq!(report["checked"][0]["duplicates"]["examples"][0], "row 72 is row 24");
    assert_eq!(report["leakage"]["test_groups"], 1);

    said.ok(&mut dataset(temp.path(), &["check", "bundled", "--threads", "2"]))?;
    said.matches("check_finds_every_planted_fault");
    Ok(())
}

#[test]
fn generated_sudokus_are_sound_seeded_and_rated_as_asked() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let generate = |name: &str, more: &[&str]| -> Result<String> {
        let mut command = dataset(temp.path(), &["generate", "--count", "120", "--output", name]);
        ok(command.args(["--ratings", "0-9=50,10-29=30,30-=20", "--json", "report.json"]).args(more))?;
        Ok(sha256(&fs::read(temp.path().join(name))?))
    };
    let base = generate("a.csv", &["--threads", "1"])?;
    assert_eq!(base, generate("b.csv", &["--threads", "3"])?);
    assert_ne!(base, generate("c.csv", &["--seed", "1"])?);
    let report = json(&temp.path().join("report.json"))?;
    let ratings = report["ratings"].as_object().context("ratings")?;
    let within = |low: i64, high: i64| -> u64 {
        let inside = ratings.iter().filter(|(rating, _)| (low..=high).contains(&rating.parse().unwrap_or(-1)));
        inside.filter_map(|(_, n)| n.as_u64()).sum()
    };
    assert_eq!((within(0, 9), within(10, 29), within(30, i64::MAX)), (60, 36, 24));

    for line in fs::read_to_string(temp.path().join("a.csv"))?.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let question: Board = fields[1].parse()?;
        assert_eq!(hrm::puzzle::solve::rate(&question), fields[3].parse().ok(), "{line}");
        assert!(hrm::puzzle::solve::is_minimal(&question), "{line}");
    }
    // Answers, single solutions, no doubles, none of the bundled test rows; and none of the seeds.
    ok(&mut dataset(temp.path(), &["check", "a.csv", "--test", "bundled"]))?;
    fs::write(temp.path().join("seeds.csv"), list(&rows()?))?;
    ok(&mut dataset(temp.path(), &["check", "seeds.csv", "--test", "a.csv"]))?;

    let fast = ["generate", "--count", "3000", "--fast", "--seeds", "seeds.csv", "--output", "f.csv.gz"];
    ok(&mut dataset(temp.path(), &fast))?;
    ok(&mut dataset(temp.path(), &["check", "f.csv.gz", "--test", "seeds.csv"]))?;
    Ok(())
}

#[test]
fn generate_says_what_is_wrong_before_it_starts() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut said = Transcript::new(temp.path());
    fs::write(temp.path().join("there.csv"), "mine")?;
    let cases: [&[&str]; 8] = [
        &["--output", "there.csv"],
        &["--output", "no/such/folder.csv"],
        &["--output", "x.csv", "--ratings", "5-1"],
        &["--output", "x.csv", "--ratings", "1-5,5-9"],
        &["--output", "x.csv", "--side", "9"],
        &["--output", "x.csv", "--dataset", "maze", "--fast"],
        &["--output", "x.csv", "--dataset", "maze", "--side", "2"],
        &["--output", "x.csv", "--seeds", "there.csv"],
    ];
    for args in cases {
        said.fails(dataset(temp.path(), &["generate", "--count", "5"]).args(args))?;
    }
    let impossible =
        ["generate", "--count", "2", "--dataset", "maze", "--side", "5", "--min-steps", "20", "--output", "x"];
    said.fails(&mut dataset(temp.path(), &impossible))?;
    assert_eq!(names(temp.path())?, ["there.csv"]);
    assert_eq!(fs::read_to_string(temp.path().join("there.csv"))?, "mine");
    said.matches("generate_says_what_is_wrong_before_it_starts");
    Ok(())
}

/// Runs a command that makes x.csv until its partial file has so many lines, then sends it a signal. Whether the signal
/// came before the end.
fn stop_at(command: &mut Command, folder: &Path, lines: usize, signal: &str) -> Result<bool> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (mut said, mut line) = (BufReader::new(child.stdout.take().context("its output")?), String::new());
    // The first line is said once the handler of Ctrl-C stands.
    said.read_line(&mut line)?;
    let partial = folder.join("x.csv.partial");
    let written = || fs::read(&partial).unwrap_or_default().iter().filter(|&&byte| byte == b'\n').count();
    // It may have ended before: the caller asks.
    let _ = until(&mut child, String::new, || written() >= lines);
    let kill = Command::new("kill").args([signal, &child.id().to_string()]).status()?;
    let mut text = String::new();
    said.read_to_string(&mut text)?;
    let status = child.wait()?;
    let stopped = !status.success();
    if stopped && signal == "-INT" {
        let mut told = Transcript::default().hide(r"\d[\d,]*", "N");
        told.add("interrupted", text.lines().last().unwrap_or_default());
        told.matches("an_interrupted_generation_says_where_it_is");
        assert_eq!(status.code(), Some(130));
    }
    assert!(kill.success() || !stopped);
    Ok(stopped)
}

#[test]
fn a_run_that_was_killed_goes_on_to_the_same_list() -> Result<()> {
    let cases: [&[&str]; 3] = [
        &["--count", "200", "--ratings", "0-9=60,10-=40", "--exclude", "few.csv"],
        &["--count", "14000", "--fast", "--seed", "3", "--seeds", "few.csv", "--exclude", "few.csv"],
        &["--count", "2500", "--dataset", "maze", "--side", "10"],
    ];
    for args in cases {
        let temp = tempfile::tempdir()?;
        fs::write(temp.path().join("few.csv"), list(&rows()?))?;
        let generate = |output: &str| {
            let mut command = dataset(temp.path(), &["generate", "--output", output]);
            command.args(args);
            command
        };
        ok(&mut generate("whole.csv"))?;
        let whole = fs::read(temp.path().join("whole.csv"))?;
        let mut stops = 0;
        for signals in [["-KILL", "-INT", "-KILL"], ["-INT", "-KILL", "-INT"]] {
            for (lines, signal) in [1, 2, 4].into_iter().zip(signals) {
                let early = stop_at(generate("x.csv").arg("--resume"), temp.path(), lines, signal)?;
                if !early {
                    break;
                }
                stops += 1;
                assert_eq!(names(temp.path())?, ["few.csv", "whole.csv", "x.csv.partial"], "{args:?}");
            }
            // Other threads, too.
            ok(generate("x.csv").args(["--resume", "--force", "--threads", "3"]))?;
            assert_eq!(names(temp.path())?, ["few.csv", "whole.csv", "x.csv"], "nothing is left over");
            assert!(fs::read(temp.path().join("x.csv"))? == whole, "{args:?}: another list");
            fs::remove_file(temp.path().join("x.csv"))?;
        }
        assert!(stops > 2, "{args:?}: the runs were too short: {stops}");
    }
    Ok(())
}

#[test]
fn a_partial_file_belongs_to_one_command() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut said = Transcript::new(temp.path()).measured().hide(r"[\d,]+ of 14,000 puzzles", "N of 14,000 puzzles");
    let with_seeds = |seeds: &str, args: &[&str]| {
        let mut command = dataset(temp.path(), &["generate", "--output", "x.csv", "--fast", "--exclude", "few.csv"]);
        command.args(["--seeds", seeds]).args(args);
        command
    };
    let generate = |args: &[&str]| with_seeds("few.csv", args);
    let rows = rows()?;
    fs::write(temp.path().join("few.csv"), list(&rows))?;
    fs::write(temp.path().join("fewer.csv"), list(&rows[1..]))?;
    let partial = temp.path().join("x.csv.partial");
    assert!(stop_at(&mut generate(&["--count", "14000"]), temp.path(), 3, "-KILL")?);
    let kept = fs::read_to_string(&partial)?;

    let cases: [&[&str]; 5] = [
        &["--count", "14000"],
        &["--count", "14001", "--resume"],
        &["--count", "14000", "--resume", "--seed", "9"],
        &["--count", "14000", "--resume", "--ratings", "0-5"],
        &["--count", "14000", "--resume", "--exclude", "fewer.csv"],
    ];
    for args in cases {
        said.fails(&mut generate(args))?;
        assert_eq!(fs::read_to_string(&partial)?, kept, "{args:?}");
    }

    said.fails(&mut with_seeds("fewer.csv", &["--count", "14000", "--resume"]))?;

    // Files that no run left like this.
    let lines: Vec<&str> = kept.lines().collect();
    let damaged =
        [[lines[0], lines[1], lines[1]].join("\n") + "\n", kept.replacen("\"question\":\"", "\"question\":\"?", 1)];
    for text in damaged {
        fs::write(&partial, &text)?;
        said.fails(&mut generate(&["--count", "14000", "--resume"]))?;
        assert_eq!(fs::read_to_string(&partial)?, text);
    }

    // A damaged line and what was made after it are made again; a last line cut off; and a list that stands there already.
    fs::write(&partial, &kept[..kept.len() - 9])?;
    fs::write(temp.path().join("x.csv"), "mine")?;
    said.fails(&mut generate(&["--count", "14000", "--resume"]))?;
    said.ok(&mut generate(&["--count", "14000", "--resume", "--force"]))?;
    let resumed = fs::read(temp.path().join("x.csv"))?;
    fs::write(&partial, [lines[0], lines[1], "{", lines[1]].join("\n") + "\n")?;
    said.ok(&mut generate(&["--count", "14000", "--resume", "--force"]))?;
    assert!(fs::read(temp.path().join("x.csv"))? == resumed);
    fs::write(&partial, kept)?;
    said.ok(&mut generate(&["--count", "14000", "--force"]))?;
    assert!(fs::read(temp.path().join("x.csv"))? == resumed);
    assert_eq!(names(temp.path())?, ["few.csv", "fewer.csv", "x.csv"]);
    said.matches("a_partial_file_belongs_to_one_command");
    Ok(())
}

/// No room for the partial file, then for the list.
#[test]
fn a_full_disk_loses_nothing() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut said = Transcript::new(temp.path());
    fs::write(temp.path().join("few.csv"), list(&rows()?))?;
    let few = ["generate", "--fast", "--seeds", "few.csv", "--output"];
    let limited = |kilobytes: u64, resume: &str| {
        let mut command = Command::new("bash");
        let script =
            r#"ulimit -f "$1" && exec "$0" dataset generate --fast --seeds few.csv --count 1000 --output x.csv $2"#;
        command.current_dir(temp.path()).args([
            "-c",
            script,
            env!("CARGO_BIN_EXE_hrm"),
            &kilobytes.to_string(),
            resume,
        ]);
        command
    };
    said.fails(&mut limited(20, ""))?;
    assert_eq!(names(temp.path())?, ["few.csv", "x.csv.partial"]);
    ok(&mut limited(1000, "--resume"))?;
    ok(dataset(temp.path(), &few).args(["y.csv", "--count", "1000"]))?;
    assert!(fs::read(temp.path().join("x.csv"))? == fs::read(temp.path().join("y.csv"))?);
    assert_eq!(names(temp.path())?, ["few.csv", "x.csv", "y.csv"]);

    // A folder that takes the place of the list while it is being made.
    fs::remove_file(temp.path().join("x.csv"))?;
    let mut long = dataset(temp.path(), &few);
    let mut child = long.args(["x.csv", "--count", "9000"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    until(&mut child, String::new, || temp.path().join("x.csv.partial").exists())?;
    fs::create_dir(temp.path().join("x.csv"))?;
    let output = child.wait_with_output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    said.add("a folder has taken the place of the list", &error);
    fs::remove_dir(temp.path().join("x.csv"))?;
    ok(dataset(temp.path(), &few).args(["x.csv", "--count", "9000", "--resume"]))?;
    assert_eq!(names(temp.path())?, ["few.csv", "x.csv", "y.csv"]);
    said.matches("a_full_disk_loses_nothing");
    Ok(())
}

/// The bundled mazes are what the generator makes: the same seed gives the same file.
#[test]
fn the_bundled_mazes_can_be_made_again() -> Result<()> {
    let temp = tempfile::tempdir()?;
    for (name, side, count, seed) in [
        ("maze-30x30-train-160.csv.gz", "30", "160", "1"),
        ("maze-30x30-test-40.csv.gz", "30", "40", "2"),
        ("maze-11x11-train-1000.csv.gz", "11", "1000", "1"),
        ("maze-11x11-test-200.csv.gz", "11", "200", "2"),
    ] {
        let args =
            ["generate", "--dataset", "maze", "--side", side, "--count", count, "--seed", seed, "--output", name];
        ok(&mut dataset(temp.path(), &args))?;
        let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name);
        let text = |path: &Path| -> Result<String> {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(fs::File::open(path)?), &mut text)?;
            Ok(text)
        };
        assert_eq!(text(&temp.path().join(name))?, text(&bundled)?);
    }
    for source in ["bundled", "bundled-small"] {
        ok(&mut dataset(temp.path(), &["check", source, "--dataset", "maze"]))?;
    }
    ok(hrm(temp.path()).args(["build-dataset", "--dataset", "maze", "--source", "bundled-small", "--aug"]))?;
    assert_eq!(names(&temp.path().join("data"))?, ["maze-11x11"]);
    fails(hrm(temp.path()).args(["build-dataset", "--source", "bundled-small"]))?;
    Ok(())
}

/// Build, train, infer with the swap, evaluate, draw: all on mazes.
#[test]
fn mazes_go_all_the_way() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let args = ["generate", "--dataset", "maze", "--side", "6", "--count", "40", "--output"];
    ok(dataset(temp.path(), &args).arg("train.csv"))?;
    ok(dataset(temp.path(), &args).args(["test.csv", "--seed", "1"]))?;
    ok(hrm(temp.path()).args([
        "build-dataset",
        "--dataset",
        "maze",
        "--source",
        "train.csv",
        "--test-source",
        "test.csv",
        "--aug",
        "--output-dir",
        "maze",
    ]))?;
    let train = Dataset::open(&temp.path().join("maze"), Split::Train)?;
    assert_eq!((train.meta().vocab_size, train.meta().total_groups, train.len()), (6, 40, 320));

    let mut command = hrm(temp.path());
    command.env("OMP_NUM_THREADS", "1").args([
        "train",
        "--device",
        "cpu",
        "data_path=maze",
        "epochs=4",
        "eval_interval=2",
        "global_batch_size=20",
        "arch.hidden_size=32",
        "arch.num_heads=2",
        "arch.H_layers=1",
        "arch.L_layers=1",
        "arch.H_cycles=1",
        "arch.L_cycles=1",
        "arch.halt_max_steps=2",
        "arch.puzzle_emb_ndim=32",
        "lr_warmup_steps=2",
        "checkpoint_path=run",
    ]);
    ok(&mut command)?;
    let infer = ["infer", "--device", "cpu", "--checkpoint", "run", "--permutes", "2", "--json", "infer.json"];
    ok(hrm(temp.path()).env("OMP_NUM_THREADS", "1").args(infer))?;
    let eval = ["eval", "--device", "cpu", "--checkpoint", "run"];
    ok(hrm(temp.path()).env("OMP_NUM_THREADS", "1").args(eval))?;
    let draw = ["viz", "trajectory", "--device", "cpu", "--checkpoint", "run", "--output", "maze.png"];
    ok(hrm(temp.path()).env("OMP_NUM_THREADS", "1").args(draw))?;
    assert!(fs::read(temp.path().join("maze.png"))?.starts_with(b"\x89PNG"));
    Ok(())
}
