//! From what a user asks of an inference run to the run: puzzles, models and the identity of the results, checked before
//! the first segment; then the run with its results file.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{
    guess::GuessOptions,
    infer::{Event, InferOutcome, InferPlan, infer},
    parts::Part,
    pass::StopRule,
    record::PuzzleRecord,
    report::{Circumstances, InferReport},
    results_file::{self, CheckpointIdentity, Differences, ResultsWriter, RunIdentity, StoredResults},
    shard::Shard,
    test_puzzles::{TestPuzzles, TestSource},
};
use crate::{
    checkpoint::Checkpoint,
    dtype::Dtype,
    model::{Dims, Model},
    puzzle::PuzzleKind,
    runtime::{Runtime, device_name},
    store::Existing,
};

/// Rows of a batch where nothing better is known.
const UPSTREAMS_BATCH: usize = 91;

/// What a user asks for, besides checkpoints and puzzles.
#[derive(Clone, Debug)]
pub struct InferRequest {
    /// What the puzzles must be; none takes what they are.
    pub kind: Option<PuzzleKind>,
    /// Guesses of each checkpoint.
    pub permutes: u32,
    pub options: GuessOptions,
    pub stop: StopRule,
    pub compare_stops: bool,
    /// Of a pass, in place of the checkpoint's.
    pub segments: Option<i64>,
    /// In place of the checkpoint's.
    pub dtype: Option<Dtype>,
    /// Batches to run; none runs all rows.
    pub num_batch: Option<u64>,
    /// Rows that go through a model together; none takes what fills the device.
    pub batch_size: Option<u64>,
    pub part: Part,
    /// What becomes of results that are there.
    pub existing: Existing,
    /// Another run's results, to count differences from.
    pub against: Option<PathBuf>,
}

/// What a launcher decided for its ranks, besides what their arguments say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecidedInfer {
    /// The weights files.
    pub checkpoints: Vec<PathBuf>,
    pub source: TestSource,
}

/// A run with everything loaded and checked.
#[derive(Debug)]
pub struct InferJob {
    pub puzzles: TestPuzzles,
    pub models: Vec<Model>,
    pub plan: InferPlan,
    pub identity: RunIdentity,
    pub part: Part,
    /// More puzzles were asked for than there are.
    pub fewer: bool,
    pub device: String,
    existing: Existing,
    against: Option<StoredResults>,
}

/// The results file of a job, and what it holds already.
#[derive(Debug, Default)]
pub struct OpenedResults {
    writer: Option<ResultsWriter>,
    /// By puzzle; some may lack passes.
    pub known: BTreeMap<usize, PuzzleRecord>,
    /// Of earlier runs.
    seconds: f64,
    /// Puzzles that are done, where a file is gone on with.
    pub done: Option<usize>,
}

/// What a job found.
#[derive(Debug)]
pub struct InferEnd {
    pub outcome: InferOutcome,
    against: Option<Differences>,
    /// Of all runs that wrote the file, without making models ready.
    seconds: f64,
}

impl InferRequest {
    /// What can be told before libtorch is made ready.
    ///
    /// # Errors
    /// Options that contradict each other, or that the puzzles do not have; a checkpoint of another kind of puzzle.
    pub fn check(&self, puzzles: &TestPuzzles, checkpoints: &[Checkpoint]) -> Result<()> {
        ensure!(
            !self.compare_stops || self.stop == StopRule::Never,
            "--compare-stops shows all rules from passes that run to the end: leave --stop {} out",
            self.stop.name()
        );
        let geometry = puzzles.geometry;
        if let Some(kind) = self.kind {
            ensure!(
                Some(kind) == geometry.kind(),
                "--dataset {kind}: the puzzles of {} are {geometry} (a vocabulary of {} tokens)",
                puzzles.origin,
                geometry.vocab_size()
            );
        }
        self.options.check(geometry, self.permutes)?;
        puzzles.set()?;
        checkpoints.iter().try_for_each(|checkpoint| puzzles.check_kind(checkpoint))
    }

    /// Makes the models and the plan; after [`InferRequest::check`].
    ///
    /// # Errors
    /// A checkpoint that does not fit the puzzles; results that cannot stand beside this run's.
    pub fn prepare(self, puzzles: TestPuzzles, mut checkpoints: Vec<Checkpoint>, runtime: Runtime) -> Result<InferJob> {
        let dims = Dims::from(puzzles.dataset.meta());
        let mut models = Vec::with_capacity(checkpoints.len());
        for checkpoint in &mut checkpoints {
            if let Some(segments) = self.segments {
                checkpoint.config.arch.halt_max_steps = segments;
            }
            models.push(checkpoint.model(dims, runtime, self.dtype)?);
        }
        let filling = || models.iter().filter_map(|m| m.filling_batch(models.len() - 1)).min();
        let batch_size = match self.batch_size {
            Some(given) => usize::try_from(given)?,
            None => filling().unwrap_or(UPSTREAMS_BATCH),
        };
        let there = puzzles.set()?.len();
        let batches = self.num_batch.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let asked = batches.map_or(there, |n| n.saturating_mul(batch_size));
        let total = asked.min(there);
        let plan = InferPlan {
            geometry: puzzles.geometry,
            permutes: self.permutes,
            options: self.options,
            stop: self.stop,
            compare: self.compare_stops,
            batch_size,
            puzzles: self.part.shard.of(total),
        };
        let identity = RunIdentity {
            shape: plan.shape(&models)?,
            compare_stops: plan.compare,
            options: plan.options,
            checkpoints: checkpoints.iter().zip(&models).map(|(c, m)| identity_of(c, m)).collect(),
            // Without a file there is nothing to compare it with.
            data_fingerprint: match (&self.part.output, &self.against) {
                (None, None) => String::new(),
                _ => puzzles.dataset.fingerprint()?,
            },
            data: puzzles.origin.clone(),
            puzzles: total,
        };
        let read = |path: &PathBuf| {
            let stored = results_file::read(path)?;
            let at = || format!("{}: cannot be compared with this run", path.display());
            stored.check_comparable(&identity).with_context(at)?;
            Ok::<_, anyhow::Error>(stored)
        };
        let against = self.against.as_ref().map(read).transpose()?;
        let (part, existing, device) = (self.part, self.existing, device_name(runtime.device));
        Ok(InferJob { fewer: asked > there, puzzles, models, plan, identity, part, device, existing, against })
    }
}

impl InferJob {
    /// Opens the results file, if there is to be one.
    ///
    /// # Errors
    /// Those of [`ResultsWriter::open`].
    pub fn open(&self) -> Result<OpenedResults> {
        let Some(path) = &self.part.output else { return Ok(OpenedResults::default()) };
        let (writer, stored) = ResultsWriter::open(path, &self.identity, &self.plan.puzzles, self.existing)?;
        let Some(StoredResults { records: known, seconds, .. }) = stored else {
            return Ok(OpenedResults { writer: Some(writer), ..OpenedResults::default() });
        };
        let done = known.values().filter(|record| self.is_complete(record)).count();
        Ok(OpenedResults { writer: Some(writer), known, seconds, done: Some(done) })
    }

    /// Whether no pass of the puzzle is missing.
    pub fn is_complete(&self, record: &PuzzleRecord) -> bool {
        record.is_complete(self.identity.shape.passes(), self.plan.stop)
    }

    /// Runs what is missing and keeps it; `see` hears of every segment, pass and puzzle, and may stop the run.
    ///
    /// # Errors
    /// Those of [`infer()`] and of the results file.
    pub fn run(&self, opened: OpenedResults, mut see: impl FnMut(Event<'_>) -> ControlFlow<()>) -> Result<InferEnd> {
        let OpenedResults { mut writer, known, seconds: before, .. } = opened;
        let started = Instant::now();
        let mut against = self.against.as_ref().map(|_| Differences::default());
        let outcome = infer(&self.models, self.puzzles.set()?, &self.plan, known, |event| {
            if let (Event::Pass { puzzle, pass, .. }, Some(other), Some(counts)) = (event, &self.against, &mut against)
            {
                other.compare(puzzle, pass, self.plan.stop, counts);
            }
            match (&mut writer, event) {
                (Some(writer), Event::Pass { puzzle, row, pass }) => writer.pass(puzzle, row, pass)?,
                (Some(writer), Event::Puzzle(record)) => writer.done(record.puzzle)?,
                _ => {}
            }
            Ok(see(event))
        })?;
        if let Some(writer) = writer {
            writer.finish(!outcome.work.stopped)?;
        }
        let seconds = before + started.elapsed().saturating_sub(outcome.work.setup).as_secs_f64();
        Ok(InferEnd { outcome, against, seconds })
    }

    /// The document of a run that came to its end; `seed`: of its intervals.
    pub fn report(&self, end: &InferEnd, shard: Option<Shard>, seed: u64) -> InferReport {
        let how = Circumstances {
            shard: shard.map(|shard| shard.to_string()),
            batch_size: Some(self.plan.batch_size),
            device: Some(self.device.clone()),
            row_segments: Some(end.outcome.work.rows),
            setup_seconds: Some(Duration::as_secs_f64(&end.outcome.work.setup)),
            against: end.against,
        };
        InferReport::new(&self.identity, &end.outcome.tally, how, seed, end.seconds)
    }
}

/// What a results file tells of a checkpoint and the model made of it.
fn identity_of(checkpoint: &Checkpoint, model: &Model) -> CheckpointIdentity {
    CheckpointIdentity {
        weights: checkpoint.weights_digest(),
        step: checkpoint.step,
        dtype: model.config().forward_dtype.short_name().to_owned(),
        path: checkpoint.path.display().to_string(),
    }
}
