//! `hrm runs`.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};

use super::{
    table::Table,
    ui::{JsonArg, Ui, warn},
};
use crate::{
    say,
    train::{RunSummary, find_runs},
};

const DETAILS: &str = "\
A run is a folder with a metrics.jsonl, as `hrm train` makes it. Its state is
  running   a process holds its metrics.jsonl
  finished  its last evaluation was done and saved
  stopped   it ended with a checkpoint of its last step (Ctrl-C, SIGTERM): `hrm train --resume RUN` continues
  dead      it ended without one (killed, failed): `hrm train --resume RUN` continues from the last checkpoint

Examples:
  hrm runs
  hrm runs checkpoints/Sudoku --json -";

/// List training runs: how far they are, how good, and whether they still run
#[derive(clap::Args, Debug)]
#[command(after_long_help = DETAILS, after_help = "Example: hrm runs checkpoints    (--help has the details)")]
pub struct RunsArgs {
    /// Where to look, four levels deep
    #[arg(value_name = "DIR", default_value = "checkpoints")]
    folder: PathBuf,
    #[command(flatten)]
    json: JsonArg,
}

pub fn run(args: &RunsArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    let (mut rows, mut unreadable) = (Vec::new(), 0);
    for run in find_runs(&args.folder)? {
        match RunSummary::read(run) {
            Ok(summary) => rows.push(summary),
            // One damaged run must not hide the others.
            Err(e) => {
                unreadable += 1;
                warn(format_args!("{e:#}"));
            }
        }
    }
    if rows.is_empty() && unreadable == 0 {
        say!(ui, "{}: no runs", args.folder.display());
    } else {
        let mut table = Table::headed(["run", "state", "step", "best exact accuracy", "last written"], &[0, 1, 4]);
        rows.iter().for_each(|row| table.row(cells(row)));
        table.print(&ui);
    }
    ui.emit(&rows)?;
    ensure!(unreadable == 0, "{unreadable} of {} runs cannot be read, see above", unreadable + rows.len());
    Ok(())
}

fn cells(summary: &RunSummary) -> [String; 5] {
    let steps = match summary.total_steps {
        Some(total) => format!("{} of {total}", summary.step),
        None => summary.step.to_string(),
    };
    let best = match (summary.best_exact_accuracy, summary.best_step) {
        (Some(exact), Some(step)) => format!("{:.2} % at {step}", 100.0 * exact),
        _ => "-".into(),
    };
    let age = format!("{} ago", indicatif::HumanDuration(Duration::from_secs(summary.age as u64)));
    [summary.run.display().to_string(), summary.state.name().into(), steps, best, age]
}
