//! The seeds of the fuzz targets, through the same code: none may panic, and exactly the sound ones are read.

#[path = "../fuzz/drive.rs"]
mod drive;

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result};

#[test]
fn hostile_seeds_are_refused_and_sound_ones_read() -> Result<()> {
    type Target = fn(&[u8], &Path) -> bool;
    let targets: [(&str, Target, &[&str]); 10] = [
        ("puzzle_list", drive::puzzle_list, &["crlf_bom", "good", "good_gz", "maze", "quotes", "two_gz"]),
        ("array", drive::array, &["good", "int64", "rows", "rows_bad", "version_2"]),
        ("dataset_json", drive::dataset_json, &["good", "ignore_negative", "null_ignore", "twice"]),
        ("results", drive::results, &["damaged_middle", "good", "puzzles", "torn"]),
        (
            "journal",
            drive::journal,
            &["blank_lines", "crlf", "damaged", "good", "huge_number", "long_line", "not_utf8", "nul", "other", "torn"],
        ),
        (
            "metrics",
            drive::metrics,
            &[
                "array",
                "damaged",
                "deep",
                "empty",
                "good",
                "infinite",
                "key_twice",
                "not_utf8",
                "nul",
                "prefixes",
                "step_huge",
                "step_negative",
                "step_text",
                "torn",
                "twice",
            ],
        ),
        ("manifest", drive::manifest, &["good", "no_files"]),
        ("training_state", drive::training_state, &["good", "no_best", "of_an_earlier_version"]),
        ("safetensors", drive::safetensors, &["empty_dimension", "good", "int64", "nan", "no_tensors", "scalar_bool"]),
        ("torch_file", drive::torch_file, &["good", "strided", "two_of_one_storage"]),
    ];
    let mut wrong = Vec::new();
    for (name, target, sound) in targets {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
        let mut read = BTreeSet::new();
        let mut seeds = 0;
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let temp = tempfile::tempdir()?;
            if target(&fs::read(&path)?, temp.path()) {
                read.insert(path.file_name().context("a name")?.to_string_lossy().into_owned());
            }
            seeds += 1;
        }
        assert!(seeds >= 15, "{seeds} seeds for {name}");
        if !read.iter().eq(sound) {
            wrong.push((name, read));
        }
    }
    assert!(wrong.is_empty(), "other seeds were read than the sound ones: {wrong:?}");
    Ok(())
}
