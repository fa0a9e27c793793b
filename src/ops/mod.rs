//! The model's operations, forward and backward. Each has a plain libtorch form, which rounds where upstream's eager
//! bf16 run rounds and is what CPUs and tests use, and a fused CUDA form for bf16 on NVIDIA GPUs; [`Ops`] chooses.
//! No autograd: each operation says what its backward pass needs.

mod attention;
mod cuda;
mod embed;
mod loss;
mod norm;
mod rope;
mod swiglu;

use std::sync::Arc;

use log::warn;
use tch::{Device, Tensor};

pub use attention::{Attended, attention, attention_backward};
pub use cuda::{FlatState, Fused, FusedLoss, HeadInputs, available as fused_available};
pub use embed::{EmbeddingGrads, input_embedding, input_embedding_backward};
pub use loss::{TokenLoss, bce_with_logits, token_loss};
pub use norm::{Normed, residual_rms_norm, residual_rms_norm_backward};
pub use rope::{RopeTables, rope, rope_backward};
pub use swiglu::{swiglu, swiglu_backward};

use crate::{config::ModelConfig, dtype::Dtype, runtime::Backend};

/// Which form the operations take.
#[derive(Clone, Debug, Default)]
pub struct Ops {
    fused: Option<Arc<Fused>>,
    graphs: bool,
}

impl Ops {
    /// The plain libtorch form of everything.
    pub fn plain() -> Self {
        Self::default()
    }

    /// The fused form where device, dtype and sizes have one and the backend may use it. What has no kernel takes the plain form, with a warning.
    pub fn choose(backend: impl Into<Backend>, config: &ModelConfig) -> Self {
        let Backend { device, acceleration } = backend.into();
        let Device::Cuda(index) = device else { return Self::plain() };
        if config.forward_dtype != Dtype::Bf16 || !acceleration.kernels {
            return Self::plain();
        }
        match fused_available().and_then(|()| Fused::new(index, config, acceleration.tuned_products)) {
            Ok(fused) => {
                let missing = fused.missing();
                if !missing.is_empty() {
                    warn!("no fused kernel for {} at these sizes: plain libtorch there", missing.join(", "));
                }
                Self { fused: Some(Arc::new(fused)), graphs: acceleration.graphs }
            }
            Err(e) => {
                warn!("no fused kernels, plain libtorch instead: {e:#}");
                Self::plain()
            }
        }
    }

    /// Whether work made of these operations may be recorded as a CUDA graph: with fused kernels, where the backend allows
    /// it.
    pub fn recordable(&self) -> bool {
        self.fused.is_some() && self.graphs
    }

    /// The fused kernels in use.
    pub fn fused(&self) -> Option<&Fused> {
        self.fused.as_deref()
    }

    /// `x W^T`. `x`: `[..., in]`, `w`: `[out, in]`, result `[..., out]`.
    pub fn linear(&self, x: &Tensor, w: &Tensor) -> Tensor {
        self.fused().and_then(|f| f.linear(x, w)).unwrap_or_else(|| x.linear(w, None::<&Tensor>))
    }

    /// `d_out W`, the gradient through [`Ops::linear`]; with `base`, added to it and rounded once.
    /// `d_out`: `[..., out]`, `base` and the result `[..., in]`.
    pub fn linear_backward(&self, d_out: &Tensor, w: &Tensor, base: Option<&Tensor>) -> Tensor {
        self.fused().and_then(|f| f.linear_backward(d_out, w, base)).unwrap_or_else(|| match base {
            None => d_out.matmul(w),
            Some(base) => {
                let flat = |t: &Tensor| t.view([-1, t.size()[2]]);
                flat(base).addmm(&flat(d_out), w).view_as(base)
            }
        })
    }

    /// [`swiglu`] of `x W^T`; with `keep` that product too, which the backward pass needs.
    ///
    /// # Shapes
    /// `x`: `[..., h]`, `w`: `[2I, h]`, gate first; results `[..., 2I]` and `[..., I]`.
    pub fn linear_swiglu(&self, x: &Tensor, w: &Tensor, keep: bool) -> (Option<Tensor>, Tensor) {
        self.fused().and_then(|f| f.linear_swiglu(x, w, keep)).unwrap_or_else(|| {
            let gate_up = self.linear(x, w);
            let hidden = self.swiglu(&gate_up);
            (keep.then_some(gate_up), hidden)
        })
    }

    /// [`swiglu_backward`] of the gradient `d_out W`.
    ///
    /// # Shapes
    /// `d_out`: `[..., h]`, `w`: `[h, I]`, `gate_up` and the result `[..., 2I]`.
    pub fn linear_swiglu_backward(&self, d_out: &Tensor, w: &Tensor, gate_up: &Tensor) -> Tensor {
        let fused = self.fused().and_then(|f| f.linear_swiglu_backward(d_out, w, gate_up));
        fused.unwrap_or_else(|| self.swiglu_backward(&self.linear_backward(d_out, w, None), gate_up))
    }

    /// [`residual_rms_norm`] of `x` and the branch `b W^T`.
    ///
    /// # Shapes
    /// `b`: `[..., in]`, `w`: `[h, in]`, `x`: `[..., h]`.
    pub fn linear_residual_rms_norm(&self, b: &Tensor, w: &Tensor, x: &Tensor, eps: f64) -> Normed {
        let fused = self.fused().and_then(|f| f.linear_residual_rms_norm(b, w, x, eps));
        fused.unwrap_or_else(|| self.residual_rms_norm(x, &self.linear(b, w), eps))
    }

    /// See [`residual_rms_norm`].
    pub fn residual_rms_norm(&self, x: &Tensor, branch: &Tensor, eps: f64) -> Normed {
        let fused = self.fused().and_then(|f| f.residual_rms_norm(x, branch, eps));
        fused.unwrap_or_else(|| residual_rms_norm(x, branch, eps))
    }

    /// See [`residual_rms_norm_backward`].
    pub fn residual_rms_norm_backward(&self, dy: &Tensor, normed: &Normed) -> Tensor {
        let fused = self.fused().and_then(|f| f.residual_rms_norm_backward(dy, normed));
        fused.unwrap_or_else(|| residual_rms_norm_backward(dy, normed))
    }

    /// `z + (a + b)`: a module's state plus what is injected. All `[B, T, h]`.
    pub fn inject(&self, z: &Tensor, a: &Tensor, b: &Tensor) -> Tensor {
        self.fused().and_then(|f| f.inject(z, a, b)).unwrap_or_else(|| z + (a + b))
    }

    /// See [`swiglu`].
    pub fn swiglu(&self, gate_up: &Tensor) -> Tensor {
        self.fused().and_then(|f| f.swiglu(gate_up)).unwrap_or_else(|| swiglu(gate_up))
    }

    /// See [`swiglu_backward`].
    pub fn swiglu_backward(&self, dh: &Tensor, gate_up: &Tensor) -> Tensor {
        self.fused().and_then(|f| f.swiglu_backward(dh, gate_up)).unwrap_or_else(|| swiglu_backward(dh, gate_up))
    }

    /// See [`attention`]; with `keep`, what [`Ops::attention_backward`] needs is kept.
    pub fn attention(&self, qkv: Tensor, num_heads: i64, tables: Option<&RopeTables>, keep: bool) -> Attended {
        match self.fused().and_then(|f| f.attention(&qkv, tables, keep)) {
            Some((out, lse)) => Attended::fused(out, lse.map(|lse| (qkv, lse))),
            None => attention::attention_with(&qkv, num_heads, |heads| {
                let qk = heads.narrow(2, 0, 2 * num_heads);
                let Some(tables) = tables else { return qk };
                self.fused().and_then(|f| f.rope(&qkv, tables, false)).unwrap_or_else(|| rope(&qk, tables))
            }),
        }
    }

    /// See [`attention_backward`].
    pub fn attention_backward(&self, d_out: &Tensor, attended: &Attended, tables: Option<&RopeTables>) -> Tensor {
        let fused = self.fused().zip(attended.fused_tape());
        let fused = fused.and_then(|(f, (qkv, lse))| f.attention_backward(d_out, qkv, &attended.out, lse, tables));
        fused.unwrap_or_else(|| {
            attention::attention_backward_with(d_out, attended, |dqk| {
                let Some(tables) = tables else { return dqk };
                let packed = || dqk.contiguous().flatten(2, 3);
                let turned = self.fused().and_then(|f| f.rope(&packed(), tables, true));
                turned.unwrap_or_else(|| rope_backward(&dqk, tables))
            })
        })
    }
}
