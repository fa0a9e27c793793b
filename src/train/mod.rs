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
mod history;
mod log;
mod plan;
mod run;
mod step;
mod tensorboard;

pub use device_data::DeviceData;
pub use history::{RunHistory, RunState, Series, find_runs};
pub use log::{METRICS_FILE, MetricsLog, TrainMetrics};
pub use plan::{Derived, TrainPlan};
pub use run::{TrainObserver, TrainSummary, run};
pub use step::{Accumulated, PuzzleGrad, StepReport, Trainer};
pub use tensorboard::EventFile;
