//! Inference over a test set: every puzzle through every checkpoint under every guess, and what it comes to.
//!
//! Models start from a fresh carry, with puzzle identifier 0 in every row. A pass's answer is the argmax (the first of
//! equal logits) at its stop, and it has halted if q_halt > q_continue there.

use std::{
    collections::BTreeMap,
    ops::{ControlFlow, Range},
};

use anyhow::{Context, Result, ensure};
use ndarray::{Array1, Array2};
use tch::{Kind, Tensor};

use super::{
    engine::{self, EngineEvent, EnginePlan, FinishedPass, Todo, Work},
    guess::{Guess, GuessOptions, guesses},
    pass::StopRule,
    record::{PassRecord, PuzzleRecord},
    scores::{RunShape, Tally},
};
use crate::{
    dataset::{Batch, DatasetSet, RowInfo},
    model::Model,
    puzzle::Geometry,
};

/// Rows of a set under one of upstream's permutations, labels as stored (a cell without a label keeps its pad token, and
/// must be matched like any other), all with puzzle identifier 0: so upstream has them.
pub fn permuted_rows(set: &DatasetSet, rows: Range<usize>, geometry: Geometry, permutation: u32) -> Result<Batch> {
    let stored = set.rows_as_stored(&rows.collect::<Vec<_>>())?;
    let permuted = |tokens: Array2<i32>| {
        let shape = tokens.dim();
        let mut flat: Vec<i32> = tokens.into_iter().collect();
        geometry.permute(&mut flat, permutation);
        Array2::from_shape_vec(shape, flat)
    };
    Ok(Batch {
        puzzle_identifiers: Array1::zeros(stored.inputs.nrows()),
        inputs: permuted(stored.inputs)?,
        labels: permuted(stored.labels)?,
    })
}

/// What to run over a set.
#[derive(Clone, Debug, PartialEq)]
pub struct InferPlan {
    /// The kind of the puzzles.
    pub geometry: Geometry,
    /// Guesses of each checkpoint.
    pub permutes: u32,
    /// What guesses consist of.
    pub options: GuessOptions,
    /// When a pass ends.
    pub stop: StopRule,
    /// With [`StopRule::Never`]: keep the endings under the other rules, too.
    pub compare: bool,
    /// Rows that go through a model together.
    pub batch_size: usize,
    /// The puzzles of the set.
    pub puzzles: Range<usize>,
}

impl InferPlan {
    /// The plan that upstream's program carries out: all segments, cyclic permutations.
    pub fn upstream(geometry: Geometry, permutes: u32, batch_size: usize, puzzles: Range<usize>) -> Self {
        let (options, stop) = (GuessOptions::default(), StopRule::Never);
        Self { geometry, permutes, options, stop, compare: false, batch_size, puzzles }
    }

    /// What is counted.
    ///
    /// # Errors
    /// Those of [`RunShape::check`].
    pub fn shape(&self, models: &[Model]) -> Result<RunShape> {
        let shape = RunShape {
            kind: self.geometry.kind(),
            cells: self.geometry.cells(),
            segments: models.iter().map(|m| u32::try_from(m.config().halt_max_steps).unwrap_or(u32::MAX)).collect(),
            guesses: self.permutes,
            stop: self.stop,
        };
        shape.check()?;
        Ok(shape)
    }

    fn check(&self, models: &[Model], set: &DatasetSet) -> Result<Vec<Guess>> {
        ensure!(!models.is_empty(), "no checkpoint given");
        ensure!(self.batch_size > 0, "the batch size is 0: give at least 1");
        ensure!(
            !self.compare || self.stop == StopRule::Never,
            "stop rules are compared from passes that run to the end"
        );
        let (asked, there) = (&self.puzzles, set.len());
        ensure!(asked.start <= asked.end && asked.end <= there, "puzzles {asked:?} of {there}");
        let geometry = self.geometry;
        ensure!(
            geometry.cells() == set.seq_len(),
            "a {geometry} puzzle has {} cells, the data {}",
            geometry.cells(),
            set.seq_len()
        );
        ensure!(geometry.vocab_size() <= 256, "{} tokens: an answer here has at most 256", geometry.vocab_size());
        if self.stop == StopRule::Verified || self.compare {
            geometry.known().context("answers are verified by the rules")?;
        }
        for model in models {
            let dims = model.config().dims;
            ensure!(
                usize::try_from(dims.seq_len) == Ok(geometry.cells()),
                "the model takes puzzles of {} cells, the data has {}",
                dims.seq_len,
                geometry.cells()
            );
            ensure!(
                usize::try_from(dims.vocab_size) == Ok(geometry.vocab_size()),
                "a {geometry} puzzle has {} tokens, the model has {}: it was trained on another kind of puzzle",
                geometry.vocab_size(),
                dims.vocab_size
            );
        }
        guesses(geometry, self.permutes, &self.options)
    }
}

/// What is shown to the caller while a plan is carried out.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A segment has ended.
    Segment,
    /// A pass has ended.
    Pass {
        /// The puzzle's place in the set.
        puzzle: usize,
        /// Where it is from, if that is known.
        row: Option<&'a RowInfo>,
        /// The pass.
        pass: &'a PassRecord,
    },
    /// All passes of a puzzle have ended, those that were known before included.
    Puzzle(&'a PuzzleRecord),
}

/// What an inference run found.
#[derive(Clone, Debug)]
pub struct InferOutcome {
    /// Over the puzzles that are done.
    pub tally: Tally,
    /// What was computed.
    pub work: Work,
}

/// Runs the plan, without the passes that `known` has. `watch` sees every segment, pass and puzzle as it ends and may
/// stop the run.
///
/// ```no_run
/// use std::{collections::BTreeMap, ops::ControlFlow};
///
/// use hrm::{
///     checkpoint::Checkpoint,
///     dataset::Dataset,
///     eval::infer::{InferPlan, infer},
///     model::Dims,
///     puzzle::Geometry,
/// };
///
/// let puzzles = Dataset::bundled_test(Some(100))?;
/// let checkpoint = Checkpoint::load("checkpoints/my run".as_ref())?.checkpoint;
/// let model = checkpoint.model(Dims::from(puzzles.meta()), tch::Device::Cpu, None)?;
/// let plan = InferPlan::upstream(Geometry::SUDOKU, 3, 50, 0..100);
/// let outcome = infer(&[model], &puzzles.sets()[0], &plan, BTreeMap::new(), |_| Ok(ControlFlow::Continue(())))?;
/// println!("{} of {} by vote", outcome.tally.scores().vote.correct, outcome.tally.total());
/// # anyhow::Ok(())
/// ```
///
/// # Errors
/// A plan that the puzzle, the data or a model does not allow; a failure inside libtorch; those of `watch`.
pub fn infer(
    models: &[Model],
    set: &DatasetSet,
    plan: &InferPlan,
    known: BTreeMap<usize, PuzzleRecord>,
    mut watch: impl FnMut(Event<'_>) -> Result<ControlFlow<()>>,
) -> Result<InferOutcome> {
    let list = plan.check(models, set)?;
    let rows = set.rows()?;
    let row_of = |puzzle: usize| rows.as_ref().and_then(|rows| rows.get(set.group_of(puzzle)));
    let mut tally = Tally::new(plan.shape(models)?);
    let all = tally.shape().passes();
    // Puzzles with passes that have ended, and their labels.
    let mut open: BTreeMap<usize, (PuzzleRecord, Vec<u8>)> = BTreeMap::new();
    let mut todo = Vec::new();
    let mut known = known;
    for puzzle in plan.puzzles.clone() {
        let Some(record) = known.remove(&puzzle) else {
            todo.push(Todo { puzzle, done: Vec::new() });
            continue;
        };
        if record.is_complete(all, plan.stop) {
            tally.add(&record);
            continue;
        }
        todo.push(Todo { puzzle, done: record.passes.iter().map(|p| p.pass).collect() });
        open.insert(puzzle, (record, label(set, puzzle)?));
    }

    let engine_plan = EnginePlan {
        geometry: plan.geometry,
        guesses: &list,
        seed: plan.options.seed,
        stop: plan.stop,
        compare: plan.compare,
        batch_size: plan.batch_size,
    };
    let mut failed = None;
    let work = engine::run(models, set, &todo, &engine_plan, |progress| {
        let seen = || -> Result<ControlFlow<()>> {
            let EngineEvent::Pass(FinishedPass { puzzle, pass }) = progress else { return watch(Event::Segment) };
            let (record, label) = match open.entry(puzzle) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let record = PuzzleRecord { puzzle, row: row_of(puzzle).cloned(), passes: Vec::new() };
                    entry.insert((record, label(set, puzzle)?))
                }
            };
            let ended = pass.beside(plan.geometry, label);
            let shown = watch(Event::Pass { puzzle, row: row_of(puzzle), pass: &ended })?;
            let place = record.passes.partition_point(|p| p.pass < ended.pass);
            record.passes.insert(place, ended);
            if record.is_complete(all, plan.stop)
                && let Some((record, _)) = open.remove(&puzzle)
            {
                tally.add(&record);
                if watch(Event::Puzzle(&record))?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(shown)
        };
        seen().unwrap_or_else(|e| {
            failed = Some(e);
            ControlFlow::Break(())
        })
    })?;
    match failed {
        Some(e) => Err(e),
        None => Ok(InferOutcome { tally, work }),
    }
}

fn label(set: &DatasetSet, puzzle: usize) -> Result<Vec<u8>> {
    let label = set.rows_as_stored(&[puzzle])?.labels;
    Ok(label.into_iter().map(|t| u8::try_from(t).unwrap_or(u8::MAX)).collect())
}

/// A prediction or a label on the host.
///
/// # Shapes
/// - tokens: `[rows, seq_len]`, any integer dtype, any device
pub fn host_tokens(tokens: &Tensor) -> Result<Array2<i32>> {
    let (rows, cells) = tokens.size2()?;
    let flat: Vec<i32> = Vec::try_from(tokens.f_to_kind(Kind::Int)?.f_to_device(tch::Device::Cpu)?.f_reshape([-1])?)?;
    Ok(Array2::from_shape_vec((rows.try_into()?, cells.try_into()?), flat)?)
}
