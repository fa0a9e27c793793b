//! The Hierarchical Reasoning Model with Adaptive Computation Time (upstream `models/hrm/hrm_act_v1.py`).
//!
//! One model: training, evaluation and every analysis go through [`Model`].

mod act;
mod attention_maps;
mod batch_size;
mod convert;
mod inner;
mod loss;
mod params;
mod rows;
mod session;

pub use act::{Carry, DeviceBatch, Exploration, Segment, StartStates, TrainSegment};
pub use attention_maps::AttentionMap;
pub use convert::{to_raw, to_tensor};
pub use inner::Model;
pub use loss::{LossGrads, Metrics, loss_head};
pub use params::{ERF_SQRT2, ParamSpec, Params, truncated_normal, truncated_normal_of};
pub use rows::Rows;
pub(crate) use rows::rows;
pub use session::Session;

pub use crate::{config::ModelConfig, dims::Dims};
