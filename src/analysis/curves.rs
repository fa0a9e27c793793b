//! A run over its steps: what a picture of it shows.

use serde::Serialize;

use crate::{
    metrics::{Metric, SegmentMetric, SetName, train_key},
    train::RunHistory,
};

/// Most points of a curve: a picture has no room for more.
pub const MOST_POINTS: usize = 240;

/// Steps and values.
pub type Curve = Vec<(f64, f64)>;

/// The curves of one run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunCurves {
    pub name: String,
    /// Training steps that a point of the training curves is the mean of.
    pub steps_per_point: usize,
    /// Token loss a row, in training.
    pub loss: Curve,
    /// Token loss a row, at evaluations.
    pub evaluation_loss: Curve,
    /// Exact accuracy after the last segment, at evaluations.
    pub exact: Curve,
    /// The same, by the moving average of the weights; empty without one.
    pub averaged_exact: Curve,
    /// Exact accuracy in training, over rows in all their segments.
    pub training_exact: Curve,
    /// Segments that a row has worked on its puzzle, mean over the batch: it falls when the model halts early.
    pub segments: Curve,
    /// Share of rows whose halting value says rightly whether they are solved.
    pub halt_accuracy: Curve,
    /// Exact accuracy after segment 1, 2, .., at evaluations.
    pub exact_by_segment: Vec<Curve>,
}

impl RunCurves {
    /// From a run's metrics; training curves are means over equal numbers of steps.
    pub fn new(name: String, history: &RunHistory) -> Self {
        let losses = history.training.of(&train_key(Metric::LmLoss));
        let steps_per_point = losses.len().div_ceil(MOST_POINTS).max(1);
        let training = |metric| means(&history.training.of(&train_key(metric)), steps_per_point);
        let set = history.set().unwrap_or_else(|| "all".to_owned());
        let (raw, averaged) = (SetName::raw(&set), SetName::averaged(&set));
        let of_set = |set: &SetName, key: &str| -> Curve {
            let series = history.evaluations.of(&set.key(key));
            series.into_iter().map(|(step, value)| (step as f64, value)).collect()
        };
        let exact_by_segment = (1..)
            .map(|segment| of_set(&raw, &SegmentMetric::ExactAccuracy.key(segment)))
            .take_while(|curve| !curve.is_empty())
            .collect();
        Self {
            name,
            steps_per_point,
            loss: means(&losses, steps_per_point),
            evaluation_loss: of_set(&raw, Metric::LmLoss.name()),
            exact: of_set(&raw, Metric::ExactAccuracy.name()),
            averaged_exact: of_set(&averaged, Metric::ExactAccuracy.name()),
            training_exact: training(Metric::ExactAccuracy),
            segments: training(Metric::Steps),
            halt_accuracy: training(Metric::QHaltAccuracy),
            exact_by_segment,
        }
    }
}

/// Means over `count` values each, at the mean of their steps.
fn means(series: &[(i64, f64)], count: usize) -> Curve {
    let mean = |part: &[(i64, f64)]| {
        let n = part.len() as f64;
        let sum = part.iter().fold((0.0, 0.0), |s, v| (s.0 + v.0 as f64, s.1 + v.1));
        (sum.0 / n, sum.1 / n)
    };
    let count = count.max(1);
    // A last part that is short would stand out by its noise.
    let long_enough = |part: &&[(i64, f64)]| part.len() * 2 >= count || series.len() < count;
    series.chunks(count).filter(long_enough).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_the_mean_of_its_steps() {
        assert_eq!(means(&[(1, 2.0), (2, 4.0), (3, 9.0)], 2), [(1.5, 3.0), (3.0, 9.0)]);
        assert_eq!(means(&[(1, 2.0), (2, 4.0), (3, 6.0), (4, 50.0)], 3), [(2.0, 4.0)]);
        assert!(means(&[], 3).is_empty());
    }
}
