//! What a configuration must satisfy before anything is started.

use anyhow::{Result, bail};

use super::{ArchConfig, Augment, ModelConfig, PosEncodings, TrainConfig};
use crate::dims::Dims;

/// Segments of a run: far beyond any model's own number, and few enough that a run of one puzzle ends.
pub const MOST_SEGMENTS: i64 = 100_000;

/// More parameters than any machine here can hold: a typing error, found before something allocates.
const MAX_PARAMETERS: f64 = 1e11;

/// Collects what is wrong, so that one run of the command shows all of it.
#[derive(Default)]
pub(super) struct Faults(Vec<String>);

impl Faults {
    fn between(&mut self, key: &str, value: i64, low: i64, high: i64) {
        if value < low || value > high {
            self.0.push(format!("{key}={value}: must be an integer from {low} to {high}"));
        }
    }

    fn real(&mut self, key: &str, value: f64, wanted: &str, ok: bool) {
        if !ok || !value.is_finite() {
            self.0.push(format!("{key}={value}: must be {wanted}"));
        }
    }

    fn require(&mut self, ok: bool, message: impl FnOnce() -> String) {
        if !ok {
            self.0.push(message());
        }
    }

    pub(super) fn into_result(self) -> Result<()> {
        if !self.0.is_empty() {
            bail!("{}", self.0.join("; "));
        }
        Ok(())
    }

    /// What is wrong with a model apart from its puzzles' sizes.
    pub(super) fn of_model(&mut self, config: &ModelConfig) {
        for (key, value) in [("arch.H_cycles", config.h_cycles), ("arch.L_cycles", config.l_cycles)] {
            self.between(key, value, 1, 10_000);
        }
        for (key, value) in [("arch.H_layers", config.h_layers), ("arch.L_layers", config.l_layers)] {
            self.between(key, value, 1, 1_000);
        }
        self.between("arch.hidden_size", config.hidden_size, 1, 1 << 20);
        self.between("arch.num_heads", config.num_heads, 1, 1 << 16);
        self.between("arch.puzzle_emb_ndim", config.puzzle_emb_ndim, 0, 1 << 24);
        self.between("arch.halt_max_steps", config.halt_max_steps, 1, MOST_SEGMENTS);
        self.real(
            "arch.expansion",
            config.expansion,
            "a number above 0, at most 1024",
            config.expansion > 0.0 && config.expansion <= 1024.0,
        );
        let wide = config.expansion * config.hidden_size as f64 * 2.0 / 3.0;
        self.require(!(config.expansion > 0.0 && config.hidden_size > 0) || wide.round_ties_even() >= 1.0, || {
            format!(
                "arch.expansion={}: the MLP would have no width; give at least {:.2e}",
                config.expansion,
                1.5 / config.hidden_size as f64
            )
        });
        let p = config.halt_exploration_prob;
        self.real("arch.halt_exploration_prob", p, "a probability from 0 to 1", (0.0..=1.0).contains(&p));
        let eps = config.rms_norm_eps;
        self.real("arch.rms_norm_eps", eps, "a number from 0 to 1", (0.0..=1.0).contains(&eps));
        self.real("arch.rope_theta", config.rope_theta, "a number above 0", config.rope_theta > 0.0);
        self.require(config.forward_dtype.is_float(), || {
            format!("arch.forward_dtype={}: must be a floating-point type", config.forward_dtype)
        });
        if config.hidden_size > 0 && config.num_heads > 0 {
            let divides = config.hidden_size % config.num_heads == 0;
            self.require(divides, || {
                format!(
                    "arch.hidden_size={} is not divisible by arch.num_heads={}",
                    config.hidden_size, config.num_heads
                )
            });
            let head = config.hidden_size / config.num_heads;
            self.require(!divides || config.pos_encodings != PosEncodings::Rope || head % 2 == 0, || {
                format!(
                    "a head is {head} wide (arch.hidden_size={} / arch.num_heads={}); rotary positions need an even \
                     width; or set arch.pos_encodings=learned",
                    config.hidden_size, config.num_heads
                )
            });
            let (h, layers) = (config.hidden_size as f64, config.h_layers as f64 + config.l_layers as f64);
            let parameters = layers * h * h * (4.0 + 2.0 * config.expansion.max(0.0));
            self.require(parameters.is_nan() || parameters <= MAX_PARAMETERS, || {
                format!(
                    "the model would have about {parameters:.1e} parameters; at most {MAX_PARAMETERS:.0e} are supported"
                )
            });
        }
    }

    /// What is wrong with the sizes of puzzles.
    pub(super) fn of_dims(&mut self, dims: &Dims) {
        self.between("seq_len", dims.seq_len, 1, 1 << 24);
        self.between("vocab_size", dims.vocab_size, 1, 1 << 24);
        self.between("num_puzzle_identifiers", dims.num_puzzle_identifiers, 1, 1 << 31);
    }
}

impl ArchConfig {
    /// Checks the model's part: names, sizes, and that they fit together.
    ///
    /// # Errors
    /// Every fault, with the key, its value and what it wants.
    pub fn check(&self) -> Result<()> {
        let mut faults = Faults::default();
        self.collect(&mut faults);
        faults.into_result()
    }

    fn collect(&self, faults: &mut Faults) {
        faults.require(self.name == Self::MODEL_NAME, || {
            format!("arch.name={}: the only model is {}", self.name.escape_debug(), Self::MODEL_NAME)
        });
        faults.require(self.loss.name == Self::LOSS_NAME, || {
            format!("arch.loss.name={}: the only loss head is {}", self.loss.name.escape_debug(), Self::LOSS_NAME)
        });
        // The architecture alone: any puzzle will do.
        faults.of_model(&ModelConfig::joined(self, Dims::sudoku()));
    }
}

impl TrainConfig {
    /// Checks everything that can be checked without the dataset.
    ///
    /// # Errors
    /// Every fault, with the key, its value and what it wants.
    pub fn check(&self) -> Result<()> {
        let mut faults = Faults::default();
        faults.require(!self.data_path.trim().is_empty(), || {
            "data_path is empty: give the dataset folder, for example data_path=data/sudoku-extreme-full".into()
        });
        faults.between("global_batch_size", self.global_batch_size, 1, 1 << 24);
        faults.between("epochs", self.epochs, 1, 1_000_000_000_000);
        faults.between("lr_warmup_steps", self.lr_warmup_steps, 0, 1_000_000_000_000);
        if let Some(interval) = self.eval_interval {
            faults.between("eval_interval", interval, 1, 1_000_000_000_000);
            faults.require(interval < 1 || self.epochs % interval == 0, || {
                format!(
                    "eval_interval={interval} does not divide epochs={}: choose a divisor, or eval_interval=null",
                    self.epochs
                )
            });
        }
        for (key, value) in [
            ("lr", self.lr),
            ("puzzle_emb_lr", self.puzzle_emb_lr),
            ("weight_decay", self.weight_decay),
            ("puzzle_emb_weight_decay", self.puzzle_emb_weight_decay),
            ("lr_min_ratio", self.lr_min_ratio),
        ] {
            faults.real(key, value, "a number from 0", value >= 0.0);
        }
        for (key, value) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            faults.real(key, value, "a number from 0 to below 1", (0.0..1.0).contains(&value));
        }
        for (key, name) in [("project_name", &self.project_name), ("run_name", &self.run_name)] {
            let usable = |n: &String| !n.trim().is_empty() && !n.contains(['/', '\0']) && n != "." && n != "..";
            faults.require(name.as_ref().is_none_or(usable), || {
                format!(
                    "{key}='{}': must be a folder's name, without '/'",
                    name.as_deref().unwrap_or("").escape_debug()
                )
            });
        }
        faults.real(
            "ema_decay",
            self.ema_decay,
            "0, or a number below 1 such as 0.999",
            (0.0..1.0).contains(&self.ema_decay),
        );
        faults.require(!self.augment_hint || self.augment == Augment::Online, || {
            "augment_hint=true goes with augment=online; stored hints come from `hrm build-dataset --hint`".into()
        });
        faults.between("grad_accum", self.grad_accum, 1, 1 << 24);
        for (key, value) in [("checkpoint_every_steps", self.checkpoint_every_steps), ("keep_last", self.keep_last)] {
            if let Some(value) = value {
                faults.between(key, value, 1, 1_000_000_000_000);
            }
        }
        if let Some(minutes) = self.max_minutes {
            faults.real("max_minutes", minutes, "a number above 0", minutes > 0.0);
        }
        let path_ok = |p: &String| !p.trim().is_empty() && !p.contains('\0');
        for (key, path) in [("checkpoint_path", &self.checkpoint_path), ("init_from", &self.init_from)] {
            faults.require(path.as_ref().is_none_or(path_ok), || format!("{key} is empty"));
        }
        self.arch.collect(&mut faults);
        faults.into_result()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;

    #[test]
    fn an_architecture_and_a_model_are_held_to_the_same_bounds() {
        let arch = ArchConfig { L_layers: 1_001, forward_dtype: Some(Dtype::I32), ..ArchConfig::default() };
        let wanted = "arch.L_layers=1001: must be an integer from 1 to 1000; \
                      arch.forward_dtype=int32: must be a floating-point type";
        assert_eq!(arch.check().unwrap_err().to_string(), wanted);
        assert_eq!(ModelConfig::new(&arch, Dims::sudoku()).unwrap_err().to_string(), wanted);
        let no_cells = ModelConfig::new(&ArchConfig::default(), Dims { seq_len: 0, ..Dims::sudoku() });
        assert_eq!(no_cells.unwrap_err().to_string(), "seq_len=0: must be an integer from 1 to 16777216");
        ModelConfig::sudoku().check().unwrap();
    }
}
