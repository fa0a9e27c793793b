//! All segments of a batch from a fresh carry, one after the other; on a GPU a segment is recorded once as a CUDA graph
//! and replayed.

use std::sync::Mutex;

use tch::{Device, Tensor, no_grad};

use super::{Carry, DeviceBatch, Model, Segment};
use crate::runtime::{CudaGraph, graphs_wanted};

/// A recorded segment for batches of one size: it reads and writes the same tensors every time.
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

impl Model {
    /// Runs a batch from a fresh carry through all `halt_max_steps` segments; `each` sees them in order and must copy
    /// what it keeps. Returns the last segment.
    pub fn all_segments(&self, batch: &DeviceBatch, mut each: impl FnMut(&Segment)) -> Segment {
        let mut recorded = self.recorded.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(graph) = self.segment_graph(&mut recorded, batch) {
            match graph.run(self, batch, &mut each) {
                Ok(last) => return last,
                Err(e) => {
                    eprintln!("warning: {e:#}: going on without a CUDA graph");
                    *recorded = Recorded::Impossible;
                }
            }
        }
        let mut carry = self.initial_carry(batch.rows());
        for _ in 1..self.config().halt_max_steps {
            let segment = self.segment(&carry, batch, false);
            each(&segment);
            carry = segment.carry;
        }
        let last = self.segment(&carry, batch, false);
        each(&last);
        last
    }

    /// Rows of a large batch whose matrix products fill the GPU's processors evenly; none on a CPU and in the plain form.
    ///
    /// With tiles of 128 rows and 256 columns, the products onto `hidden_size` = 512 have two tiles for each 128 tokens:
    /// ten full waves of them are 1,030 Sudoku on 132 processors. Large puzzles take fewer waves: a batch keeps to about
    /// 110,000 tokens.
    pub fn filling_batch(&self) -> Option<usize> {
        const TILE: i64 = 128;
        const TOKENS: i64 = 110_000;
        let processors = self.ops().fused()?.processors();
        let columns = (self.config().hidden_size + 255) / 256;
        let total = self.config().total_seq();
        let rows = |waves: i64| waves * processors / columns * TILE / total;
        let best = (1..=10).rev().map(rows).find(|&b| b * total <= TOKENS).unwrap_or_else(|| TOKENS / total);
        usize::try_from(best.max(1)).ok()
    }

    /// The graph for batches of this size, recorded if it pays: on a GPU with fused kernels.
    fn segment_graph<'a>(&self, recorded: &'a mut Recorded, batch: &DeviceBatch) -> Option<&'a mut SegmentGraph> {
        let Device::Cuda(device) = self.device() else { return None };
        self.ops().fused().filter(|_| graphs_wanted())?;
        let rows = batch.rows();
        let fits = matches!(recorded, Recorded::Graph(graph) if graph.rows == rows);
        if !fits && !matches!(recorded, Recorded::Impossible) {
            *recorded = match SegmentGraph::record(self, device, rows) {
                Ok(graph) => Recorded::Graph(Box::new(graph)),
                Err(e) => {
                    eprintln!("warning: {e:#}: going on without a CUDA graph");
                    Recorded::Impossible
                }
            };
        }
        match recorded {
            Recorded::Graph(graph) => Some(graph),
            _ => None,
        }
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

    fn run(&mut self, model: &Model, batch: &DeviceBatch, each: &mut impl FnMut(&Segment)) -> anyhow::Result<Segment> {
        no_grad(|| {
            self.batch.assign(batch);
            let _ = self.carry.halted.fill_(1);
        });
        for _ in 0..model.config().halt_max_steps {
            self.graph.replay()?;
            each(&self.view());
        }
        let last = self.view();
        Ok(Segment {
            carry: last.carry.copy(),
            logits: last.logits.copy(),
            q_halt: last.q_halt.copy(),
            q_continue: last.q_continue.copy(),
            trace: Vec::new(),
        })
    }
}

/// Guards the recorded segment; a model is used by one thread at a time.
pub(super) type RecordedCell = Mutex<Recorded>;
