//! Training: a checked plan, the step, the loop, the metrics file.
//!
//! ```no_run
//! use hrm::{config, train};
//!
//! let mut config = config::resolve(None, &["arch.preset=sudoku".into(), "recipe=sudoku".into()])?.config;
//! config.fill_names(&mut rand::rng());
//! let plan = train::TrainPlan::new(config)?;
//! println!("{} steps", plan.total_steps);
//! # anyhow::Ok(())
//! ```

mod device_data;
mod exploration;
mod folder;
mod history;
mod log;
mod metrics_file;
mod online;
mod parallel;
mod pass;
mod plan;
mod request;
mod restore;
mod run;
mod sinks;
mod state;
mod step;
mod step_graph;
mod tensorboard;

pub(crate) use device_data::DeviceData;
pub use folder::{BEST_FILE, LATEST_FILE, ResumePoint, RunFolder, Snapshot, changes};
#[doc(hidden)]
pub use history::RunHistory;
pub(crate) use history::{RunSummary, find_runs};
pub use log::{MetricsLog, TrainMetrics};
pub use metrics_file::{METRICS_FILE, is_running};
pub(crate) use online::OnlineAugment;
pub use parallel::Peers;
pub use plan::{Derived, TrainPlan};
pub use request::{DecidedRun, PlannedRun, Resume, TrainRequest};
pub use run::{StopReason, TrainObserver, TrainSummary, run};
pub use sinks::Sinks;
pub use state::{Best, CarryLimits, STATE_FILE, STATE_TENSORS_FILE, TrainingState};
pub use step::{StepReport, Trainer};
pub(crate) use tensorboard::EventFile;
