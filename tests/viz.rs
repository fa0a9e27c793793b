//! `hrm viz trajectory` through the binary, on upstream's tiny golden checkpoint.

mod common;

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use common::{golden, hrm, names, ok, snapshot::Transcript};
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
    let mut said = Transcript::new(folder.path()).measured().hide(r"\d+ of 81 cells", "N of 81 cells");
    said.ok(&mut on_golden(folder.path()))?;
    assert_eq!(png_size(&folder.path().join("trajectory.png"))?, [2400, 1620]);
    assert_eq!(names(folder.path())?, ["trajectory.png"], "no temporary file stays");
    said.matches("by_default_a_png_of_the_first_puzzle");
    Ok(())
}

#[test]
fn an_svg_holds_its_texts_and_the_json_the_facts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path()).measured();
    let mut command = on_golden(folder.path());
    command.args(["--index", "3", "-o", "three.svg", "--dtype", "f32", "--json", "-"]);
    let report: Value = serde_json::from_str(&ok(&mut command)?.stdout)?;
    let title = report["title"].as_str().context("title")?;
    let svg = fs::read_to_string(folder.path().join("three.svg"))?;
    assert!(svg.starts_with("<svg width=\"1200\" height=\"810\" viewBox=\"0 0 4800 3240\""), "{}", &svg[..120]);
    assert!(svg.trim_end().ends_with("</svg>") && svg.contains(title) && svg.contains("sans-serif"));
    said.add_svg(&folder.path().join("three.svg"))?;

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
    assert!(title.contains(&format!("{first} of 16")), "{title}");
    said.matches("an_svg_holds_its_texts_and_the_json_the_facts");
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
    let mut said = Transcript::new(folder.path()).measured();
    let output = ok(trajectory(folder.path()).args(["--puzzle", PUZZLE, "--json", "-", "-o", "p.svg"]))?;
    let report: Value = serde_json::from_str(&output.stdout)?;
    let solution = report["solution"].as_array().context("solution")?;
    assert_eq!(solution[..9], [6, 4, 5, 7, 8, 9, 10, 2, 3].map(Value::from), "534678912 as tokens");

    let open = ".".repeat(81);
    let output = said.ok(trajectory(folder.path()).args(["--puzzle", &open, "--json", "-", "-o", "open.svg"]))?;
    let report: Value = serde_json::from_str(&output.stdout)?;
    assert_eq!(report["solution"], Value::Null);
    said.add_svg(&folder.path().join("open.svg"))?;
    said.matches("a_typed_puzzle_is_solved_to_mark_the_answer");
    Ok(())
}

#[test]
fn bad_input_is_refused_and_leaves_no_picture() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path());
    let short = &PUZZLE[1..];
    let letter = PUZZLE.replacen('.', "x", 1);
    let clash = format!("55{}", ".".repeat(79));
    let mazes = golden("dataset/maze_noaug").display().to_string();
    for flags in [
        vec!["--puzzle", short],
        vec!["--puzzle", &letter],
        vec!["--puzzle", &clash],
        vec!["--puzzle", PUZZLE, "--index", "1"],
        vec!["--index", "2000"],
        vec!["--index", "x"],
        vec!["--data-path", &mazes],
        vec!["--data-path", "nowhere"],
        vec!["-o", "picture.jpg"],
        vec!["-o", "nowhere/picture.png"],
    ] {
        said.fails(trajectory(folder.path()).args(&flags))?;
    }
    assert_eq!(names(folder.path())?, Vec::<String>::new());
    said.matches("bad_input_is_refused_and_leaves_no_picture");
    Ok(())
}

#[test]
fn visualize_is_another_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Transcript::new(folder.path()).measured();
    said.ok(hrm(folder.path()).args(["visualize", "trajectory", "--help"]))?;
    said.matches("visualize_is_another_name");
    Ok(())
}
