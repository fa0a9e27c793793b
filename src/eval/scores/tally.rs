//! Counts puzzles as they are done.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Breakdown, CurvePoint, PerRule, RunShape, Scores, Stop, Stops,
    curve::Curve,
    mean,
    pool::{Chosen, Pool},
    ratio,
};
use crate::eval::{
    pass::{Ending, PassId, StopRule},
    record::PuzzleRecord,
    stats::{Interval, bootstrap_mean, wilson},
    vote::{PassOutcome, checkpoint_solves},
};

/// Sums of one pass over the puzzles that it ran on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassTotals {
    /// Which pass.
    pub id: PassId,
    /// Puzzles.
    pub run: u64,
    /// Puzzles with every cell right.
    pub exact: u64,
    /// Cells right, and the sum over puzzles of their number squared.
    pub cells: u64,
    /// See `cells`.
    pub cells_squared: u64,
    /// Puzzles halted at their stop.
    pub halted: u64,
    /// Puzzles verified at their stop.
    pub verified: u64,
    /// Segments until its stops, over all puzzles.
    pub segments: u64,
}

impl PassTotals {
    fn add(&mut self, end: &Ending) {
        self.run += 1;
        let cells = u64::from(end.cells.unwrap_or(0));
        self.exact += u64::from(end.is_exact());
        self.cells += cells;
        self.cells_squared += cells.pow(2);
        self.halted += u64::from(end.halted);
        self.verified += u64::from(end.verified);
        self.segments += u64::from(end.segments);
    }
}

/// One puzzle under one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RuleScore {
    run: u32,
    exact: u32,
    segments: u32,
    pub chosen: Chosen,
}

impl RuleScore {
    fn of(passes: &[(PassId, &Ending)]) -> Self {
        let mut pool = Pool::default();
        passes.iter().for_each(|(_, end)| pool.add(end));
        Self {
            run: passes.len() as u32,
            exact: passes.iter().filter(|(_, e)| e.is_exact()).count() as u32,
            segments: passes.iter().map(|(_, e)| e.segments).sum(),
            chosen: pool.chosen(),
        }
    }

    /// The share of its passes that are exact.
    pub fn exact_share(&self) -> f64 {
        ratio(self.exact.into(), self.run.into())
    }
}

#[derive(Clone, Debug)]
struct PuzzleScore {
    cell_share: f64,
    /// Under upstream's rule; no meaning unless every pass ran all segments.
    upstream: bool,
    /// Passes whose answer equals the label.
    solved_by: Vec<PassId>,
    rules: PerRule<Option<RuleScore>>,
    source: Option<String>,
    rating: Option<i64>,
}

/// Counts puzzles as they are done, in any order.
#[derive(Clone, Debug)]
pub struct Tally {
    shape: RunShape,
    passes: Vec<PassTotals>,
    puzzles: BTreeMap<usize, PuzzleScore>,
    curve: Curve,
}

/// Per puzzle, in the set's order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PuzzleScores {
    /// Numbers of the passes whose answer equals the label.
    pub solved_by: Vec<Vec<u32>>,
    /// The first of them.
    pub first_solved_by: Vec<Option<u32>>,
    /// Segments of all its passes.
    pub segments: Vec<u32>,
    /// 0 or 1; null for puzzles of an unknown kind.
    pub verified: Option<Vec<u8>>,
    /// 0 or 1, of the vote's answer beside the label.
    pub vote: Vec<u8>,
    /// 0 or 1, of the best halt's answer beside the label.
    pub best_halt: Vec<u8>,
}

/// A mean with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// The mean.
    pub value: f64,
    /// 95 % interval of `value`.
    pub interval: Interval,
}

impl Tally {
    /// Counts nothing yet.
    pub fn new(shape: RunShape) -> Self {
        let passes = shape.pass_ids().map(|id| PassTotals { id, ..PassTotals::default() }).collect();
        let curve = Curve::new(&shape);
        Self { shape, passes, puzzles: BTreeMap::new(), curve }
    }

    /// What decides how passes are counted.
    pub fn shape(&self) -> &RunShape {
        &self.shape
    }

    /// Counts a puzzle that is done. A puzzle that is counted already is left alone.
    pub fn add(&mut self, record: &PuzzleRecord) {
        if self.puzzles.contains_key(&record.puzzle) {
            return;
        }
        let (of_run, guesses) = (self.shape.stop, self.shape.guesses as usize);
        let rules = PerRule::each(|rule| record.passes_under(rule, of_run).map(|passes| RuleScore::of(&passes)));
        let passes = record.passes_under(of_run, of_run).unwrap_or_default();
        for (pass, end) in &passes {
            if let Some(totals) = self.passes.get_mut(pass.number(guesses) as usize) {
                totals.add(end);
            }
        }
        self.curve.add(&passes);
        let outcomes: Vec<PassOutcome> =
            passes.iter().map(|(_, e)| PassOutcome { exact: e.is_exact(), halted: e.halted }).collect();
        let kind = self.shape.kind;
        let solves = |of_checkpoint: &[PassOutcome]| kind.is_some_and(|kind| checkpoint_solves(kind, of_checkpoint));
        let cells: u64 = passes.iter().map(|(_, e)| u64::from(e.cells.unwrap_or(0))).sum();
        let score = PuzzleScore {
            cell_share: cells as f64 / (passes.len() * self.shape.cells).max(1) as f64,
            upstream: outcomes.chunks(guesses.max(1)).any(solves),
            solved_by: passes.iter().filter(|(_, e)| e.is_exact()).map(|(p, _)| *p).collect(),
            rules,
            source: record.row.as_ref().map(|row| row.source.clone()),
            rating: record.row.as_ref().map(|row| row.rating),
        };
        self.puzzles.insert(record.puzzle, score);
    }

    /// Puzzles counted.
    pub fn total(&self) -> u64 {
        self.puzzles.len() as u64
    }

    /// In the order of their numbers.
    pub fn passes(&self) -> &[PassTotals] {
        &self.passes
    }

    /// Per puzzle, whether it is solved under upstream's rule; none unless every pass ran all segments, and where the kind
    /// of puzzle is unknown.
    pub fn upstream(&self) -> Option<Vec<bool>> {
        (self.shape.kind.is_some() && self.shape.stop == StopRule::Never)
            .then(|| self.puzzles.values().map(|p| p.upstream).collect())
    }

    /// Whether there are rules to verify by.
    fn is_known(&self) -> bool {
        self.shape.kind.is_some()
    }

    fn own(&self) -> impl Iterator<Item = RuleScore> + '_ {
        self.puzzles.values().map(|p| p.rules[self.shape.stop].unwrap_or_default())
    }

    /// Mean over puzzles of the share of their passes that are exact.
    pub fn exact_accuracy(&self, seed: u64) -> Mean {
        let shares: Vec<f64> = self.own().map(|s| s.exact_share()).collect();
        let interval = match self.passes.as_slice() {
            [only] => wilson(only.exact, self.total()),
            _ => bootstrap_mean(&shares, seed),
        };
        Mean { value: mean(&shares), interval }
    }

    /// Mean over puzzles of the share of cells that equal the label.
    pub fn cell_accuracy(&self, seed: u64) -> Mean {
        let shares: Vec<f64> = self.puzzles.values().map(|p| p.cell_share).collect();
        Mean { value: mean(&shares), interval: bootstrap_mean(&shares, seed) }
    }

    /// Scores under the run's own stop rule.
    pub fn scores(&self) -> Scores {
        Scores::of(self.own(), self.is_known())
    }

    /// `seconds`: of the run.
    pub fn stops(&self, seconds: f64) -> Stops {
        let own: u64 = self.own().map(|s| u64::from(s.segments)).sum();
        Stops::each(|rule| self.stop(rule, seconds, own))
    }

    fn stop(&self, rule: StopRule, seconds: f64, own_segments: u64) -> Option<Stop> {
        let all: Option<Vec<RuleScore>> = self.puzzles.values().map(|p| p.rules[rule]).collect();
        let all = all.filter(|list| !list.is_empty())?;
        let sum = |of: fn(&RuleScore) -> u32| all.iter().map(|s| u64::from(of(s))).sum::<u64>();
        let (segments, passes_run) = (sum(|s| s.segments), sum(|s| s.run));
        let shares: Vec<f64> = all.iter().map(RuleScore::exact_share).collect();
        let measured = rule == self.shape.stop;
        Some(Stop {
            exact_accuracy: mean(&shares),
            segments_mean: segments as f64 / passes_run.max(1) as f64,
            seconds: if measured { seconds } else { seconds * ratio(segments, own_segments) },
            measured,
            segments,
            segments_nominal: self.shape.segments_of_puzzle() * self.total(),
            passes_run,
            passes_skipped: self.total() * self.passes.len() as u64 - passes_run,
            scores: Scores::of(all.into_iter(), self.is_known()),
        })
    }

    /// One point for each number of passes.
    pub fn curve(&self) -> Vec<CurvePoint> {
        self.curve.points(self.total())
    }

    /// None where the data tells no sources and ratings.
    pub fn breakdown(&self) -> Option<Breakdown> {
        let puzzles = self.puzzles.values().zip(self.own()).map(|(p, own)| (p.source.as_deref(), p.rating, own));
        Breakdown::of(puzzles, self.is_known())
    }

    /// What each puzzle came to.
    pub fn puzzles(&self) -> PuzzleScores {
        let verified = || self.own().map(|own| u8::from(own.chosen.verified)).collect();
        let mut list = PuzzleScores { verified: self.is_known().then(verified), ..PuzzleScores::default() };
        for (puzzle, own) in self.puzzles.values().zip(self.own()) {
            let solved_by = puzzle.solved_by.iter().map(|pass| pass.number(self.shape.guesses as usize));
            list.solved_by.push(solved_by.collect());
            list.first_solved_by.push(list.solved_by.last().and_then(|passes| passes.first().copied()));
            list.segments.push(own.segments);
            list.vote.push(u8::from(own.chosen.vote));
            list.best_halt.push(u8::from(own.chosen.best_halt));
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{eval::record::PassRecord, puzzle::PuzzleKind};

    fn end(answer: &str, halted: bool, margin: f32) -> Ending {
        let verified = answer == "right" || answer == "other";
        let (exact, cells) = (Some(answer == "right"), Some(3));
        Ending { answer: answer.into(), segments: 2, halted, verified, margin, exact, cells }
    }

    fn tally(stop: StopRule, puzzles: &[Vec<Ending>]) -> Tally {
        tally_of(Some(PuzzleKind::Sudoku), stop, puzzles)
    }

    fn tally_of(kind: Option<PuzzleKind>, stop: StopRule, puzzles: &[Vec<Ending>]) -> Tally {
        let shape = RunShape { kind, cells: 3, segments: vec![4, 4], guesses: 2, stop };
        let mut tally = Tally::new(shape);
        for (puzzle, ends) in puzzles.iter().enumerate().rev() {
            let passes = tally.shape.pass_ids().zip(ends);
            let passes =
                passes.map(|(pass, e)| PassRecord { pass, end: e.clone(), at_halt: None, at_verified: None }).collect();
            tally.add(&PuzzleRecord { puzzle, row: None, passes });
        }
        tally
    }

    #[test]
    fn scores_and_curves_by_hand() {
        let (a, right, other) = (end("a", true, 1.0), end("right", true, 2.0), end("other", true, 3.0));
        let puzzles = [
            vec![a.clone(), right.clone(), a.clone(), right.clone()],
            vec![a.clone(), a.clone(), a.clone(), other],
            vec![right.clone(), a.clone(), a.clone(), a],
        ];
        let tally = tally(StopRule::Never, &puzzles);
        let scores = tally.scores();
        let verified = scores.verified.unwrap();
        assert_eq!((verified.share.correct, verified.label_mismatches), (3, 1));
        // Puzzle 0: two each, the right one surer. Puzzle 2: three of four for a.
        assert_eq!((scores.vote.correct, scores.best_halt.correct), (1, 2));
        let curve = tally.curve();
        let thirds =
            |of: fn(&CurvePoint) -> f64| curve.iter().map(|p| (of(p) * 3.0).round() as u32).collect::<Vec<_>>();
        assert_eq!(thirds(|p| p.any_exact), [1, 2, 2, 2]);
        assert_eq!(thirds(|p| p.verified.unwrap()), [1, 2, 2, 3]);
        assert_eq!(thirds(|p| p.vote), [1, 2, 0, 1]);
        // Upstream: a checkpoint with a majority of its halted passes right; none has both.
        assert_eq!(tally.upstream(), Some(vec![false, false, false]));
        assert_eq!(tally.puzzles().first_solved_by, [Some(1), None, Some(0)]);
        assert_eq!(tally.puzzles().solved_by[0], [1, 3]);
        let stops = tally.stops(8.0);
        let never = stops.never.unwrap();
        assert!((never.exact_accuracy - (0.5 + 0.25) / 3.0).abs() < 1e-12);
        assert_eq!((never.segments, never.segments_nominal, never.seconds), (24, 48, 8.0));
        assert!(stops.halt.is_none() && tally.breakdown().is_none());
    }

    #[test]
    fn puzzles_of_an_unknown_kind_have_no_verified_score() {
        let tally = tally_of(None, StopRule::Never, &[vec![end("a", true, 1.0); 4]]);
        let stop = tally.stops(1.0).never.unwrap();
        assert_eq!((tally.scores().verified, stop.scores.verified, tally.puzzles().verified), (None, None, None));
        assert!(tally.curve().iter().all(|point| point.verified.is_none()));
    }

    #[test]
    fn a_verified_run_has_no_upstream_rule_and_counts_what_it_skipped() {
        let puzzles = [vec![end("a", true, 1.0), end("right", false, 0.0)], vec![end("right", true, 2.0)]];
        let tally = tally(StopRule::Verified, &puzzles);
        assert_eq!(tally.upstream(), None);
        let stop = tally.stops(1.0).verified.unwrap();
        assert_eq!((stop.passes_run, stop.passes_skipped, stop.segments), (3, 5, 6));
        assert_eq!(tally.curve().iter().map(|p| p.verified.unwrap()).collect::<Vec<_>>(), [0.5, 1.0, 1.0, 1.0]);
        assert!((tally.exact_accuracy(0).value - 0.75).abs() < 1e-12);
    }
}
