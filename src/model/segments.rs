//! Segments one after the other over rows that stay in place: all segments of a batch, or rows that come and go.
//!
//! Rows whose `halted` is set take the incoming batch's row at the next segment and start anew. On a GPU a segment is
//! recorded once as a CUDA graph and replayed, which reads and writes the same tensors every time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tch::{Device, Tensor, no_grad};

use super::{Carry, DeviceBatch, Model, Rows, Segment, rows::rows};
use crate::runtime::{CudaGraph, device_memory, graphs_wanted};

/// A recorded segment for batches of one size.
#[derive(Debug)]
pub(super) struct SegmentGraph {
    graph: CudaGraph,
    rows: i64,
    carry: Carry,
    /// The new batch, which halted rows take.
    batch: DeviceBatch,
    logits: Tensor,
    q_halt: Tensor,
    q_continue: Tensor,
}

/// The last recorded segment of a model, or that recording failed.
#[derive(Debug, Default)]
pub(super) enum Recorded {
    #[default]
    NotYet,
    Graph(Box<SegmentGraph>),
    Impossible,
}

/// Rows in the middle of their segments, each at its own.
///
/// ```no_run
/// # fn f(model: &hrm::model::Model, batch: &hrm::model::DeviceBatch) {
/// let mut rows = model.segment_loop(batch.rows());
/// rows.set_incoming(batch); // every row begins halted, so all take their row of the batch
/// let first = rows.step();
/// # }
/// ```
#[derive(Debug)]
pub struct SegmentLoop<'a> {
    model: &'a Model,
    /// Held for as long as the graph's tensors are in use.
    recorded: MutexGuard<'a, Recorded>,
    /// The state where there is no graph.
    plain: Option<Plain>,
}

#[derive(Debug)]
struct Plain {
    carry: Carry,
    batch: DeviceBatch,
}

/// Where rows start instead of H_init and L_init: `[B, 1, h]` each, forward dtype.
#[derive(Debug)]
pub struct StartStates {
    pub z_h: Tensor,
    pub z_l: Tensor,
}
rows!(StartStates { z_h, z_l });

impl Model {
    /// Runs a batch from a fresh carry through all `halt_max_steps` segments; `each` sees them in order and must copy
    /// what it keeps. Returns the last segment.
    pub fn all_segments(&self, batch: &DeviceBatch, mut each: impl FnMut(&Segment)) -> Segment {
        let mut rows = self.segment_loop(batch.rows());
        rows.set_incoming(batch);
        for _ in 1..self.config().halt_max_steps {
            each(&rows.step());
        }
        let last = rows.step();
        each(&last);
        rows.keep(last)
    }

    /// A loop over `rows` rows, all of them halted. A model runs one loop at a time: a second one waits for the first.
    pub fn segment_loop(&self, rows: i64) -> SegmentLoop<'_> {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let plain = if self.record(&mut recorded, rows) {
            None
        } else {
            let (carry, other) = (self.initial_carry(rows), self.initial_carry(rows));
            Some(Plain { carry, batch: other.batch })
        };
        let rows = SegmentLoop { model: self, recorded, plain };
        let _ = no_grad(|| rows.carry().halted.shallow_clone().fill_(1));
        rows
    }

    /// Rows of a large batch whose matrix products fill the GPU's processors evenly, and that fit into its free memory
    /// beside `others` more models of this size; none on a CPU and in the plain form.
    ///
    /// With tiles of 128 rows and 256 columns, the products onto `hidden_size` = 512 have two tiles for each 128 tokens:
    /// ten full waves of them are 1,030 Sudoku on 132 processors. Large puzzles take fewer waves: a batch keeps to about
    /// 110,000 tokens.
    pub fn filling_batch(&self, others: usize) -> Option<usize> {
        const TILE: i64 = 128;
        const TOKENS: i64 = 110_000;
        let processors = self.ops().fused()?.processors();
        let columns = (self.config().hidden_size + 255) / 256;
        let total = self.config().total_seq();
        let tokens = match self.device() {
            Device::Cuda(index) => device_memory(index).map_or(TOKENS, |memory| {
                let held_back = memory.free / 10 * 9 / (others as u64 + 1);
                TOKENS.min(i64::try_from(held_back / self.bytes_per_token()).unwrap_or(TOKENS))
            }),
            _ => TOKENS,
        };
        let rows = |waves: i64| waves * processors / columns * TILE / total;
        let best = (1..=10).rev().map(rows).find(|&b| b > 0 && b * total <= tokens).unwrap_or(tokens / total);
        usize::try_from(best.max(1)).ok()
    }

    /// Most device memory that a segment takes for each token: the state before and after, and what a layer makes.
    fn bytes_per_token(&self) -> u64 {
        let config = self.config();
        let wide = 16 * config.hidden_size + 4 * config.intermediate_size();
        wide.unsigned_abs() * self.config().forward_dtype.size() as u64
    }

    /// Whether there is a graph for batches of this size, recorded if it pays: on a GPU with fused kernels.
    fn record(&self, recorded: &mut Recorded, rows: i64) -> bool {
        let Device::Cuda(device) = self.device() else { return false };
        if self.ops().fused().is_none() || !graphs_wanted() {
            return false;
        }
        match recorded {
            Recorded::Graph(graph) if graph.rows == rows => return true,
            Recorded::Impossible => return false,
            _ => {}
        }
        // What the old graph holds is free for the new one.
        *recorded = Recorded::NotYet;
        *recorded = match SegmentGraph::record(self, device, rows) {
            Ok(graph) => Recorded::Graph(Box::new(graph)),
            Err(e) => {
                eprintln!("warning: {e:#}: going on without a CUDA graph");
                Recorded::Impossible
            }
        };
        matches!(recorded, Recorded::Graph(_))
    }
}

impl SegmentLoop<'_> {
    /// Number of rows, B.
    pub fn rows(&self) -> i64 {
        self.carry().halted.size()[0]
    }

    /// The state between two segments. `halted` may be written: such a row starts anew at the next segment.
    pub fn carry(&self) -> &Carry {
        match (&self.plain, &*self.recorded) {
            (Some(plain), _) => &plain.carry,
            (None, Recorded::Graph(graph)) => &graph.carry,
            (None, _) => unreachable!("a loop has a graph or a state of its own"),
        }
    }

    fn batch(&self) -> &DeviceBatch {
        match (&self.plain, &*self.recorded) {
            (Some(plain), _) => &plain.batch,
            (None, Recorded::Graph(graph)) => &graph.batch,
            (None, _) => unreachable!("a loop has a graph or a state of its own"),
        }
    }

    /// Sets the rows that halted rows take, labels and identifiers too.
    pub fn set_incoming(&self, batch: &DeviceBatch) {
        no_grad(|| self.batch().assign(batch));
    }

    /// Sets the inputs alone; labels stay what they are (0 at first), and so do the identifiers.
    ///
    /// # Shapes
    /// - inputs: `[B, S]`, any integer dtype
    pub fn set_incoming_inputs(&self, inputs: &Tensor) {
        no_grad(|| self.batch().inputs.shallow_clone().copy_(inputs));
    }

    /// Starts the halted rows now, from states of their own, so that the next segment starts none.
    pub fn start_rows(&mut self, states: &StartStates) {
        no_grad(|| {
            let started = self.model.restart_from(self.carry(), self.batch(), (&states.z_h, &states.z_l));
            let _ = started.halted.shallow_clone().fill_(0);
            match &mut self.plain {
                Some(plain) => plain.carry = started,
                None => self.carry().assign(&started),
            }
        });
    }

    /// One segment of every row. The tensors are good until the next call.
    pub fn step(&mut self) -> Segment {
        if self.plain.is_none()
            && let Recorded::Graph(graph) = &*self.recorded
        {
            match graph.graph.replay() {
                Ok(()) => return graph.view(),
                Err(e) => {
                    eprintln!("warning: {e:#}: going on without a CUDA graph");
                    self.plain = Some(Plain { carry: graph.carry.copy(), batch: graph.batch.copy() });
                    *self.recorded = Recorded::Impossible;
                }
            }
        }
        let segment = self.model.segment(self.carry(), self.batch(), false);
        if let Some(plain) = &mut self.plain {
            plain.carry = segment.carry.shallow_clone();
        }
        segment
    }

    /// Goes on with these rows alone, in this order. False where a graph holds for one number of rows only.
    ///
    /// # Shapes
    /// - rows: `[rows]`, int64, each below B
    pub fn narrow(&mut self, rows: &Tensor) -> bool {
        let Some(plain) = &mut self.plain else { return false };
        no_grad(|| {
            *plain = Plain { carry: plain.carry.select_rows(rows), batch: plain.batch.select_rows(rows) };
        });
        true
    }

    /// A segment in memory of its own.
    fn keep(&self, segment: Segment) -> Segment {
        if self.plain.is_some() { segment } else { segment.copy() }
    }
}

impl SegmentGraph {
    fn record(model: &Model, device: usize, rows: i64) -> anyhow::Result<Self> {
        let carry = model.initial_carry(rows);
        let batch = model.initial_carry(rows).batch;
        let first = model.segment(&carry, &batch, false);
        let (logits, q_halt, q_continue) = (first.logits.copy(), first.q_halt.copy(), first.q_continue.copy());
        drop(first);
        let graph = CudaGraph::record(device, || {
            let segment = model.segment(&carry, &batch, false);
            no_grad(|| {
                carry.assign(&segment.carry);
                for (to, from) in
                    [(&logits, &segment.logits), (&q_halt, &segment.q_halt), (&q_continue, &segment.q_continue)]
                {
                    to.shallow_clone().copy_(from);
                }
            });
        })?;
        Ok(Self { graph, rows, carry, batch, logits, q_halt, q_continue })
    }

    fn view(&self) -> Segment {
        Segment {
            carry: self.carry.shallow_clone(),
            logits: self.logits.shallow_clone(),
            q_halt: self.q_halt.shallow_clone(),
            q_continue: self.q_continue.shallow_clone(),
            trace: Vec::new(),
        }
    }
}

/// Guards the recorded segment; a model is used by one thread at a time.
pub(super) type RecordedCell = Mutex<Recorded>;
