//! Continuous batching: every pass of every puzzle through slots that are refilled as their rows stop.
//!
//! ```text
//! pass p of a puzzle = (checkpoint p / G, guess p mod G)          G guesses a checkpoint
//! slot: start -> segment, segment, .. -> stop -> the next pass starts in the same slot with the next segment
//! ```
//!
//! All passes of a checkpoint go through one session with a fixed number of rows. Whether a row stops is decided on the
//! device; the host reads one byte a row after each segment, and the endings of the rows that stopped. A row's numbers
//! depend on its own pass alone, so every pass ends as it would in a batch that runs all segments.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    ops::ControlFlow,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tch::{Device, no_grad};

use super::{
    guess::{DeviceGuesses, Guess},
    pass::{PassId, StopRule},
    pass_rows::{Job, Judged, PassRows, Shared},
    record::PassRecord,
    verify::DevicePuzzles,
};
use crate::{dataset::DatasetSet, model::Model, puzzle::Geometry};

/// A pass that has stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct FinishedPass {
    /// The puzzle's place in the set.
    pub puzzle: usize,
    /// Its endings under the other rules are there where [`EnginePlan::compare`] asks for them.
    pub pass: PassRecord,
}

/// What is shown to the caller of [`run`].
#[derive(Clone, Debug, PartialEq)]
pub enum EngineEvent {
    /// A segment has ended; nothing else may happen for many of them.
    Segment,
    /// A pass has ended.
    Pass(FinishedPass),
}

/// A puzzle to run, without the passes that are known already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Todo {
    /// The puzzle's place in the set.
    pub puzzle: usize,
    /// Those that have ended.
    pub done: Vec<PassId>,
}

/// What an engine is to do.
#[derive(Clone, Debug)]
pub struct EnginePlan<'a> {
    /// The kind of the puzzles.
    pub geometry: Geometry,
    /// The guesses of each checkpoint.
    pub guesses: &'a [Guess],
    /// Of everything that guesses draw.
    pub seed: u64,
    /// When a pass ends.
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

/// Runs all passes of `todo`; `each` sees every segment and every pass after it has stopped, and may end the run. The
/// order in which passes stop depends on the batch size, what they come to does not.
///
/// # Errors
/// A failure inside libtorch; a puzzle that the set does not have.
pub fn run(
    models: &[Model],
    set: &DatasetSet,
    todo: &[Todo],
    plan: &EnginePlan<'_>,
    each: impl FnMut(EngineEvent) -> ControlFlow<()>,
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
            bytes.push(u8::try_from(token).with_context(|| format!("token {token} is not in the vocabulary"))?);
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
            geometry: plan.geometry,
            base,
            puzzles: DevicePuzzles::new(plan.geometry, questions, device),
            guesses: DeviceGuesses::new(plan.guesses, plan.seed, device),
        });
        let lane =
            |model| Lane { model, plan, shared: Rc::clone(&shared), slots, ready: BinaryHeap::new(), rows: None };
        let lanes = models.iter().map(lane).collect();
        // Twice what all slots hold: then some checkpoint always has enough passes for its slots.
        let window = 2 * slots.saturating_mul(models.len());
        Self { plan, base, lanes, todo: todo.iter(), begun: BTreeMap::new(), window }
    }

    fn run(&mut self, mut each: impl FnMut(EngineEvent) -> ControlFlow<()>) -> Result<Work> {
        let mut work = Work::default();
        let mut finished: Vec<FinishedPass> = Vec::new();
        loop {
            self.admit();
            let Some(at) = self.next_lane() else { break };
            let nothing_comes = self.todo.len() == 0 && self.lanes[..at].iter().all(|lane| lane.passes() == 0);
            let lane = &mut self.lanes[at];
            if nothing_comes {
                lane.narrow();
            }
            work.setup += lane.prepare();
            let judged = lane.launch()?;
            // The host's own work, while the device computes.
            for seen in finished.drain(..).map(EngineEvent::Pass).chain([EngineEvent::Segment]) {
                if each(seen).is_break() {
                    return Ok(Work { stopped: true, ..work });
                }
            }
            work.rows += lane.slots as u64;
            work.segments += lane.live() as u64;
            finished = lane.collect(&judged, at)?;
            for FinishedPass { puzzle, pass } in &finished {
                self.goes_on(*puzzle, pass);
            }
        }
        for pass in finished {
            if each(EngineEvent::Pass(pass)).is_break() {
                return Ok(Work { stopped: true, ..work });
            }
        }
        Ok(work)
    }

    /// Lets puzzles begin as long as there is room for them.
    fn admit(&mut self) {
        while self.begun.len() < self.window {
            let Some(Todo { puzzle, done }) = self.todo.next() else { return };
            let all = PassId::all(self.lanes.len(), self.plan.guesses.len());
            let missing = all.filter(|pass| !done.contains(pass));
            let first = if self.plan.stop == StopRule::Verified { 1 } else { usize::MAX };
            let passes: Vec<PassId> = missing.take(first).collect();
            if passes.is_empty() {
                continue;
            }
            self.begun.insert(*puzzle, passes.len());
            passes.iter().for_each(|&pass| self.push(*puzzle, pass));
        }
    }

    fn push(&mut self, puzzle: usize, PassId { checkpoint, guess }: PassId) {
        self.lanes[checkpoint].ready.push(Reverse(Turn::new(self.plan.stop, puzzle - self.base, guess)));
    }

    /// The first checkpoint that can fill its slots, else the one with the most passes.
    fn next_lane(&self) -> Option<usize> {
        let full = self.lanes.iter().position(|lane| lane.passes() >= lane.slots);
        let most = || (0..self.lanes.len()).max_by_key(|&i| (self.lanes[i].passes(), Reverse(i)));
        full.or_else(most).filter(|&i| self.lanes[i].passes() > 0)
    }

    /// What follows in a puzzle after one of its passes.
    fn goes_on(&mut self, puzzle: usize, done: &PassRecord) {
        let next = done.pass.next(self.plan.guesses.len());
        if self.plan.stop == StopRule::Verified && !done.end.verified && next.checkpoint < self.lanes.len() {
            self.push(puzzle, next);
            return;
        }
        if let Some(left) = self.begun.get_mut(&puzzle) {
            *left -= 1;
            if *left == 0 {
                self.begun.remove(&puzzle);
            }
        }
    }
}

/// When a waiting pass of a checkpoint begins: the least first. All that wait together are of one variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// Puzzle after puzzle.
    ByPuzzle { puzzle: usize, guess: usize },
    /// First guesses first: a puzzle's passes wait for each other.
    ByGuess { guess: usize, puzzle: usize },
}

impl Turn {
    fn new(stop: StopRule, puzzle: usize, guess: usize) -> Self {
        match stop {
            StopRule::Verified => Self::ByGuess { guess, puzzle },
            StopRule::Never | StopRule::Halt => Self::ByPuzzle { puzzle, guess },
        }
    }

    fn job(self) -> Job {
        let (Self::ByPuzzle { puzzle, guess } | Self::ByGuess { guess, puzzle }) = self;
        Job { puzzle, guess, segments: 0 }
    }
}

/// One checkpoint with its slots.
struct Lane<'a> {
    model: &'a Model,
    plan: &'a EnginePlan<'a>,
    shared: Rc<Shared>,
    slots: usize,
    ready: BinaryHeap<Reverse<Turn>>,
    /// Made when the first pass comes.
    rows: Option<PassRows<'a>>,
}

impl Lane<'_> {
    /// Passes in slots.
    fn live(&self) -> usize {
        self.rows.as_ref().map_or(0, PassRows::live)
    }

    /// Passes in slots and waiting.
    fn passes(&self) -> usize {
        self.live() + self.ready.len()
    }

    /// Gives up empty slots when half of them stay empty to the end, as no other passes will come than those that follow
    /// these.
    fn narrow(&mut self) {
        let (wanted, live) = (self.passes().max(1), self.live());
        if let Some(rows) = &mut self.rows
            && wanted * 2 <= self.slots
        {
            rows.narrow(wanted - live);
            self.slots = rows.len();
        }
    }

    /// Makes the rows, where that is still to be done, and tells how long it took.
    fn prepare(&mut self) -> Duration {
        if self.rows.is_some() {
            return Duration::ZERO;
        }
        let started = Instant::now();
        self.rows = Some(PassRows::new(self.model, &self.shared, self.slots, self.plan.stop, self.plan.compare));
        started.elapsed()
    }

    /// Refills the slots and starts a segment on the device.
    fn launch(&mut self) -> Result<Judged> {
        let rows = self.rows.as_mut().context("a checkpoint was not prepared")?;
        rows.refill(|| self.ready.pop().map(|Reverse(turn)| turn.job()));
        Ok(rows.step())
    }

    /// Waits for the segment, empties the slots whose rows stopped, and returns those passes.
    fn collect(&mut self, judged: &Judged, checkpoint: usize) -> Result<Vec<FinishedPass>> {
        let Some(rows) = &mut self.rows else { return Ok(Vec::new()) };
        let stopped = rows.collect(judged)?.into_iter();
        Ok(stopped
            .map(|stopped| FinishedPass {
                puzzle: self.shared.base + stopped.job.puzzle,
                pass: PassRecord {
                    pass: PassId { checkpoint, guess: stopped.job.guess },
                    end: stopped.end,
                    at_halt: stopped.at_halt,
                    at_verified: stopped.at_verified,
                },
            })
            .collect())
    }
}
