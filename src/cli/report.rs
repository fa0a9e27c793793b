//! `hrm report`.

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{
    GlobalArgs,
    analyze::many::{Count, RunArgs, SeveralArgs, between, items, percent, run_items},
    sources::device_name,
    study::OutputArgs,
    table::Table,
    viz::{short_names, weights_name},
};
use crate::{
    analysis::{
        identity::PuzzlesIdentity,
        modes::{Criteria, Mode, ModesSummary, classify, count_modes},
        runs::{Item, PuzzleRun},
        segments::{SegmentsSummary, summarise},
        trajectory::trace_puzzle,
    },
    checkpoint::Checkpoint,
    eval::stats::wilson,
    model::Model,
    say,
    signals::stop_flag,
    store::write_bytes,
    viz::{
        PictureFormat,
        canvas::render,
        chart::Words,
        modes::ModesPicture,
        report::{ExplorerModel, ExplorerPuzzle, Figure, Report},
        segments::SegmentsPicture,
    },
};

const DETAILS: &str = "\
Runs every checkpoint on the first --count test puzzles and writes one HTML file that anybody can open: a table of \
accuracies and modes (see `hrm analyze modes`), the pictures of `hrm analyze segments` and `modes`, and an explorer: pick a \
puzzle, slide through the segments, see the board (given, right, wrong, changed, confidence), the path of the hidden state \
and the losses. The file holds all of it and loads nothing.

The explorer has --explore puzzles a checkpoint, drawn from the modes in turn, so that successes and failures are both \
among them.

Files in --output-dir: report.html, and runs-K.jsonl with every run of checkpoint K (for --resume).

Examples:
  hrm report --checkpoint runs/a
  hrm report --checkpoints runs/vanilla,runs/hint --count 500 --explore 40 --output-dir compare";

/// Write a report that anybody can open: one HTML file with an explorer
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm report --checkpoint runs/a    (--help tells more)")]
pub struct ReportArgs {
    #[command(flatten)]
    several: SeveralArgs,
    /// How many test puzzles; with --resume also more or fewer than the folder has
    #[arg(long, value_name = "N|all", default_value = "200")]
    count: Count,
    /// Puzzles in the explorer, for each checkpoint
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=500))]
    explore: u32,
    /// The page's title
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Document {
    title: String,
    file: String,
    bytes: usize,
    data: String,
    checkpoints: Vec<OfCheckpoint>,
}

#[derive(Serialize)]
struct OfCheckpoint {
    path: String,
    step: Option<u64>,
    segments: SegmentsSummary,
    modes: ModesSummary,
}

pub fn run(args: ReportArgs, global: &GlobalArgs) -> Result<()> {
    let ui = args.output.ui();
    let (checkpoints, puzzles) = args.several.open(&ui, args.run.weights)?;
    let items = items(&puzzles, 0, args.count)?;
    let runtime = global.init()?;
    let load = |checkpoint| args.run.load(checkpoint, &puzzles, runtime.device);
    let models: Vec<Model> = checkpoints.iter().map(load).collect::<Result<_>>()?;
    let output = args.output.open("report")?;
    let stop = stop_flag("stopping after this batch");
    let asked = PuzzlesIdentity::Rows { data: puzzles.identity()?, first: 0 };

    let mut report = Report {
        title: args.title.unwrap_or_else(|| "How it reasons".to_owned()),
        subtitle: format!("{} {} puzzles of {}", items.len(), puzzles.geometry, puzzles.origin),
        columns: vec!["".to_owned()],
        rows: measures().into_iter().map(|m| vec![m]).collect(),
        note: note(),
        figures: Vec::new(),
        footer: String::new(),
        models: Vec::new(),
    };
    let names = short_names(&checkpoints);
    let mut found = Vec::new();
    for (k, (checkpoint, model)) in checkpoints.iter().zip(&models).enumerate() {
        let (name, path) = (names[k].clone(), weights_name(checkpoint));
        say!(ui, "checkpoint {}: {path}", k + 1);
        let file = format!("runs-{}.jsonl", k + 1);
        let runs = run_items(&ui, model, checkpoint, &items, &args.run, &output, &file, &asked, &stop)?;
        ensure!(!runs.is_empty(), "{}: no puzzles", puzzles.origin);
        let segments = summarise(&runs, global.seed.unwrap_or(0));
        let modes = count_modes(&runs, &Criteria::default());
        report.columns.push(name.clone());
        let values = values(model, checkpoint, &runs, &segments, &modes);
        report.rows.iter_mut().zip(values).for_each(|(row, value)| row.push(value));
        let sources = format!("Puzzles: {} of {} · Weights: {path}", items.len(), puzzles.origin);
        report.figures.extend(figures(&name, &runs, &segments, &modes, &sources)?);
        let chosen = explored(&items, &runs, args.explore as usize);
        let bar = ui.progress(chosen.len() as u64, "explore", "puzzles");
        let mut of_model = Vec::with_capacity(chosen.len());
        for (item, run) in chosen {
            of_model.push(explorer_puzzle(model, item, run)?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        report.models.push(ExplorerModel { name: name.clone(), puzzles: of_model });
        found.push(OfCheckpoint {
            path: checkpoint.path.display().to_string(),
            step: checkpoint.step,
            segments,
            modes,
        });
    }
    report.footer = format!(
        "Written by hrm {} on {}, {}; the weights, the data and the criteria are named above.",
        env!("CARGO_PKG_VERSION"),
        device_name(runtime.device),
        models[0].config().forward_dtype.short_name()
    );
    let page = report.render()?;
    let path = output.path("report.html");
    write_bytes(&path, page.as_bytes())?;
    let mut table = Table::new(&[0]);
    report.rows.iter().for_each(|row| table.row(row));
    table.print(&ui);
    say!(ui, "report: {} ({:.2} MB), open it in any browser", path.display(), page.len() as f64 / 1e6);
    ui.emit(&Document {
        title: report.title,
        file: path.display().to_string(),
        bytes: page.len(),
        data: puzzles.origin.clone(),
        checkpoints: found,
    })
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
    let of_last = |value: fn(&crate::analysis::segments::SegmentMean) -> f64| last.map_or(f64::NAN, value);
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
fn explored<'a>(items: &'a [Item], runs: &'a [PuzzleRun], count: usize) -> Vec<(&'a Item, &'a PuzzleRun)> {
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

fn explorer_puzzle(model: &Model, item: &Item, run: &PuzzleRun) -> Result<ExplorerPuzzle> {
    let mode = classify(run, &Criteria::default());
    let name = format!("{}: {}, {} cells open", item.name(), mode.name(), item.open_cells());
    Ok(ExplorerPuzzle::new(name, &trace_puzzle(model, &item.watched())?))
}
