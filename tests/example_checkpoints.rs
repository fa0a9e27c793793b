//! The checkpoints that lie in every clone: whole, described, and able to do what their cards and the README say.

mod common;

use std::{fs, path::Path};

use anyhow::{Context, Result};
use common::{hrm, json, names, ok};
use serde_json::Value;

const NAMES: [&str; 2] = ["sudoku-mini", "sudoku-mini-hint"];

/// Row 23 of the bundled test file: 51 guesses for a solver.
const PUZZLE: &str = "....24.6....9.....6...5.....8....9..9....3.7437.4..68.46....79..3.67..488....9...";
const SOLUTION: &str = "715324869243986517698751423184267935956813274372495681461538792539672148827149356";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_folders_are_whole_and_small() -> Result<()> {
    let mut bytes = 0;
    for name in NAMES {
        let folder = root().join("checkpoint_example").join(name);
        assert_eq!(
            names(&folder)?,
            ["README.md", "all_config.yaml", "meta.json", "metrics.jsonl", "model.safetensors"]
        );
        for file in names(&folder)? {
            bytes += fs::metadata(folder.join(file))?.len();
        }
        let lines = fs::read_to_string(folder.join("metrics.jsonl"))?;
        assert_eq!(lines.lines().count(), 1000, "{name}");
        let last: Value = serde_json::from_str(lines.lines().last().context("a line")?)?;
        let (meta, card) = (json(&folder.join("meta.json"))?, fs::read_to_string(folder.join("README.md"))?);
        assert_eq!((&meta["step"], &meta["weights"]), (&last["step"], &"ema".into()), "{name}");
        assert!(card.contains(meta["data_fingerprint"].as_str().context("data_fingerprint")?), "{name}");
        let shown = ok(hrm(root()).args(["checkpoint", "inspect", "--json", "-"]).arg(&folder))?;
        let shown: Value = serde_json::from_str(&shown.stdout)?;
        assert_eq!(shown["parameters"], 6_821_890, "{name}");
        assert_eq!(shown["tensors"][0]["dtype"], "bfloat16", "{name}");
    }
    assert!(bytes < 30_000_000, "{bytes} bytes");
    Ok(())
}

/// The README's first puzzle.
#[test]
fn the_readmes_puzzle_is_solved() -> Result<()> {
    let flags = "solve --dtype f32 --device cpu --threads 1 --json -";
    let output =
        ok(hrm(root()).args(flags.split(' ')).args(["--checkpoint", "checkpoint_example/sudoku-mini", PUZZLE]))?;
    let found: Value = serde_json::from_str(&output.stdout)?;
    let text = found.to_string();
    assert!(text.contains(SOLUTION) && text.contains("\"verified\":true"), "{text}");
    assert!(fs::read_to_string(root().join("README.md"))?.contains(PUZZLE));
    Ok(())
}
