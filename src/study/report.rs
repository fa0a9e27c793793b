//! The report of several checkpoints: one HTML file with tables, pictures and an explorer of puzzles.

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{Files, StudyFolder, Watcher, between, percent, runs::RunsPlan};
use crate::{
    analysis::{
        identity::PuzzlesIdentity,
        modes::{Criteria, Mode, ModesSummary, classify, count_modes},
        runs::PuzzleRun,
        segments::{SegmentMean, SegmentsSummary, summarise},
        trajectory::trace_puzzle,
    },
    checkpoint::{Checkpoint, short_names, weights_name},
    eval::{stats::wilson, test_puzzles::TestPuzzles},
    model::Model,
    puzzle::Puzzle,
    runtime::device_name,
    store::write_bytes,
    viz::{
        PictureFormat,
        canvas::render,
        chart::Words,
        modes::ModesPicture,
        report::{ExplorerModel, ExplorerPuzzle, Figure, ReportPage},
        segments::SegmentsPicture,
    },
};

/// What it writes.
pub const FILES: Files =
    Files { folder: "report", journal: Some("runs-1.jsonl"), pictures: &[], others: &["report.html"] };

/// What to report.
#[derive(Clone, Debug)]
pub struct ReportPlan {
    pub title: String,
    /// Puzzles in the explorer, for each checkpoint.
    pub explore: usize,
    /// Segments of every run; none for the model's own.
    pub segments: Option<usize>,
    /// Puzzles per batch.
    pub batch_size: Option<u64>,
    /// Of the intervals.
    pub seed: u64,
}

/// The document of `hrm report`.
#[derive(Debug, Serialize)]
pub struct ReportDocument {
    title: String,
    pub file: String,
    pub bytes: usize,
    data: String,
    checkpoints: Vec<ReportedCheckpoint>,
}

#[derive(Debug, Serialize)]
struct ReportedCheckpoint {
    path: String,
    step: Option<u64>,
    segments: SegmentsSummary,
    modes: ModesSummary,
}

impl ReportPlan {
    /// Runs the puzzles with every checkpoint and writes `report.html`; returns the document and the table's rows.
    ///
    /// # Errors
    /// Those of [`RunsPlan::run`] and of drawing; no puzzles.
    pub fn run(
        self,
        puzzles: &TestPuzzles,
        items: &[Puzzle],
        subjects: &[(Checkpoint, Model)],
        output: &StudyFolder,
        watcher: &dyn Watcher,
    ) -> Result<(ReportDocument, Vec<Vec<String>>)> {
        ensure!(!items.is_empty(), "{}: no puzzles", puzzles.origin);
        let mut report = ReportPage {
            title: self.title.clone(),
            subtitle: format!("{} {} puzzles of {}", items.len(), puzzles.geometry, puzzles.origin),
            columns: vec!["".to_owned()],
            rows: measures().into_iter().map(|m| vec![m]).collect(),
            note: note(),
            figures: Vec::new(),
            footer: subjects.first().map_or_else(String::new, |(_, model)| footer(model)),
            models: Vec::new(),
        };
        let checkpoints: Vec<&Checkpoint> = subjects.iter().map(|(checkpoint, _)| checkpoint).collect();
        let names = short_names(&checkpoints);
        let asked = PuzzlesIdentity::Rows { data: puzzles.identity()?, first: 0 };
        let mut found = Vec::new();
        for (k, (checkpoint, model)) in subjects.iter().enumerate() {
            let (name, path) = (&names[k], weights_name(checkpoint));
            watcher.line(format_args!("checkpoint {}: {path}", k + 1));
            let plan = RunsPlan {
                checkpoint,
                model,
                items,
                puzzles: &asked,
                segments: self.segments.map_or_else(|| usize::try_from(model.config().halt_max_steps), Ok)?,
                batch_size: super::batch_size(self.batch_size, model),
                file: &format!("runs-{}.jsonl", k + 1),
            };
            let runs = plan.run(output, watcher)?;
            let segments = summarise(&runs, self.seed);
            let modes = count_modes(&runs, &Criteria::default());
            report.columns.push(name.clone());
            let values = values(model, checkpoint, &runs, &segments, &modes);
            report.rows.iter_mut().zip(values).for_each(|(row, value)| row.push(value));
            let sources = format!("Puzzles: {} of {} · Weights: {path}", items.len(), puzzles.origin);
            report.figures.extend(figures(name, &runs, &segments, &modes, &sources)?);
            let puzzles = self.explorer(model, items, &runs, watcher)?;
            report.models.push(ExplorerModel { name: name.clone(), puzzles });
            found.push(ReportedCheckpoint {
                path: checkpoint.path.display().to_string(),
                step: checkpoint.step,
                segments,
                modes,
            });
        }
        let page = report.render()?;
        let path = output.path("report.html");
        write_bytes(&path, output.of_files(), page.as_bytes())?;
        let document = ReportDocument {
            title: self.title,
            file: path.display().to_string(),
            bytes: page.len(),
            data: puzzles.origin.clone(),
            checkpoints: found,
        };
        Ok((document, report.rows))
    }

    fn explorer(
        &self,
        model: &Model,
        items: &[Puzzle],
        runs: &[PuzzleRun],
        watcher: &dyn Watcher,
    ) -> Result<Vec<ExplorerPuzzle>> {
        let chosen = explored(items, runs, self.explore);
        let bar = watcher.bar(chosen.len(), "explore", "puzzles");
        let mut puzzles = Vec::with_capacity(chosen.len());
        for (item, run) in chosen {
            puzzles.push(explorer_puzzle(model, item, run)?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(puzzles)
    }
}

fn footer(model: &Model) -> String {
    format!(
        "Written by hrm {} on {}, {}; the weights, the data and the criteria are named above.",
        env!("CARGO_PKG_VERSION"),
        device_name(model.device()),
        model.config().forward_dtype.short_name()
    )
}

/// The table's rows.
fn measures() -> Vec<String> {
    let first =
        ["parameters", "segments", "exact", "exact, 95 % interval", "cells right", "loss per cell", "q says halt"];
    first.into_iter().chain(Mode::ALL.map(Mode::name)).map(str::to_owned).collect()
}

fn note() -> String {
    let c = Criteria::default();
    format!(
        "Exact: every cell right after the last segment. Trivial success: right for good from segment {} or earlier. \
         Non-trivial failure: settled on a wrong answer, the same over the last {} segments; trivial failure: still \
         changing.",
        c.quick, c.window
    )
}

/// A checkpoint's column, in the order of [`measures`].
fn values(
    model: &Model,
    checkpoint: &Checkpoint,
    runs: &[PuzzleRun],
    segments: &SegmentsSummary,
    modes: &ModesSummary,
) -> Vec<String> {
    let parameters: usize = checkpoint.tensors.iter().map(|(_, t)| t.shape.iter().product::<usize>()).sum();
    let exact = runs.iter().filter(|r| r.solved()).count();
    let last = segments.segments.last();
    let of_last = |value: fn(&SegmentMean) -> f64| last.map_or(f64::NAN, value);
    let size = if parameters >= 1_000_000 {
        format!("{:.1}M", parameters as f64 / 1e6)
    } else {
        format!("{:.0}k", parameters as f64 / 1e3)
    };
    let mut column = vec![
        size,
        model.config().halt_max_steps.to_string(),
        percent(exact as f64 / runs.len() as f64),
        between(&wilson(exact as u64, runs.len() as u64)),
        percent(of_last(|s| s.cells)),
        format!("{:.4}", of_last(|s| s.loss)),
        percent(of_last(|s| s.halts)),
    ];
    column.extend(modes.modes.iter().map(|m| format!("{} ({})", percent(m.share), m.count)));
    column
}

fn figures(
    name: &str,
    runs: &[PuzzleRun],
    segments: &SegmentsSummary,
    modes: &ModesSummary,
    sources: &str,
) -> Result<Vec<Figure>> {
    let solved = runs.iter().filter(|r| r.solved()).count();
    let words = |title: String, subtitle: String| Words { title, subtitle, sources: sources.to_owned() };
    let first = SegmentsPicture {
        words: words(
            format!("{solved} of {} puzzles are right at the end", runs.len()),
            format!("{} segments each", segments.segments.len()),
        ),
        runs,
        summary: segments,
    };
    let failures = runs.len() - solved;
    let second = ModesPicture {
        words: words(
            format!("{failures} of {} puzzles fail, {} settle on a wrong answer", runs.len(), modes.modes[3].count),
            format!("Settled: the same answer over the last {} segments", modes.criteria.window),
        ),
        runs,
        summary: modes,
    };
    let curve: Vec<String> = segments.segments.iter().map(|s| format!("{}: {:.3}", s.segment, s.loss)).collect();
    let counts: Vec<String> = modes.modes.iter().map(|m| format!("{} {}", m.mode.name(), m.count)).collect();
    Ok(vec![
        Figure {
            heading: format!("Segments: {name}"),
            caption: "The loss of single puzzles and of their mean; when puzzles become right for good.".to_owned(),
            description: format!("Mean loss by segment: {}. Solved: {solved} of {}.", curve.join(", "), runs.len()),
            picture: render(&first, PictureFormat::Png)?,
        },
        Figure {
            heading: format!("How runs end: {name}"),
            caption: "Shares of the four modes with 95 % intervals, and wrong cells by segment in each.".to_owned(),
            description: format!("Runs by mode: {}.", counts.join(", ")),
            picture: render(&second, PictureFormat::Png)?,
        },
    ])
}

/// Puzzles for the explorer: of each mode in turn, in the order of the rows.
fn explored<'a>(items: &'a [Puzzle], runs: &'a [PuzzleRun], count: usize) -> Vec<(&'a Puzzle, &'a PuzzleRun)> {
    let criteria = Criteria::default();
    let of_mode = |mode: Mode| items.iter().zip(runs).filter(move |(_, run)| classify(run, &criteria) == mode);
    let mut queues = Mode::ALL.map(|mode| of_mode(mode).collect::<Vec<_>>().into_iter());
    let mut chosen = Vec::new();
    // Successes that took several segments are the most telling, so they come first.
    let order = [1, 3, 2, 0];
    while chosen.len() < count {
        let before = chosen.len();
        for k in order {
            if chosen.len() < count {
                chosen.extend(queues[k].next());
            }
        }
        if chosen.len() == before {
            break;
        }
    }
    chosen
}

fn explorer_puzzle(model: &Model, item: &Puzzle, run: &PuzzleRun) -> Result<ExplorerPuzzle> {
    let mode = classify(run, &Criteria::default());
    let name = format!("{}: {}, {} cells open", item.title(), mode.name(), item.open_cells());
    Ok(ExplorerPuzzle::new(name, &trace_puzzle(model, item)?))
}
