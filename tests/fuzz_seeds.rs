//! The seeds of the fuzz targets, through the same code: none may panic, and exactly the sound ones are read.

#[path = "../fuzz/drive.rs"]
mod drive;

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result};

#[test]
fn hostile_seeds_are_refused_and_sound_ones_read() -> Result<()> {
    type Target = fn(&[u8], &Path) -> bool;
    let targets: [(&str, Target, &[&str]); 3] = [
        ("puzzle_list", drive::puzzle_list, &["crlf_bom", "good", "good_gz", "maze", "quotes", "two_gz"]),
        ("array", drive::array, &["good", "int64", "rows", "rows_bad", "version_2"]),
        ("dataset_json", drive::dataset_json, &["good", "ignore_negative", "null_ignore", "twice"]),
    ];
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
        assert_eq!(read, sound.iter().map(|&name| name.to_owned()).collect(), "{name}");
    }
    Ok(())
}
