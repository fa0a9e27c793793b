//! `hrm viz curves`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    analysis::curves::RunCurves,
    cli::{
        args::output::ForceArg,
        ui::{JsonArg, Ui},
    },
    say,
    study::save_picture,
    train::{METRICS_FILE, RunHistory},
    viz::{PictureFormat, curves::CurvesPicture},
};

/// As many as a picture keeps apart.
const MOST_RUNS: usize = 7;

const DETAILS: &str = "\
Reads metrics.jsonl of each run. The picture shows the token loss, the exact accuracy after the last segment, the mean \
number of segments that rows have worked (it falls as the model learns to halt), whether its halting value is right, and \
for each run its exact accuracy after every segment. Dots are evaluations on the test split; thin lines are training, in \
means over equal numbers of steps.

Examples:
  hrm viz curves
  hrm viz curves checkpoints/Sudoku/a checkpoints/Sudoku/b -o both.svg";

/// Loss, exact accuracy and halting of one or several runs over their steps
#[derive(clap::Args, Debug)]
#[command(
    after_long_help = DETAILS,
    after_help = "Example: hrm viz curves runs/a runs/b -o both.svg    (--help has the details)"
)]
pub struct CurvesArgs {
    /// Run folders, or their metrics.jsonl [default: the run under checkpoints/ that was written to last]
    #[arg(value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The picture; its ending, .png or .svg, decides the format
    #[arg(short, long, value_name = "FILE", default_value = "curves.png")]
    output: PathBuf,
    #[command(flatten)]
    force: ForceArg,
    #[command(flatten)]
    json: JsonArg,
}

pub fn run(args: &CurvesArgs) -> Result<()> {
    let ui = Ui::new(&args.json);
    PictureFormat::of(&args.output)?;
    let existing = args.force.check(&args.output, &args.json)?;
    ensure!(args.runs.len() <= MOST_RUNS, "{} runs: a picture holds at most {MOST_RUNS}", args.runs.len());
    let histories = if args.runs.is_empty() {
        let newest = RunHistory::newest(Path::new("checkpoints"));
        let newest = newest.context("name a run's folder: hrm viz curves RUN")?;
        say!(ui, "run: {} (name others)", newest.folder.display());
        vec![newest]
    } else {
        args.runs.iter().map(|run| RunHistory::read(run)).collect::<Result<Vec<_>>>()?
    };
    let runs: Vec<RunCurves> = histories.iter().map(|h| RunCurves::new(h.name(), h)).collect();
    for (run, history) in runs.iter().zip(&histories) {
        ensure!(!history.is_empty(), "{}: {METRICS_FILE} holds no step yet", history.folder.display());
        let best = history.best_exact().map_or_else(
            || "no evaluation yet".into(),
            |(step, exact)| format!("best exact accuracy {:.2} % at step {step}", 100.0 * exact),
        );
        say!(ui, "{}: step {}, {best}", run.name, history.step());
    }
    save_picture(&CurvesPicture { runs: &runs }, &args.output, existing)?;
    say!(ui, "picture: {}", args.output.display());
    ui.emit(&json!({ "picture": args.output, "runs": runs }))
}
