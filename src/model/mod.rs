//! The Hierarchical Reasoning Model with Adaptive Computation Time (upstream `models/hrm/hrm_act_v1.py`).
//!
//! One model: training, evaluation and every analysis go through [`Model`].

mod act;
mod convert;
mod inner;
mod loss;
mod params;
mod rows;
mod segments;
mod unroll;

pub use act::{Carry, DeviceBatch, Exploration, Segment, TrainSegment};
pub use convert::{to_raw, to_tensor};
pub use inner::Model;
pub use loss::{LossGrads, METRICS, Metrics, loss_head};
pub use params::{ERF_SQRT2, ParamSpec, Params, truncated_normal, truncated_normal_of};
pub use rows::Rows;
pub(crate) use rows::rows;
pub use segments::{SegmentLoop, StartStates};
pub use unroll::AttentionMap;

pub use crate::{config::ModelConfig, dims::Dims};
