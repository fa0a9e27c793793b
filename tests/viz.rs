//! `hrm viz trajectory` through the binary, on upstream's tiny golden checkpoint.

mod common;

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use common::{fails, golden, hrm, names, ok};
use serde_json::Value;

const CHECKPOINT: &str = "checkpoint/tiny ACT-torch/Model gold fish/step_12";
const PUZZLE: &str = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79";

fn trajectory(folder: &Path) -> Command {
    let mut command = hrm(folder);
    command.args(["viz", "trajectory", "--threads", "1", "--device", "cpu", "--checkpoint"]).arg(golden(CHECKPOINT));
    command
}

fn on_golden(folder: &Path) -> Command {
    let mut command = trajectory(folder);
    command.arg("--data-path").arg(golden("e2e/data"));
    command
}

/// Width and height that a PNG's header tells, after checking that it decodes.
fn png_size(path: &Path) -> Result<[u32; 2]> {
    let mut reader = png::Decoder::new(std::io::BufReader::new(fs::File::open(path)?)).read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().context("a picture too large")?];
    let info = reader.next_frame(&mut pixels)?;
    let ink = pixels.iter().filter(|&&v| v < 128).count();
    anyhow::ensure!(ink > 10_000, "the picture is empty");
    Ok([info.width, info.height])
}

#[test]
fn by_default_a_png_of_the_first_puzzle() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = ok(&mut on_golden(folder.path()))?.stdout;
    assert!(text.contains("Sudoku 0: ") && text.contains("picture: trajectory.png"), "{text}");
    assert!(text.contains("--index chooses another"), "{text}");
    assert_eq!(png_size(&folder.path().join("trajectory.png"))?, [2400, 1620]);
    assert_eq!(names(folder.path())?, ["trajectory.png"], "no temporary file stays");
    Ok(())
}

#[test]
fn an_svg_holds_its_texts_and_the_json_the_facts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = on_golden(folder.path());
    command.args(["--index", "3", "-o", "three.svg", "--dtype", "f32", "--json", "-"]);
    let report: Value = serde_json::from_str(&ok(&mut command)?.stdout)?;
    let title = report["title"].as_str().context("title")?;
    assert!(title.starts_with("Sudoku 3: "), "{title}");
    let svg = fs::read_to_string(folder.path().join("three.svg"))?;
    assert!(svg.starts_with("<svg width=\"1200\" height=\"810\" viewBox=\"0 0 4800 3240\""), "{}", &svg[..120]);
    assert!(svg.trim_end().ends_with("</svg>"));
    for text in [title, "PC1 (", "of the variance)", "segment", "start", "sans-serif"] {
        assert!(svg.contains(text), "{text:?} is missing");
    }

    assert_eq!(report["h_cycles"], 2);
    assert_eq!(report["points"].as_array().context("points")?.len(), 32);
    let segments = report["segments"].as_array().context("segments")?;
    assert_eq!(segments.len(), 16);
    // golden/e2e: this checkpoint gets puzzle 3 exactly right in the last segment, and says halt there.
    assert_eq!(report["solved"], true);
    assert_eq!(segments[15]["cells_right"], 81);
    assert_eq!(segments[15]["wants_halt"], true);
    let first = segments.iter().position(|s| s["solved"] == true).context("solved")? + 1;
    assert_eq!(report["first_solved_segment"], first);
    assert!(title.contains(&format!("first right at segment {first} of 16")), "{title}");
    Ok(())
}

/// Same bytes where no font of the system can be found: the text comes from the binary.
#[test]
fn no_font_of_the_system_is_needed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    ok(on_golden(folder.path()).args(["-o", "with.png"]))?;
    let nowhere = folder.path().join("nowhere");
    let bare = ["HOME", "XDG_DATA_HOME", "XDG_DATA_DIRS", "XDG_CONFIG_HOME", "FONTCONFIG_PATH", "FONTCONFIG_FILE"];
    let mut command = on_golden(folder.path());
    for variable in bare {
        command.env(variable, &nowhere);
    }
    ok(command.args(["-o", "without.png"]))?;
    assert!(fs::read(folder.path().join("with.png"))? == fs::read(folder.path().join("without.png"))?);
    Ok(())
}

#[test]
fn a_typed_puzzle_is_solved_to_mark_the_answer() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = ok(trajectory(folder.path()).args(["--puzzle", PUZZLE, "--json", "-", "-o", "p.svg"]))?;
    let report: Value = serde_json::from_str(&output.stdout)?;
    assert!(report["title"].as_str().context("title")?.starts_with("Your Sudoku: "), "{report}");
    let solution = report["solution"].as_array().context("solution")?;
    assert_eq!(solution[..9], [6, 4, 5, 7, 8, 9, 10, 2, 3].map(Value::from), "534678912 as tokens");

    let open = ".".repeat(81);
    let output = ok(trajectory(folder.path()).args(["--puzzle", &open, "--json", "-", "-o", "open.svg"]))?;
    assert!(output.stderr.contains("more than one solution"), "{}", output.stderr);
    let report: Value = serde_json::from_str(&output.stdout)?;
    assert_eq!(report["solution"], Value::Null);
    let svg = fs::read_to_string(folder.path().join("open.svg"))?;
    assert!(svg.contains("filled in") && svg.contains("Blanks and broken rules"));
    Ok(())
}

#[test]
fn bad_input_is_refused_and_leaves_no_picture() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let short = &PUZZLE[1..];
    let letter = PUZZLE.replacen('.', "x", 1);
    let clash = format!("55{}", ".".repeat(79));
    let mazes = golden("dataset/maze_noaug").display().to_string();
    for (flags, wanted) in [
        (vec!["--puzzle", short], "80 cells"),
        (vec!["--puzzle", &letter], "row 1, column 3"),
        (vec!["--puzzle", &clash], "twice in row 1"),
        (vec!["--puzzle", PUZZLE, "--index", "1"], "cannot be used with"),
        (vec!["--index", "2000"], "give 0 to 1999"),
        (vec!["--index", "x"], "--index"),
        (vec!["--data-path", &mazes], "another kind of puzzle"),
        (vec!["--data-path", "nowhere"], "hrm build-dataset"),
        (vec!["-o", "picture.jpg"], "must end in .png or .svg"),
        (vec!["-o", "nowhere/picture.png"], "there is no folder nowhere"),
    ] {
        let text = fails(trajectory(folder.path()).args(&flags))?;
        assert!(text.contains(wanted), "{flags:?}: {text}");
    }
    assert_eq!(names(folder.path())?, Vec::<String>::new());
    Ok(())
}

#[test]
fn visualize_is_another_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let help = ok(hrm(folder.path()).args(["visualize", "trajectory", "--help"]))?.stdout;
    assert!(help.contains("--puzzle") && help.contains("Examples:"), "{help}");
    Ok(())
}
