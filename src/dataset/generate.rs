//! New puzzles: hard Sudokus grown from given ones by clue swaps, and mazes.
//!
//! Work goes in rounds. A round's tasks see what was found before it, each draws from a stream of its own keyed by (seed,
//! round, task), and what they find is taken in their order: the same seed gives the same puzzles whatever the number of
//! threads. A finished round tells all that later ones need of it ([`Round`]), so that work that was stopped can go on.

use std::{collections::HashSet, fmt, str::FromStr};

use anyhow::{Context, Result, ensure};
use rand_chacha::rand_core::RngCore;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Progress, PuzzleList, check::Key};
use crate::{
    puzzle::{
        Board, Geometry, PuzzleKind, SudokuShuffle, canonical,
        clue_swap::{Grown, swap_clues},
        maze_maker::make_maze,
        solve::rate,
    },
    rng::{Purpose, below, shuffle_front, stream},
};

/// Tasks of a round.
const ROUND: u64 = 2048;
/// Tries for each puzzle wanted before generation gives up on an unfilled part.
const MOST_TRIES: u64 = 2000;
/// Ways of writing a grown puzzle that are rated, of which one that is wanted is taken.
const EQUIVALENTS: usize = 8;

/// A generated puzzle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generated {
    /// As a list writes it.
    pub question: String,
    pub answer: String,
    /// Sudoku: guesses of the tdoku solver. Maze: steps of the shortest path.
    pub rating: u64,
}

/// Ratings from `low` to `high` and how many of the puzzles have one of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RatingPart {
    pub low: u64,
    /// None is without end.
    pub high: Option<u64>,
    /// A share of all, relative to the other parts'.
    pub share: f64,
}

impl RatingPart {
    fn holds(&self, rating: u64) -> bool {
        rating >= self.low && self.high.is_none_or(|high| rating <= high)
    }
}

impl fmt::Display for RatingPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.low)?;
        self.high.map_or(Ok(()), |high| write!(f, "{high}"))
    }
}

/// How ratings are to be distributed: parts that do not overlap.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RatingTarget(Vec<RatingPart>);

impl RatingTarget {
    /// Every rating, as it comes.
    pub fn any() -> Self {
        Self(vec![RatingPart { low: 0, high: None, share: 1.0 }])
    }

    /// The parts.
    pub fn parts(&self) -> &[RatingPart] {
        &self.0
    }

    /// The distribution of a list's ratings, in parts that grow with the rating: 0, 1-4, 5-9, 10-19, 20-29, 30-39, 40-59,
    /// 60-99, 100 and more.
    pub fn like(list: &PuzzleList) -> Self {
        const BOUNDS: [u64; 10] = [0, 1, 5, 10, 20, 30, 40, 60, 100, u64::MAX];
        let parts = BOUNDS.windows(2).map(|pair| {
            let high = (pair[1] != u64::MAX).then(|| pair[1] - 1);
            let mut part = RatingPart { low: pair[0], high, share: 0.0 };
            let ratings = (0..list.len()).filter_map(|i| u64::try_from(list.row(i).rating).ok());
            part.share = ratings.filter(|&rating| part.holds(rating)).count() as f64;
            part
        });
        Self(parts.filter(|part| part.share > 0.0).collect())
    }

    /// How many of `count` puzzles each part gets: rounded down, the rest to the largest remainders.
    fn quotas(&self, count: u64) -> Vec<u64> {
        let total: f64 = self.0.iter().map(|part| part.share).sum();
        let exact: Vec<f64> = self.0.iter().map(|part| count as f64 * part.share / total).collect();
        let mut quotas: Vec<u64> = exact.iter().map(|x| x.floor() as u64).collect();
        let mut order: Vec<usize> = (0..exact.len()).collect();
        order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(a.cmp(&b)));
        let left = count.saturating_sub(quotas.iter().sum());
        order.into_iter().cycle().take(left as usize).for_each(|i| quotas[i] += 1);
        quotas
    }
}

impl FromStr for RatingTarget {
    type Err = String;

    /// Reads `LOW-HIGH=SHARE,...`; HIGH may be missing (without end), SHARE too (equal shares).
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |part: &str| format!("{part:?} is not part of a distribution; expected LOW-HIGH=SHARE, as in 10-29=40");
        let mut parts = Vec::new();
        for part in text.split(',') {
            let (range, share) = part.split_once('=').unwrap_or((part, "1"));
            let (low, high) = range.split_once('-').ok_or_else(|| wrong(part))?;
            let high = if high.trim().is_empty() { None } else { Some(high.trim().parse().map_err(|_| wrong(part))?) };
            let low = low.trim().parse().map_err(|_| wrong(part))?;
            let share: f64 = share.trim().parse().map_err(|_| wrong(part))?;
            if !share.is_finite() || share <= 0.0 || high.is_some_and(|high| high < low) {
                return Err(wrong(part));
            }
            parts.push(RatingPart { low, high, share });
        }
        parts.sort_by_key(|part| part.low);
        if let Some(pair) = parts.windows(2).find(|pair| pair[0].high.is_none_or(|high| high >= pair[1].low)) {
            return Err(format!("{} and {} overlap", pair[0], pair[1]));
        }
        Ok(Self(parts))
    }
}

/// What Sudokus to grow.
#[derive(Clone, Debug)]
pub struct GrowOptions {
    pub count: u64,
    pub ratings: RatingTarget,
    /// Instead of growing, add givens to seeds out of their solutions: easier puzzles, and millions of them.
    pub fast: bool,
    pub seed: u64,
}

/// How much work it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effort {
    pub tries: u64,
    /// Tries that gave a puzzle equivalent to one of those excluded, the seeds, or one found before.
    pub known: u64,
    /// Tries whose rating was not wanted (any more).
    pub unwanted: u64,
}

impl Effort {
    fn add(&mut self, other: Self) {
        self.tries += other.tries;
        self.known += other.known;
        self.unwanted += other.unwanted;
    }
}

/// What a finished round found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    pub effort: Effort,
    pub found: Vec<Generated>,
    /// How hard each of them is as a parent: the mean rating of its equivalents. Empty where none becomes one.
    pub hardness: Vec<u64>,
}

/// Takes each round as it ends, to keep it; an error ends the work.
pub type Keep<'a> = dyn FnMut(&Round) -> Result<()> + Send + 'a;

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    pub puzzles: Vec<Generated>,
    pub effort: Effort,
    /// Asked to stop before the last puzzle.
    pub stopped: bool,
}

impl Made {
    fn add(&mut self, round: Round) {
        self.effort.add(round.effort);
        self.puzzles.extend(round.found);
    }
}

/// Work that goes in rounds.
trait Rounds {
    /// Takes what an earlier run found in a round.
    fn replay(&mut self, round: &Round) -> Result<()>;
    /// Whether no puzzle is missing.
    fn is_done(&self) -> bool;
    /// An error where so many tries say that the missing puzzles will not be found.
    fn check_effort(&self, tries: u64) -> Result<()>;
    /// Runs round `number`.
    fn next(&mut self, number: u64) -> Round;
}

/// Runs the rounds that come after `done` until no puzzle of `count` is missing.
fn run_rounds(
    work: &mut dyn Rounds,
    count: u64,
    done: Vec<Round>,
    keep: &mut Keep<'_>,
    progress: &dyn Progress,
) -> Result<Made> {
    let mut made = Made::default();
    progress.start("generating", count, "puzzles");
    let begin = done.len() as u64;
    for (number, round) in done.into_iter().enumerate() {
        work.replay(&round).with_context(|| format!("round {number} does not belong to this work"))?;
        progress.advance(round.found.len() as u64);
        made.add(round);
    }
    for number in begin.. {
        if work.is_done() {
            break;
        }
        if progress.cancelled() {
            made.stopped = true;
            break;
        }
        work.check_effort(made.effort.tries)?;
        let round = work.next(number);
        keep(&round)?;
        progress.advance(round.found.len() as u64);
        made.add(round);
    }
    Ok(made)
}

/// Grows Sudokus from `seeds`, none equivalent to a seed, to a puzzle of `exclude` or to each other. `done` holds the
/// first rounds of the same work where it was begun earlier.
///
/// Runs on the current rayon pool.
///
/// # Errors
/// Lists of mazes; a part of the ratings that cannot be filled from these seeds; rounds of other work; what `keep` says.
pub fn grow_sudokus(
    seeds: &PuzzleList,
    exclude: &[PuzzleList],
    options: &GrowOptions,
    done: Vec<Round>,
    keep: &mut Keep<'_>,
    progress: &dyn Progress,
) -> Result<Made> {
    let mut growth = Growth::new(seeds, exclude, options)?;
    run_rounds(&mut growth, options.count, done, keep, progress)
}

/// What a round of growing sees of those before it.
struct Growth<'a> {
    seeds: &'a PuzzleList,
    options: &'a GrowOptions,
    parts: &'a [RatingPart],
    /// Puzzles that each part wants in all, and those that it still wants.
    quotas: Vec<u64>,
    left: Vec<u64>,
    pool: Pool,
    known: HashSet<Key>,
}

impl<'a> Growth<'a> {
    fn new(seeds: &'a PuzzleList, exclude: &[PuzzleList], options: &'a GrowOptions) -> Result<Self> {
        let mut known = HashSet::new();
        for list in exclude.iter().chain([seeds]) {
            ensure!(list.kind() == PuzzleKind::Sudoku, "mazes are generated without seeds and exclusions");
            let key = |i| Key::of(list.geometry(), list.question(i), list.answer(i));
            known.par_extend((0..list.len()).into_par_iter().map(key));
        }
        let (quotas, parts) = (options.ratings.quotas(options.count), options.ratings.parts());
        let pool = Pool::new(seeds, parts, options.seed)?;
        Ok(Self { seeds, options, parts, left: quotas.clone(), quotas, pool, known })
    }

    /// The part that still wants a puzzle of this rating.
    fn wanting(&self, rating: u64) -> Option<usize> {
        self.parts.iter().position(|part| part.holds(rating)).filter(|&part| self.left[part] > 0)
    }

    fn take(&mut self, key: Key, part: usize, question: Board, hardness: Option<u64>) {
        self.known.insert(key);
        self.left[part] -= 1;
        if let Some(hardness) = hardness {
            self.pool.add(question, hardness, self.parts);
        }
    }

    /// One try: a puzzle in its equivalents, and its key.
    fn try_one(&self, number: u64, task: u64) -> Option<(Vec<Grown>, Key)> {
        let mut rng = stream(Purpose::Generate, self.options.seed, number, task);
        let grown = if self.options.fast {
            let seed = below(&mut rng, self.seeds.len() as u32) as usize;
            vec![filled_in(self.seeds.question(seed), self.seeds.answer(seed), &mut rng)?]
        } else {
            let parent = self.pool.parent(draw_part(&self.left, &mut rng), &mut rng)?;
            let removed = if below(&mut rng, 4) > 0 { 1 } else { 2 };
            equivalents(swap_clues(&parent, removed, true, &mut rng)?, &mut rng)
        };
        let form = canonical(&grown.first()?.question, &grown.first()?.answer).ok()?;
        Some((grown, Key::of_form(&form)))
    }
}

impl Rounds for Growth<'_> {
    fn replay(&mut self, round: &Round) -> Result<()> {
        let parents = if self.options.fast { 0 } else { round.found.len() };
        ensure!(round.hardness.len() == parents, "{} parents, expected {parents}", round.hardness.len());
        let read = |puzzle: &Generated| -> Result<(Board, Key)> {
            let (question, answer): (Board, Board) = (puzzle.question.parse()?, puzzle.answer.parse()?);
            answer.check_solves(&question)?;
            Ok((question, Key::of_form(&canonical(&question, &answer)?)))
        };
        let read = round.found.par_iter().map(read).collect::<Result<Vec<_>>>()?;
        for (i, (puzzle, (question, key))) in round.found.iter().zip(read).enumerate() {
            ensure!(!self.known.contains(&key), "puzzle {i} is known");
            let part =
                self.wanting(puzzle.rating).with_context(|| format!("puzzle {i} has a rating that is not needed"))?;
            self.take(key, part, question, round.hardness.get(i).copied());
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.left.iter().all(|&left| left == 0)
    }

    fn check_effort(&self, tries: u64) -> Result<()> {
        let unfilled = self.left.iter().position(|&left| left > 0).unwrap_or(0);
        ensure!(
            tries <= MOST_TRIES.saturating_mul(self.options.count.max(ROUND)),
            "{} puzzles rated {} are still missing after {tries} tries: give harder seeds with --seeds, or a smaller share \
             with --ratings",
            self.left[unfilled],
            self.parts[unfilled]
        );
        Ok(())
    }

    fn next(&mut self, number: u64) -> Round {
        let tasks = (2 * self.left.iter().sum::<u64>()).clamp(64, ROUND);
        let tried: Vec<_> = (0..tasks).into_par_iter().map(|task| self.try_one(number, task)).collect();
        let mut round = Round::default();
        for task in tried {
            round.effort.tries += 1;
            let Some((equivalents, key)) = task else { continue };
            if self.known.contains(&key) {
                round.effort.known += 1;
                continue;
            }
            // The part that is furthest from what it should have.
            let missing = |part: usize| self.left[part] as f64 / self.quotas[part] as f64;
            let wanted = equivalents.iter().filter_map(|grown| Some((self.wanting(grown.rating)?, grown)));
            let Some((part, grown)) = wanted.max_by(|a, b| missing(a.0).total_cmp(&missing(b.0))) else {
                round.effort.unwanted += 1;
                continue;
            };
            let hardness = (!self.options.fast).then(|| mean_rating(&equivalents));
            self.take(key, part, grown.question, hardness);
            round.hardness.extend(hardness);
            let (question, answer) = (grown.question.to_string(), grown.answer.to_string());
            round.found.push(Generated { question, answer, rating: grown.rating });
        }
        round
    }
}

/// A seed with one to eight of its blanks filled in, under a random symmetry. It has one solution because the seed has.
fn filled_in(question: &[u8], answer: &[u8], rng: &mut impl RngCore) -> Option<Grown> {
    let answer = Board::from_tokens(answer).ok()?;
    let mut digits = *Board::from_tokens(question).ok()?.digits();
    let mut blanks: Vec<usize> = (0..digits.len()).filter(|&cell| digits[cell] == 0).collect();
    let count = (1 + below(rng, 8) as usize).min(blanks.len());
    shuffle_front(rng, &mut blanks, count);
    for &cell in &blanks[..count] {
        digits[cell] = answer.digits()[cell];
    }
    let shuffle = SudokuShuffle::draw(rng);
    let question = shuffle.apply(&Board::from_digits(digits).ok()?);
    Some(Grown { question, answer: shuffle.apply(&answer), rating: rate(&question)? })
}

/// The puzzle written in several ways, each with its own rating: what the solver guesses depends on where things stand.
fn equivalents(grown: Grown, rng: &mut impl RngCore) -> Vec<Grown> {
    let shuffles = (0..EQUIVALENTS).map(|_| SudokuShuffle::draw(rng));
    let equivalent = |shuffle: SudokuShuffle| {
        let question = shuffle.apply(&grown.question);
        Some(Grown { question, answer: shuffle.apply(&grown.answer), rating: rate(&question)? })
    };
    shuffles.filter_map(equivalent).collect()
}

fn mean_rating(equivalents: &[Grown]) -> u64 {
    equivalents.iter().map(|grown| grown.rating).sum::<u64>() / (equivalents.len() as u64).max(1)
}

/// A part of the ratings, each as likely as many puzzles it still wants.
fn draw_part(left: &[u64], rng: &mut impl RngCore) -> usize {
    let total = left.iter().sum::<u64>().min(u64::from(u32::MAX));
    let mut drawn = u64::from(below(rng, total as u32));
    left.iter()
        .position(|&left| {
            drawn < left || {
                drawn -= left;
                false
            }
        })
        .unwrap_or(0)
}

/// The puzzles that new ones are grown from, by the part that their ratings belong to.
struct Pool {
    parts: Vec<Vec<Board>>,
    /// Seeds of other ratings.
    others: Vec<Board>,
}

impl Pool {
    /// Rates the seeds, under several symmetries each, so that the pool tells how hard puzzles are, not how lucky.
    fn new(seeds: &PuzzleList, parts: &[RatingPart], seed: u64) -> Result<Self> {
        let mut pool = Self { parts: vec![Vec::new(); parts.len()], others: Vec::new() };
        let rated = (0..seeds.len()).into_par_iter().map(|i| {
            let (question, answer) = (Board::from_tokens(seeds.question(i))?, Board::from_tokens(seeds.answer(i))?);
            let rating = rate(&question).with_context(|| format!("seed {}: no solution", i + 1))?;
            let mut rng = stream(Purpose::Generate, seed, u64::MAX, i as u64);
            Ok((question, mean_rating(&equivalents(Grown { question, answer, rating }, &mut rng))))
        });
        for (board, rating) in rated.collect::<Result<Vec<_>>>()? {
            pool.add(board, rating, parts);
        }
        Ok(pool)
    }

    fn add(&mut self, board: Board, rating: u64, parts: &[RatingPart]) {
        match parts.iter().position(|part| part.holds(rating)) {
            Some(part) => self.parts[part].push(board),
            None => self.others.push(board),
        }
    }

    /// Mostly a puzzle of the part wanted, else a harder one (a swap makes a puzzle easier more often than harder), else
    /// any.
    fn parent(&self, wanted: usize, rng: &mut impl RngCore) -> Option<Board> {
        let from =
            if below(rng, 4) > 0 { wanted } else { wanted + below(rng, (self.parts.len() - wanted) as u32) as usize };
        let filled = self.parts[from..].iter().chain(self.parts[..from].iter().rev()).chain([&self.others]);
        let part = filled.into_iter().find(|part| !part.is_empty())?;
        part.get(below(rng, part.len() as u32) as usize).copied()
    }
}

/// What mazes to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MazeOptions {
    pub count: u64,
    pub side: usize,
    /// Steps of the shortest path, at least.
    pub min_steps: usize,
    pub seed: u64,
}

/// Makes mazes, no two alike however they are turned or mirrored. `done` holds the first rounds of the same work where
/// it was begun earlier.
///
/// Runs on the current rayon pool.
///
/// # Errors
/// A path longer than such mazes have; rounds of other work; what `keep` says.
pub fn make_mazes(
    options: &MazeOptions,
    done: Vec<Round>,
    keep: &mut Keep<'_>,
    progress: &dyn Progress,
) -> Result<Made> {
    let geometry = Geometry::maze(options.side);
    let mut search = MazeSearch { options, geometry, known: HashSet::new(), missing: options.count };
    run_rounds(&mut search, options.count, done, keep, progress)
}

/// What a round of mazes sees of those before it.
struct MazeSearch<'a> {
    options: &'a MazeOptions,
    geometry: Geometry,
    known: HashSet<Key>,
    missing: u64,
}

impl Rounds for MazeSearch<'_> {
    fn replay(&mut self, round: &Round) -> Result<()> {
        for puzzle in &round.found {
            let read = |text: &str| self.geometry.parse(text);
            let key = Key::of(self.geometry, &read(&puzzle.question)?, &read(&puzzle.answer)?);
            ensure!(self.known.insert(key), "a maze is known");
        }
        self.missing = self.missing.saturating_sub(round.found.len() as u64);
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.missing == 0
    }

    fn check_effort(&self, tries: u64) -> Result<()> {
        let MazeOptions { count, side, min_steps, .. } = *self.options;
        ensure!(
            tries <= MOST_TRIES.saturating_mul(count),
            "{} of {count} mazes after {tries} tries: mazes of {side}×{side} cells rarely have paths of {min_steps} steps; \
             lower --min-steps, or raise --side",
            count - self.missing
        );
        Ok(())
    }

    fn next(&mut self, number: u64) -> Round {
        let (options, geometry) = (self.options, self.geometry);
        let try_one = |task| {
            let mut rng = stream(Purpose::Generate, options.seed, number, task);
            let made = make_maze(options.side, options.min_steps, &mut rng)?;
            let key = Key::of(geometry, &made.question, &made.answer);
            Some((made, key))
        };
        let tried: Vec<_> = (0..ROUND / 8).into_par_iter().map(try_one).collect();
        let mut round = Round::default();
        for task in tried {
            round.effort.tries += 1;
            let Some((maze, key)) = task else {
                round.effort.unwanted += 1;
                continue;
            };
            if self.missing == 0 {
                break;
            }
            if !self.known.insert(key) {
                round.effort.known += 1;
                continue;
            }
            self.missing -= 1;
            let (question, answer) = (geometry.text(&maze.question), geometry.text(&maze.answer));
            round.found.push(Generated { question, answer, rating: maze.steps as u64 });
        }
        round
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_read_and_shared_out() {
        let target: RatingTarget = "50-=30, 0-9=20,10-49=50".parse().expect("good");
        let shown: Vec<String> = target.parts().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["0-9", "10-49", "50-"]);
        assert_eq!(target.quotas(1000), [200, 500, 300]);
        assert_eq!(target.quotas(7), [1, 4, 2]);
        assert_eq!("20-".parse::<RatingTarget>().expect("good").quotas(3), [3]);
        for bad in ["", "5", "5-4", "a-b", "1-2=0", "1-2=-3", "1-2=x", "1-2=inf", "1-5,5-9", "1-,7-9"] {
            assert!(bad.parse::<RatingTarget>().is_err(), "{bad}");
        }
    }
}
