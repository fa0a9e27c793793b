//! Batched inference: every puzzle through every checkpoint under every permutation, in upstream's order
//!
//! ```text
//! for batch: for checkpoint: for permutation: permute inputs and labels, run all segments, keep the last
//! ```
//!
//! and the figures that come out of it. Models are evaluated from a fresh carry and always for `halt_max_steps`
//! segments; the last segment's argmax (the first of equal logits) and halt decision are what counts.

use std::ops::{ControlFlow, Range};

use anyhow::{Result, ensure};
use ndarray::{Array1, Array2};
use tch::{Kind, Tensor};

use super::vote::{PassOutcome, checkpoint_solves, matching_cells, max_permutes, permute};
use crate::{
    dataset::{Batch, DatasetSet},
    model::{DeviceBatch, Model},
    puzzle::PuzzleKind,
};

/// Rows of a set under a permutation, labels as stored (a cell without a label keeps its pad token, and must be matched
/// like any other), all with puzzle identifier 0: so upstream has them.
pub fn permuted_rows(set: &DatasetSet, rows: Range<usize>, kind: PuzzleKind, permutation: u32) -> Result<Batch> {
    let stored = set.rows_as_stored(&rows.collect::<Vec<_>>())?;
    let permuted = |tokens: Array2<i32>| {
        let shape = tokens.dim();
        let mut flat: Vec<i32> = tokens.into_iter().collect();
        permute(kind, &mut flat, permutation);
        Array2::from_shape_vec(shape, flat)
    };
    Ok(Batch {
        puzzle_identifiers: Array1::zeros(stored.inputs.nrows()),
        inputs: permuted(stored.inputs)?,
        labels: permuted(stored.labels)?,
    })
}

/// What to run over a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InferPlan {
    pub kind: PuzzleKind,
    /// Permutations 0..permutes; at most [`max_permutes`].
    pub permutes: u32,
    pub batch_size: usize,
    /// Batches to run; more than the set holds means the whole set.
    pub batches: usize,
}

impl InferPlan {
    /// Puzzles that the plan covers. The last batch is short where the batch size does not divide the set.
    pub fn puzzles(&self, set: &DatasetSet) -> usize {
        self.batches.saturating_mul(self.batch_size).min(set.len())
    }

    fn check(&self, models: &[Model], set: &DatasetSet) -> Result<()> {
        ensure!(!models.is_empty(), "no checkpoint given");
        ensure!(self.batch_size > 0, "the batch size is 0: give at least 1");
        let most = max_permutes(self.kind);
        ensure!(
            (1..=most).contains(&self.permutes),
            "{} permutations of a {} puzzle: give 1 to {most}",
            self.permutes,
            self.kind
        );
        for model in models {
            let dims = model.config().dims;
            ensure!(
                usize::try_from(dims.seq_len) == Ok(set.seq_len()),
                "the model takes puzzles of {} cells, the data has {}",
                dims.seq_len,
                set.seq_len()
            );
            ensure!(
                usize::try_from(dims.vocab_size) == Ok(self.kind.vocab_size()),
                "a {} puzzle has {} tokens, the model knows {}: it was trained on another kind of puzzle",
                self.kind,
                self.kind.vocab_size(),
                dims.vocab_size
            );
        }
        Ok(())
    }
}

/// One forward pass of one batch, as it is shown to the caller.
#[derive(Clone, Debug)]
pub struct Pass {
    pub batch: usize,
    /// Index into the models.
    pub checkpoint: usize,
    pub permutation: u32,
    /// The puzzles of the set that the rows are.
    pub rows: Range<usize>,
    /// Tokens that the model gave for the permuted puzzles. Shape `[rows, seq_len]`.
    pub predictions: Array2<i32>,
    /// Permuted labels. Shape `[rows, seq_len]`.
    pub labels: Array2<i32>,
    /// `q_halt > q_continue` in the last segment. Length rows.
    pub halted: Vec<bool>,
}

impl Pass {
    /// What the pass came to, row by row.
    pub fn outcomes(&self) -> Vec<RowOutcome> {
        let rows = self.predictions.outer_iter().zip(self.labels.outer_iter()).zip(&self.halted);
        rows.map(|((prediction, label), &halted)| {
            let cells = matching_cells(prediction.iter(), label.iter());
            RowOutcome { pass: PassOutcome { exact: cells == label.len() as u64, halted }, cells }
        })
        .collect()
    }
}

/// One row of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowOutcome {
    pub pass: PassOutcome,
    /// Cells that equal the label, givens included.
    pub cells: u64,
}

/// Sums of one (checkpoint, permutation) over the puzzles done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassTotals {
    pub checkpoint: usize,
    pub permutation: u32,
    /// Puzzles with every cell right.
    pub exact: u64,
    /// Cells right, over all puzzles.
    pub cells: u64,
    /// Puzzles halted in the last segment.
    pub halted: u64,
}

/// What an inference run found. Only whole batches are in it.
#[derive(Clone, Debug, PartialEq)]
pub struct InferOutcome {
    /// Under upstream's rule, in order.
    pub solved: Vec<bool>,
    /// In the order checkpoint, permutation.
    pub passes: Vec<PassTotals>,
    /// Per puzzle, the share of passes that were exact.
    pub exact_share: Vec<f64>,
    /// Per puzzle, the share of cells that were right, over all passes.
    pub cell_share: Vec<f64>,
    /// Asked to stop before the plan was done.
    pub stopped: bool,
}

impl InferOutcome {
    /// Puzzles done.
    pub fn total(&self) -> u64 {
        self.solved.len() as u64
    }

    /// Puzzles solved under upstream's rule.
    pub fn correct(&self) -> u64 {
        self.solved.iter().filter(|&&s| s).count() as u64
    }

    /// Mean over all puzzles and passes.
    pub fn exact_accuracy(&self) -> f64 {
        mean(&self.exact_share)
    }

    /// Mean over all cells, puzzles and passes.
    pub fn cell_accuracy(&self) -> f64 {
        mean(&self.cell_share)
    }
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Runs the plan. `watch` sees every pass as it ends and may stop the run; the unfinished batch is then left out.
///
/// ```no_run
/// use std::ops::ControlFlow;
///
/// use hrm::{
///     checkpoint::Checkpoint,
///     dataset::Dataset,
///     eval::infer::{InferPlan, infer},
///     model::{Dims, Model},
///     puzzle::PuzzleKind,
/// };
///
/// let puzzles = Dataset::bundled_test(Some(100))?;
/// let checkpoint = Checkpoint::load("checkpoints/my run".as_ref())?.checkpoint;
/// let model = Model::load(&checkpoint, Dims::from(puzzles.meta()), tch::Device::Cpu, None)?;
/// let plan = InferPlan { kind: PuzzleKind::Sudoku, permutes: 3, batch_size: 50, batches: 2 };
/// let outcome = infer(&[model], &puzzles.sets()[0], &plan, |_| ControlFlow::Continue(()))?;
/// println!("{} of {}", outcome.correct(), outcome.total());
/// # anyhow::Ok(())
/// ```
///
/// # Errors
/// A plan that the puzzle, the data or a model does not allow; a failure inside libtorch.
pub fn infer(
    models: &[Model],
    set: &DatasetSet,
    plan: &InferPlan,
    mut watch: impl FnMut(&Pass) -> ControlFlow<()>,
) -> Result<InferOutcome> {
    plan.check(models, set)?;
    let puzzles = plan.puzzles(set);
    let cells_in_passes = (models.len() * plan.permutes as usize * set.seq_len()) as f64;
    let all_passes: Vec<(usize, u32)> =
        (0..models.len()).flat_map(|c| (0..plan.permutes).map(move |p| (c, p))).collect();
    let mut outcome = InferOutcome {
        solved: Vec::with_capacity(puzzles),
        passes: all_passes
            .iter()
            .map(|&(checkpoint, permutation)| PassTotals { checkpoint, permutation, exact: 0, cells: 0, halted: 0 })
            .collect(),
        exact_share: Vec::with_capacity(puzzles),
        cell_share: Vec::with_capacity(puzzles),
        stopped: false,
    };
    for (batch, from) in (0..puzzles).step_by(plan.batch_size).enumerate() {
        let rows = from..puzzles.min(from + plan.batch_size);
        let mut of_batch: Vec<Vec<RowOutcome>> = Vec::with_capacity(all_passes.len());
        for &(checkpoint, permutation) in &all_passes {
            let pass = run_pass(&models[checkpoint], set, plan.kind, rows.clone(), batch, checkpoint, permutation)?;
            of_batch.push(pass.outcomes());
            if watch(&pass).is_break() {
                outcome.stopped = true;
                return Ok(outcome);
            }
        }
        for (totals, outcomes) in outcome.passes.iter_mut().zip(&of_batch) {
            for row in outcomes {
                totals.exact += u64::from(row.pass.exact);
                totals.cells += row.cells;
                totals.halted += u64::from(row.pass.halted);
            }
        }
        for row in 0..rows.len() {
            let solves = |passes: &[Vec<RowOutcome>]| {
                checkpoint_solves(plan.kind, &passes.iter().map(|p| p[row].pass).collect::<Vec<_>>())
            };
            outcome.solved.push(of_batch.chunks(plan.permutes as usize).any(solves));
            let exact = of_batch.iter().filter(|p| p[row].pass.exact).count();
            outcome.exact_share.push(exact as f64 / of_batch.len() as f64);
            outcome.cell_share.push(of_batch.iter().map(|p| p[row].cells).sum::<u64>() as f64 / cells_in_passes);
        }
    }
    Ok(outcome)
}

fn run_pass(
    model: &Model,
    set: &DatasetSet,
    kind: PuzzleKind,
    rows: Range<usize>,
    batch: usize,
    checkpoint: usize,
    permutation: u32,
) -> Result<Pass> {
    let host = permuted_rows(set, rows.clone(), kind, permutation)?;
    let last = model.all_segments(&DeviceBatch::upload(&host, model.device()), |_| ());
    Ok(Pass {
        batch,
        checkpoint,
        permutation,
        rows,
        predictions: host_tokens(&last.predictions())?,
        labels: host.labels,
        halted: Vec::try_from(last.halt_flags().f_to_device(tch::Device::Cpu)?)?,
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Dataset;

    #[test]
    fn the_last_batch_may_be_short_and_batches_may_be_too_many() {
        let all = Dataset::bundled_test(Some(13)).unwrap();
        let set = &all.sets()[0];
        let plan = |batch_size, batches| InferPlan { kind: PuzzleKind::Sudoku, permutes: 1, batch_size, batches };
        assert_eq!(plan(5, 2).puzzles(set), 10);
        assert_eq!(plan(5, 3).puzzles(set), 13);
        assert_eq!(plan(5, usize::MAX).puzzles(set), 13);
    }
}
