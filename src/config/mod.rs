//! Upstream's training configuration: defaults, presets, YAML files, `key=value` overrides, `all_config.yaml`.
//!
//! [`resolve`] makes a checked [`TrainConfig`] from what the user gave to `hrm train`;
//! [`TrainConfig::from_checkpoint_yaml`] reads the one that lies beside a checkpoint, and [`TrainConfig::to_yaml`]
//! writes it as upstream does.
//!
//! A new key is a field of [`TrainConfig`] or [`ArchConfig`], a line in [`keys::KEYS`], and, where its range is
//! limited, a line in `check.rs`; a new preset or recipe is a line in `presets.rs`.
//!
//! ```
//! let overrides = ["arch.hidden_size=256", "arch.num_heads=4", "epochs=20", "eval_interval=null"].map(String::from);
//! let run = hrm::config::resolve(None, &overrides)?;
//! assert_eq!(run.config.arch.hidden_size, 256);
//! assert_eq!(run.config.arch.puzzle_emb_ndim, 256); // follows hidden_size
//! # anyhow::Ok(())
//! ```

mod check;
mod file;
pub mod keys;
mod layers;
mod model;
mod names;
mod presets;
mod python_yaml;
mod resolve;
mod value;

use serde::{Deserialize, Serialize, Serializer};

pub use check::MOST_SEGMENTS;
pub use file::CheckpointConfig;
pub use model::ModelConfig;
pub use names::random_slug;
pub use presets::{PRESETS, Preset, RECIPES};
pub use resolve::{ResolvedConfig, resolve, resolve_over};

use crate::dtype::Dtype;

/// `arch.loss`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LossConfig {
    /// The token loss.
    pub loss_type: LossType,
    /// Upstream's loss head, [`ArchConfig::LOSS_NAME`].
    pub name: String,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self { loss_type: LossType::default(), name: ArchConfig::LOSS_NAME.into() }
    }
}

/// The token loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LossType {
    /// Cross-entropy over stablemax, s(x) = x + 1 for x ≥ 0 and 1 / (1 − x) below, in f64.
    #[default]
    #[serde(rename = "stablemax_cross_entropy")]
    Stablemax,
    /// Cross-entropy over softmax, in f32.
    #[serde(rename = "softmax_cross_entropy")]
    Softmax,
}

/// How positions enter the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PosEncodings {
    /// Rotary embedding of queries and keys.
    #[default]
    Rope,
    /// A learned vector for each position, added to the input.
    Learned,
}

/// `arch.*`: the model apart from what the dataset decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(non_snake_case)]
pub struct ArchConfig {
    /// Upstream's model, [`ArchConfig::MODEL_NAME`].
    pub name: String,
    /// The loss head.
    pub loss: LossConfig,
    /// H cycles a segment.
    pub H_cycles: i64,
    /// L cycles an H cycle.
    pub L_cycles: i64,
    /// Layers of the H module.
    pub H_layers: i64,
    /// Layers of the L module.
    pub L_layers: i64,
    /// Width of the states.
    pub hidden_size: i64,
    /// Attention heads; divides `hidden_size`.
    pub num_heads: i64,
    /// Width of the MLP over `hidden_size`; written without a point when it is a whole number, as upstream's file is.
    #[serde(serialize_with = "whole_as_int")]
    pub expansion: f64,
    /// How positions enter the model.
    pub pos_encodings: PosEncodings,
    /// Follows `hidden_size` unless set.
    pub puzzle_emb_ndim: i64,
    /// Segments after which every row halts.
    pub halt_max_steps: i64,
    /// Probability that a training row must run a random number of segments.
    pub halt_exploration_prob: f64,
    /// Ours, after TRM: no target-Q pass and no continue loss; a row halts when q_halt > 0.
    pub no_act_continue: bool,
    /// None means bfloat16; see [`ArchConfig::dtype`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_dtype: Option<Dtype>,
    /// Epsilon of the RMS norms; see [`ArchConfig::norm_eps`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rms_norm_eps: Option<f64>,
    /// Base of the rotary angles; see [`ArchConfig::theta`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
}

impl Default for ArchConfig {
    fn default() -> Self {
        Self {
            name: Self::MODEL_NAME.into(),
            loss: LossConfig::default(),
            H_cycles: 2,
            L_cycles: 2,
            H_layers: 4,
            L_layers: 4,
            hidden_size: 512,
            num_heads: 8,
            expansion: 4.0,
            pos_encodings: PosEncodings::Rope,
            puzzle_emb_ndim: 512,
            halt_max_steps: 16,
            halt_exploration_prob: 0.1,
            no_act_continue: false,
            forward_dtype: None,
            rms_norm_eps: None,
            rope_theta: None,
        }
    }
}

impl ArchConfig {
    /// The only model that upstream has, and its loss head.
    pub const MODEL_NAME: &str = "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1";
    /// The loss head that upstream has.
    pub const LOSS_NAME: &str = "losses@ACTLossHead";

    /// `forward_dtype`, bfloat16 where the file has none.
    pub fn dtype(&self) -> Dtype {
        self.forward_dtype.unwrap_or(Dtype::Bf16)
    }

    /// `rms_norm_eps`, 1e-5 where the file has none.
    pub fn norm_eps(&self) -> f64 {
        self.rms_norm_eps.unwrap_or(1e-5)
    }

    /// `rope_theta`, 10000 where the file has none.
    pub fn theta(&self) -> f64 {
        self.rope_theta.unwrap_or(10_000.0)
    }

    /// The part of the model's name after `@`: `HierarchicalReasoningModel_ACTV1`.
    pub fn class_name(&self) -> &str {
        self.name.rsplit('@').next().unwrap_or(&self.name)
    }
}

fn whole_as_int<S: Serializer>(x: &f64, to: S) -> Result<S::Ok, S::Error> {
    match *x {
        x if x.fract() == 0.0 && x.abs() < 1e15 => to.serialize_i64(x as i64),
        x => to.serialize_f64(x),
    }
}

/// The whole `all_config.yaml` of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainConfig {
    /// The model.
    pub arch: ArchConfig,
    /// The dataset's folder.
    pub data_path: String,
    /// Rows a step, over all processes.
    pub global_batch_size: i64,
    /// Passes over the training groups.
    pub epochs: i64,
    /// In epochs; none means once, at the end.
    pub eval_interval: Option<i64>,
    /// Save at every evaluation, else at the end only.
    pub checkpoint_every_eval: bool,
    /// Learning rate of the dense parameters.
    pub lr: f64,
    /// Lowest learning rate of the cosine schedule, as a share of `lr`; 1 is a constant rate.
    pub lr_min_ratio: f64,
    /// Steps of linear warm-up.
    pub lr_warmup_steps: i64,
    /// Decay of Adam-atan2's first moment.
    pub beta1: f64,
    /// Decay of Adam-atan2's second moment.
    pub beta2: f64,
    /// Decoupled weight decay of the dense parameters.
    pub weight_decay: f64,
    /// Learning rate of the puzzle embedding.
    pub puzzle_emb_lr: f64,
    /// Weight decay of the puzzle embedding.
    pub puzzle_emb_weight_decay: f64,
    /// Seed of initialisation and sampling.
    pub seed: u64,
    /// Folder under `checkpoints/`; none means a name from `data_path`.
    pub project_name: Option<String>,
    /// Folder under the project's; none means the model's name and two random words.
    pub run_name: Option<String>,
    /// Folder of the run; none means `checkpoints/<project_name>/<run_name>`.
    pub checkpoint_path: Option<String>,
    /// Names of the tensors that every evaluation saves, such as `inputs` and `logits`.
    pub eval_save_outputs: Vec<String>,
    // From here on ours, see keys::Key::ours.
    /// Decay of the exponential moving average of the weights; 0 = none.
    pub ema_decay: f64,
    /// Where the shuffles of training boards come from.
    pub augment: Augment,
    /// With online augmentation: half of the boards get hints.
    pub augment_hint: bool,
    /// Parts that a process works its rows off in, one after the other.
    pub grad_accum: i64,
    /// Log the gradient's norm.
    pub log_grad_norm: bool,
    /// Save every so many steps, in addition to evaluations; none means never.
    pub checkpoint_every_steps: Option<i64>,
    /// Checkpoints kept; none means all weights.
    pub keep_last: Option<i64>,
    /// Save and stop in time to end within so many minutes; none means no limit.
    pub max_minutes: Option<f64>,
    /// A checkpoint whose weights the run starts from.
    pub init_from: Option<String>,
}

/// Where a training board's shuffles come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Augment {
    /// The dataset's examples as they are.
    #[default]
    Stored,
    /// A fresh shuffle of the example at every draw.
    Online,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            arch: ArchConfig::default(),
            data_path: "data/sudoku-extreme-full".into(),
            global_batch_size: 768,
            epochs: 100_000,
            eval_interval: Some(10_000),
            checkpoint_every_eval: true,
            lr: 1e-4,
            lr_min_ratio: 1.0,
            lr_warmup_steps: 2000,
            beta1: 0.9,
            beta2: 0.95,
            weight_decay: 0.1,
            puzzle_emb_lr: 1e-2,
            puzzle_emb_weight_decay: 0.1,
            seed: 0,
            project_name: None,
            run_name: None,
            checkpoint_path: None,
            eval_save_outputs: Vec::new(),
            ema_decay: 0.0,
            augment: Augment::Stored,
            augment_hint: false,
            grad_accum: 1,
            log_grad_norm: false,
            checkpoint_every_steps: None,
            keep_last: None,
            max_minutes: None,
            init_from: None,
        }
    }
}
