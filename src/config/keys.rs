//! Every configuration key: its name, what it may hold, and what it means.

use anyhow::{Result, bail};
use serde_json::Value;

/// What a key may hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeyKind {
    /// A 64-bit signed integer. `1e5` counts as one, as it does upstream.
    Int,
    /// An integer from 0.
    Natural,
    /// A finite number.
    Float,
    /// True or false; `yes`, `on`, `1` and their opposites are read too.
    Bool,
    /// Text; a number counts as its digits.
    Text,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A list of texts.
    TextList,
    /// The other kind, or `null`.
    Optional(&'static KeyKind),
}

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As typed: `arch.hidden_size`.
    pub name: &'static str,
    /// What it may hold.
    pub kind: KeyKind,
    /// One line for `--help`.
    pub help: &'static str,
    /// Unknown to upstream: left out of `all_config.yaml` where it has its default.
    pub ours: bool,
}

const fn key(name: &'static str, kind: KeyKind, help: &'static str) -> Key {
    Key { name, kind, help, ours: false }
}

const fn ours(name: &'static str, kind: KeyKind, help: &'static str) -> Key {
    Key { name, kind, help, ours: true }
}

use KeyKind::{Bool, Choice, Float, Int, Natural, Optional, Text, TextList};

/// All keys, in the order in which help shows them.
pub const KEYS: &[Key] = &[
    key("data_path", Text, "dataset folder"),
    key("global_batch_size", Int, "puzzles per step, over all processes"),
    key("epochs", Int, "passes over the training groups"),
    key("eval_interval", Optional(&Int), "epochs between evaluations; divides epochs; null = once, at the end"),
    key("checkpoint_every_eval", Bool, "save at every evaluation, else only at the end"),
    key("lr", Float, "learning rate"),
    key("lr_min_ratio", Float, "lowest learning rate of the cosine schedule, as a fraction of lr; 1 = constant"),
    key("lr_warmup_steps", Int, "steps of linear warm-up"),
    key("beta1", Float, "Adam-atan2's first decay"),
    key("beta2", Float, "Adam-atan2's second decay"),
    key("weight_decay", Float, "decoupled weight decay"),
    key("puzzle_emb_lr", Float, "learning rate of the puzzle embedding"),
    key("puzzle_emb_weight_decay", Float, "weight decay of the puzzle embedding"),
    key("seed", Natural, "seed of initialisation and sampling"),
    key("project_name", Optional(&Text), "folder under checkpoints/; null = from data_path"),
    key("run_name", Optional(&Text), "folder under the project; null = the model's name and two random words"),
    key("checkpoint_path", Optional(&Text), "run folder; null = checkpoints/<project_name>/<run_name>"),
    key("eval_save_outputs", TextList, "tensors to save at every evaluation, e.g. [inputs,logits]"),
    key("arch.name", Text, "model"),
    key("arch.loss.name", Text, "loss head"),
    key("arch.loss.loss_type", Choice(&["stablemax_cross_entropy", "softmax_cross_entropy"]), "token loss"),
    key("arch.H_cycles", Int, "H cycles per segment"),
    key("arch.L_cycles", Int, "L cycles per H cycle"),
    key("arch.H_layers", Int, "layers of the H module"),
    key("arch.L_layers", Int, "layers of the L module"),
    key("arch.hidden_size", Int, "width"),
    key("arch.num_heads", Int, "attention heads; divides hidden_size"),
    key("arch.expansion", Float, "MLP width over hidden_size"),
    key("arch.pos_encodings", Choice(&["rope", "learned"]), "positions"),
    key("arch.puzzle_emb_ndim", Int, "puzzle embedding's width; follows hidden_size unless set; 0 = none"),
    key("arch.halt_max_steps", Int, "maximum number of segments per puzzle"),
    key("arch.halt_exploration_prob", Float, "probability that a puzzle must run a random number of segments"),
    key(
        "arch.forward_dtype",
        Optional(&Choice(&["bfloat16", "float32", "float16", "float64"])),
        "dtype of the forward pass; null = bfloat16",
    ),
    key("arch.rms_norm_eps", Optional(&Float), "epsilon of the norms; null = 1e-5"),
    key("arch.rope_theta", Optional(&Float), "base of the rotary positions; null = 10000"),
    ours(
        "ema_decay",
        Float,
        "decay of the moving average of the weights, which is evaluated and saved too (TRM: 0.999); 0 = none",
    ),
    ours("arch.no_act_continue", Bool, "no target-Q pass; a puzzle halts at q_halt > 0 (TRM)"),
    ours(
        "augment",
        Choice(&["stored", "online"]),
        "online: a fresh shuffle of every board drawn, instead of stored ones",
    ),
    ours("augment_hint", Bool, "with augment=online: every other board gets hints"),
    ours("grad_accum", Int, "parts that a step's rows are processed in: less memory, the same step"),
    ours("log_grad_norm", Bool, "log the gradient's norm"),
    ours("checkpoint_every_steps", Optional(&Int), "save every N steps, in addition to evaluations; null = never"),
    ours(
        "keep_last",
        Optional(&Int),
        "checkpoints to keep, the best always; null = all (training state: the newest two)",
    ),
    ours("max_minutes", Optional(&Float), "save and stop in time to end within this many minutes; null = no limit"),
    ours("init_from", Optional(&Text), "checkpoint whose weights the run starts from"),
];

/// The key of that name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| k.name == name)
}

/// The closest of `names`, where one is close enough to be what was meant. A last part alone counts as well:
/// `hidden_size` means `arch.hidden_size`.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let closeness = |candidate: &str| {
        let last = |s: &str| s.rsplit('.').next().unwrap_or_default().to_lowercase();
        let whole = strsim::normalized_damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase());
        whole.max(strsim::normalized_damerau_levenshtein(&last(name), &last(candidate)) * 0.99)
    };
    names.map(|n| (closeness(n), n)).filter(|(c, _)| *c > 0.55).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, n)| n)
}

/// The keys with their defaults, one a line, for `--help`: those that upstream has, or `ours`.
pub fn help_text(ours: bool) -> String {
    let defaults = serde_json::to_value(super::TrainConfig::default()).unwrap_or_default();
    let width = KEYS.iter().map(|k| k.name.len()).max().unwrap_or(0);
    let line = |k: &Key| {
        let default = k.name.split('.').try_fold(&defaults, |v, part| v.get(part)).unwrap_or(&Value::Null);
        let shown = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        format!("  {:width$}  {} [{shown}]\n", k.name, k.help)
    };
    KEYS.iter().filter(|k| k.ours == ours).map(line).collect()
}

impl Key {
    /// `value` in the form that this key stores, or an error that says what it wants.
    pub fn accept(&self, value: Value) -> Result<Value> {
        match self.kind.accept(&value) {
            Some(value) => Ok(value),
            None => bail!("{} must be {}, found {}", self.name, self.kind.wanted(), found(&value)),
        }
    }
}

impl KeyKind {
    fn accept(self, value: &Value) -> Option<Value> {
        match self {
            Optional(_) if value.is_null() => Some(Value::Null),
            Optional(kind) => kind.accept(value),
            Int => whole(value).map(Value::from),
            Natural => value.as_u64().or_else(|| whole(value)?.try_into().ok()).map(Value::from),
            Float => value.as_f64().filter(|x| x.is_finite()).map(Value::from),
            Bool => truth(value).map(Value::from),
            Text => match value {
                Value::String(_) => Some(value.clone()),
                Value::Number(n) => Some(Value::String(n.to_string())),
                _ => None,
            },
            Choice(choices) => value.as_str().filter(|s| choices.contains(s)).map(Value::from),
            TextList => {
                let items: Option<Vec<Value>> = value.as_array()?.iter().map(|v| Text.accept(v)).collect();
                items.map(Value::from)
            }
        }
    }

    fn wanted(self) -> String {
        match self {
            Int => "an integer".into(),
            Natural => "an integer from 0".into(),
            Float => "a finite number".into(),
            Bool => "true or false".into(),
            Text => "text".into(),
            Choice(choices) => choices.join(" or "),
            TextList => "a list such as [inputs,logits]".into(),
            Optional(kind) => format!("{} or null", kind.wanted()),
        }
    }
}

fn whole(value: &Value) -> Option<i64> {
    let as_whole = |x: f64| (x.fract() == 0.0 && x.abs() <= 9e15).then_some(x as i64);
    value.as_i64().or_else(|| as_whole(value.as_f64()?))
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::Number(n) => match n.as_u64()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        },
        Value::String(s) => match s.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Object(_) => "a group of keys".into(),
        Value::Array(_) => "a list".into(),
        Value::String(s) if s.is_empty() => "nothing".into(),
        Value::String(s) => format!("'{}'", s.chars().take(60).collect::<String>().escape_debug()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Dtype, TrainConfig};

    fn leaves(prefix: &str, value: &Value, out: &mut Vec<String>) {
        match value.as_object() {
            Some(map) => map.iter().for_each(|(k, v)| leaves(&format!("{prefix}{k}."), v, out)),
            None => out.push(prefix.trim_end_matches('.').to_owned()),
        }
    }

    #[test]
    fn the_table_and_the_struct_have_the_same_keys() {
        let mut config = TrainConfig::default();
        config.arch.forward_dtype = Some(Dtype::F32);
        config.arch.rms_norm_eps = Some(1e-6);
        config.arch.rope_theta = Some(5.0);
        let mut fields = Vec::new();
        leaves("", &serde_json::to_value(config).unwrap(), &mut fields);
        let mut table: Vec<_> = KEYS.iter().map(|k| k.name.to_owned()).collect();
        fields.sort();
        table.sort();
        assert_eq!(fields, table);
    }

    #[test]
    fn help_shows_every_key_with_its_default() {
        let text = help_text(false) + &help_text(true);
        assert_eq!(text.lines().count(), KEYS.len());
        assert!(text.contains("global_batch_size") && text.contains("[768]") && text.contains("[rope]"), "{text}");
    }

    #[test]
    fn suggestions_find_typing_errors_and_missing_groups() {
        let nearest_key = |name| nearest(name, KEYS.iter().map(|k| k.name));
        assert_eq!(nearest_key("hidden_size"), Some("arch.hidden_size"));
        assert_eq!(nearest_key("arch.hiden_size"), Some("arch.hidden_size"));
        assert_eq!(nearest_key("global-batch-size"), Some("global_batch_size"));
        assert_eq!(nearest_key("arch.h_cycles"), Some("arch.H_cycles"));
        assert_eq!(nearest_key("zzzzzzz"), None);
    }
}
