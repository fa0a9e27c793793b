//! How the high-level state z_H moves while the model works on one puzzle.
//!
//! z_H after every H cycle, flattened to one vector of `T·h` numbers each, is a cloud of `segments · H_cycles` points;
//! the picture is its projection on the first two principal components (see [`super::pca`]).

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tch::{Kind, Tensor};

use super::{pca::Pca, runs::batch_of};
use crate::{
    dataset::IGNORE_LABEL,
    eval::infer::host_tokens,
    model::{DeviceBatch, Model, Segment, loss_head},
    ops::token_loss,
    puzzle::Puzzle,
};

/// One segment's answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SegmentFacts {
    /// From 1.
    pub segment: usize,
    /// The whole puzzle is right: equal to the known solution, or, without one, right by the rules.
    pub solved: bool,
    /// Cells that equal the solution, givens included; none where the solution is unknown.
    pub cells_right: Option<u64>,
    /// Sudoku only: cells without a digit.
    pub blanks: u64,
    /// Sudoku only: broken rules, see [`crate::puzzle::Boxes::conflicts`].
    pub conflict: Option<u32>,
    pub q_halt: f64,
    pub q_continue: f64,
    /// `q_halt > q_continue`: the model would stop here.
    pub wants_halt: bool,
    /// Mean token loss over the cells, as in training (nats); none where the solution is unknown.
    pub loss: Option<f64>,
    /// What upstream's loss head and notebook call the loss: `loss` and half the halting loss. None as above.
    pub head_loss: Option<f64>,
    /// Tokens. Length seq_len.
    pub prediction: Vec<u8>,
    /// The probability that the model's own output function gives each predicted token. Length seq_len.
    pub confidence: Vec<f32>,
}

/// A projected trace, and what the model answered along it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trajectory {
    #[serde(flatten)]
    pub puzzle: Puzzle,
    /// Points per segment.
    pub h_cycles: usize,
    /// Coordinates along the first and second component, in order of time. Length segments · h_cycles.
    pub points: Vec<[f64; 2]>,
    /// Share of the trace's variance that each component carries.
    pub explained_variance_ratio: [f64; 2],
    /// In order of time.
    pub segments: Vec<SegmentFacts>,
}

impl Trajectory {
    /// The first segment whose answer is right.
    pub fn first_solved(&self) -> Option<usize> {
        self.segments.iter().find(|s| s.solved).map(|s| s.segment)
    }

    /// The first segment from which on every answer is right.
    pub fn solved_for_good(&self) -> Option<usize> {
        self.segments.iter().rev().take_while(|s| s.solved).last().map(|s| s.segment)
    }

    /// Whether the last segment's answer is right: the one that counts.
    pub fn solved(&self) -> bool {
        self.segments.last().is_some_and(|s| s.solved)
    }

    /// The first segment after which the model would stop.
    pub fn first_halt(&self) -> Option<usize> {
        self.segments.iter().find(|s| s.wants_halt).map(|s| s.segment)
    }
}

/// A model at work on a puzzle.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub model: &'a Model,
    pub puzzle: &'a Puzzle,
}

/// Which states become points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointsPer {
    /// z_H after every H cycle.
    Cycle,
    /// z_H after every segment.
    Segment,
}

/// Runs the model on one puzzle for all `halt_max_steps` segments and projects the trace of z_H.
///
/// # Errors
/// A puzzle of another size or alphabet than the model's; states that hold NaN; fewer than two points.
pub fn trace_puzzle(model: &Model, puzzle: &Puzzle) -> Result<Trajectory> {
    let mut found = trace_together(&[Subject { model, puzzle }], PointsPer::Cycle, || ())?;
    found.pop().context("no trajectory")
}

/// [`trace_puzzle`] for several subjects on one plane: the principal components are those of all their states together.
/// `each` is called after every subject.
///
/// # Errors
/// As [`trace_puzzle`]; models whose states are not of the same size.
pub fn trace_together(subjects: &[Subject<'_>], per: PointsPer, mut each: impl FnMut()) -> Result<Vec<Trajectory>> {
    let mut clouds = Vec::new();
    let mut facts_of = Vec::new();
    for Subject { model, puzzle } in subjects {
        let batch = batch_of(model, std::slice::from_ref(*puzzle))?;
        let mut segments = Vec::new();
        let states = trace_states(model, batch, |segment, done| {
            segments.push(facts(model, segment, done, puzzle)?);
            Ok(())
        })?; // [points, T * h]
        let cycles = model.config().h_cycles;
        let states = match per {
            PointsPer::Cycle => states,
            PointsPer::Segment => states.f_slice(0, Some(cycles - 1), None, cycles)?,
        };
        clouds.push(states.f_to_device(tch::Device::Cpu)?);
        facts_of.push(segments);
        each();
    }
    let widths: Vec<i64> = clouds.iter().map(|c| c.size()[1]).collect();
    if let Some(other) = widths.iter().find(|w| **w != widths[0]) {
        bail!(
            "states of {} and of {other} numbers have no plane in common: give checkpoints of the same size",
            widths[0]
        );
    }
    let pca = Pca::fit(&Tensor::f_cat(&clouds, 0)?, 2).context("the trace of z_H has no principal components")?;
    let of = |((subject, cloud), segments): ((&Subject<'_>, &Tensor), Vec<SegmentFacts>)| {
        let flat: Vec<f64> = Vec::try_from(pca.project(cloud)?.f_reshape([-1])?)?;
        Ok(Trajectory {
            puzzle: subject.puzzle.clone(),
            h_cycles: match per {
                PointsPer::Cycle => usize::try_from(subject.model.config().h_cycles)?,
                PointsPer::Segment => 1,
            },
            points: flat.chunks_exact(2).map(|p| [p[0], p[1]]).collect(),
            explained_variance_ratio: [pca.explained_variance_ratio[0], pca.explained_variance_ratio[1]],
            segments,
        })
    };
    subjects.iter().zip(&clouds).zip(facts_of).map(of).collect()
}

/// z_H after every H cycle of all `halt_max_steps` segments; `each` sees every segment, counted from 1.
///
/// # Shapes
/// - batch: one row
/// - result: `[halt_max_steps * H_cycles, T * h]`, f32, on the model's device
pub fn trace_states(
    model: &Model,
    batch: DeviceBatch,
    mut each: impl FnMut(usize, &Segment) -> Result<()>,
) -> Result<Tensor> {
    ensure!(batch.rows() == 1, "a trace is of one puzzle, this batch has {} rows", batch.rows());
    let mut states: Vec<Tensor> = Vec::new();
    let segments = usize::try_from(model.config().halt_max_steps)?;
    model.unroll(model.fresh_carry(batch)).traced().run(segments, |segment, done| {
        for z_h in &done.trace {
            states.push(z_h.f_to_kind(Kind::Float)?.f_reshape([-1])?); // [T * h]
        }
        each(segment, done)
    })?;
    Ok(Tensor::f_stack(&states, 0)?)
}

fn facts(model: &Model, segment: usize, done: &Segment, puzzle: &Puzzle) -> Result<SegmentFacts> {
    let prediction: Vec<u8> =
        host_tokens(&done.predictions())?.iter().map(|&t| u8::try_from(t)).collect::<Result<_, _>>()?;
    // As upstream counts: padding in a solution must be matched like any other token.
    let cells_right = puzzle.solution().map(|s| s.iter().zip(&prediction).filter(|(a, b)| a == b).count() as u64);
    let solved = match cells_right {
        Some(right) => right == prediction.len() as u64,
        None => puzzle.check(&prediction).is_ok(),
    };
    let boxes = puzzle.geometry().boxes();
    let (loss, head_loss) = match puzzle.solution() {
        Some(_) => (Some(mean_loss(model, done)?), Some(head_loss(model, done)?)),
        None => (None, None),
    };
    let (q_halt, q_continue) = (done.q_halt.f_double_value(&[0])?, done.q_continue.f_double_value(&[0])?);
    Ok(SegmentFacts {
        segment,
        solved,
        cells_right,
        blanks: boxes.map_or(0, |boxes| prediction.iter().filter(|&&t| boxes.digit(t).is_none()).count() as u64),
        conflict: boxes.map(|boxes| boxes.conflicts(&prediction)),
        q_halt,
        q_continue,
        wants_halt: q_halt > q_continue,
        loss,
        head_loss,
        prediction,
        confidence: confidence(model, done)?,
    })
}

/// The loss head's value in evaluation: the rows' token losses and half their halting losses, summed.
pub fn head_loss(model: &Model, done: &Segment) -> Result<f64> {
    let metrics = loss_head(model.ops(), model.config().loss_type, done, None, 1.0);
    Ok(metrics.loss.f_double_value(&[])?)
}

fn mean_loss(model: &Model, done: &Segment) -> Result<f64> {
    let labels = &done.carry.batch.labels;
    let losses = token_loss(model.config().loss_type, &done.logits, labels).loss;
    let labelled = labels.f_ne(i64::from(IGNORE_LABEL))?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
    Ok(losses.f_sum(Kind::Double)?.f_double_value(&[])? / labelled.max(1) as f64)
}

/// p = exp(−loss) of the predicted tokens, under stablemax or softmax as the model was trained. Row 0, `[S]`.
fn confidence(model: &Model, done: &Segment) -> Result<Vec<f32>> {
    let losses = token_loss(model.config().loss_type, &done.logits, &done.predictions()).loss; // [1, S]
    Ok(Vec::try_from(losses.f_neg()?.f_exp()?.f_select(0, 0)?.f_to_kind(Kind::Float)?.f_to_device(tch::Device::Cpu)?)?)
}
