//! What an inference run comes to: plain accuracies, upstream's rule, and what a user can have without the answers.
//!
//! ```text
//! verified   some pass's answer is right by the puzzle's rules
//! vote       the most frequent answer among halted passes (all passes where none halted), ties by the highest
//!            q_halt - q_continue among its passes, then by the earlier pass
//! best halt  the answer of the pass with the highest q_halt - q_continue
//! ```
//!
//! All checkpoints and passes of a puzzle are pooled. None of the three chooses its answer by looking at labels; labels
//! only tell afterwards whether a chosen answer was right.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::{
    pass::{Ending, PassId, StopRule},
    record::PuzzleRecord,
    stats::{Interval, bootstrap_mean, wilson},
    vote::{PassOutcome, checkpoint_solves},
};
use crate::puzzle::PuzzleKind;

/// What a run looks like, as far as counting goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunShape {
    /// None where it is unknown.
    pub kind: Option<PuzzleKind>,
    pub cells: usize,
    /// Segments that a pass of each checkpoint can have.
    pub segments: Vec<u32>,
    /// Passes of each checkpoint.
    pub guesses: u32,
    pub stop: StopRule,
}

impl RunShape {
    /// Passes of a puzzle over all checkpoints.
    pub fn passes(&self) -> usize {
        self.segments.len() * self.guesses as usize
    }

    fn segments_of(&self, pass: u32) -> u32 {
        self.segments.get(PassId::from_number(pass, self.guesses as usize).checkpoint).copied().unwrap_or(0)
    }
}

/// Sums of one pass over the puzzles that it ran on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassTotals {
    pub id: PassId,
    /// Puzzles.
    pub run: u64,
    /// Puzzles with every cell right.
    pub exact: u64,
    /// Cells right, and the sum over puzzles of their number squared.
    pub cells: u64,
    pub cells_squared: u64,
    /// Puzzles halted at their stop.
    pub halted: u64,
    /// Puzzles verified at their stop.
    pub verified: u64,
    pub segments: u64,
}

/// One puzzle under one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct RuleScore {
    run: u32,
    exact: u32,
    segments: u32,
    chosen: Chosen,
}

/// Whether the label-free answers are there and right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Chosen {
    verified: bool,
    /// Verified, and the label is another answer.
    mismatch: bool,
    vote: bool,
    best_halt: bool,
}

#[derive(Clone, Debug)]
struct PuzzleScore {
    cell_share: f64,
    /// Under upstream's rule; no meaning unless every pass ran all segments.
    upstream: bool,
    /// Passes whose answer equals the label.
    solved_by: Vec<u32>,
    rules: [Option<RuleScore>; 3],
    source: Option<String>,
    rating: Option<i64>,
}

/// Counts puzzles as they are done, in any order.
#[derive(Clone, Debug)]
pub struct Tally {
    shape: RunShape,
    passes: Vec<PassTotals>,
    puzzles: BTreeMap<usize, PuzzleScore>,
    /// Puzzles solved within the first k passes, k from 1.
    curve: Vec<[u64; 4]>,
}

/// A share of puzzles.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    pub correct: u64,
    pub accuracy: f64,
    /// Wilson's interval: low, high.
    pub ci95: [f64; 2],
}

impl Share {
    fn of(correct: u64, total: u64) -> Self {
        let Interval { low, high, .. } = wilson(correct, total);
        Self { correct, accuracy: ratio(correct, total), ci95: [low, high] }
    }
}

/// What a user can have without the answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scores {
    pub verified: VerifiedShare,
    pub vote: Share,
    pub best_halt: Share,
}

/// Verified puzzles; no label decides about them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct VerifiedShare {
    #[serde(flatten)]
    pub share: Share,
    /// Verified answers that are not the label: another shortest way, a puzzle with several solutions.
    pub label_mismatches: u64,
}

/// A run under one stop rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Stop {
    /// Mean over puzzles of the share of the passes run that are exact.
    pub exact_accuracy: f64,
    /// Of a pass that ran.
    pub segments_mean: f64,
    /// Of the run itself; of another rule the run's, in proportion to the segments.
    pub seconds: f64,
    /// Whether the seconds are measured.
    pub measured: bool,
    /// Segments computed, and those that all passes have together.
    pub segments: u64,
    pub segments_nominal: u64,
    pub passes_run: u64,
    pub passes_skipped: u64,
    pub scores: Scores,
}

/// A run under each stop rule; only its own is known unless stops are compared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Stops {
    pub never: Option<Stop>,
    pub halt: Option<Stop>,
    pub verified: Option<Stop>,
}

/// Shares of puzzles with the first k passes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    pub passes: usize,
    /// Some pass equals the label: it needs the label to tell which.
    pub any_exact: f64,
    pub verified: f64,
    pub vote: f64,
    pub best_halt: f64,
}

/// Puzzles of one source or of one range of ratings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    pub total: u64,
    pub exact_accuracy: f64,
    pub verified: f64,
    pub vote: f64,
    pub best_halt: f64,
}

/// Where the data tells sources and ratings.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Breakdown {
    pub by_source: BTreeMap<String, Group>,
    /// Ratings from `low` to `high`, both included; the last has no end.
    pub by_rating: Vec<RatingGroup>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RatingGroup {
    pub low: i64,
    pub high: Option<i64>,
    #[serde(flatten)]
    pub group: Group,
}

/// Per puzzle, in the set's order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PuzzleList {
    /// Passes whose answer equals the label.
    pub solved_by: Vec<Vec<u32>>,
    /// The first of them.
    pub first_solved_by: Vec<Option<u32>>,
    /// Segments of all its passes.
    pub segments: Vec<u32>,
    /// 0 or 1
    pub verified: Vec<u8>,
    pub vote: Vec<u8>,
    pub best_halt: Vec<u8>,
}

/// A mean with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    pub value: f64,
    pub interval: Interval,
}

/// The first ratings of the ranges.
const RATINGS: [i64; 8] = [0, 1, 3, 10, 30, 100, 300, 1000];

impl Tally {
    pub fn new(shape: RunShape) -> Self {
        let id = |number| PassId::from_number(number, shape.guesses as usize);
        let totals = |number| PassTotals { id: id(number), ..PassTotals::default() };
        let passes = (0..shape.passes() as u32).map(totals).collect();
        let curve = vec![[0; 4]; shape.passes()];
        Self { shape, passes, puzzles: BTreeMap::new(), curve }
    }

    pub fn shape(&self) -> &RunShape {
        &self.shape
    }

    /// Counts a puzzle that is done. A puzzle that is counted already is left alone.
    pub fn add(&mut self, record: &PuzzleRecord) {
        if self.puzzles.contains_key(&record.puzzle) {
            return;
        }
        let of_run = self.shape.stop;
        let rules = StopRule::ALL.map(|rule| record.passes_under(rule, of_run).map(|passes| rule_score(&passes)));
        let passes = record.passes_under(of_run, of_run).unwrap_or_default();
        for (pass, end) in &passes {
            if let Some(totals) = self.passes.get_mut(*pass as usize) {
                totals.run += 1;
                let cells = u64::from(end.cells.unwrap_or(0));
                totals.exact += u64::from(end.is_exact());
                totals.cells += cells;
                totals.cells_squared += cells.pow(2);
                totals.halted += u64::from(end.halted);
                totals.verified += u64::from(end.verified);
                totals.segments += u64::from(end.segments);
            }
        }
        self.add_to_curve(&passes);
        let outcomes: Vec<PassOutcome> =
            passes.iter().map(|(_, e)| PassOutcome { exact: e.is_exact(), halted: e.halted }).collect();
        let kind = self.shape.kind;
        let solves = |of_checkpoint: &[PassOutcome]| kind.is_some_and(|kind| checkpoint_solves(kind, of_checkpoint));
        let cells: u64 = passes.iter().map(|(_, e)| u64::from(e.cells.unwrap_or(0))).sum();
        let score = PuzzleScore {
            cell_share: cells as f64 / (passes.len() * self.shape.cells).max(1) as f64,
            upstream: outcomes.chunks(self.shape.guesses.max(1) as usize).any(solves),
            solved_by: passes.iter().filter(|(_, e)| e.is_exact()).map(|(p, _)| *p).collect(),
            rules,
            source: record.row.as_ref().map(|row| row.source.clone()),
            rating: record.row.as_ref().map(|row| row.rating),
        };
        self.puzzles.insert(record.puzzle, score);
    }

    fn add_to_curve(&mut self, passes: &[(u32, &Ending)]) {
        let mut pool = Pool::default();
        let mut next = passes.iter().peekable();
        let mut reached = [0; 4];
        for (k, counts) in self.curve.iter_mut().enumerate() {
            while let Some((_, end)) = next.next_if(|(pass, _)| *pass as usize <= k) {
                pool.add(end);
                let chosen = pool.chosen();
                reached = [pool.any_exact, chosen.verified, chosen.vote, chosen.best_halt].map(u64::from);
            }
            counts.iter_mut().zip(reached).for_each(|(count, here)| *count += here);
        }
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

    fn own(&self) -> impl Iterator<Item = RuleScore> + '_ {
        self.puzzles.values().map(|p| p.rules[self.shape.stop as usize].unwrap_or_default())
    }

    /// Mean over puzzles of the share of their passes that are exact.
    pub fn exact_accuracy(&self, seed: u64) -> Mean {
        let shares: Vec<f64> = self.own().map(|s| ratio(s.exact.into(), s.run.into())).collect();
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

    pub fn scores(&self) -> Scores {
        scores(self.own())
    }

    /// `seconds`: of the run.
    pub fn stops(&self, seconds: f64) -> Stops {
        let own: u64 = self.own().map(|s| u64::from(s.segments)).sum();
        let each = |rule: StopRule| self.stop(rule, seconds, own);
        Stops { never: each(StopRule::Never), halt: each(StopRule::Halt), verified: each(StopRule::Verified) }
    }

    fn stop(&self, rule: StopRule, seconds: f64, own_segments: u64) -> Option<Stop> {
        let all: Option<Vec<RuleScore>> = self.puzzles.values().map(|p| p.rules[rule as usize]).collect();
        let all = all.filter(|list| !list.is_empty())?;
        let sum = |of: fn(&RuleScore) -> u32| all.iter().map(|s| u64::from(of(s))).sum::<u64>();
        let (segments, passes_run) = (sum(|s| s.segments), sum(|s| s.run));
        let shares: Vec<f64> = all.iter().map(|s| ratio(s.exact.into(), s.run.into())).collect();
        let measured = rule == self.shape.stop;
        let of_one: u64 = (0..self.passes.len() as u32).map(|p| u64::from(self.shape.segments_of(p))).sum();
        Some(Stop {
            exact_accuracy: mean(&shares),
            segments_mean: segments as f64 / passes_run.max(1) as f64,
            seconds: if measured { seconds } else { seconds * ratio(segments, own_segments) },
            measured,
            segments,
            segments_nominal: of_one * self.total(),
            passes_run,
            passes_skipped: self.total() * self.passes.len() as u64 - passes_run,
            scores: scores(all.into_iter()),
        })
    }

    /// One point for each number of passes.
    pub fn curve(&self) -> Vec<CurvePoint> {
        let point = |(k, counts): (usize, &[u64; 4])| {
            let [any_exact, verified, vote, best_halt] = counts.map(|n| ratio(n, self.total()));
            CurvePoint { passes: k + 1, any_exact, verified, vote, best_halt }
        };
        self.curve.iter().enumerate().map(point).collect()
    }

    /// None where the data tells no sources and ratings.
    pub fn breakdown(&self) -> Option<Breakdown> {
        let mut sources: BTreeMap<&str, Vec<RuleScore>> = BTreeMap::new();
        let mut ratings: BTreeMap<usize, Vec<RuleScore>> = BTreeMap::new();
        for puzzle in self.puzzles.values() {
            let score = puzzle.rules[self.shape.stop as usize].unwrap_or_default();
            sources.entry(puzzle.source.as_deref()?).or_default().push(score);
            let range = RATINGS.partition_point(|&low| low <= puzzle.rating.unwrap_or(0)).saturating_sub(1);
            ratings.entry(range).or_default().push(score);
        }
        if sources.is_empty() {
            return None;
        }
        let rating = |(range, list): (usize, Vec<RuleScore>)| RatingGroup {
            low: RATINGS[range],
            high: RATINGS.get(range + 1).map(|next| next - 1),
            group: group(&list),
        };
        Some(Breakdown {
            by_source: sources.into_iter().map(|(name, list)| (name.to_owned(), group(&list))).collect(),
            by_rating: ratings.into_iter().map(rating).collect(),
        })
    }

    /// What each puzzle came to.
    pub fn puzzles(&self) -> PuzzleList {
        let mut list = PuzzleList::default();
        for (puzzle, own) in self.puzzles.values().zip(self.own()) {
            list.first_solved_by.push(puzzle.solved_by.first().copied());
            list.solved_by.push(puzzle.solved_by.clone());
            list.segments.push(own.segments);
            list.verified.push(u8::from(own.chosen.verified));
            list.vote.push(u8::from(own.chosen.vote));
            list.best_halt.push(u8::from(own.chosen.best_halt));
        }
        list
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

fn scores(list: impl Iterator<Item = RuleScore>) -> Scores {
    let mut counts = [0_u64; 5];
    for RuleScore { chosen: c, .. } in list {
        let here = [true, c.verified, c.mismatch, c.vote, c.best_halt].map(u64::from);
        counts.iter_mut().zip(here).for_each(|(count, here)| *count += here);
    }
    let [total, verified, label_mismatches, vote, best_halt] = counts;
    Scores {
        verified: VerifiedShare { share: Share::of(verified, total), label_mismatches },
        vote: Share::of(vote, total),
        best_halt: Share::of(best_halt, total),
    }
}

fn group(list: &[RuleScore]) -> Group {
    let share = |of: fn(&RuleScore) -> bool| ratio(list.iter().filter(|s| of(s)).count() as u64, list.len() as u64);
    Group {
        total: list.len() as u64,
        exact_accuracy: mean(&list.iter().map(|s| ratio(s.exact.into(), s.run.into())).collect::<Vec<_>>()),
        verified: share(|s| s.chosen.verified),
        vote: share(|s| s.chosen.vote),
        best_halt: share(|s| s.chosen.best_halt),
    }
}

fn rule_score(passes: &[(u32, &Ending)]) -> RuleScore {
    let mut pool = Pool::default();
    passes.iter().for_each(|(_, end)| pool.add(end));
    RuleScore {
        run: passes.len() as u32,
        exact: passes.iter().filter(|(_, e)| e.is_exact()).count() as u32,
        segments: passes.iter().map(|(_, e)| e.segments).sum(),
        chosen: pool.chosen(),
    }
}

/// The answers of a puzzle's passes, as they come.
#[derive(Default)]
pub struct Pool<'a> {
    among_halted: Votes<'a>,
    among_all: Votes<'a>,
    best_halt: Option<&'a Ending>,
    verified: Option<&'a Ending>,
    any_exact: bool,
}

#[derive(Default)]
struct Votes<'a> {
    /// Votes, highest margin, place of its first pass.
    of: HashMap<&'a str, (usize, f32, usize)>,
    cast: usize,
    leader: Option<&'a Ending>,
}

impl<'a> Votes<'a> {
    fn add(&mut self, end: &'a Ending) {
        let place = self.cast;
        self.cast += 1;
        let votes = self.of.entry(&end.answer).or_insert((0, f32::MIN, place));
        votes.0 += 1;
        votes.1 = votes.1.max(end.margin);
        let (count, margin, first) = *votes;
        // One vote lifts one answer only.
        let ahead = self.leader.is_none_or(|leader| {
            let (its_count, its_margin, its_first) = self.of[leader.answer.as_str()];
            let by_margin = count == its_count && margin > its_margin;
            count > its_count || by_margin || count == its_count && margin == its_margin && first < its_first
        });
        if ahead {
            self.leader = Some(end);
        }
    }
}

impl<'a> Pool<'a> {
    /// The next pass, in order.
    pub fn add(&mut self, end: &'a Ending) {
        self.among_all.add(end);
        if end.halted {
            self.among_halted.add(end);
        }
        if self.best_halt.is_none_or(|best| end.margin > best.margin) {
            self.best_halt = Some(end);
        }
        if end.verified && self.verified.is_none() {
            self.verified = Some(end);
        }
        self.any_exact |= end.is_exact();
    }

    /// The most frequent answer.
    pub fn vote(&self) -> Option<&'a Ending> {
        self.among_halted.leader.or(self.among_all.leader)
    }

    /// The answer that the model is surest of.
    pub fn best_halt(&self) -> Option<&'a Ending> {
        self.best_halt
    }

    /// The first answer that is right by the rules.
    pub fn verified(&self) -> Option<&'a Ending> {
        self.verified
    }

    fn chosen(&self) -> Chosen {
        let right = |end: Option<&Ending>| end.is_some_and(Ending::is_exact);
        Chosen {
            verified: self.verified.is_some(),
            mismatch: self.verified.is_some() && !right(self.verified),
            vote: right(self.vote()),
            best_halt: right(self.best_halt),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::record::PassRecord;

    fn end(answer: &str, halted: bool, margin: f32) -> Ending {
        let verified = answer == "right" || answer == "other";
        let (exact, cells) = (Some(answer == "right"), Some(3));
        Ending { answer: answer.into(), segments: 2, halted, verified, margin, exact, cells }
    }

    fn pool(ends: &[Ending]) -> Pool<'_> {
        let mut pool = Pool::default();
        ends.iter().for_each(|e| pool.add(e));
        pool
    }

    fn answer(end: Option<&Ending>) -> &str {
        end.map_or("none", |e| e.answer.as_str())
    }

    #[test]
    fn the_vote_is_of_halted_passes_and_ties_go_to_the_surest() {
        let ends = [end("a", true, 1.0), end("b", true, 2.0), end("a", true, 0.5), end("c", false, 9.0)];
        assert_eq!(answer(pool(&ends).vote()), "a");
        assert_eq!(answer(pool(&ends[..2]).vote()), "b", "one vote each: the higher margin");
        assert_eq!(answer(pool(&ends).best_halt()), "c", "halted or not");
        let none = [end("a", false, -1.0), end("b", false, -2.0), end("b", false, -3.0)];
        assert_eq!(answer(pool(&none).vote()), "b", "no pass halted: all vote");
        let equal = [end("a", true, 1.0), end("b", true, 1.0)];
        assert_eq!(answer(pool(&equal).vote()), "a", "the earlier pass");
        let back = [end("a", true, 1.0), end("b", true, 3.0), end("b", true, 0.0), end("a", true, 0.0)];
        assert_eq!(answer(pool(&back).vote()), "b", "two each: the higher margin stays ahead");
        assert_eq!(answer(pool(&[]).vote()), "none");
    }

    fn tally(stop: StopRule, puzzles: &[Vec<Ending>]) -> Tally {
        let shape = RunShape { kind: Some(PuzzleKind::Sudoku), cells: 3, segments: vec![4, 4], guesses: 2, stop };
        let mut tally = Tally::new(shape);
        for (puzzle, ends) in puzzles.iter().enumerate().rev() {
            let passes = ends.iter().enumerate();
            let passes = passes
                .map(|(p, e)| PassRecord { pass: p as u32, end: e.clone(), at_halt: None, at_verified: None })
                .collect();
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
        assert_eq!((scores.verified.share.correct, scores.verified.label_mismatches), (3, 1));
        // Puzzle 0: two each, the right one surer. Puzzle 2: three of four for a.
        assert_eq!((scores.vote.correct, scores.best_halt.correct), (1, 2));
        let curve = tally.curve();
        let thirds =
            |of: fn(&CurvePoint) -> f64| curve.iter().map(|p| (of(p) * 3.0).round() as u32).collect::<Vec<_>>();
        assert_eq!(thirds(|p| p.any_exact), [1, 2, 2, 2]);
        assert_eq!(thirds(|p| p.verified), [1, 2, 2, 3]);
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
    fn a_verified_run_has_no_upstream_rule_and_counts_what_it_skipped() {
        let puzzles = [vec![end("a", true, 1.0), end("right", false, 0.0)], vec![end("right", true, 2.0)]];
        let tally = tally(StopRule::Verified, &puzzles);
        assert_eq!(tally.upstream(), None);
        let stop = tally.stops(1.0).verified.unwrap();
        assert_eq!((stop.passes_run, stop.passes_skipped, stop.segments), (3, 5, 6));
        assert_eq!(tally.curve().iter().map(|p| p.verified).collect::<Vec<_>>(), [0.5, 1.0, 1.0, 1.0]);
        assert!((tally.exact_accuracy(0).value - 0.75).abs() < 1e-12);
    }
}
