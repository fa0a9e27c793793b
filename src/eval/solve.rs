//! One puzzle, segment by segment, for whoever watches: what `hrm solve` shows.

use std::rc::Rc;

use anyhow::{Context, Result};
use serde::{Serialize, Serializer, ser::SerializeStruct};
use tch::{Device, no_grad};

use super::{
    guess::{DeviceGuesses, Guess},
    pass::{Ending, PassId, StopRule},
    pass_rows::{Job, PassRows, Shared},
    scores::Pool,
    verify::DevicePuzzles,
};
use crate::{model::Model, puzzle::Geometry};

/// One segment of one pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// [`PassId::number`]
    pub pass: u32,
    /// How the pass stood after it.
    pub end: Ending,
    /// Of the answer. Length S.
    pub tokens: Vec<u8>,
    /// Cells that were different after the segment before; at a pass's first segment, cells that the puzzle leaves open.
    pub changed: Vec<usize>,
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("Step", 7)?;
        map.serialize_field("pass", &self.pass)?;
        // From 1.
        map.serialize_field("segment", &self.end.segments)?;
        map.serialize_field("answer", &self.end.answer)?;
        map.serialize_field("changed", &self.changed)?;
        map.serialize_field("halted", &self.end.halted)?;
        map.serialize_field("margin", &self.end.margin)?;
        map.serialize_field("verified", &self.end.verified)?;
        map.end()
    }
}

/// What all passes came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Solved {
    /// Of the answer. Length S.
    #[serde(skip)]
    pub tokens: Vec<u8>,
    /// Of the pass that the answer is from: the first verified one, else the first that the vote fell on.
    #[serde(flatten)]
    pub end: Ending,
    /// The number of that pass.
    pub pass: u32,
    /// Passes that ran.
    pub passes_run: u32,
    /// Passes with this answer.
    pub agreeing: u32,
    /// Of all passes.
    pub segments_total: u32,
    /// Every segment of every pass, in the order of the passes.
    pub steps: Vec<Step>,
}

/// How a puzzle is to be solved.
#[derive(Clone, Debug)]
pub struct SolvePlan<'a> {
    /// The kind of the puzzle.
    pub geometry: Geometry,
    /// Passes of each checkpoint.
    pub guesses: &'a [Guess],
    /// Of everything that guesses draw.
    pub seed: u64,
    /// When a pass ends.
    pub stop: StopRule,
}

/// Solves one puzzle; `each` sees every step.
///
/// # Shapes
/// - question: `[S]`, tokens
///
/// # Errors
/// A failure inside libtorch.
pub fn solve(models: &[Model], question: &[u8], plan: &SolvePlan<'_>, each: impl FnMut(&Step)) -> Result<Solved> {
    let steps = no_grad(|| run_passes(models, question, plan, each))?;
    let ends: Vec<&Step> = steps.chunk_by(|a, b| a.pass == b.pass).filter_map(<[Step]>::last).collect();
    let mut pool = Pool::default();
    ends.iter().for_each(|step| pool.add(&step.end));
    let chosen = pool.verified().or(pool.vote());
    let chosen = ends.iter().find(|step| chosen.is_some_and(|end| std::ptr::eq(end, &step.end)));
    let Step { pass, end, tokens, .. } = (*chosen.context("no checkpoint or no guess to solve with")?).clone();
    Ok(Solved {
        pass,
        passes_run: ends.len() as u32,
        agreeing: ends.iter().filter(|step| step.end.answer == end.answer).count() as u32,
        segments_total: steps.len() as u32,
        tokens,
        end,
        steps,
    })
}

/// All segments of all passes, in order.
fn run_passes(
    models: &[Model],
    question: &[u8],
    plan: &SolvePlan<'_>,
    mut each: impl FnMut(&Step),
) -> Result<Vec<Step>> {
    let device = models.first().map_or(Device::Cpu, Model::device);
    let shared = Rc::new(Shared {
        geometry: plan.geometry,
        base: 0,
        puzzles: DevicePuzzles::new(plan.geometry, question, device),
        guesses: DeviceGuesses::new(plan.guesses, plan.seed, device),
    });
    let mut steps: Vec<Step> = Vec::new();
    for (checkpoint, model) in models.iter().enumerate() {
        let mut rows = PassRows::new(model, &shared, 1, plan.stop, false);
        for guess in 0..plan.guesses.len() {
            let pass = PassId { checkpoint, guess }.number(plan.guesses.len());
            let mut job = Some(Job { guess, ..Job::default() });
            rows.refill(|| job.take());
            let mut before = question.to_vec();
            let last = loop {
                let judged = rows.step();
                let tokens = judged.now.tokens()?;
                let changed = (0..tokens.len()).filter(|&c| tokens[c] != before[c]).collect();
                before.clone_from(&tokens);
                let end = judged.now.endings(plan.geometry)?.pop().context("one row has one ending")?;
                let step = Step { pass, end, tokens, changed };
                each(&step);
                steps.push(step);
                if let Some(stopped) = rows.collect(&judged)?.pop() {
                    break stopped.end;
                }
            };
            if plan.stop == StopRule::Verified && last.verified {
                return Ok(steps);
            }
        }
    }
    Ok(steps)
}
