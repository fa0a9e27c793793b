//! One puzzle, segment by segment, for whoever watches: what `hrm solve` shows.

use anyhow::Result;
use ndarray::{Array1, Array2};
use serde::Serialize;
use tch::{Tensor, no_grad};

use super::{
    engine::StopRule,
    guess::{DeviceGuesses, Guess},
    infer::host_tokens,
    record::EndRecord,
    scores::Pool,
};
use crate::{
    dataset::Batch,
    model::{DeviceBatch, Model, StartStates},
    puzzle::Geometry,
};

/// The answer after one segment of one pass, in the puzzle's own frame.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    pub pass: u32,
    /// From 1.
    pub segment: u32,
    #[serde(skip)]
    pub tokens: Vec<u8>,
    pub answer: String,
    /// Cells that were different after the segment before; at a pass's first segment, cells that the puzzle leaves open.
    pub changed: Vec<usize>,
    pub halted: bool,
    /// q_halt − q_continue
    pub margin: f32,
    pub verified: bool,
}

/// What all passes came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Solved {
    #[serde(skip)]
    pub tokens: Vec<u8>,
    /// The first verified answer, else the vote.
    pub answer: String,
    pub verified: bool,
    pub halted: bool,
    /// q_halt − q_continue of the pass that the answer is from.
    pub margin: f32,
    /// The pass that the answer is from, and its segments.
    pub pass: u32,
    pub segments: u32,
    pub passes_run: u32,
    /// Passes with this answer.
    pub agreeing: u32,
    /// Of all passes.
    pub segments_total: u32,
    pub steps: Vec<Step>,
}

/// How a puzzle is to be solved.
#[derive(Clone, Debug)]
pub struct SolvePlan<'a> {
    pub geometry: Geometry,
    /// Passes of each checkpoint.
    pub guesses: &'a [Guess],
    pub seed: u64,
    pub stop: StopRule,
}

/// Solves one puzzle; `each` sees every step.
///
/// # Shapes
/// - question: `[S]`, tokens
///
/// # Errors
/// A failure inside libtorch.
pub fn solve(models: &[Model], question: &[u8], plan: &SolvePlan<'_>, mut each: impl FnMut(&Step)) -> Result<Solved> {
    let mut steps: Vec<Step> = Vec::new();
    let mut ends = Vec::new();
    'passes: for (checkpoint, model) in models.iter().enumerate() {
        for guess in 0..plan.guesses.len() {
            let pass = (checkpoint * plan.guesses.len() + guess) as u32;
            let last = no_grad(|| run_pass(model, question, plan, guess, pass, &mut each, &mut steps))?;
            let verified = last.verified;
            ends.push(last);
            if plan.stop == StopRule::Verified && verified {
                break 'passes;
            }
        }
    }
    let mut pool = Pool::default();
    let records: Vec<EndRecord> = ends.iter().map(record_of).collect();
    records.iter().for_each(|end| pool.add(end));
    let chosen = pool.verified().or(pool.vote());
    let place = records.iter().position(|end| chosen.is_some_and(|c| std::ptr::eq(c, end))).unwrap_or(0);
    let (end, agreeing) = (&ends[place], records.iter().filter(|e| e.answer == records[place].answer).count());
    Ok(Solved {
        tokens: end.tokens.clone(),
        answer: end.answer.clone(),
        verified: end.verified,
        halted: end.halted,
        margin: end.margin,
        pass: end.pass,
        segments: end.segment,
        passes_run: ends.len() as u32,
        agreeing: agreeing as u32,
        segments_total: ends.iter().map(|e| e.segment).sum(),
        steps,
    })
}

/// What the vote counts; there is no label.
fn record_of(end: &Step) -> EndRecord {
    EndRecord {
        answer: end.answer.clone(),
        segments: end.segment,
        halted: end.halted,
        verified: end.verified,
        margin: end.margin,
        exact: false,
        cells: 0,
    }
}

fn run_pass(
    model: &Model,
    question: &[u8],
    plan: &SolvePlan<'_>,
    guess: usize,
    pass: u32,
    each: &mut impl FnMut(&Step),
    steps: &mut Vec<Step>,
) -> Result<Step> {
    let disguise = &plan.guesses[guess].disguise;
    let row: Vec<i32> = disguise.apply(question).into_iter().map(i32::from).collect();
    let inputs = Array2::from_shape_vec((1, row.len()), row)?;
    let batch = Batch { labels: inputs.clone(), inputs, puzzle_identifiers: Array1::zeros(1) };
    let mut rows = model.segment_loop(1);
    rows.set_incoming(&DeviceBatch::upload(&batch, model.device()));
    let on_device = DeviceGuesses::new(plan.guesses, plan.seed, model.device());
    if on_device.touch_states() {
        let all = on_device.start_states(model);
        let own = |states: &Tensor| states.narrow(0, guess as i64, 1);
        rows.start_rows(&StartStates { z_h: own(&all.z_h), z_l: own(&all.z_l) });
    }
    let most = u32::try_from(model.config().halt_max_steps)?;
    let mut before = question.to_vec();
    for segment in 1.. {
        if on_device.noisy() {
            let key = on_device.noise_key(0, guess as u32, segment - 1);
            on_device.add_noise(&rows.carry().z_h, &[guess as i64], &[key]);
        }
        let done = rows.step();
        let answer: Vec<u8> = host_tokens(&done.predictions())?.iter().map(|&t| t as u8).collect();
        let tokens = disguise.undo(&answer);
        let margin = (&done.q_halt - &done.q_continue).double_value(&[0]) as f32;
        let step = Step {
            pass,
            segment,
            answer: plan.geometry.text(&tokens),
            changed: (0..tokens.len()).filter(|&c| tokens[c] != before[c]).collect(),
            halted: margin > 0.0,
            margin,
            verified: plan.geometry.is_right(question, &tokens),
            tokens,
        };
        before.clone_from(&step.tokens);
        each(&step);
        steps.push(step.clone());
        let stop = match plan.stop {
            StopRule::Never => false,
            StopRule::Halt => step.halted,
            StopRule::Verified => step.verified,
        };
        if stop || segment >= most {
            return Ok(step);
        }
    }
    anyhow::bail!("a pass without segments")
}
