//! `hrm analyze stability`.

use anyhow::{Result, ensure};
use serde::Serialize;

use super::many::{Count, RunArgs, SeveralArgs, between, items, percent, run_items};
use crate::{
    analysis::{
        identity::PuzzlesIdentity,
        runs::{Item, PuzzleRun},
        stability::{Blanks, Motion, StabilityRow, make_puzzles, motions, tabulate},
    },
    cli::{
        GlobalArgs,
        study::OutputArgs,
        table::{Table, cells},
        ui::Ui,
        viz::weights_name,
    },
    model::Model,
    puzzle::Geometry,
    say,
    signals::stop_flag,
    viz::{
        chart::Words,
        stability::{StabilityPicture, StabilitySeries},
    },
};

/// Segments that are run unless asked otherwise: three times the recipe's number.
const SEGMENTS: u32 = 48;

const DETAILS: &str = "\
If reasoning had found a fixed point, a right answer would stay. Puzzles with few blanks, made from the solutions of the \
test set's first rows by blanking --blanks cells each (seeded; `row` is the nine cells of one random row), are run for \
--segments (48) segments, far beyond the model's own number. Counted for each number of blanks:

  right       right after the model's own last segment (arch.halt_max_steps), and after the last segment run
  reached     right at some segment
  left again  of those reached, wrong at any later segment; also by the model's own last segment
  fixed       runs in which z_H and z_L were, bit by bit, those of the segment before
  cycles      runs in which they were those of 2 to 4 segments before

The state's motion |Δz_H|/|z_H| is shown by segment (median and quartiles) for the runs that stay right, leave, and never \
arrive. Several checkpoints, e.g. vanilla and hint, come into one table and one picture.

Files in --output-dir: stability.png, stability.json, runs-K.jsonl with every run of checkpoint K.

Examples:
  hrm analyze stability
  hrm analyze stability --checkpoints runs/vanilla,runs/hint --per-k 200 --blanks 0,1,2,5,row,18,36";

/// Are right answers fixed points: puzzles with k blanks, how often solved, how often left again
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm analyze stability --per-k 200    (--help tells more)")]
pub struct StabilityArgs {
    #[command(flatten)]
    several: SeveralArgs,
    /// Numbers of blank cells; `row` is one whole row
    #[arg(long, value_name = "K[,K...]", value_delimiter = ',', default_value = "0,1,2,5,row,18,27,36")]
    blanks: Vec<Blanks>,
    /// Puzzles for each number of blanks
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    per_k: u32,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Report {
    title: String,
    pictures: Vec<String>,
    data: String,
    puzzles_per_k: usize,
    segments: usize,
    seed: u64,
    checkpoints: Vec<OfCheckpoint>,
}

#[derive(Serialize)]
struct OfCheckpoint {
    path: String,
    step: Option<u64>,
    dtype: &'static str,
    own_segments: usize,
    rows: Vec<StabilityRow>,
    motions: Vec<Motion>,
}

pub fn run(args: &StabilityArgs, global: &GlobalArgs) -> Result<()> {
    let ui = args.output.ui();
    let mut seen = Vec::new();
    for blanks in &args.blanks {
        ensure!(!seen.contains(blanks), "--blanks: {blanks} is there twice");
        seen.push(*blanks);
    }
    let (checkpoints, puzzles) = args.several.open(&ui, args.run.weights)?;
    ensure!(
        puzzles.geometry == Geometry::SUDOKU,
        "{} holds {} puzzles, and blanks can be made in Sudokus only: give --data-path of Sudokus and checkpoints that know \
         them",
        puzzles.origin,
        puzzles.geometry
    );
    let wanted = usize::try_from(args.per_k)?;
    let solutions: Vec<Vec<u8>> =
        items(&puzzles, 0, Count::Rows(wanted))?.into_iter().map(|item| item.solution).collect();
    if solutions.len() < wanted {
        say!(ui, "fewer solutions than asked for: the {} of {}", solutions.len(), puzzles.origin);
    }
    let seed = global.seed.unwrap_or(0);
    let made: Vec<Vec<Item>> = args.blanks.iter().map(|&b| make_puzzles(&solutions, b, seed)).collect::<Result<_>>()?;
    let items: Vec<Item> = made.into_iter().flatten().collect();
    let run_args = RunArgs { segments: Some(args.run.segments.unwrap_or(SEGMENTS)), ..args.run.clone() };
    let segments = run_args.segments.map_or(0, |n| n as usize);

    let runtime = global.init()?;
    let load = |checkpoint| args.run.load(checkpoint, &puzzles, runtime.device);
    let models: Vec<Model> = checkpoints.iter().map(load).collect::<Result<_>>()?;
    let own: Vec<usize> =
        models.iter().map(|m| usize::try_from(m.config().halt_max_steps)).collect::<Result<_, _>>()?;
    let output = args.output.open("analysis/stability")?;
    let stop = stop_flag("stopping after this batch");
    let asked = PuzzlesIdentity::Blanks {
        data: puzzles.identity()?,
        per_k: solutions.len(),
        seed,
        blanks: args.blanks.iter().map(ToString::to_string).collect(),
    };
    let mut found = Vec::new();
    for (k, (checkpoint, model)) in checkpoints.iter().zip(&models).enumerate() {
        say!(ui, "checkpoint {}: {}", k + 1, weights_name(checkpoint));
        let name = format!("runs-{}.jsonl", k + 1);
        let runs = run_items(&ui, model, checkpoint, &items, &run_args, &output, &name, &asked, &stop)?;
        let at = own[k].min(segments);
        let rows = args
            .blanks
            .iter()
            .zip(runs.chunks(solutions.len()))
            .map(|(&blanks, runs)| tabulate(blanks, runs, at))
            .collect();
        let all: Vec<&PuzzleRun> = runs.iter().collect();
        found.push(OfCheckpoint {
            path: checkpoint.path.display().to_string(),
            step: checkpoint.step,
            dtype: model.config().forward_dtype.short_name(),
            own_segments: at,
            rows,
            motions: motions(&all),
        });
    }
    print_table(&ui, &found, segments);
    print_motions(&ui, &found, segments);
    let (left, reached) = left_of_reached(&found);
    let title = format!(
        "{:.0} % of the right answers are left again within {segments} segments; {} of {} runs reach a bitwise fixed point",
        100.0 * left / reached.max(1.0),
        found.iter().flat_map(|f| &f.rows).map(|r| r.fixed_points).sum::<usize>(),
        items.len() * found.len()
    );
    let words = Words {
        title: title.clone(),
        subtitle: format!(
            "{} puzzles for each number of blanks, made from real solutions, seed {seed}",
            solutions.len()
        ),
        sources: format!("Solutions: {}", puzzles.origin),
    };
    let picture = StabilityPicture {
        words,
        series: found
            .iter()
            .zip(&checkpoints)
            .enumerate()
            .map(|(k, (of, checkpoint))| StabilitySeries {
                name: format!("checkpoint {}: {}", k + 1, weights_name(checkpoint)),
                rows: &of.rows,
                motions: &of.motions,
            })
            .collect(),
        segments,
        own_segments: found.iter().map(|f| f.own_segments).max().unwrap_or(0),
    };
    let pictures = output.picture("stability", &picture)?;
    say!(ui, "picture: {}", pictures.join(", "));
    let report = Report {
        title,
        pictures,
        data: puzzles.origin.clone(),
        puzzles_per_k: solutions.len(),
        segments,
        seed,
        checkpoints: found,
    };
    say!(ui, "data: {}", output.json("stability.json", &report)?);
    ui.emit(&report)
}

/// Answers that were left again, and all that were reached, over everything.
fn left_of_reached(found: &[OfCheckpoint]) -> (f64, f64) {
    found.iter().flat_map(|f| &f.rows).fold((0.0, 0.0), |(left, reached), row| {
        let here = row.reached * row.puzzles as f64;
        (left + row.left * here, reached + here)
    })
}

/// All checkpoints in one table, side by side at each number of blanks.
fn print_table(ui: &Ui, found: &[OfCheckpoint], segments: usize) {
    let several = found.len() > 1;
    let own = match found {
        [first, rest @ ..] if rest.iter().all(|of| of.own_segments == first.own_segments) => {
            first.own_segments.to_string()
        }
        _ => "own".to_owned(),
    };
    say!(ui, "");
    let headings = [
        "blanks",
        "checkpoint",
        "puzzles",
        &format!("right@{own}"),
        "95 %",
        &format!("right@{segments}"),
        "reached",
        "left again",
        "95 %",
        &format!("left@{own}"),
        "fixed",
        "cycles",
    ];
    // Of a single checkpoint no number is told.
    let shown = |k: &usize| several || *k != 1;
    let mut table = Table::headed((0..headings.len()).filter(shown).map(|k| headings[k]), &[]);
    let lines = found.first().map_or(0, |of| of.rows.len());
    for (line, (k, of)) in (0..lines).flat_map(|line| found.iter().enumerate().map(move |of| (line, of))) {
        let row = &of.rows[line];
        let of_reached = |text: String| if row.reached > 0.0 { text } else { "-".to_owned() };
        let cells = cells![
            if k == 0 { row.blanks.to_string() } else { String::new() },
            k + 1,
            row.puzzles,
            percent(row.right_at),
            between(&row.right_at_interval),
            percent(row.right_at_end),
            percent(row.reached),
            of_reached(percent(row.left)),
            of_reached(between(&row.left_interval)),
            of_reached(percent(row.left_by_at)),
            row.fixed_points,
            row.cycles
        ];
        table.row((0..cells.len()).filter(shown).map(|k| &cells[k]));
    }
    table.print(ui);
}

fn print_motions(ui: &Ui, found: &[OfCheckpoint], segments: usize) {
    for (k, of) in found.iter().enumerate() {
        say!(ui, "");
        say!(ui, "checkpoint {}: {}", k + 1, of.path);
        for motion in of.motions.iter().filter(|m| m.puzzles > 0) {
            let at = |k: usize| motion.median.get(k.saturating_sub(1)).map(|median| format!("{median:.1e} at {k}"));
            let mut told = vec![2, of.own_segments, segments];
            told.dedup();
            say!(
                ui,
                "|dz|/|z| of those that {} ({}), median by segment: {}",
                motion.fate.name(),
                motion.puzzles,
                told.into_iter().filter_map(at).collect::<Vec<_>>().join(", ")
            );
        }
    }
    say!(ui, "");
}
