//! The two optimisers and their schedule.

mod adam_atan2;
mod schedule;
mod sign_sgd;

pub use adam_atan2::{AdamAtan2, AdamConfig, AdamScalars};
pub use schedule::{CosineSchedule, total_steps};
pub use sign_sgd::sparse_sign_sgd;
