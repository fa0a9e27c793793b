//! Upstream's `evaluate`: every metric of the last segment, and loss and accuracies of each segment, as means over a
//! test split.
//!
//! Every row runs `halt_max_steps` segments. Sums over batches are divided by the number of valid rows, losses too.
//! Rows of padding add to `q_halt_loss` (their target is 1) and to nothing else, as upstream.

use std::collections::BTreeMap;

use serde::Serialize;
use tch::{Kind, Tensor};

use crate::{
    dataset::Batch,
    model::{DeviceBatch, METRICS, Model, Segment, loss_head},
};

/// `{metric: value}` of one set.
pub type SetMetrics = BTreeMap<String, f64>;

/// `{set: {metric: value}}`, upstream's shape.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Evaluation {
    pub sets: BTreeMap<String, SetMetrics>,
}

impl Evaluation {
    /// Exact accuracy in the last segment: the mean over the sets, of raw or averaged weights (`ema/<set>`), whichever is
    /// higher.
    pub fn best_exact_accuracy(&self) -> f64 {
        let mean = |averaged: bool| {
            let of = |(set, metrics): (&String, &SetMetrics)| {
                metrics.get("exact_accuracy").copied().filter(|_| set.starts_with("ema/") == averaged)
            };
            let found: Vec<f64> = self.sets.iter().filter_map(of).collect();
            if found.is_empty() { 0.0 } else { found.iter().sum::<f64>() / found.len() as f64 }
        };
        mean(false).max(mean(true))
    }
}

/// Sums of one set while batches come in.
#[derive(Debug, Default)]
pub struct EvaluationSums {
    /// set -> `[segments, 8]` f64 on the host
    sums: BTreeMap<String, Tensor>,
}

impl EvaluationSums {
    /// Runs one batch through all segments from a fresh carry and adds its metrics. Returns the last segment.
    pub fn add(&mut self, model: &Model, set: &str, batch: &Batch) -> Segment {
        let batch = DeviceBatch::upload(batch, model.device());
        let mut rows = Vec::new();
        let last = model.all_segments(&batch, |segment| {
            rows.push(loss_head(model.ops(), model.config().loss_type, segment, None, 1.0).values);
        });
        let rows = Tensor::stack(&rows, 0).to_device(tch::Device::Cpu); // [segments, 8]
        match self.sums.get_mut(set) {
            Some(sum) => *sum += rows,
            None => {
                self.sums.insert(set.to_string(), rows);
            }
        }
        last
    }

    /// `[segments, 8]` sums per set, for reducing over processes.
    pub fn sums_mut(&mut self) -> impl Iterator<Item = (&String, &mut Tensor)> {
        self.sums.iter_mut()
    }

    /// The means.
    pub fn finish(&self) -> Evaluation {
        let sets = self.sums.iter().map(|(set, sums)| (set.clone(), means(sums))).collect();
        Evaluation { sets }
    }
}

fn means(sums: &Tensor) -> SetMetrics {
    let segments = sums.size()[0] as usize;
    let flat: Vec<f64> = Vec::try_from(sums.to_kind(Kind::Double).contiguous().view([-1])).unwrap_or_default();
    let at = |segment: usize, name: &str| {
        let column = METRICS.iter().position(|m| *m == name).unwrap_or_default();
        flat[segment * METRICS.len() + column]
    };
    let count = at(segments - 1, "count").max(1.0);
    let mut metrics = SetMetrics::new();
    for name in METRICS.iter().filter(|m| !["count", "q_continue_loss"].contains(m)) {
        metrics.insert((*name).to_string(), at(segments - 1, name) / count);
    }
    for segment in 0..segments {
        for (key, name) in [("loss", "lm_loss"), ("accuracy", "accuracy"), ("exact_accuracy", "exact_accuracy")] {
            metrics.insert(format!("segment_{}_{key}", segment + 1), at(segment, name) / count);
        }
    }
    metrics
}
