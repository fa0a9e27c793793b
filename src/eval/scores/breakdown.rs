//! Scores by source and by rating, where the data tells them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{mean, ratio, tally::RuleScore};

/// The first ratings of the ranges.
const RATINGS: [i64; 8] = [0, 1, 3, 10, 30, 100, 300, 1000];

/// Puzzles of one source or of one range of ratings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BreakdownPart {
    /// Number of puzzles.
    pub total: u64,
    /// Mean over puzzles of the share of exact passes.
    pub exact_accuracy: f64,
    /// Share of puzzles with a verified answer; null for an unknown kind.
    pub verified: Option<f64>,
    /// Share of puzzles whose vote equals the label.
    pub vote: f64,
    /// Share of puzzles whose best halt equals the label.
    pub best_halt: f64,
}

/// Where the data tells sources and ratings.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Breakdown {
    /// By the name of the source.
    pub by_source: BTreeMap<String, BreakdownPart>,
    /// Ratings from `low` to `high`, both included; the last has no end.
    pub by_rating: Vec<RatingGroup>,
}

/// Puzzles of one range of ratings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RatingGroup {
    /// Lowest rating.
    pub low: i64,
    /// Highest rating; none where the range has no end.
    pub high: Option<i64>,
    /// The puzzles in it.
    #[serde(flatten)]
    pub group: BreakdownPart,
}

impl Breakdown {
    /// From source, rating and score of each puzzle; none where a source is missing, or there is no puzzle. `known`: there
    /// are rules to verify by.
    pub(super) fn of<'a>(
        puzzles: impl Iterator<Item = (Option<&'a str>, Option<i64>, RuleScore)>,
        known: bool,
    ) -> Option<Self> {
        let mut sources: BTreeMap<&str, Vec<RuleScore>> = BTreeMap::new();
        let mut ratings: BTreeMap<usize, Vec<RuleScore>> = BTreeMap::new();
        for (source, rating, score) in puzzles {
            sources.entry(source?).or_default().push(score);
            let range = RATINGS.partition_point(|&low| low <= rating.unwrap_or(0)).saturating_sub(1);
            ratings.entry(range).or_default().push(score);
        }
        if sources.is_empty() {
            return None;
        }
        let rating = |(range, list): (usize, Vec<RuleScore>)| RatingGroup {
            low: RATINGS[range],
            high: RATINGS.get(range + 1).map(|next| next - 1),
            group: BreakdownPart::of(&list, known),
        };
        Some(Self {
            by_source: sources
                .into_iter()
                .map(|(name, list)| (name.to_owned(), BreakdownPart::of(&list, known)))
                .collect(),
            by_rating: ratings.into_iter().map(rating).collect(),
        })
    }
}

impl BreakdownPart {
    fn of(list: &[RuleScore], known: bool) -> Self {
        let total = list.len() as u64;
        let share = |of: fn(&RuleScore) -> bool| ratio(list.iter().filter(|s| of(s)).count() as u64, total);
        Self {
            total,
            exact_accuracy: mean(&list.iter().map(RuleScore::exact_share).collect::<Vec<_>>()),
            verified: known.then(|| share(|s| s.chosen.verified)),
            vote: share(|s| s.chosen.vote),
            best_halt: share(|s| s.chosen.best_halt),
        }
    }
}
