//! `hrm analyze stability`.

use anyhow::Result;

use crate::{
    analysis::stability::Blanks,
    cli::{
        GlobalArgs,
        args::{
            output::OutputArgs,
            puzzles::{RunArgs, SeveralArgs},
        },
        table::{Table, cells},
        ui::Ui,
        watch::StudyWatch,
        work::foretell_runs,
    },
    say,
    study::{
        between, percent,
        stability::{FILES, StabilityPlan, StableCheckpoint},
    },
};

/// Segments that are run unless asked otherwise: three times the recipe's number.
const SEGMENTS: u32 = 48;

const DETAILS: &str = "\
If the model had reached a fixed point, a right answer would stay. Puzzles with few blanks, made from the solutions of the \
test set's first rows by blanking --blanks cells each (seeded; `row` is the nine cells of one random row), are run for \
--segments (48) segments, far beyond the model's own number. Counted for each number of blanks:

  right       right after the model's own last segment (arch.halt_max_steps), and after the last segment run
  reached     right at some segment
  left again  of those reached, wrong at any later segment; also by the model's own last segment
  fixed       runs in which z_H and z_L were, bit by bit, those of the segment before
  cycles      runs in which they were those of 2 to 4 segments before

The state's motion |Δz_H|/|z_H| is shown by segment (median and quartiles) for the runs that stay right, that leave, and \
that never get right. Several checkpoints, e.g. vanilla and hint, share one table and one picture.

Files in --output-dir: stability.png, stability.json, runs-K.jsonl with every run of checkpoint K.

Examples:
  hrm analyze stability
  hrm analyze stability --checkpoints runs/vanilla,runs/hint --per-k 200 --blanks 0,1,2,5,row,18,36";

/// Are right answers fixed points: puzzles with k blanks, how often solved, how often left again
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm analyze stability --per-k 200    (--help has the details)")]
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

pub fn run(args: &StabilityArgs, global: &GlobalArgs) -> Result<()> {
    let ui = args.output.ui();
    let (checkpoints, puzzles) = args.several.open(&ui, args.run.model.weights)?;
    let plan = StabilityPlan {
        blanks: args.blanks.clone(),
        per_k: usize::try_from(args.per_k)?,
        segments: usize::try_from(args.run.segments.unwrap_or(SEGMENTS))?,
        batch_size: args.run.batch_size,
        seed: global.seed.unwrap_or(0),
    };
    let made = plan.make_puzzles(&puzzles)?;
    if made.per_k < plan.per_k {
        say!(ui, "fewer solutions than asked for: the {} of {}", made.per_k, puzzles.origin);
    }
    let runtime = global.init()?;
    let subjects = args.run.load_all(checkpoints, &puzzles, runtime)?;
    foretell_runs(&ui, &subjects, Some(u32::try_from(plan.segments)?), made.per_k * plan.blanks.len())?;
    let output = args.output.open(FILES)?;
    let watch = StudyWatch::new(&ui);
    let found = plan.run(&made, &subjects, &output, &watch)?;
    print_table(&ui, &found, plan.segments);
    print_motions(&ui, &found, plan.segments);
    let (report, file) = plan.write(&made, &subjects, found, &output)?;
    say!(ui, "picture: {}", report.pictures.join(", "));
    say!(ui, "data: {file}");
    ui.emit(&report)
}

/// All checkpoints in one table, side by side at each number of blanks.
fn print_table(ui: &Ui, found: &[StableCheckpoint], segments: usize) {
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

fn print_motions(ui: &Ui, found: &[StableCheckpoint], segments: usize) {
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
