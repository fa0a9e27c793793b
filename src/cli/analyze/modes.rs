//! `hrm analyze modes`.

use anyhow::{Result, ensure};

use crate::{
    analysis::{
        modes::{Criteria, ModesSummary, count_modes},
        runs::PuzzleRun,
    },
    cli::{
        GlobalArgs,
        args::{output::OutputArgs, puzzles::ManyArgs},
        table::{Table, cells},
        ui::Ui,
    },
    say,
    study::{
        between,
        modes::{self, FILES},
        percent,
    },
};

const DETAILS: &str = "\
Every puzzle's run is put into one of the paper's four modes by these criteria:

  trivial success      right at the end, and right from segment --quick (3) or earlier on
  non-trivial success  right at the end, from a later segment on
  trivial failure      wrong at the end, and not settled: the answers keep changing or repeat with a period
  non-trivial failure  wrong at the end, and settled: the same answer over the last --window (4) segments, and in each of \
them |Δz_H|/|z_H| at most --still (1, so that in effect the answers decide)

An answer is right when every cell equals the solution. How many failures are settled depends on the criterion: give a \
--still of 0.05, say, to require that the state itself hardly moves, or a longer --window together with more --segments. \
Intervals are Wilson's, 95 %.

Files in --output-dir: modes.png, a picture of one run of each mode that occurs (mode-*.png), modes.json with the \
puzzles of each mode, and runs.jsonl with every puzzle's numbers.

Examples:
  hrm analyze modes --count 1000
  hrm analyze modes --count 1000 --resume --window 8 --still 0.05      (other criteria, nothing is run again)
  hrm analyze modes --resume --output-dir analysis/segments            (the runs of hrm analyze segments)";

/// How runs end: success or failure, trivial or not, by written criteria
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm analyze modes --count 1000    (--help has the details)")]
pub struct ModesArgs {
    #[command(flatten)]
    many: ManyArgs,
    /// The last segment at which being right for good counts as trivial
    #[arg(long, value_name = "SEGMENT", default_value_t = Criteria::default().quick)]
    quick: usize,
    /// A settled answer stays the same over this many segments
    #[arg(long, value_name = "N", default_value_t = Criteria::default().window)]
    window: usize,
    /// and |Δz_H|/|z_H| is at most this in them
    #[arg(long, value_name = "X", default_value_t = Criteria::default().still)]
    still: f64,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: &ModesArgs, global: &GlobalArgs) -> Result<()> {
    let ui = args.output.ui();
    ensure!(args.still >= 0.0, "--still {}: give 0 or more", args.still);
    ensure!(args.window >= 2, "--window {}: an answer that stays the same needs 2 segments or more", args.window);
    let criteria = Criteria { quick: args.quick, window: args.window, still: args.still, ..Criteria::default() };
    if let Some(segments) = args.many.run.segments {
        ensure!(
            args.window <= segments as usize,
            "--window {} of --segments {segments}: an answer cannot stay for longer than the run",
            args.window
        );
    }
    let many = args.many.run(&ui, global, &args.output, FILES)?;
    let segments = many.runs.first().map_or(0, PuzzleRun::segments);
    ensure!(args.window <= segments, "--window {}: the model runs {segments} segments", args.window);
    let summary = count_modes(&many.runs, &criteria);
    print(&ui, &summary);
    let (report, file) = modes::write(&many, &summary)?;
    say!(ui, "pictures: {}", report.head.pictures.join(", "));
    say!(ui, "data: {file}");
    ui.emit(&report)
}

fn print(ui: &Ui, summary: &ModesSummary) {
    say!(ui, "");
    let mut table = Table::headed(["mode", "count", "share", "95 %", "puzzles"], &[0, 4]);
    for mode in &summary.modes {
        let mut listed: Vec<String> = mode.puzzles.iter().take(6).map(usize::to_string).collect();
        if mode.puzzles.len() > listed.len() {
            listed.push("...".to_owned());
        }
        let share = [percent(mode.share), between(&mode.interval)];
        table.row(cells![mode.mode.name(), mode.count, share[0], share[1], listed.join(" ")]);
    }
    table.print(ui);
    say!(ui, "");
    let (failures, criteria) = (summary.failures(), &summary.criteria);
    say!(
        ui,
        "settled wrong answers: {} of {failures} failures, {} {} (same answer over {} segments, |dz|/|z| at most {})",
        summary.modes[3].count,
        percent(summary.settled_of_failures),
        between(&summary.settled_of_failures_interval),
        criteria.window,
        criteria.still
    );
    let periods: Vec<String> = summary
        .cycles
        .iter()
        .enumerate()
        .filter(|(_, n)| **n > 0)
        .map(|(i, n)| format!("{n} of period {}", i + 2))
        .collect();
    let periods = if periods.is_empty() { "none".to_owned() } else { periods.join(", ") };
    say!(ui, "failures whose answers repeat: {periods}; failures that were right before: {}", summary.lost);
}
