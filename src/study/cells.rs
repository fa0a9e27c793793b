//! The study of cells: in which order they become right, and how sure the model is of them.

use std::cmp::Reverse;

use anyhow::{Result, anyhow};
use ndarray::Array2;
use serde::Serialize;

use super::{
    Files,
    runs::{Head, RunPuzzles},
};
use crate::{
    analysis::cells::{CellsSummary, right_from},
    viz::{
        cells::{CellOrder, CellsPicture},
        chart::Words,
    },
};

/// What it writes.
pub const FILES: Files = Files {
    folder: "analysis/cells",
    journal: Some("runs.jsonl"),
    pictures: &["cells"],
    others: &["right_from.npy", "cells.json"],
};

/// The document of `hrm analyze cells`.
#[derive(Debug, Serialize)]
pub struct CellsReport<'a> {
    #[serde(flatten)]
    pub head: Head,
    #[serde(flatten)]
    summary: &'a CellsSummary,
    /// The puzzle that is drawn.
    shown: usize,
    shown_right_from: Vec<Option<usize>>,
}

/// Draws the picture with the order of the puzzle in row `show` (else that which took longest), and writes the array and
/// `cells.json`; returns the document and its file.
///
/// # Errors
/// A row that was not run.
pub fn write<'a>(
    study: &RunPuzzles,
    summary: &'a CellsSummary,
    show: Option<usize>,
) -> Result<(CellsReport<'a>, String)> {
    let position = match show {
        Some(row) => study.items.iter().position(|i| i.index() == row).ok_or_else(|| {
            anyhow!("--show {row}: it is not among the puzzles that were run: choose with --first and --count")
        })?,
        None => {
            let key = |k: &usize| (study.runs[*k].right_for_good(), Reverse(*k));
            (0..study.runs.len()).max_by_key(key).unwrap_or(0)
        }
    };
    let (item, run) = (&study.items[position], &study.runs[position]);
    let right = |s: Option<&crate::analysis::cells::CellsAt>| 100.0 * s.map_or(0.0, |s| s.right);
    let title = format!(
        "{:.0} % of the open cells are right after segment 1, {:.0} % after segment {}",
        right(summary.by_segment.first()),
        right(summary.by_segment.last()),
        summary.by_segment.len()
    );
    let order = right_from(run, item);
    let picture = CellsPicture {
        words: Words {
            title: title.clone(),
            subtitle: format!("{} open cells of {} puzzles; givens are left out", summary.open_cells, summary.puzzles),
            sources: study.sources(),
        },
        summary,
        example: CellOrder { puzzle: item.clone(), right_from: order.clone() },
    };
    let pictures = study.output.picture("cells", &picture)?;
    let from: Vec<Vec<Option<usize>>> = study.runs.iter().zip(&study.items).map(|(r, i)| right_from(r, i)).collect();
    let from = Array2::from_shape_fn((from.len(), item.tokens().len()), |(puzzle, cell)| {
        from[puzzle][cell].and_then(|segment| i32::try_from(segment).ok()).unwrap_or(0)
    });
    let arrays = vec![study.output.array("right_from", &from)?];
    let report = CellsReport {
        head: study.head(&title, pictures, arrays),
        summary,
        shown: item.index(),
        shown_right_from: order,
    };
    let file = study.output.json("cells.json", &report)?;
    Ok((report, file))
}
