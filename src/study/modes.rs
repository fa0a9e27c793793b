//! The study of modes: how runs end, by written criteria.

use anyhow::Result;
use serde::Serialize;

use super::{
    Files, percent,
    runs::{Head, RunPuzzles},
};
use crate::{
    analysis::{modes::ModesSummary, runs::PuzzleRun, trajectory::trace_puzzle},
    viz::{chart::Words, modes::ModesPicture, trajectory::TrajectoryPicture},
};

/// What it writes.
pub const FILES: Files = Files {
    folder: "analysis/modes",
    journal: Some("runs.jsonl"),
    pictures: &[
        "modes",
        "mode-trivial-success",
        "mode-non-trivial-success",
        "mode-trivial-failure",
        "mode-non-trivial-failure",
    ],
    others: &["modes.json"],
};

/// The document of `hrm analyze modes`.
#[derive(Debug, Serialize)]
pub struct ModesReport<'a> {
    #[serde(flatten)]
    pub head: Head,
    segments: usize,
    #[serde(flatten)]
    summary: &'a ModesSummary,
}

/// Draws the picture of all runs and one of a run of each mode, and writes `modes.json`; returns the document and its
/// file.
pub fn write<'a>(study: &RunPuzzles, summary: &'a ModesSummary) -> Result<(ModesReport<'a>, String)> {
    let criteria = &summary.criteria;
    let segments = study.runs.first().map_or(0, PuzzleRun::segments);
    let title = format!(
        "{} of {} puzzles fail; {} of the failures settle on a wrong answer",
        summary.failures(),
        summary.puzzles,
        percent(summary.settled_of_failures)
    );
    let words = Words {
        title: title.clone(),
        subtitle: format!(
            "{segments} segments; trivial: right by segment {}; settled: same answer over {} segments, |Δz|/|z| ≤ {}",
            criteria.quick, criteria.window, criteria.still
        ),
        sources: study.sources(),
    };
    let mut pictures = study.output.picture("modes", &ModesPicture { words, runs: &study.runs, summary })?;
    for mode in &summary.modes {
        let Some(item) = mode.puzzles.first().and_then(|&p| study.items.iter().find(|i| i.index() == p)) else {
            continue;
        };
        let trajectory = trace_puzzle(&study.model, item)?;
        let picture = TrajectoryPicture {
            trajectory: &trajectory,
            puzzle_name: format!("{}, {}", mode.mode.name(), item.title()),
            sources: study.sources(),
        };
        let name = format!("mode-{}", mode.mode.name().replace(' ', "-"));
        pictures.extend(study.output.picture(&name, &picture)?);
    }
    let report = ModesReport { head: study.head(&title, pictures, Vec::new()), segments, summary };
    let file = study.output.json("modes.json", &report)?;
    Ok((report, file))
}
