//! The study of segments: means beside single puzzles, and when each is solved.

use anyhow::Result;
use ndarray::Array2;
use serde::Serialize;

use super::{
    Files,
    runs::{Head, RunPuzzles},
};
use crate::{
    analysis::{runs::PuzzleRun, segments::SegmentsSummary},
    viz::{chart::Words, segments::SegmentsPicture},
};

/// What it writes.
pub const FILES: Files = Files {
    folder: "analysis/segments",
    journal: Some("runs.jsonl"),
    pictures: &["segments"],
    others: &["loss.npy", "exact.npy", "q_halt.npy", "q_continue.npy", "move_h.npy", "move_l.npy", "segments.json"],
};

/// The document of `hrm analyze segments`.
#[derive(Debug, Serialize)]
pub struct SegmentsReport<'a> {
    #[serde(flatten)]
    pub head: Head,
    #[serde(flatten)]
    summary: &'a SegmentsSummary,
    /// By puzzle, in order; null where the last answer is wrong.
    grokked_at: Vec<Option<usize>>,
}

/// Draws the picture and writes the arrays and `segments.json`; returns the document and its file.
///
/// # Errors
/// Those of the file system and of drawing, as in all studies.
pub fn write<'a>(study: &RunPuzzles, summary: &'a SegmentsSummary) -> Result<(SegmentsReport<'a>, String)> {
    let solved = summary.puzzles - summary.grokking.never;
    let title = match summary.grokking.jump() {
        Some([own, of_mean]) => format!(
            "One segment carries {:.0} % of a solved puzzle's fall of the loss, {:.0} % of their mean's",
            100.0 * own,
            100.0 * of_mean
        ),
        None => format!("{solved} of {} puzzles are right at the end, none later than at segment 1", summary.puzzles),
    };
    let words = Words {
        title: title.clone(),
        subtitle: format!(
            "{} puzzles, {} segments each; {solved} are right at the end",
            summary.puzzles,
            summary.segments.len()
        ),
        sources: study.sources(),
    };
    let pictures = study.output.picture("segments", &SegmentsPicture { words, runs: &study.runs, summary })?;
    let report = SegmentsReport {
        head: study.head(&title, pictures, arrays(study)?),
        summary,
        grokked_at: study.runs.iter().map(PuzzleRun::right_for_good).collect(),
    };
    let file = study.output.json("segments.json", &report)?;
    Ok((report, file))
}

/// Every puzzle's numbers as matrices `[puzzles, segments]`.
fn arrays(study: &RunPuzzles) -> Result<Vec<String>> {
    let RunPuzzles { runs, output, .. } = study;
    let shape = (runs.len(), runs.first().map_or(0, PuzzleRun::segments));
    let floats = |of: fn(&PuzzleRun) -> &Vec<f32>| Array2::from_shape_fn(shape, |(p, k)| of(&runs[p])[k]);
    Ok(vec![
        output.array("loss", &Array2::from_shape_fn(shape, |(p, k)| runs[p].loss[k]))?,
        output.array("exact", &Array2::from_shape_fn(shape, |(p, k)| runs[p].exact(k + 1)))?,
        output.array("q_halt", &floats(|r| &r.q_halt))?,
        output.array("q_continue", &floats(|r| &r.q_continue))?,
        output.array("move_h", &floats(|r| &r.move_h))?,
        output.array("move_l", &floats(|r| &r.move_l))?,
    ])
}
