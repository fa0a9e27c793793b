//! Upstream's `evaluate`: every metric of the last segment, and loss and accuracies of each segment, as means over a
//! test split.
//!
//! Every row runs `halt_max_steps` segments. Sums over batches are divided by the number of valid rows, losses too.
//! Rows of padding add to `q_halt_loss` (their target is 1) and to nothing else, as upstream.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Serialize, Serializer};
use tch::{Kind, Tensor};

use crate::{
    dataset::Batch,
    metrics::{Metric, MetricValues, SegmentMetric, SetName},
    model::{DeviceBatch, Model, Segment, loss_head},
};

/// Means over the rows of one set, after each segment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SetMetrics {
    /// After segment 1, 2, ..; of [`Metric::QContinueLoss`] evaluation knows nothing.
    pub segments: Vec<MetricValues>,
}

impl SetMetrics {
    /// After the last segment.
    pub fn last(&self) -> MetricValues {
        self.segments.last().copied().unwrap_or_default()
    }

    /// Upstream's `{metric: value}`, in the order of the names.
    pub fn named(&self) -> BTreeMap<String, f64> {
        let told = |metric: &Metric| !matches!(metric, Metric::Count | Metric::QContinueLoss);
        let last = Metric::ALL.into_iter().filter(told).map(|m| (m.name().to_owned(), self.last().get(m)));
        let each = self
            .segments
            .iter()
            .zip(1..)
            .flat_map(|(values, segment)| SegmentMetric::ALL.map(|of| (of.key(segment), values.get(of.metric()))));
        last.chain(each).collect()
    }
}

impl Serialize for SetMetrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.named().serialize(serializer)
    }
}

/// `{set: {metric: value}}`, upstream's shape.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Evaluation {
    /// By test set.
    pub sets: BTreeMap<SetName, SetMetrics>,
}

impl Evaluation {
    /// Exact accuracy in the last segment: the mean over the sets, of raw or averaged weights, whichever is higher.
    pub fn best_exact_accuracy(&self) -> f64 {
        let mean = |averaged: bool| {
            let of = self.sets.iter().filter(|(set, _)| set.averaged == averaged);
            let found: Vec<f64> = of.map(|(_, metrics)| metrics.last().exact_accuracy).collect();
            if found.is_empty() { 0.0 } else { found.iter().sum::<f64>() / found.len() as f64 }
        };
        mean(false).max(mean(true))
    }

    /// All values as `<set>/<metric>`, as metrics.jsonl has them.
    pub fn entries(&self) -> impl Iterator<Item = (String, f64)> + '_ {
        self.sets
            .iter()
            .flat_map(|(set, metrics)| metrics.named().into_iter().map(move |(name, value)| (set.key(&name), value)))
    }
}

/// Sums of one set while batches come in.
#[derive(Debug, Default)]
pub struct EvaluationSums {
    /// set -> `[segments, 8]` f64 on the host, in the order of [`Metric::ALL`]
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

    /// The means, of the weights or of their moving average.
    ///
    /// # Errors
    /// Sums of another shape.
    pub fn finish(&self, averaged: bool) -> Result<Evaluation> {
        let of_set = |(set, sums): (&String, &Tensor)| Ok((SetName { averaged, set: set.clone() }, means(sums)?));
        Ok(Evaluation { sets: self.sums.iter().map(of_set).collect::<Result<_>>()? })
    }
}

/// `sums`: `[segments, 8]`.
fn means(sums: &Tensor) -> Result<SetMetrics> {
    let flat: Vec<f64> = Vec::try_from(sums.to_kind(Kind::Double).contiguous().view([-1]))?;
    let (rows, []) = flat.as_chunks() else { anyhow::bail!("sums of shape {:?}", sums.size()) };
    let sums: Vec<MetricValues> = rows.iter().map(|row| MetricValues::from_row(*row)).collect();
    let count = sums.last().context("no segment was evaluated")?.count.max(1.0);
    Ok(SetMetrics { segments: sums.iter().map(|segment| segment.divided(|_| count)).collect() })
}
