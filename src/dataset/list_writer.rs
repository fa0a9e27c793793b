//! Writing puzzle lists.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::Result;
use flate2::{Compression, GzBuilder};

use super::{Generated, list_reader::COLUMNS};
use crate::store::{Existing, write_file};

/// Writes a list, gzipped where the name ends with `.gz`. The file appears when it is whole.
///
/// # Errors
/// As [`write_file`].
pub fn write_list(path: &Path, existing: Existing, source: &str, puzzles: &[Generated]) -> Result<()> {
    write_file(path, existing, |file| {
        let file = BufWriter::new(file);
        if path.extension().is_some_and(|extension| extension == "gz") {
            // Without a time stamp: the same puzzles give the same file.
            let mut gz = GzBuilder::new().mtime(0).write(file, Compression::best());
            write_rows(&mut gz, source, puzzles)?;
            flush(gz.finish()?)
        } else {
            let mut file = file;
            write_rows(&mut file, source, puzzles)?;
            flush(file)
        }
    })
}

fn flush(mut file: BufWriter<&mut File>) -> Result<()> {
    Ok(file.flush()?)
}

fn write_rows(out: &mut impl Write, source: &str, puzzles: &[Generated]) -> Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(COLUMNS)?;
    for puzzle in puzzles {
        csv.write_record([source, &puzzle.question, &puzzle.answer, &puzzle.rating.to_string()])?;
    }
    Ok(csv.flush()?)
}
