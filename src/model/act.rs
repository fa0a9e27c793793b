//! Adaptive Computation Time around the inner model: the carry, halting, exploration, the target Q values.
//!
//! A call runs one segment. Rows that halted before take the new batch's row and start from H_init/L_init; the other
//! rows keep their state and their data.

use tch::{Device, Kind, Tensor, no_grad};

use super::{LossGrads, Model, Rows, inner::Tape, rows::rows};
use crate::{batch::Batch, runtime};

/// A batch on the model's device.
#[derive(Debug)]
pub struct DeviceBatch {
    /// `[B, S]`, int32.
    pub inputs: Tensor,
    /// `[B, S]`, int32, `IGNORE_LABEL` where there is none.
    pub labels: Tensor,
    /// `[B]`, int32.
    pub puzzle_identifiers: Tensor,
}

impl DeviceBatch {
    /// Copies host rows to a device.
    pub fn upload(batch: &Batch, device: Device) -> Self {
        let rows = |a: &ndarray::Array2<i32>| {
            let (n, m) = a.dim();
            let flat: Vec<i32> = a.iter().copied().collect();
            runtime::upload(&Tensor::from_slice(&flat).view([n as i64, m as i64]), device)
        };
        let ids: Vec<i32> = batch.puzzle_identifiers.iter().copied().collect();
        Self {
            inputs: rows(&batch.inputs),
            labels: rows(&batch.labels),
            puzzle_identifiers: runtime::upload(&Tensor::from_slice(&ids), device),
        }
    }

    /// Number of rows, B.
    pub fn rows(&self) -> i64 {
        self.inputs.size()[0]
    }
}
rows!(DeviceBatch { inputs, labels, puzzle_identifiers });

/// What goes from one segment to the next.
#[derive(Debug)]
pub struct Carry {
    /// `[B, T, h]` each, forward dtype.
    pub z_h: Tensor,
    /// As `z_h`, of the L module.
    pub z_l: Tensor,
    /// Segments done since the row's start. `[B]`, int32.
    pub steps: Tensor,
    /// `[B]`, bool.
    pub halted: Tensor,
    /// The data that each row works on.
    pub batch: DeviceBatch,
}

rows!(Carry { z_h, z_l, steps, halted, batch });

impl Carry {
    /// The tensors with the names that a training checkpoint has them under.
    pub fn named(&self) -> [(&'static str, &Tensor); 7] {
        [
            ("carry.z_H", &self.z_h),
            ("carry.z_L", &self.z_l),
            ("carry.steps", &self.steps),
            ("carry.halted", &self.halted),
            ("carry.inputs", &self.batch.inputs),
            ("carry.labels", &self.batch.labels),
            ("carry.puzzle_identifiers", &self.batch.puzzle_identifiers),
        ]
    }
}

/// The states that rows start from: `[h]`, or `[B, 1, h]` or `[B, T, h]` for states of each row's own; forward dtype.
#[derive(Debug)]
pub struct StartStates {
    /// Of the H module.
    pub z_h: Tensor,
    /// Of the L module.
    pub z_l: Tensor,
}
rows!(StartStates { z_h, z_l });

/// One evaluation segment's result.
#[derive(Debug)]
pub struct Segment {
    /// States and steps after it; rows that halted start anew in the next.
    pub carry: Carry,
    /// `[B, S, V]`, forward dtype.
    pub logits: Tensor,
    /// `[B]`, f32.
    pub q_halt: Tensor,
    /// `[B]`, f32.
    pub q_continue: Tensor,
    /// z_H after each H cycle, `[B, T, h]` each; empty unless captured.
    pub trace: Vec<Tensor>,
}
rows!(Segment { carry, logits, q_halt, q_continue, trace });

impl Segment {
    /// The most likely token of each cell, first index on ties. `[B, S]`, int64.
    pub fn predictions(&self) -> Tensor {
        self.logits.argmax(-1, false)
    }

    /// `halted & (q_halt > q_continue)`: upstream's halt flag. `[B]`, bool.
    pub fn halt_flags(&self) -> Tensor {
        self.q_halt.gt_tensor(&self.q_continue).logical_and(&self.carry.halted)
    }
}

/// The random draws of one training segment: explore where `uniform < halt_exploration_prob`, then for at least
/// `min_steps` segments.
#[derive(Debug)]
pub struct Exploration {
    /// U[0, 1). `[B]`, f32.
    pub uniform: Tensor,
    /// Integers in `[2, halt_max_steps]`. `[B]`, int32.
    pub min_steps: Tensor,
}
rows!(Exploration { uniform, min_steps });

/// One training segment's result, ready for its backward pass.
#[derive(Debug)]
pub struct TrainSegment {
    /// The forward pass.
    pub segment: Segment,
    /// `[B]`, f32; none when halt_max_steps is 1 or without the target-Q pass.
    pub target_q_continue: Option<Tensor>,
    tape: Tape,
}

impl Model {
    /// A carry in which every row is halted, so that the first segment takes the batch it is given.
    pub fn initial_carry(&self, rows: i64) -> Carry {
        let config = self.config();
        let state = || {
            Tensor::zeros([rows, config.total_seq(), config.hidden_size], (config.forward_dtype.into(), self.device()))
        };
        let tokens = || Tensor::zeros([rows, config.dims.seq_len], (Kind::Int, self.device()));
        Carry {
            z_h: state(),
            z_l: state(),
            steps: Tensor::zeros([rows], (Kind::Int, self.device())),
            halted: Tensor::ones([rows], (Kind::Bool, self.device())),
            batch: DeviceBatch {
                inputs: tokens(),
                labels: tokens(),
                puzzle_identifiers: Tensor::zeros([rows], (Kind::Int, self.device())),
            },
        }
    }

    /// A carry in which every row begins on its row of the batch with the next segment.
    pub fn fresh_carry(&self, batch: DeviceBatch) -> Carry {
        let rows = batch.rows();
        Carry { batch, ..self.initial_carry(rows) }
    }

    /// A carry whose rows are in the middle of their work at `z_h`, `z_l`: the next segment goes on from there.
    ///
    /// # Shapes
    /// `z_h`, `z_l`: `[B, T, h]`, any floating-point dtype; they are rounded to the forward dtype.
    pub fn carry_at(&self, z_h: &Tensor, z_l: &Tensor, batch: DeviceBatch) -> Carry {
        let rows = batch.rows();
        let kind = self.config().forward_dtype.into();
        Carry {
            z_h: z_h.to_kind(kind),
            z_l: z_l.to_kind(kind),
            steps: Tensor::zeros([rows], (Kind::Int, self.device())),
            halted: Tensor::zeros([rows], (Kind::Bool, self.device())),
            batch,
        }
    }

    /// The input embedding `e` of a batch, puzzle positions first. `[B, T, h]`, forward dtype.
    pub fn embed(&self, batch: &DeviceBatch) -> Tensor {
        no_grad(|| {
            let rows = self.puzzle_rows(&batch.puzzle_identifiers);
            self.input_embedding(&batch.inputs, rows.as_ref())
        })
    }

    /// The states that rows start from unless others are given: H_init and L_init, `[h]` each.
    pub(super) fn start_states(&self) -> StartStates {
        let (h_init, l_init) = self.initial_state();
        StartStates { z_h: h_init.shallow_clone(), z_l: l_init.shallow_clone() }
    }

    /// The carry with its halted rows started anew on the batch's rows.
    pub(super) fn restart(&self, carry: &Carry, batch: &DeviceBatch, from: &StartStates) -> Carry {
        let wide = carry.halted.view([-1, 1, 1]);
        Carry {
            z_h: from.z_h.where_self(&wide, &carry.z_h),
            z_l: from.z_l.where_self(&wide, &carry.z_l),
            steps: carry.steps.masked_fill(&carry.halted, 0),
            halted: carry.halted.shallow_clone(),
            batch: carry.batch.replace_rows(&carry.halted, batch),
        }
    }

    /// One evaluation segment: no exploration; rows halt at `halt_max_steps` only.
    ///
    /// `capture` keeps z_H after every H cycle.
    pub fn segment(&self, carry: &Carry, batch: &DeviceBatch, capture: bool) -> Segment {
        no_grad(|| {
            let start = self.restart(carry, batch, &self.start_states());
            let e = self.embed(&start.batch);
            let inner = self.inner(&start.z_h, &start.z_l, &e, capture, None);
            let steps = start.steps + 1;
            let halted = steps.ge(self.config().halt_max_steps);
            inner.into_segment(steps, halted, start.batch)
        })
    }

    /// One training segment: halting by q with exploration, target Q from a second pass, a tape for
    /// [`Model::backward_segment`].
    pub fn train_segment(&self, carry: &Carry, batch: &DeviceBatch, draws: &Exploration) -> TrainSegment {
        no_grad(|| {
            let start = self.restart(carry, batch, &self.start_states());
            let e = self.embed(&start.batch);
            let mut tape = Tape::default();
            let inner = self.inner(&start.z_h, &start.z_l, &e, false, Some(&mut tape));
            let max_steps = self.config().halt_max_steps;
            let steps = start.steps + 1;
            let last = steps.ge(max_steps);
            if max_steps == 1 {
                let segment = inner.into_segment(steps, last, start.batch);
                return TrainSegment { segment, target_q_continue: None, tape };
            }
            let explore = draws.uniform.lt(self.config().halt_exploration_prob).to_kind(Kind::Int);
            let min_steps = explore * &draws.min_steps;
            let halted = inner.q_halt.gt_tensor(&inner.q_continue).logical_or(&last);
            let halted = halted.logical_and(&steps.ge_tensor(&min_steps));
            let target_q_continue = self.config().has_target_q().then(|| {
                let (next_halt, next_continue) = self.inner_q(&inner.z_h, &inner.z_l, &e);
                let best = next_halt.maximum(&next_continue);
                next_halt.where_self(&last, &best).sigmoid()
            });
            let segment = inner.into_segment(steps, halted, start.batch);
            TrainSegment { segment, target_q_continue, tape }
        })
    }

    /// The backward pass of a training segment: adds to the gradients in [`super::Params`] and returns those of the
    /// rows' puzzle embeddings, `[B, ndim]` f32.
    pub fn backward_segment(&mut self, result: &TrainSegment, grads: &LossGrads) -> Option<Tensor> {
        let carry = &result.segment.carry;
        no_grad(|| self.backward(&result.tape, &carry.z_h, &carry.batch.inputs, &grads.d_logits, &grads.d_q))
    }
}

impl super::inner::Inner {
    pub(super) fn into_segment(self, steps: Tensor, halted: Tensor, batch: DeviceBatch) -> Segment {
        Segment {
            carry: Carry { z_h: self.z_h, z_l: self.z_l, steps, halted, batch },
            logits: self.logits,
            q_halt: self.q_halt,
            q_continue: self.q_continue,
            trace: self.trace,
        }
    }
}
