//! The model's operations, forward and backward, in their plain libtorch form, rounding where upstream's eager bf16
//! run rounds. No autograd: each operation says what its backward pass needs.

mod attention;
mod embed;
mod loss;
mod norm;
mod rope;
mod swiglu;

pub use attention::{Attended, attention, attention_backward};
pub use embed::{EmbeddingGrads, input_embedding, input_embedding_backward};
pub use loss::{TokenLoss, bce_with_logits, token_loss};
pub use norm::{Normed, residual_rms_norm, residual_rms_norm_backward};
pub use rope::{RopeTables, rope, rope_backward};
pub use swiglu::{swiglu, swiglu_backward};
