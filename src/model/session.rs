//! Segments one after the other: the one loop that evaluation, inference and the analyses share.
//!
//! ```text
//! model.session(rows)   rows that come and go: a halted row takes its row of the incoming batch and starts anew
//! model.unroll(carry)   rows that never halt: any number of segments, from a carry of the caller's choice
//! .traced()             keeps z_H after every H cycle
//! ```
//!
//! On a GPU a segment of [`Model::session`] is recorded once as a CUDA graph and replayed, which reads and writes the
//! same tensors every time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use tch::{Device, Tensor, no_grad};

use super::{Carry, DeviceBatch, Model, Rows, Segment, StartStates, rows::rows};
use crate::runtime::{CudaGraph, Recorded};

/// Rows in the middle of their segments, each at its own.
///
/// ```no_run
/// # fn f(model: &hrm::model::Model, batch: &hrm::model::DeviceBatch) {
/// let mut session = model.session(batch.rows());
/// session.set_incoming(batch); // every row begins halted, so all take their row of the batch
/// let first = session.step();
/// # }
/// ```
#[derive(Debug)]
pub struct Session<'a> {
    model: &'a Model,
    state: State,
    /// The graph whose tensors `state` has; held for as long as they are in use.
    recorded: Option<MutexGuard<'a, Recorded<SegmentGraph>>>,
    endless: bool,
    traced: bool,
}

#[derive(Debug)]
struct State {
    carry: Carry,
    /// What halted rows take.
    incoming: DeviceBatch,
}
rows!(State { carry, incoming });

/// A recorded segment for batches of one size.
#[derive(Debug)]
pub(super) struct SegmentGraph {
    graph: CudaGraph,
    state: State,
    logits: Tensor,
    q_halt: Tensor,
    q_continue: Tensor,
}

/// Guards the recorded segment; a model is used by one thread at a time.
pub(super) type RecordedCell = Mutex<Recorded<SegmentGraph>>;

impl Model {
    /// Runs a batch from a fresh carry through all `halt_max_steps` segments; `each` sees them in order and must copy
    /// what it keeps. Returns the last segment.
    pub fn all_segments(&self, batch: &DeviceBatch, mut each: impl FnMut(&Segment)) -> Segment {
        let mut session = self.session(batch.rows());
        session.set_incoming(batch);
        for _ in 1..self.config().halt_max_steps {
            each(&session.step());
        }
        let last = session.step();
        each(&last);
        if session.recorded.is_some() { last.copy() } else { last }
    }

    /// A session of `rows` rows, all of them halted; they halt again after `halt_max_steps` segments. Recorded sessions
    /// of a model wait for each other.
    pub fn session(&self, rows: i64) -> Session<'_> {
        let recorded = self.recorded(rows);
        let state = match recorded.as_ref().and_then(|recorded| recorded.graph()) {
            Some(graph) => graph.state.shallow_clone(),
            None => State::fresh(self, rows),
        };
        let _ = no_grad(|| state.carry.halted.shallow_clone().fill_(1));
        Session { model: self, state, recorded, endless: false, traced: false }
    }

    /// A session in which no row halts, from [`Model::fresh_carry`] or [`Model::carry_at`]. It is never recorded: every
    /// segment has memory of its own.
    ///
    /// From a fresh carry the first `halt_max_steps` segments are those of an evaluation.
    pub fn unroll(&self, carry: Carry) -> Session<'_> {
        let incoming = carry.batch.shallow_clone();
        Session { model: self, state: State { carry, incoming }, recorded: None, endless: true, traced: false }
    }

    /// The graph for batches of this size, recorded if it pays: on a GPU with fused kernels.
    fn recorded(&self, rows: i64) -> Option<MutexGuard<'_, Recorded<SegmentGraph>>> {
        let Device::Cuda(device) = self.device() else { return None };
        if !self.ops().recordable() {
            return None;
        }
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        match &*recorded {
            Recorded::Graph(graph) if graph.state.incoming.rows() == rows => return Some(recorded),
            Recorded::Impossible => return None,
            _ => {}
        }
        // What the old graph holds is free for the new one.
        *recorded = Recorded::NotYet;
        *recorded = Recorded::of(SegmentGraph::record(self, device, rows));
        recorded.graph().is_some().then_some(recorded)
    }
}

impl<'a> Session<'a> {
    /// Keeps z_H after every H cycle in [`Segment::trace`]; such a session is not recorded.
    #[must_use]
    pub fn traced(mut self) -> Self {
        drop(self.leave_graph());
        Self { traced: true, ..self }
    }

    /// Number of rows, B.
    pub fn rows(&self) -> i64 {
        self.state.incoming.rows()
    }

    /// The state between two segments. `halted` may be written: such a row starts anew at the next segment.
    pub fn carry(&self) -> &Carry {
        &self.state.carry
    }

    /// Sets the rows that halted rows take, labels and identifiers too.
    pub fn set_incoming(&self, batch: &DeviceBatch) {
        no_grad(|| self.state.incoming.assign(batch));
    }

    /// Sets the inputs alone; labels stay what they are (0 at first), and so do the identifiers.
    ///
    /// # Shapes
    /// - inputs: `[B, S]`, any integer dtype
    pub fn set_incoming_inputs(&self, inputs: &Tensor) {
        no_grad(|| self.state.incoming.inputs.shallow_clone().copy_(inputs));
    }

    /// Starts the halted rows now, from states of their own, so that the next segment starts none.
    pub fn start_rows(&mut self, states: &StartStates) {
        no_grad(|| {
            let started = self.model.restart(&self.state.carry, &self.state.incoming, states);
            let _ = started.halted.shallow_clone().fill_(0);
            if self.recorded.is_some() {
                self.state.carry.assign(&started);
            } else {
                self.state.carry = started;
            }
        });
    }

    /// One segment of every row. A recorded session's tensors are good until the next call.
    pub fn step(&mut self) -> Segment {
        if let Some(segment) = self.replay() {
            return segment;
        }
        let mut segment = self.model.segment(&self.state.carry, &self.state.incoming, self.traced);
        if self.endless {
            segment.carry.halted = segment.carry.halted.zeros_like();
        }
        self.state.carry = segment.carry.shallow_clone();
        segment
    }

    /// That many segments; `each` sees every one, counted from 1.
    ///
    /// # Errors
    /// Those of `each`, which end the run.
    pub fn run(&mut self, segments: usize, mut each: impl FnMut(usize, &Segment) -> Result<()>) -> Result<()> {
        (1..=segments).try_for_each(|number| each(number, &self.step()))
    }

    /// Goes on with these rows alone, in this order. False where a graph holds for one number of rows only.
    ///
    /// # Shapes
    /// - rows: `[rows]`, int64, each below B
    pub fn narrow(&mut self, rows: &Tensor) -> bool {
        if self.recorded.is_some() {
            return false;
        }
        self.state = no_grad(|| self.state.select_rows(rows));
        true
    }

    /// The next segment from the graph; none where there is none.
    fn replay(&mut self) -> Option<Segment> {
        let graph = self.recorded.as_ref()?.graph()?;
        match graph.graph.replay() {
            Ok(()) => Some(graph.view()),
            Err(e) => {
                if let Some(mut recorded) = self.leave_graph() {
                    *recorded = Recorded::of(Err(e));
                }
                None
            }
        }
    }

    /// Goes on in memory of its own, and gives the graph back.
    fn leave_graph(&mut self) -> Option<MutexGuard<'a, Recorded<SegmentGraph>>> {
        let recorded = self.recorded.take()?;
        self.state = self.state.copy();
        Some(recorded)
    }
}

impl State {
    fn fresh(model: &Model, rows: i64) -> Self {
        Self { carry: model.initial_carry(rows), incoming: model.initial_carry(rows).batch }
    }
}

impl SegmentGraph {
    fn record(model: &Model, device: usize, rows: i64) -> Result<Self> {
        let state = State::fresh(model, rows);
        let first = model.segment(&state.carry, &state.incoming, false);
        let (logits, q_halt, q_continue) = (first.logits.copy(), first.q_halt.copy(), first.q_continue.copy());
        drop(first);
        let graph = CudaGraph::record(device, || {
            let segment = model.segment(&state.carry, &state.incoming, false);
            no_grad(|| {
                state.carry.assign(&segment.carry);
                for (to, from) in
                    [(&logits, &segment.logits), (&q_halt, &segment.q_halt), (&q_continue, &segment.q_continue)]
                {
                    to.shallow_clone().copy_(from);
                }
            });
        })?;
        Ok(Self { graph, state, logits, q_halt, q_continue })
    }

    fn view(&self) -> Segment {
        Segment {
            carry: self.state.carry.shallow_clone(),
            logits: self.logits.shallow_clone(),
            q_halt: self.q_halt.shallow_clone(),
            q_continue: self.q_continue.shallow_clone(),
            trace: Vec::new(),
        }
    }
}
