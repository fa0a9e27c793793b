//! 95 % intervals for shares.
//!
//! Wilson's score interval, for the share p̂ of n independent yes-or-no results, z = 1.96:
//!
//! ```text
//! (p̂ + z²/2n ± z·sqrt(p̂(1 − p̂)/n + z²/4n²)) / (1 + z²/n)
//! ```
//!
//! For the mean of counts, one per puzzle, known by their sum and the sum of their squares, the normal interval
//! `mean ± z·s/sqrt(n)`, s² with n − 1.
//!
//! Passes over the same puzzle are not independent. Where passes are pooled, whole puzzles are drawn with replacement
//! instead, and the interval runs between the 2.5 % and 97.5 % quantiles of the resampled means (percentile bootstrap).

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

/// The 97.5 % quantile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Resamples of a bootstrap.
pub const RESAMPLES: u64 = 2000;

/// An interval that holds the true share with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
    pub method: IntervalMethod,
}

/// How an [`Interval`] was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IntervalMethod {
    Wilson,
    Bootstrap,
    Normal,
}

/// Wilson's interval for `successes` out of `n`. Nothing is known without results: `[0, 1]` for n = 0.
pub fn wilson(successes: u64, n: u64) -> Interval {
    let method = IntervalMethod::Wilson;
    if n == 0 {
        return Interval { low: 0.0, high: 1.0, method };
    }
    let total = n as f64;
    let share = successes.min(n) as f64 / total;
    let z2n = Z * Z / total;
    let centre = share + z2n / 2.0;
    let half = Z * (share * (1.0 - share) / total + z2n / (4.0 * total)).sqrt();
    // The ends are 0 and 1 in exact arithmetic where nothing, or everything, succeeded.
    let low = if successes == 0 { 0.0 } else { (centre - half) / (1.0 + z2n) };
    let high = if successes >= n { 1.0 } else { (centre + half) / (1.0 + z2n) };
    Interval { low, high, method }
}

/// The normal interval for the mean of `n` counts of at most `most`, as a share of `most`: from their sum and the sum of
/// their squares. Nothing is known without results.
pub fn normal_share(sum: u64, squares: u64, n: u64, most: u64) -> Interval {
    let method = IntervalMethod::Normal;
    if n == 0 || most == 0 {
        return Interval { low: 0.0, high: 1.0, method };
    }
    let (total, sum) = (n as f64, sum as f64);
    let mean = sum / total;
    let variance = if n > 1 { ((squares as f64 - sum * mean) / (total - 1.0)).max(0.0) } else { 0.0 };
    let half = Z * (variance / total).sqrt();
    let share = |x: f64| (x / most as f64).clamp(0.0, 1.0);
    Interval { low: share(mean - half), high: share(mean + half), method }
}

/// The bootstrap interval for the mean of one value per puzzle. The same seed gives the same interval, whatever the
/// number of threads: each resample has a random stream of its own.
pub fn bootstrap_mean(values: &[f64], seed: u64) -> Interval {
    let method = IntervalMethod::Bootstrap;
    let (Some(&first), n) = (values.first(), values.len()) else {
        return Interval { low: 0.0, high: 1.0, method };
    };
    if values.iter().all(|&v| v == first) {
        return Interval { low: first, high: first, method };
    }
    let mut means: Vec<f64> = (0..RESAMPLES)
        .into_par_iter()
        .map(|resample| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(resample);
            (0..n).map(|_| values[rng.random_range(0..n)]).sum::<f64>() / n as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    Interval { low: quantile(&means, 0.025), high: quantile(&means, 0.975), method }
}

/// Linear interpolation between the two nearest of sorted values.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (below, share) = (at.floor() as usize, at.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * share
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures from the formula above, worked out in Python's floats.
    #[test]
    fn wilson_matches_the_textbook() {
        for (k, n, low, high) in [
            (3, 10, 0.107_791_267_4, 0.603_221_852_5),
            (0, 10, 0.0, 0.277_532_799_9),
            (10, 10, 0.722_467_200_1, 1.0),
            (550, 1000, 0.519_032_708_2, 0.580_584_615_9),
        ] {
            let found = wilson(k, n);
            assert!((found.low - low).abs() < 1e-8 && (found.high - high).abs() < 1e-8, "{k}/{n}: {found:?}");
        }
        assert_eq!(wilson(0, 0), Interval { low: 0.0, high: 1.0, method: IntervalMethod::Wilson });
    }

    #[test]
    fn normal_matches_the_textbook() {
        // Counts 2, 4, 4, 6 of 10: mean 4, s² = 8/3.
        let found = normal_share(16, 72, 4, 10);
        let half = Z * (8.0_f64 / 3.0 / 4.0).sqrt();
        assert!((found.low - (4.0 - half) / 10.0).abs() < 1e-12 && (found.high - (4.0 + half) / 10.0).abs() < 1e-12);
        let none = normal_share(0, 0, 0, 10);
        assert_eq!((none.low, none.high), (0.0, 1.0));
        let one = normal_share(5, 25, 1, 10);
        assert_eq!((one.low, one.high), (0.5, 0.5));
    }

    #[test]
    fn bootstrap_is_seeded_and_near_the_normal_interval() {
        let values: Vec<f64> = (0..1000).map(|i| f64::from(u8::from(i % 10 < 3))).collect();
        let found = bootstrap_mean(&values, 7);
        assert_eq!(found, bootstrap_mean(&values, 7));
        assert_ne!(found, bootstrap_mean(&values, 8));
        let half = Z * (0.3_f64 * 0.7 / 1000.0).sqrt();
        assert!((found.low - (0.3 - half)).abs() < 0.004 && (found.high - (0.3 + half)).abs() < 0.004, "{found:?}");
    }

    #[test]
    fn bootstrap_of_one_value_is_that_value() {
        let found = bootstrap_mean(&[0.25; 4], 0);
        assert_eq!((found.low, found.high), (0.25, 0.25));
        let none = bootstrap_mean(&[], 0);
        assert_eq!((none.low, none.high), (0.0, 1.0));
    }
}
