//! The readers of files as a crate of their own, under the name that they have in the program, without libtorch.
#![allow(dead_code, unused_imports, missing_docs, reason = "the targets use a part")]

#[path = "../src/batch.rs"]
pub mod batch;
#[path = "../src/config/mod.rs"]
pub mod config;
#[path = "../src/dataset/mod.rs"]
pub mod dataset;
#[path = "../src/difference.rs"]
pub mod difference;
#[path = "../src/dims.rs"]
pub mod dims;
#[path = "../src/dtype.rs"]
pub mod dtype;
#[path = "../src/escape.rs"]
pub mod escape;
#[path = "no_hub.rs"]
pub mod hub;
#[path = "../src/input.rs"]
pub mod input;
#[path = "../src/journal/mod.rs"]
pub mod journal;
#[path = "../src/memory.rs"]
pub mod memory;
#[path = "../src/metrics.rs"]
pub mod metrics;
#[path = "../src/outcome.rs"]
pub mod outcome;
#[path = "../src/puzzle/mod.rs"]
pub mod puzzle;
#[path = "../src/raw_tensor.rs"]
pub mod raw_tensor;
#[path = "../src/rng.rs"]
pub mod rng;
#[path = "../src/store/mod.rs"]
pub mod store;

/// What of checkpoints needs no model.
#[path = "../src/checkpoint"]
pub mod checkpoint {
    pub(crate) mod lfs;
    mod manifest;
    mod meta;
    mod pickle;
    pub mod safetensors_file;
    pub mod torch_file;

    pub use manifest::{FileRecord, MANIFEST_FILE, Manifest};
    pub use meta::CheckpointMeta;

    pub use crate::raw_tensor::RawTensor;

    pub const WEIGHTS_FILE: &str = "model.safetensors";
    pub const CONFIG_FILE: &str = "all_config.yaml";
    pub const META_FILE: &str = "meta.json";
}

/// Results files.
#[path = "../src/eval"]
pub mod eval {
    pub(crate) mod guess_options;
    pub mod pass;
    pub mod record;
    pub mod results_file;
    #[path = "scores"]
    pub mod scores {
        mod shape;
        pub use shape::RunShape;
    }
}

/// metrics.jsonl and training.json.
#[path = "../src/train"]
pub mod train {
    mod history;
    mod metrics_file;
    mod state;

    pub use history::RunHistory;
    pub use metrics_file::{METRICS_FILE, is_running};
    pub use state::{Best, CarryLimits, STATE_FILE, STATE_TENSORS_FILE, TrainingState};
}
