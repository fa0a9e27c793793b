//! The metrics of training and evaluation: what they are, and their names in files.
//!
//! ```text
//! metrics.jsonl     train/<metric>, train/grad_norm, train/lr     <set>/<metric>, ema/<set>/<metric>
//! upstream's JSON   {set: {metric: value}}, with segment_<k>_<metric> for every segment
//! ```

use std::fmt;

use serde::{Serialize, Serializer};

/// What the loss head counts in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Rows with a labelled cell.
    Count,
    /// Share of a row's cells that equal the label.
    Accuracy,
    /// Rows whose cells all equal the label.
    ExactAccuracy,
    /// Rows whose halting value says rightly whether they are solved.
    QHaltAccuracy,
    /// Segments that a row has worked on its puzzle.
    Steps,
    /// Token loss of a row, the mean over its labelled cells.
    LmLoss,
    /// Binary cross-entropy of q_halt against "solved".
    QHaltLoss,
    /// Binary cross-entropy of q_continue against its target.
    QContinueLoss,
}

impl Metric {
    /// In the order in which the loss head writes them.
    pub const ALL: [Self; 8] = [
        Self::Count,
        Self::Accuracy,
        Self::ExactAccuracy,
        Self::QHaltAccuracy,
        Self::Steps,
        Self::LmLoss,
        Self::QHaltLoss,
        Self::QContinueLoss,
    ];

    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Upstream's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Accuracy => "accuracy",
            Self::ExactAccuracy => "exact_accuracy",
            Self::QHaltAccuracy => "q_halt_accuracy",
            Self::Steps => "steps",
            Self::LmLoss => "lm_loss",
            Self::QHaltLoss => "q_halt_loss",
            Self::QContinueLoss => "q_continue_loss",
        }
    }

    /// Whether it is a loss, of which training takes the mean over the global batch instead of the valid rows.
    pub fn is_loss(self) -> bool {
        matches!(self, Self::LmLoss | Self::QHaltLoss | Self::QContinueLoss)
    }
}

/// A value for each [`Metric`]: sums over rows, or means.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MetricValues {
    /// Of [`Metric::Count`].
    pub count: f64,
    /// Of [`Metric::Accuracy`].
    pub accuracy: f64,
    /// Of [`Metric::ExactAccuracy`].
    pub exact_accuracy: f64,
    /// Of [`Metric::QHaltAccuracy`].
    pub q_halt_accuracy: f64,
    /// Of [`Metric::Steps`].
    pub steps: f64,
    /// Of [`Metric::LmLoss`].
    pub lm_loss: f64,
    /// Of [`Metric::QHaltLoss`].
    pub q_halt_loss: f64,
    /// Of [`Metric::QContinueLoss`].
    pub q_continue_loss: f64,
}

impl MetricValues {
    /// From the loss head's row, in the order of [`Metric::ALL`].
    pub fn from_row(row: [f64; Metric::COUNT]) -> Self {
        let [count, accuracy, exact_accuracy, q_halt_accuracy, steps, lm_loss, q_halt_loss, q_continue_loss] = row;
        Self { count, accuracy, exact_accuracy, q_halt_accuracy, steps, lm_loss, q_halt_loss, q_continue_loss }
    }

    /// The value of one.
    pub fn get(&self, metric: Metric) -> f64 {
        match metric {
            Metric::Count => self.count,
            Metric::Accuracy => self.accuracy,
            Metric::ExactAccuracy => self.exact_accuracy,
            Metric::QHaltAccuracy => self.q_halt_accuracy,
            Metric::Steps => self.steps,
            Metric::LmLoss => self.lm_loss,
            Metric::QHaltLoss => self.q_halt_loss,
            Metric::QContinueLoss => self.q_continue_loss,
        }
    }

    /// Each value by what is for its metric.
    #[must_use]
    pub fn divided(&self, divisor: impl Fn(Metric) -> f64) -> Self {
        Self::from_row(Metric::ALL.map(|metric| self.get(metric) / divisor(metric)))
    }
}

/// What every segment of an evaluation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentMetric {
    /// As [`Metric::LmLoss`].
    Loss,
    /// As [`Metric::Accuracy`].
    Accuracy,
    /// As [`Metric::ExactAccuracy`].
    ExactAccuracy,
}

impl SegmentMetric {
    /// In the order of upstream's JSON.
    pub const ALL: [Self; 3] = [Self::Loss, Self::Accuracy, Self::ExactAccuracy];

    /// The metric of which it is the value in one segment.
    pub fn metric(self) -> Metric {
        match self {
            Self::Loss => Metric::LmLoss,
            Self::Accuracy => Metric::Accuracy,
            Self::ExactAccuracy => Metric::ExactAccuracy,
        }
    }

    /// `segment_<k>_<name>`, k from 1.
    pub fn key(self, segment: usize) -> String {
        let name = match self {
            Self::Loss => "loss",
            Self::Accuracy => Metric::Accuracy.name(),
            Self::ExactAccuracy => Metric::ExactAccuracy.name(),
        };
        format!("segment_{segment}_{name}")
    }
}

/// What the keys of a training step begin with in metrics.jsonl.
pub const TRAIN_PREFIX: &str = "train/";
/// The learning rate's key in metrics.jsonl.
pub const LEARNING_RATE: &str = "train/lr";
/// The key of the gradient's norm in metrics.jsonl.
pub const GRADIENT_NORM: &str = "train/grad_norm";

/// `train/<metric>`.
pub fn train_key(metric: Metric) -> String {
    format!("{TRAIN_PREFIX}{}", metric.name())
}

/// A test set, evaluated by the weights or by their moving average; as text `<set>` or `ema/<set>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetName {
    /// By the moving average.
    pub averaged: bool,
    /// The set's name in the dataset.
    pub set: String,
}

impl SetName {
    const AVERAGED: &str = "ema/";

    /// The set by the weights themselves.
    pub fn raw(set: &str) -> Self {
        Self { averaged: false, set: set.to_owned() }
    }

    /// The same set by the moving average.
    pub fn averaged(set: &str) -> Self {
        Self { averaged: true, set: set.to_owned() }
    }

    /// Reads what it is as text.
    pub fn parse(text: &str) -> Self {
        text.strip_prefix(Self::AVERAGED).map_or_else(|| Self::raw(text), Self::averaged)
    }

    /// `<set>/<key>`, as in metrics.jsonl.
    pub fn key(&self, key: &str) -> String {
        format!("{self}/{key}")
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.averaged { Self::AVERAGED } else { "" }, self.set)
    }
}

impl Serialize for SetName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_its_place_and_its_name() {
        let values = MetricValues::from_row([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(Metric::ALL.map(|m| values.get(m)), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        let names = [
            "count",
            "accuracy",
            "exact_accuracy",
            "q_halt_accuracy",
            "steps",
            "lm_loss",
            "q_halt_loss",
            "q_continue_loss",
        ];
        assert_eq!(Metric::ALL.map(Metric::name), names);
        assert!(Metric::ALL.iter().all(|m| m.is_loss() == m.name().ends_with("loss")));
        assert_eq!(values.divided(|m| if m.is_loss() { 2.0 } else { 1.0 }).lm_loss, 2.5);
    }

    #[test]
    fn sets_are_told_as_files_have_them() {
        for (name, text) in [(SetName::raw("all"), "all"), (SetName::averaged("all"), "ema/all")] {
            assert_eq!((name.to_string().as_str(), SetName::parse(text)), (text, name));
        }
        assert_eq!(SetName::averaged("all").key(&SegmentMetric::Loss.key(3)), "ema/all/segment_3_loss");
        assert_eq!(train_key(Metric::LmLoss), "train/lm_loss");
    }
}
