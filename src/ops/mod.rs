//! The model's operations in their plain libtorch form, rounding where upstream's eager bf16 run rounds.

mod attention;
mod embed;
mod loss;
mod norm;
mod rope;
mod swiglu;

pub use attention::attention;
pub use embed::{add_learned_positions, input_embedding};
pub use loss::{bce_with_logits_sum, softmax_cross_entropy, stablemax_cross_entropy};
pub use norm::residual_rms_norm;
pub use rope::{RopeTables, rope};
pub use swiglu::swiglu;
