//! Continuous batching: every pass of every puzzle through slots that are refilled as their rows stop.
//!
//! ```text
//! pass p of a puzzle = (checkpoint p / G, guess p mod G)          G guesses a checkpoint
//! slot: start -> segment, segment, .. -> stop -> the next pass starts in the same slot with the next segment
//! ```
//!
//! All passes of a checkpoint go through one [`SegmentLoop`] with a fixed number of rows. Whether a row stops is decided
//! on the device; the host reads one byte a row after each segment, and the answers of the rows that stopped. A row's
//! numbers depend on its own pass alone, so every pass ends as it would in a batch that runs all segments.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    ops::ControlFlow,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use super::{
    guess::{DeviceGuesses, Guess, Undo},
    verify::{DevicePuzzles, Questions},
};
use crate::{
    dataset::DatasetSet,
    model::{Model, Rows as _, Segment, SegmentLoop, StartStates, rows},
    puzzle::Geometry,
    runtime,
};

/// When a pass ends; at the last of all segments in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StopRule {
    /// After all segments: upstream's rule
    Never,
    /// At the first segment with q_halt > q_continue, as ACT means it
    Halt,
    /// At the first segment whose answer is right by the puzzle's rules; later passes of the puzzle are then skipped
    Verified,
}

impl StopRule {
    pub const ALL: [Self; 3] = [Self::Never, Self::Halt, Self::Verified];

    pub fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Halt => "halt",
            Self::Verified => "verified",
        }
    }
}

/// How a pass stood when it stopped, or at another of its segments.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// The most likely tokens, in the puzzle's own frame. Length S.
    pub answer: Vec<u8>,
    /// Segments done.
    pub segments: u32,
    /// q_halt > q_continue
    pub halted: bool,
    /// Right by the puzzle's rules.
    pub verified: bool,
    /// q_halt − q_continue
    pub margin: f32,
}

/// A pass that has stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct FinishedPass {
    /// The puzzle's place in the set.
    pub puzzle: usize,
    pub pass: u32,
    pub end: Ending,
    /// Where [`EnginePlan::compare`] asks for them: the endings under the other rules.
    pub others: Option<Others>,
}

/// How a pass that ran all segments would have ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Others {
    /// At its first halt, else the last segment.
    pub halt: Ending,
    /// At its first verified answer, else the last segment.
    pub verified: Ending,
}

/// What is shown to the caller of [`run`].
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// A segment has ended; nothing else may happen for many of them.
    Segment,
    Pass(FinishedPass),
}

/// A puzzle to run, without the passes that are known already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Todo {
    pub puzzle: usize,
    pub done: Vec<u32>,
}

/// What an engine is to do.
#[derive(Clone, Debug)]
pub struct EnginePlan<'a> {
    pub geometry: Geometry,
    pub guesses: &'a [Guess],
    /// Of everything that guesses draw.
    pub seed: u64,
    pub stop: StopRule,
    /// With [`StopRule::Never`]: the endings under the other rules, too.
    pub compare: bool,
    /// Slots of each checkpoint.
    pub batch_size: usize,
}

/// What was computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Segments of passes, whole or not.
    pub segments: u64,
    /// Row segments that went through a model, empty slots included.
    pub rows: u64,
    /// Time in which models were made ready: on a GPU, recording graphs and choosing algorithms.
    pub setup: Duration,
    /// The callback asked for a stop.
    pub stopped: bool,
}

/// Runs all passes of `todo`; `each` sees every segment and every pass after it has stopped, and may end the run. The order in which passes
/// stop depends on the batch size, what they come to does not.
///
/// # Errors
/// A failure inside libtorch; a puzzle that the set does not have.
pub fn run(
    models: &[Model],
    set: &DatasetSet,
    todo: &[Todo],
    plan: &EnginePlan<'_>,
    each: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Work> {
    let (Some(first), Some(last)) = (todo.iter().map(|t| t.puzzle).min(), todo.iter().map(|t| t.puzzle).max()) else {
        return Ok(Work::default());
    };
    let questions = question_bytes(set, first, last)?;
    let mut engine = Engine::new(models, &questions, first, todo, plan);
    no_grad(|| engine.run(each))
}

/// Tokens of the puzzles `first..=last`.
fn question_bytes(set: &DatasetSet, first: usize, last: usize) -> Result<Vec<u8>> {
    const AT_ONCE: usize = 1 << 14;
    let mut bytes = Vec::with_capacity((last - first + 1) * set.seq_len());
    let all: Vec<usize> = (first..=last).collect();
    for part in all.chunks(AT_ONCE) {
        let rows = set.rows_as_stored(part)?.inputs;
        for token in rows {
            bytes.push(u8::try_from(token).with_context(|| format!("token {token} is no puzzle's"))?);
        }
    }
    Ok(bytes)
}

struct Engine<'a> {
    plan: &'a EnginePlan<'a>,
    base: usize,
    lanes: Vec<Lane<'a>>,
    todo: std::slice::Iter<'a, Todo>,
    /// Puzzles that have begun: passes that are still to end.
    begun: BTreeMap<usize, usize>,
    /// Puzzles that may have begun at once.
    window: usize,
}

impl<'a> Engine<'a> {
    fn new(models: &'a [Model], questions: &[u8], base: usize, todo: &'a [Todo], plan: &'a EnginePlan<'a>) -> Self {
        let at_once = if plan.stop == StopRule::Verified { 1 } else { plan.guesses.len() };
        let slots = plan.batch_size.min(todo.len().saturating_mul(at_once)).max(1);
        let device = models.first().map_or(Device::Cpu, Model::device);
        let shared = Rc::new(Shared {
            base,
            puzzles: DevicePuzzles::new(plan.geometry, questions, device),
            guesses: DeviceGuesses::new(plan.guesses, plan.seed, device),
        });
        let lanes = models.iter().map(|model| Lane::new(model, slots, plan, &shared)).collect();
        // Twice what all slots hold: then some checkpoint always has enough passes for its slots.
        let window = 2 * slots.saturating_mul(models.len());
        Self { plan, base, lanes, todo: todo.iter(), begun: BTreeMap::new(), window }
    }

    fn run(&mut self, mut each: impl FnMut(Progress) -> ControlFlow<()>) -> Result<Work> {
        let mut work = Work::default();
        let mut finished: Vec<FinishedPass> = Vec::new();
        loop {
            self.admit();
            let Some(at) = self.next_lane() else { break };
            let nothing_comes = self.todo.len() == 0 && self.lanes[..at].iter().all(|lane| lane.passes() == 0);
            let lane = &mut self.lanes[at];
            let running = lane.launch(nothing_comes)?;
            // The host's own work, while the device computes.
            for seen in finished.drain(..).map(Progress::Pass).chain([Progress::Segment]) {
                if each(seen).is_break() {
                    return Ok(Work { stopped: true, ..work });
                }
            }
            work.rows += lane.slots.len() as u64;
            work.segments += lane.live as u64;
            work.setup += std::mem::take(&mut lane.setup);
            finished = lane.collect(&running, at as u32)?;
            for pass in &finished {
                self.goes_on(pass);
            }
        }
        for pass in finished {
            if each(Progress::Pass(pass)).is_break() {
                return Ok(Work { stopped: true, ..work });
            }
        }
        Ok(work)
    }

    /// Lets puzzles begin as long as there is room for them.
    fn admit(&mut self) {
        let guesses = self.plan.guesses.len() as u32;
        let all = guesses * self.lanes.len() as u32;
        while self.begun.len() < self.window {
            let Some(Todo { puzzle, done }) = self.todo.next() else { return };
            let missing = (0..all).filter(|pass| !done.contains(pass));
            let first = if self.plan.stop == StopRule::Verified { 1 } else { usize::MAX };
            let passes: Vec<u32> = missing.take(first).collect();
            if passes.is_empty() {
                continue;
            }
            self.begun.insert(*puzzle, passes.len());
            passes.iter().for_each(|&pass| self.push(*puzzle, pass));
        }
    }

    fn push(&mut self, puzzle: usize, pass: u32) {
        let guesses = self.plan.guesses.len() as u32;
        let job = Job { puzzle: puzzle - self.base, guess: (pass % guesses) as usize, segments: 0 };
        self.lanes[(pass / guesses) as usize].push(job);
    }

    /// The first checkpoint that can fill its slots, else the one with the most passes.
    fn next_lane(&self) -> Option<usize> {
        let full = self.lanes.iter().position(|lane| lane.passes() >= lane.slots.len());
        let most = || (0..self.lanes.len()).max_by_key(|&i| (self.lanes[i].passes(), Reverse(i)));
        full.or_else(most).filter(|&i| self.lanes[i].passes() > 0)
    }

    /// What follows in a puzzle after one of its passes.
    fn goes_on(&mut self, done: &FinishedPass) {
        let all = (self.plan.guesses.len() * self.lanes.len()) as u32;
        if self.plan.stop == StopRule::Verified && !done.end.verified && done.pass + 1 < all {
            self.push(done.puzzle, done.pass + 1);
            return;
        }
        if let Some(left) = self.begun.get_mut(&done.puzzle) {
            *left -= 1;
            if *left == 0 {
                self.begun.remove(&done.puzzle);
            }
        }
    }
}

/// A pass in a slot or waiting for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Job {
    /// Row of the puzzles on the device.
    puzzle: usize,
    guess: usize,
    segments: u32,
}

/// What all checkpoints read, on the device.
struct Shared {
    /// The set's index of the first puzzle here.
    base: usize,
    puzzles: DevicePuzzles,
    guesses: DeviceGuesses,
}

/// One checkpoint with its slots.
struct Lane<'a> {
    model: &'a Model,
    plan: &'a EnginePlan<'a>,
    shared: Rc<Shared>,
    starts: Option<StartStates>,
    slots: Vec<Option<Job>>,
    live: usize,
    ready: BinaryHeap<Reverse<Waiting>>,
    /// Not told yet.
    setup: Duration,
    /// Made when the first pass comes.
    rows: Option<Rows<'a>>,
}

/// Order in which passes begin: the puzzles' order, or, where a puzzle's passes wait for each other, the passes' order.
type Waiting = (usize, usize);

/// The rows on the device and what belongs to each.
struct Rows<'a> {
    segments: SegmentLoop<'a>,
    questions: Questions,
    undo: Undo,
    /// `[B]`, int64
    guess: Tensor,
    halt: Option<Snapshot>,
    verified: Option<Snapshot>,
}

/// What a row was at a certain segment.
struct Snapshot {
    /// `[B, S]`, int64
    answer: Tensor,
    /// `[B]`, int64; 0 where the segment has not come yet
    segments: Tensor,
    /// `[B]`, f32
    margin: Tensor,
    /// `[B]`, bool
    halted: Tensor,
    verified: Tensor,
}
rows!(Snapshot { answer, segments, margin, halted, verified });

/// A segment that the device may still be working on.
struct Running {
    now: Snapshot,
    /// [`STOPPED`], [`HALTED`] and [`VERIFIED`] of each row. `[B]`, uint8
    flags: Tensor,
}

impl<'a> Lane<'a> {
    fn new(model: &'a Model, slots: usize, plan: &'a EnginePlan<'a>, shared: &Rc<Shared>) -> Self {
        Self {
            model,
            plan,
            shared: Rc::clone(shared),
            starts: shared.guesses.touch_states().then(|| shared.guesses.start_states(model)),
            slots: vec![None; slots],
            live: 0,
            ready: BinaryHeap::new(),
            setup: Duration::ZERO,
            rows: None,
        }
    }

    /// Passes in slots and waiting.
    fn passes(&self) -> usize {
        self.live + self.ready.len()
    }

    fn push(&mut self, job: Job) {
        let key = if self.plan.stop == StopRule::Verified { (job.guess, job.puzzle) } else { (job.puzzle, job.guess) };
        self.ready.push(Reverse(key));
    }

    fn pop(&mut self) -> Option<Job> {
        let Reverse((a, b)) = self.ready.pop()?;
        let (guess, puzzle) = if self.plan.stop == StopRule::Verified { (a, b) } else { (b, a) };
        Some(Job { puzzle, guess, segments: 0 })
    }

    /// Refills the slots and starts a segment on the device. `nothing_comes`: no other passes will be pushed than those
    /// that follow these.
    fn launch(&mut self, nothing_comes: bool) -> Result<Running> {
        if nothing_comes {
            self.narrow()?;
        }
        let mut fresh = vec![0_i64; self.slots.len()];
        for (slot, fresh) in fresh.iter_mut().enumerate() {
            if self.slots[slot].is_none()
                && let Some(job) = self.pop()
            {
                self.slots[slot] = Some(job);
                self.live += 1;
                *fresh = 1;
            }
        }
        self.assign(&fresh);
        let rows = self.rows.as_mut().context("rows are there once a pass is")?;
        if let Some(states) = &self.starts {
            rows.segments.start_rows(&states.select_rows(&rows.guess));
            if self.shared.guesses.noisy() {
                // An empty slot computes what nobody looks at.
                let jobs = self.slots.iter().map(|job| job.unwrap_or(Job { puzzle: 0, guess: 0, segments: 0 }));
                let (guess, keys): (Vec<i64>, Vec<i64>) = jobs
                    .map(|j| {
                        let puzzle = self.shared.base + j.puzzle;
                        (j.guess as i64, self.shared.guesses.noise_key(puzzle, j.guess as u32, j.segments))
                    })
                    .unzip();
                self.shared.guesses.add_noise(&rows.segments.carry().z_h, &guess, &keys);
            }
        }
        let segment = rows.segments.step();
        Ok(rows.judge(&segment, &self.shared.puzzles, self.plan, self.model.config().halt_max_steps))
    }

    /// Tells the device which passes the slots hold, where any is new.
    fn assign(&mut self, fresh: &[i64]) {
        if self.rows.is_some() && fresh.iter().all(|&f| f == 0) {
            return;
        }
        let device = self.model.device();
        let of = |what: fn(&Job) -> usize| self.slots.iter().map(move |job| job.as_ref().map_or(0, what) as i64);
        let table: Vec<i64> = of(|j| j.puzzle).chain(of(|j| j.guess)).chain(fresh.iter().copied()).collect();
        let table = runtime::upload(&Tensor::from_slice(&table).view([3, -1]), device); // [3, B]
        let (puzzle, guess, fresh) = (table.get(0), table.get(1), table.get(2).to_kind(Kind::Bool));
        let questions = self.shared.puzzles.rows(&puzzle);
        let undo = self.shared.guesses.undoing(&guess);
        let inputs = self.shared.guesses.apply(&questions.tokens, &guess);
        match &mut self.rows {
            Some(rows) => {
                rows.questions = questions;
                rows.undo = undo;
                rows.guess = guess;
            }
            None => {
                let blank = || self.plan.compare.then(|| Snapshot::blank(&questions.tokens));
                let (halt, verified) = (blank(), blank());
                let started = Instant::now();
                let segments = self.model.segment_loop(self.slots.len() as i64);
                self.setup = started.elapsed();
                self.rows = Some(Rows { segments, questions, undo, guess, halt, verified });
            }
        }
        if let Some(rows) = &self.rows {
            rows.segments.set_incoming_inputs(&inputs);
            let mut halted = rows.segments.carry().halted.shallow_clone();
            let _ = halted.logical_or_(&fresh);
        }
    }

    /// Gives up empty slots when half of them stay empty to the end. A graph holds for one number of rows: on a GPU with
    /// graphs they stay.
    fn narrow(&mut self) -> Result<()> {
        let keep: Vec<usize> = (0..self.slots.len()).filter(|&slot| self.slots[slot].is_some()).collect();
        let wanted = self.passes().max(1);
        if wanted * 2 > self.slots.len() || self.rows.is_none() {
            return Ok(());
        }
        let spare = (0..self.slots.len()).filter(|slot| self.slots[*slot].is_none());
        let mut keep: Vec<usize> = keep.iter().copied().chain(spare.take(wanted - keep.len())).collect();
        keep.sort_unstable();
        let device = self.model.device();
        let at = Tensor::from_slice(&keep.iter().map(|&s| s as i64).collect::<Vec<i64>>()).to_device(device);
        let Some(rows) = &mut self.rows else { return Ok(()) };
        if !rows.segments.narrow(&at) {
            return Ok(());
        }
        rows.guess = rows.guess.index_select(0, &at);
        rows.undo = self.shared.guesses.undoing(&rows.guess);
        rows.questions = rows.questions.select_rows(&at);
        for snapshot in [&mut rows.halt, &mut rows.verified].into_iter().flatten() {
            *snapshot = snapshot.select_rows(&at);
        }
        self.slots = keep.iter().map(|&slot| self.slots[slot]).collect();
        Ok(())
    }

    /// Waits for the segment, empties the slots whose rows stopped, and returns those passes.
    fn collect(&mut self, running: &Running, checkpoint: u32) -> Result<Vec<FinishedPass>> {
        let flags: Vec<u8> = Vec::try_from(running.flags.f_to_device(Device::Cpu)?)?;
        let mut stopped: Vec<(i64, Job, u8)> = Vec::new();
        for (at, (slot, flags)) in self.slots.iter_mut().zip(&flags).enumerate() {
            if let Some(job) = slot {
                job.segments += 1;
                if flags & STOPPED != 0 {
                    stopped.push((at as i64, *job, *flags));
                    *slot = None;
                    self.live -= 1;
                }
            }
        }
        let Some(rows) = &self.rows else { return Ok(Vec::new()) };
        if stopped.is_empty() {
            return Ok(Vec::new());
        }
        let at: Vec<i64> = stopped.iter().map(|(at, ..)| *at).collect();
        let at = runtime::upload(&Tensor::from_slice(&at), self.model.device());
        let (answers, margins) = running.now.answers_of(&at)?;
        let other = |snapshot: &Option<Snapshot>| snapshot.as_ref().map(|s| s.select_rows(&at).endings()).transpose();
        let (halt, verified) = (other(&rows.halt)?, other(&rows.verified)?);
        let first = |list: &Option<Vec<Ending>>, i: usize, end: &Ending| match list {
            Some(list) if list[i].segments > 0 => list[i].clone(),
            _ => end.clone(),
        };
        let guesses = self.plan.guesses.len() as u32;
        let finished = stopped.into_iter().zip(answers).zip(margins).enumerate();
        Ok(finished
            .map(|(i, (((_, job, flags), answer), margin))| {
                let end = Ending {
                    answer,
                    segments: job.segments,
                    halted: flags & HALTED != 0,
                    verified: flags & VERIFIED != 0,
                    margin,
                };
                FinishedPass {
                    puzzle: self.shared.base + job.puzzle,
                    pass: checkpoint * guesses + job.guess as u32,
                    others: self
                        .plan
                        .compare
                        .then(|| Others { halt: first(&halt, i, &end), verified: first(&verified, i, &end) }),
                    end,
                }
            })
            .collect())
    }
}

/// What the host reads of each row after a segment.
const STOPPED: u8 = 1;
const HALTED: u8 = 2;
const VERIFIED: u8 = 4;

impl Rows<'_> {
    /// Which rows stop after this segment.
    fn judge(&mut self, segment: &Segment, puzzles: &DevicePuzzles, plan: &EnginePlan<'_>, most: i64) -> Running {
        let answer = self.undo.undo(&segment.predictions()); // [B, S]
        let halted = segment.q_halt.gt_tensor(&segment.q_continue);
        let verified = puzzles.verify(&self.questions, &answer);
        let last = segment.carry.steps.ge(most);
        let stop = match plan.stop {
            StopRule::Never => last,
            StopRule::Halt => last.logical_or(&halted),
            StopRule::Verified => last.logical_or(&verified),
        };
        let bit = |of: &Tensor, bit: u8| of.to_kind(Kind::Uint8) * i64::from(bit);
        let flags = bit(&stop, STOPPED) + bit(&halted, HALTED) + bit(&verified, VERIFIED);
        self.segments.carry().halted.shallow_clone().copy_(&stop);
        let now = Snapshot {
            answer,
            segments: segment.carry.steps.to_kind(Kind::Int64),
            margin: &segment.q_halt - &segment.q_continue,
            halted,
            verified,
        };
        if let Some(halt) = &mut self.halt {
            halt.take(&now, &now.halted);
        }
        if let Some(verified) = &mut self.verified {
            verified.take(&now, &now.verified);
        }
        Running { now, flags }
    }
}

impl Snapshot {
    /// `like`: `[B, S]`, int64.
    fn blank(like: &Tensor) -> Self {
        let row = like.select(1, 0).zeros_like();
        Self {
            answer: like.zeros_like(),
            segments: row.copy(),
            margin: row.to_kind(Kind::Float),
            halted: row.to_kind(Kind::Bool),
            verified: row.to_kind(Kind::Bool),
        }
    }

    /// Becomes `now` in rows where `when` holds for the first time in a pass.
    fn take(&mut self, now: &Self, when: &Tensor) {
        let known = self.segments.gt(0).logical_and(&now.segments.gt(1));
        let take = when.logical_and(&known.logical_not());
        // A row at its first segment is a new pass: what is kept of the old one goes.
        let segments = &self.segments * &known;
        *self = Self { segments, ..self.shallow_clone() }.replace_rows(&take, now);
    }

    /// Answers and margins of these rows, on the host.
    fn answers_of(&self, rows: &Tensor) -> Result<(Vec<Vec<u8>>, Vec<f32>)> {
        let (_, cells) = self.answer.size2()?;
        let answers = self.answer.index_select(0, rows).f_to_kind(Kind::Uint8)?.f_to_device(Device::Cpu)?;
        let answers: Vec<u8> = Vec::try_from(answers.f_reshape([-1])?)?;
        let margins = Vec::try_from(self.margin.index_select(0, rows).f_to_device(Device::Cpu)?)?;
        Ok((answers.chunks(cells as usize).map(<[u8]>::to_vec).collect(), margins))
    }

    /// All rows, on the host.
    fn endings(&self) -> Result<Vec<Ending>> {
        let (rows, _) = self.answer.size2()?;
        let all = Tensor::arange(rows, (Kind::Int64, self.answer.device()));
        let (answers, margins) = self.answers_of(&all)?;
        let host = |t: &Tensor, kind: Kind| t.f_to_kind(kind)?.f_to_device(Device::Cpu)?.f_reshape([-1]);
        let segments: Vec<i64> = Vec::try_from(host(&self.segments, Kind::Int64)?)?;
        let halted: Vec<bool> = Vec::try_from(host(&self.halted, Kind::Bool)?)?;
        let verified: Vec<bool> = Vec::try_from(host(&self.verified, Kind::Bool)?)?;
        Ok(answers
            .into_iter()
            .zip(segments)
            .zip(margins)
            .zip(halted.into_iter().zip(verified))
            .map(|(((answer, segments), margin), (halted, verified))| Ending {
                answer,
                segments: segments as u32,
                halted,
                verified,
                margin,
            })
            .collect())
    }
}
