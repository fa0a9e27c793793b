//! The rows of a batch on the device, each at a pass of its own: transformed, started, judged, refilled.

use std::rc::Rc;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::{
    guess::{DeviceGuesses, Undo},
    pass::{Ending, StopRule, finite},
    verify::{DevicePuzzles, Questions},
};
use crate::{
    model::{Model, Rows as _, Segment, Session, StartStates, rows},
    puzzle::Geometry,
    runtime,
};

/// What the rows of all checkpoints read, on the device.
#[derive(Debug)]
pub(super) struct Shared {
    pub geometry: Geometry,
    /// The set's index of the first puzzle here.
    pub base: usize,
    pub puzzles: DevicePuzzles,
    pub guesses: DeviceGuesses,
}

/// A pass in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Job {
    /// Place among the puzzles on the device.
    pub puzzle: usize,
    pub guess: usize,
    /// Done so far.
    pub segments: u32,
}

/// The rows of one checkpoint.
#[derive(Debug)]
pub(super) struct PassRows<'a> {
    session: Session<'a>,
    shared: Rc<Shared>,
    stop: StopRule,
    /// None where every guess starts from H_init and L_init.
    starts: Option<StartStates>,
    jobs: Vec<Option<Job>>,
    seats: Seats,
    /// How each row's pass stood at its first halt and at its first verified answer, where these are kept.
    first: Option<First>,
}

/// What belongs to the rows' passes.
#[derive(Debug)]
struct Seats {
    /// `[B]`, int64
    guess: Tensor,
    questions: Questions,
    undo: Undo,
}
rows!(Seats { guess, questions, undo });

#[derive(Debug)]
struct First {
    halt: Standing,
    verified: Standing,
}
rows!(First { halt, verified });

/// A segment that the device may still be working on.
#[derive(Debug)]
pub(super) struct Judged {
    pub now: Standing,
    /// The rows whose passes stop here. `[B]`, bool
    stop: Tensor,
}

/// A pass that has stopped.
#[derive(Debug)]
pub(super) struct Stopped {
    pub job: Job,
    pub end: Ending,
    /// Its first halt and its first verified answer, else the end; where these are kept.
    pub at_halt: Option<Ending>,
    pub at_verified: Option<Ending>,
}

/// How the rows of a batch stand after a segment, on the device.
#[derive(Debug)]
pub(super) struct Standing {
    /// In the puzzles' own frame. `[B, S]`, int64
    answer: Tensor,
    /// Segments done (0: not known), q_halt − q_continue, halted, verified. `[B, 4]`, f32
    facts: Tensor,
}
rows!(Standing { answer, facts });

impl Shared {
    /// Both `[B]`, int64.
    fn seats(&self, puzzle: &Tensor, guess: &Tensor) -> Seats {
        Seats { questions: self.puzzles.rows(puzzle), undo: self.guesses.undoing(guess), guess: guess.shallow_clone() }
    }
}

impl<'a> PassRows<'a> {
    /// Empty rows. `keep_first`: keep how passes stood at their first halt and at their first verified answer.
    pub(super) fn new(model: &'a Model, shared: &Rc<Shared>, rows: usize, stop: StopRule, keep_first: bool) -> Self {
        let zeros = Tensor::zeros([rows as i64], (Kind::Int64, model.device()));
        let seats = shared.seats(&zeros, &zeros);
        let blank = || Standing::blank(&seats.questions.tokens);
        Self {
            session: model.session(rows as i64),
            starts: shared.guesses.touch_states().then(|| shared.guesses.start_states(model)),
            first: keep_first.then(|| First { halt: blank(), verified: blank() }),
            shared: Rc::clone(shared),
            stop,
            jobs: vec![None; rows],
            seats,
        }
    }

    /// Number of rows, B.
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// PassRows with a pass.
    pub(super) fn live(&self) -> usize {
        self.jobs.iter().flatten().count()
    }

    /// Gives a pass to every empty row, as long as `next` has any.
    pub(super) fn refill(&mut self, mut next: impl FnMut() -> Option<Job>) {
        let mut fresh = vec![0_i64; self.jobs.len()];
        for (job, fresh) in self.jobs.iter_mut().zip(&mut fresh).filter(|(job, _)| job.is_none()) {
            *job = next();
            *fresh = i64::from(job.is_some());
        }
        if !fresh.contains(&1) {
            return;
        }
        let of = |what: fn(Job) -> usize| self.jobs.iter().map(move |job| what(job.unwrap_or_default()) as i64);
        let table: Vec<i64> = of(|j| j.puzzle).chain(of(|j| j.guess)).chain(fresh).collect();
        let table = Tensor::from_slice(&table).view([3, -1]);
        let table = runtime::upload(&table, self.seats.guess.device()); // [3, B]
        self.seats = self.shared.seats(&table.get(0), &table.get(1));
        let inputs = self.shared.guesses.apply(&self.seats.questions.tokens, &self.seats.guess);
        self.session.set_incoming_inputs(&inputs);
        let _ = self.session.carry().halted.shallow_clone().logical_or_(&table.get(2).to_kind(Kind::Bool));
    }

    /// Starts a segment on the device. Where passes stop, their rows are halted.
    pub(super) fn step(&mut self) -> Judged {
        let guesses = &self.shared.guesses;
        if let Some(states) = &self.starts {
            self.session.start_rows(&states.select_rows(&self.seats.guess));
        }
        if guesses.noisy() {
            // An empty row computes what nobody looks at.
            let jobs = self.jobs.iter().map(|job| job.unwrap_or_default());
            let key = |j: Job| guesses.noise_key(self.shared.base + j.puzzle, j.guess as u32, j.segments);
            let (guess, keys): (Vec<i64>, Vec<i64>) = jobs.map(|j| (j.guess as i64, key(j))).unzip();
            guesses.add_noise(&self.session.carry().z_h, &guess, &keys);
        }
        let segment = self.session.step();
        self.jobs.iter_mut().flatten().for_each(|job| job.segments += 1);
        self.judge(&segment)
    }

    fn judge(&mut self, segment: &Segment) -> Judged {
        let answer = self.seats.undo.undo(&segment.predictions()); // [B, S]
        let halted = segment.q_halt.gt_tensor(&segment.q_continue);
        let verified = self.shared.puzzles.verify(&self.seats.questions, &answer);
        // The model halts rows after the last of all segments.
        let last = &segment.carry.halted;
        let stop = match self.stop {
            StopRule::Never => last.copy(),
            StopRule::Halt => last.logical_or(&halted),
            StopRule::Verified => last.logical_or(&verified),
        };
        self.session.carry().halted.shallow_clone().copy_(&stop);
        let margin = &segment.q_halt - &segment.q_continue;
        let facts = [&segment.carry.steps, &margin, &halted, &verified].map(|t| t.to_kind(Kind::Float));
        let now = Standing { answer, facts: Tensor::stack(&facts, 1) };
        if let Some(first) = &mut self.first {
            first.halt.take_first(&now, &halted);
            first.verified.take_first(&now, &verified);
        }
        Judged { now, stop }
    }

    /// Waits for the segment, empties the rows whose passes stopped, and returns those passes.
    pub(super) fn collect(&mut self, judged: &Judged) -> Result<Vec<Stopped>> {
        let stop: Vec<bool> = Vec::try_from(judged.stop.f_to_device(Device::Cpu)?)?;
        let stopping = self.jobs.iter_mut().zip(&stop).enumerate().filter(|(_, (_, stop))| **stop);
        let (at, jobs): (Vec<i64>, Vec<Job>) =
            stopping.filter_map(|(row, (job, _))| Some((row as i64, job.take()?))).unzip();
        if at.is_empty() {
            return Ok(Vec::new());
        }
        let at = runtime::upload(&Tensor::from_slice(&at), judged.stop.device());
        let endings = |standing: &Standing| standing.select_rows(&at).endings(self.shared.geometry);
        let ends = endings(&judged.now)?;
        // A pass without a first halt or verified answer has its end there.
        let first = |standing: &Standing| -> Result<Vec<Ending>> {
            let found = endings(standing)?.into_iter().zip(&ends);
            Ok(found.map(|(first, end)| if first.segments > 0 { first } else { end.clone() }).collect())
        };
        let mut others = match &self.first {
            Some(kept) => first(&kept.halt)?.into_iter().zip(first(&kept.verified)?).map(Some).collect(),
            None => vec![None; ends.len()],
        };
        let passes = jobs.into_iter().zip(others.drain(..)).zip(ends);
        Ok(passes
            .map(|((job, others), end)| {
                let (at_halt, at_verified) = others.unzip();
                Stopped { job, end, at_halt, at_verified }
            })
            .collect())
    }

    /// Gives up empty rows but `spare` of them. A graph holds for one number of rows: with one they all stay.
    pub(super) fn narrow(&mut self, spare: usize) {
        let mut spare = spare;
        let keep = |(row, job): (usize, &Option<Job>)| {
            let kept = job.is_some() || spare > 0;
            spare -= usize::from(job.is_none() && kept);
            kept.then_some(row as i64)
        };
        let keep: Vec<i64> = self.jobs.iter().enumerate().filter_map(keep).collect();
        let at = Tensor::from_slice(&keep).to_device(self.seats.guess.device());
        if !self.session.narrow(&at) {
            return;
        }
        self.seats = self.seats.select_rows(&at);
        self.first = self.first.select_rows(&at);
        self.jobs = keep.iter().map(|&row| self.jobs[row as usize]).collect();
    }
}

impl Standing {
    /// Nothing is known yet. `like`: `[B, S]`, int64.
    fn blank(like: &Tensor) -> Self {
        let facts = Tensor::zeros([like.size()[0], 4], (Kind::Float, like.device()));
        Self { answer: like.zeros_like(), facts }
    }

    /// Becomes `now` in rows where `when` holds for the first time in a pass. `when`: `[B]`, bool.
    fn take_first(&mut self, now: &Self, when: &Tensor) {
        let segments = |standing: &Self| standing.facts.narrow(1, 0, 1); // [B, 1]
        // A row at its first segment is a new pass: what is kept of the old one goes.
        let known = segments(self).gt(0).logical_and(&segments(now).gt(1));
        let take = when.unsqueeze(1).logical_and(&known.logical_not());
        self.answer = now.answer.where_self(&take, &self.answer);
        self.facts = now.facts.where_self(&take, &(&self.facts * known));
    }

    /// The answers' tokens on the host, one row after the other.
    pub(super) fn tokens(&self) -> Result<Vec<u8>> {
        Ok(Vec::try_from(self.answer.f_to_kind(Kind::Uint8)?.f_to_device(Device::Cpu)?.f_reshape([-1])?)?)
    }

    /// All rows, on the host.
    pub(super) fn endings(&self, geometry: Geometry) -> Result<Vec<Ending>> {
        let cells = usize::try_from(self.answer.size()[1])?;
        let facts: Vec<f32> = Vec::try_from(self.facts.f_to_device(Device::Cpu)?.f_reshape([-1])?)?;
        let rows = self.tokens()?;
        let rows = rows.chunks(cells).zip(facts.as_chunks::<4>().0);
        Ok(rows
            .map(|(tokens, &[segments, margin, halted, verified])| Ending {
                answer: geometry.text(tokens),
                segments: segments as u32,
                halted: halted > 0.0,
                verified: verified > 0.0,
                margin: finite(margin),
                exact: None,
                cells: None,
            })
            .collect())
    }
}
