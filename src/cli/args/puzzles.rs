//! Which puzzles a command works on, and how they go through a model.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::checkpoints::{CheckpointArg, CheckpointsArg, ModelArgs, WeightsArg, load_checkpoints};
use crate::{
    analysis::identity::PuzzlesIdentity,
    checkpoint::Checkpoint,
    cli::{GlobalArgs, args::output::OutputArgs, ui::Ui, watch::StudyWatch, work::foretell_work},
    config::MOST_SEGMENTS,
    dataset::RowCount,
    eval::test_puzzles::TestPuzzles,
    model::{Dims, Model},
    runtime::Runtime,
    say,
    study::{
        Files, batch_size,
        runs::{RunPuzzles, RunsPlan},
    },
};

/// The dataset of test puzzles.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct DataPathArg {
    /// Dataset folder whose test split is taken [default: the (last) checkpoint's, else the bundled rows]
    #[arg(long, value_name = "DIR")]
    data_path: Option<PathBuf>,
}

/// The test split that was named, else that of the checkpoint, which is then said.
pub fn open_test_puzzles(ui: &Ui, data: &DataPathArg, checkpoint: &Checkpoint) -> Result<TestPuzzles> {
    let puzzles = TestPuzzles::choose(data.data_path.as_deref(), checkpoint)?;
    if let Some(taken) = &puzzles.taken {
        say!(ui, "{taken}");
    }
    Ok(puzzles)
}

/// [`open_test_puzzles`] for commands that read one set of them.
pub fn open_test_set(ui: &Ui, data: &DataPathArg, checkpoint: &Checkpoint) -> Result<TestPuzzles> {
    let puzzles = open_test_puzzles(ui, data, checkpoint)?;
    puzzles.warn_of_unread_sets();
    Ok(puzzles)
}

/// How puzzles go through a model.
#[derive(clap::Args, Clone, Debug)]
pub struct RunArgs {
    /// Segments to run, also beyond the model's own number [default: the checkpoint's arch.halt_max_steps]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_SEGMENTS))]
    pub segments: Option<u32>,
    /// Puzzles per batch [default: 64, on a GPU as many as fill it]
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub batch_size: Option<u64>,
    #[command(flatten)]
    pub model: ModelArgs,
}

impl RunArgs {
    /// Loads the weights for those puzzles.
    pub fn load(&self, checkpoint: &Checkpoint, puzzles: &TestPuzzles, runtime: Runtime) -> Result<Model> {
        checkpoint.model(Dims::from(puzzles.dataset.meta()), runtime, self.model.dtype)
    }

    /// [`RunArgs::load`] for every checkpoint.
    pub fn load_all(
        &self,
        checkpoints: Vec<Checkpoint>,
        puzzles: &TestPuzzles,
        runtime: Runtime,
    ) -> Result<Vec<(Checkpoint, Model)>> {
        let load = |checkpoint: Checkpoint| {
            let model = self.load(&checkpoint, puzzles, runtime)?;
            Ok((checkpoint, model))
        };
        checkpoints.into_iter().map(load).collect()
    }

    /// How many segments to run.
    pub fn segments(&self, model: &Model) -> Result<usize> {
        Ok(match self.segments {
            Some(n) => usize::try_from(n)?,
            None => usize::try_from(model.config().halt_max_steps)?,
        })
    }
}

/// Which test puzzles and which checkpoint.
#[derive(clap::Args, Clone, Debug)]
pub struct ManyArgs {
    #[command(flatten)]
    pub checkpoint: CheckpointArg,
    #[command(flatten)]
    pub data: DataPathArg,
    /// How many test puzzles; with --resume also more or fewer than the folder has
    #[arg(long, value_name = "N|all", default_value = "200")]
    pub count: RowCount,
    /// Their first row, from 0
    #[arg(long, value_name = "ROW", default_value_t = 0)]
    pub first: usize,
    #[command(flatten)]
    pub run: RunArgs,
}

impl ManyArgs {
    /// Runs the puzzles that were asked for, on with what the folder (that of `files` unless it is named) holds where that is
    /// wanted.
    pub fn run(&self, ui: &Ui, global: &GlobalArgs, output: &OutputArgs, files: Files) -> Result<RunPuzzles> {
        let checkpoint = self.checkpoint.load(ui, self.run.model.weights)?;
        let puzzles = open_test_set(ui, &self.data, &checkpoint)?;
        puzzles.check_kind(&checkpoint)?;
        let items = puzzles.rows_from(self.first, self.count.rows())?;
        if self.count.rows().is_some_and(|n| items.len() < n) {
            say!(ui, "fewer test puzzles than asked for: the {} from row {} on", items.len(), self.first);
        }
        let model = self.run.load(&checkpoint, &puzzles, global.init()?)?;
        let segments = self.run.segments(&model)?;
        foretell_work(ui, &model, model.config().flops_per_segment() * (segments * items.len()) as f64);
        let output = output.open(files)?;
        let plan = RunsPlan {
            checkpoint: &checkpoint,
            model: &model,
            items: &items,
            puzzles: &PuzzlesIdentity::Rows { data: puzzles.identity()?, first: self.first },
            segments,
            batch_size: batch_size(self.run.batch_size, &model),
            file: "runs.jsonl",
        };
        let runs = plan.run(&output, &StudyWatch::new(ui))?;
        Ok(RunPuzzles { checkpoint, model, items, runs, output, origin: puzzles.origin })
    }
}

/// Several checkpoints on the same test puzzles.
#[derive(clap::Args, Clone, Debug)]
pub struct SeveralArgs {
    #[command(flatten)]
    checkpoints: CheckpointsArg,
    #[command(flatten)]
    data: DataPathArg,
}

impl SeveralArgs {
    /// The checkpoints, all of the puzzles' kind, and the puzzles.
    pub fn open(&self, ui: &Ui, weights: WeightsArg) -> Result<(Vec<Checkpoint>, TestPuzzles)> {
        let checkpoints = load_checkpoints(ui, &self.checkpoints.checkpoints, weights)?;
        let last = checkpoints.last().context("no checkpoint given")?;
        let puzzles = open_test_set(ui, &self.data, last)?;
        checkpoints.iter().try_for_each(|checkpoint| puzzles.check_kind(checkpoint))?;
        Ok((checkpoints, puzzles))
    }
}
