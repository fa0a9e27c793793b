//! How the high-level state z_H moves while the model works on one puzzle.
//!
//! z_H after every H cycle, flattened to one vector of `T·h` numbers each, is a cloud of `segments · H_cycles` points;
//! the picture is its projection on the first two principal components (see [`super::pca`]).

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tch::{Kind, Tensor};

use super::{
    facts::{SegmentFacts, facts_of},
    pca::Pca,
    runs::batch_of,
};
use crate::{
    model::{DeviceBatch, Model, Segment},
    puzzle::Puzzle,
};

/// A projected trace, and what the model answered along it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trajectory {
    /// The puzzle, in the frame that the model saw.
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
        self.segments.iter().find(|s| s.end.is_right()).map(|s| s.end.segments as usize)
    }

    /// The first segment from which on every answer is right.
    pub fn solved_for_good(&self) -> Option<usize> {
        self.segments.iter().rev().take_while(|s| s.end.is_right()).last().map(|s| s.end.segments as usize)
    }

    /// Whether the last segment's answer is right: the one that counts.
    pub fn solved(&self) -> bool {
        self.segments.last().is_some_and(|s| s.end.is_right())
    }

    /// The first segment after which the model would stop.
    pub fn first_halt(&self) -> Option<usize> {
        self.segments.iter().find(|s| s.end.halted).map(|s| s.end.segments as usize)
    }
}

/// A model at work on a puzzle.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The model.
    pub model: &'a Model,
    /// The puzzle, whose geometry must fit the model's.
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
    let mut answers = Vec::new();
    for Subject { model, puzzle } in subjects {
        let batch = batch_of(model, std::slice::from_ref(*puzzle))?;
        let mut segments = Vec::new();
        let states = trace_states(model, batch, |segment, done| {
            segments.extend(facts_of(model, segment, done, std::slice::from_ref(*puzzle))?);
            Ok(())
        })?; // [points, T * h]
        let cycles = model.config().h_cycles;
        let states = match per {
            PointsPer::Cycle => states,
            PointsPer::Segment => states.f_slice(0, Some(cycles - 1), None, cycles)?,
        };
        clouds.push(states.f_to_device(tch::Device::Cpu)?);
        answers.push(segments);
        each();
    }
    let widths: Vec<i64> = clouds.iter().map(|c| c.size()[1]).collect();
    if let Some(other) = widths.iter().find(|w| **w != widths[0]) {
        bail!("states of {} and of {other} numbers have no common plane: give checkpoints of the same size", widths[0]);
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
    subjects.iter().zip(&clouds).zip(answers).map(of).collect()
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
