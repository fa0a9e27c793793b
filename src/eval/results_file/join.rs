//! Joining the parts of a run.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use super::{Header, Line, StoredResults, read};
use crate::journal;

/// Joins the files of a run's shards.
///
/// # Errors
/// Files of different runs, or that contradict each other; puzzles that are missing, or are in none of the files.
pub fn join(paths: &[PathBuf]) -> Result<StoredResults> {
    let (first, others) = paths.split_first().context("no results file was named")?;
    let mut whole = read(first)?;
    let mut ranges = vec![(whole.puzzles.clone(), first)];
    for path in others {
        let (part, lines) = journal::read::<Header, Line>(path)?;
        if let Some(difference) = whole.run.difference(&part.run)? {
            let (key, [found, wanted]) = (&difference.at, difference.values());
            bail!(
                "{}: its {key} is {found}, but {} has {wanted}: they are from different runs",
                path.display(),
                first.display()
            );
        }
        let puzzles = part.first..part.end;
        whole.add(path, &puzzles, lines)?;
        ranges.push((puzzles, path));
    }
    ranges.sort_by_key(|(range, _)| (range.start, range.end));
    let mut reached = 0;
    for (range, path) in &ranges {
        ensure!(
            range.start <= reached,
            "puzzles {reached} to {} of {} are in none of the files; the next is {}",
            range.start - 1,
            whole.run.puzzles,
            path.display()
        );
        reached = reached.max(range.end);
    }
    ensure!(
        reached == whole.run.puzzles,
        "puzzles {reached} to {} are in none of the files",
        whole.run.puzzles.saturating_sub(1)
    );
    let (all, stop) = (whole.run.shape.passes(), whole.run.shape.stop);
    let done = |p: &usize| whole.records.get(p).is_some_and(|r| r.is_complete(all, stop));
    if let Some(missing) = (0..whole.run.puzzles).find(|p| !done(p)) {
        let file = ranges.iter().find(|(range, _)| range.contains(&missing));
        let name = file.map_or_else(|| first.display(), |(_, path)| path.display());
        let left = whole.run.puzzles - whole.records.keys().filter(|p| done(p)).count();
        bail!("{name}: {left} puzzles are not done, the first is {missing}: finish it with --resume, then merge");
    }
    whole.puzzles = 0..whole.run.puzzles;
    whole.complete = true;
    Ok(whole)
}
