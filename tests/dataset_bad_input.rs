//! `hrm build-dataset` on bad input: a clear error with file and line, and nothing left behind.

mod common;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use common::{fails, golden, hrm, names, ok, snapshot::Transcript, until};

const QUESTION: &str = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79";
const ANSWER: &str = "534678912672195348198342567859761423426853791713924856961537284287419635345286179";
const HEADER: &str = "source,question,answer,rating";

fn build(folder: &Path, flags: &[&str]) -> Command {
    let mut command = hrm(folder);
    command.arg("build-dataset").args(flags);
    command
}

#[test]
fn bad_lists_end_with_file_and_line_and_no_folder() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut said = Transcript::new(temp.path());
    let good = format!("a,{QUESTION},{ANSWER},3");
    let wrong = ANSWER.replacen("534678", "534687", 1);
    let cases = [
        ("short row", format!("{HEADER}\n{good}\na,{QUESTION},{ANSWER}\n")),
        ("short board", format!("{HEADER}\na,{},{ANSWER},3\n", &QUESTION[2..])),
        ("character", format!("{HEADER}\n{good}\na,{}x,{ANSWER},3\n", &QUESTION[1..])),
        ("no solution", format!("{HEADER}\na,{QUESTION},{wrong},3\n")),
        ("header twice", format!("{HEADER}\n{good}\n{HEADER}\n")),
        ("no header", format!("{good}\n{good}\n")),
        ("no rows", format!("{HEADER}\n")),
        ("empty", String::new()),
        ("rating", format!("{HEADER}\r\n{good}\r\na,{QUESTION},{ANSWER},?\r\n")),
    ];
    for (name, text) in cases {
        fs::write(temp.path().join("bad.csv"), text)?;
        for flags in [&["--source", "bad.csv"][..], &["--test-source", "bad.csv"]] {
            said.add(name, "");
            said.fails(build(temp.path(), &["--output-dir", "new/out"]).args(flags))?;
            assert_eq!(names(temp.path())?, ["bad.csv"], "{name}");
        }
    }
    said.matches("bad_lists_end_with_file_and_line_and_no_folder");
    Ok(())
}

#[test]
fn gzipped_lists_are_read_and_cut_ones_refused() -> Result<()> {
    use std::io::Write as _;
    let temp = tempfile::tempdir()?;
    let mut said = Transcript::new(temp.path()).measured();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..=200 {
        writeln!(gz, "a,{QUESTION},{ANSWER},3")?;
    }
    let mut bytes = gz.finish()?;
    let mut header = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    writeln!(header, "{HEADER}")?;
    // Two gzip members in one file, as `cat a.gz b.gz` makes them.
    bytes.splice(0..0, header.finish()?);
    fs::create_dir(temp.path().join("lists"))?;
    fs::write(temp.path().join("lists/train.csv.gz"), &bytes)?;
    fs::write(temp.path().join("lists/test.csv"), format!("{HEADER}\na,{QUESTION},{ANSWER},3\n"))?;
    said.ok(&mut build(temp.path(), &["--source", "lists", "--output-dir", "out"]))?;

    fs::write(temp.path().join("lists/train.csv.gz"), &bytes[..bytes.len() - 12])?;
    said.fails(&mut build(temp.path(), &["--source", "lists", "--output-dir", "other"]))?;
    assert_eq!(names(temp.path())?, ["lists", "out"]);
    said.matches("gzipped_lists_are_read_and_cut_ones_refused");
    Ok(())
}

#[test]
fn wrong_flags_are_explained() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut said = Transcript::new(temp.path());
    let cases: [&[&str]; 10] = [
        &["--source", "nowhere.csv"],
        &["--source", "."],
        &["--min-difficulty", "9999"],
        &["--subsample-size", "0"],
        &["--test-rows", "some"],
        &["--num-aug", "-1"],
        &["--num-aug", "99999999"],
        &["--num-aug", "18446744073709551615", "--hint"],
        &["--aug"],
        &["--dataset", "maze", "--source", "wrong.csv"],
    ];
    for flags in cases {
        said.fails(&mut build(temp.path(), flags))?;
        assert!(names(temp.path())?.is_empty(), "{flags:?}");
    }
    let maze = golden("dataset/maze_csv");
    for flag in [&["--hint"][..], &["--num-aug", "2"]] {
        fails(build(temp.path(), &["--dataset", "maze", "--source"]).arg(&maze).args(flag))?;
    }
    assert!(names(temp.path())?.is_empty());
    said.matches("wrong_flags_are_explained");
    Ok(())
}

#[test]
fn an_existing_dataset_is_replaced_only_with_force() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut said = Transcript::new(temp.path());
    let labels = temp.path().join("out/train/all__labels.npy");
    ok(&mut build(temp.path(), &["--output-dir", "out", "--min-difficulty", "60"]))?;
    let before = fs::read(&labels)?;
    said.fails(&mut build(temp.path(), &["--output-dir", "out"]))?;
    assert_eq!(fs::read(&labels)?, before);

    ok(&mut build(temp.path(), &["--output-dir", "out", "--force"]))?;
    assert!(fs::read(&labels)?.len() > before.len());
    assert_eq!(names(temp.path())?, ["out"]);

    let whole = fs::read(&labels)?;
    fs::write(temp.path().join("bad.csv"), "")?;
    fails(&mut build(temp.path(), &["--output-dir", "out", "--force", "--source", "bad.csv"]))?;
    assert_eq!(fs::read(&labels)?, whole, "a failed build leaves the old dataset");

    fs::write(temp.path().join("out/thesis.tex"), "three years of work")?;
    said.fails(&mut build(temp.path(), &["--output-dir", "out", "--force"]))?;
    said.matches("an_existing_dataset_is_replaced_only_with_force");
    Ok(())
}

/// A write that fails half-way, as on a full disk: here the shell's limit on the size of a file.
#[test]
fn a_failed_write_leaves_nothing_behind() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut said = Transcript::new(temp.path());
    ok(&mut build(temp.path(), &["--output-dir", "out"]))?;
    let before = fs::read(temp.path().join("out/train/all__inputs.npy"))?;
    for output in ["out", "new"] {
        let mut command = Command::new("sh");
        let script = r#"ulimit -f 2000 && exec "$0" build-dataset --num-aug 100 --force --output-dir "$1""#;
        command.current_dir(temp.path()).args(["-c", script, env!("CARGO_BIN_EXE_hrm"), output]);
        said.fails(&mut command)?;
        assert_eq!(names(temp.path())?, ["out"]);
        assert_eq!(fs::read(temp.path().join("out/train/all__inputs.npy"))?, before);
    }
    said.matches("a_failed_write_leaves_nothing_behind");
    Ok(())
}

/// Ctrl-C in the middle of a long build.
#[test]
fn an_interrupted_build_leaves_nothing_behind() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut command = build(temp.path(), &["--num-aug", "50000", "--output-dir", "out"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    // The temporary folder is there once the handler stands.
    until(&mut child, String::new, || names(temp.path()).is_ok_and(|names| !names.is_empty()))?;
    assert_eq!(names(temp.path())?.len(), 1, "one temporary folder");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    assert!(killed.success());
    assert_eq!(child.wait()?.code(), Some(130));
    assert!(names(temp.path())?.is_empty());
    Ok(())
}

/// Ctrl-C while a list is being checked.
#[test]
fn an_interrupted_check_leaves_nothing_behind() -> Result<()> {
    use std::io::Write as _;
    let temp = tempfile::tempdir()?;
    let mut command = build(temp.path(), &["--source", "/dev/stdin", "--output-dir", "out"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut pipe = child.stdin.take().context("a pipe")?;
    // The handler stands once rows are taken out of the pipe.
    let rows = format!("a,{QUESTION},{ANSWER},3\n").repeat(20_000);
    pipe.write_all(format!("{HEADER}\n{rows}").as_bytes())?;
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status()?.success());
    // Rows without end, up to the one at which the command goes away.
    let sent = (0..1000).all(|_| pipe.write_all(rows.as_bytes()).is_ok());
    assert!(!sent, "it stops in the middle");
    let output = child.wait_with_output()?;
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "stopped; nothing was written\n");
    assert!(names(temp.path())?.is_empty());
    Ok(())
}

/// What no list should be, through the real binary: an error with the line, and no memory for what the file claims.
#[test]
fn hostile_lists_are_refused() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut said = Transcript::new(temp.path());
    let good = format!("a,{QUESTION},{ANSWER},3");
    let nul = good.replacen("..7", "\0.7", 1);
    let cases = [
        ("nul", format!("{HEADER}\n{nul}\n").into_bytes()),
        ("quote", format!("{HEADER}\n\"{good}\n{good}\n").into_bytes()),
        ("utf-16", "\u{feff}source".encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("gzip without content", vec![0x1f, 0x8b]),
        ("zip", b"PK\x03\x04source\n".to_vec()),
    ];
    for (name, bytes) in cases {
        fs::write(temp.path().join("bad.csv"), bytes)?;
        said.add(name, "");
        said.fails(&mut build(temp.path(), &["--output-dir", "out", "--source", "bad.csv"]))?;
    }
    // A gigabyte without a line's end (a sparse file), read by a process that may not have so much memory.
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).open(temp.path().join("bad.csv"))?;
    std::io::Write::write_all(&mut &file, format!("{HEADER}\n").as_bytes())?;
    file.set_len(1 << 30)?;
    let mut command = Command::new("sh");
    let script = r#"ulimit -d 600000 && exec "$0" build-dataset --threads 1 --source bad.csv --output-dir out"#;
    command.current_dir(temp.path()).args(["-c", script, env!("CARGO_BIN_EXE_hrm")]);
    said.fails(&mut command)?;
    assert_eq!(names(temp.path())?, ["bad.csv"]);

    // A BOM, CRLF, quotes and blank lines are none of these.
    let text = format!("\u{feff}{HEADER}\r\n\r\n\"a, \"\"b\"\"\",{QUESTION},\"{ANSWER}\",3\r\n");
    fs::write(temp.path().join("good.csv"), text)?;
    ok(&mut build(temp.path(), &["--output-dir", "out", "--source", "good.csv"]))?;
    let sidecar = fs::read_to_string(temp.path().join("out/train/all__rows.csv"))?;
    assert_eq!(sidecar, "source,rating\n\"a, \"\"b\"\"\",3\n");
    said.matches("hostile_lists_are_refused");
    Ok(())
}

/// Files of a dataset that claim more than they should, read by a process that may not have so much memory.
#[test]
fn hostile_datasets_take_no_memory() -> Result<()> {
    let temp = tempfile::tempdir()?;
    ok(&mut build(temp.path(), &["--output-dir", "good"]))?;
    let mut said = Transcript::new(temp.path());
    for name in ["dataset.json", "all__inputs.npy", "all__puzzle_indices.npy", "all__rows.csv"] {
        let root = temp.path().join("bad");
        fs::create_dir_all(root.join("test"))?;
        for file in names(&temp.path().join("good/test"))? {
            fs::copy(temp.path().join("good/test").join(&file), root.join("test").join(&file))?;
        }
        let file = fs::OpenOptions::new().write(true).open(root.join("test").join(name))?;
        file.set_len(file.metadata()?.len() + (1 << 30))?;
        let mut command = Command::new("sh");
        let script = r#"ulimit -d 600000 && exec "$0" dataset inspect --threads 1 bad"#;
        command.current_dir(temp.path()).args(["-c", script, env!("CARGO_BIN_EXE_hrm")]);
        said.fails(&mut command)?;
    }
    said.matches("hostile_datasets_take_no_memory");
    Ok(())
}
