//! Is a right answer a fixed point? Puzzles with k blanks, made from real solutions, are run for many segments: how often
//! is the right answer reached, and how often is it left again.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::runs::PuzzleRun;
use crate::{
    eval::stats::{Interval, wilson},
    puzzle::{Puzzle, boxes::BLANK},
    rng::{Purpose, below, distinct, stream},
};

/// Which cells are blanked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Blanks {
    /// So many, drawn at random.
    Cells(usize),
    /// Those of one row, drawn at random.
    Row,
}

impl std::fmt::Display for Blanks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cells(n) => write!(f, "{n}"),
            Self::Row => f.write_str("row"),
        }
    }
}

impl std::str::FromStr for Blanks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "row" => Ok(Self::Row),
            number => match number.parse() {
                Ok(n) => Ok(Self::Cells(n)),
                Err(_) => Err(format!("{number:?}: give numbers of cells, or `row` for the cells of one row")),
            },
        }
    }
}

/// Sudokus of the solutions with `blanks` blanked, numbered in order. The same seed gives the same puzzles.
///
/// # Errors
/// A puzzle whose solution is not a full Sudoku; more blanks than it has cells.
pub fn make_puzzles(solved: &[Puzzle], blanks: Blanks, seed: u64) -> Result<Vec<Puzzle>> {
    let make = |(index, puzzle): (usize, &Puzzle)| {
        let not_full = || format!("solution {index} is not a full Sudoku");
        let boxes = puzzle.geometry().boxes().with_context(not_full)?;
        if let Blanks::Cells(n) = blanks {
            let (geometry, most) = (puzzle.geometry(), boxes.cells());
            ensure!(n <= most, "--blanks {n}: a {geometry} puzzle has {most} cells");
        }
        let solution = puzzle.solution().unwrap_or_default();
        let full = !solution.is_empty() && solution.iter().all(|&token| boxes.digit(token).is_some());
        ensure!(full, not_full());
        let key = match blanks {
            Blanks::Cells(n) => n as u64,
            Blanks::Row => 1000,
        };
        let mut rng = stream(Purpose::Analysis, seed, 1 + key, index as u64);
        let (side, count) = (boxes.side() as u32, boxes.cells() as u32);
        let cells: Vec<u32> = match blanks {
            Blanks::Cells(n) => distinct(&mut rng, count, n as u32),
            Blanks::Row => {
                let row = below(&mut rng, side);
                (side * row..side * (row + 1)).collect()
            }
        };
        let mut tokens = solution.to_vec();
        cells.into_iter().for_each(|cell| tokens[cell as usize] = BLANK);
        Ok(Puzzle::new(puzzle.geometry(), tokens, Some(solution.to_vec()))?.numbered(index))
    };
    solved.iter().enumerate().map(make).collect()
}

/// What became of a right answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// Reached and never left again.
    Stays,
    /// Reached and left again.
    Leaves,
    /// Never reached.
    Never,
}

impl Fate {
    /// In the order of the report.
    pub const ALL: [Self; 3] = [Self::Stays, Self::Leaves, Self::Never];

    /// As reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stays => "stay right",
            Self::Leaves => "leave it again",
            Self::Never => "never get right",
        }
    }

    /// The fate of one run.
    pub fn of(run: &PuzzleRun) -> Self {
        match (run.first_right(), run.right_for_good()) {
            (None, _) => Self::Never,
            (Some(first), Some(good)) if first == good => Self::Stays,
            _ => Self::Leaves,
        }
    }
}

/// One checkpoint at one number of blanks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StabilityRow {
    /// Blanks of each puzzle.
    pub blanks: Blanks,
    /// Puzzles looked at.
    pub puzzles: usize,
    /// Right after segment `at`, the model's own number of segments.
    pub right_at: f64,
    /// 95 % interval of `right_at`.
    pub right_at_interval: Interval,
    /// Right at the last segment.
    pub right_at_end: f64,
    /// 95 % interval of `right_at_end`.
    pub right_at_end_interval: Interval,
    /// Right at any segment.
    pub reached: f64,
    /// 95 % interval of `reached`.
    pub reached_interval: Interval,
    /// Left again by the last segment, of those that were right at some segment.
    pub left: f64,
    /// 95 % interval of `left`.
    pub left_interval: Interval,
    /// The same by segment `at`.
    pub left_by_at: f64,
    /// Runs whose state was, at some segment, bitwise that of the segment before.
    pub fixed_points: usize,
    /// Runs whose state was bitwise that of 2, 3, ... segments before.
    pub cycles: usize,
}

/// Median |Δz_H| / |z_H| of the runs of one fate, by segment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Motion {
    /// The fate.
    pub fate: Fate,
    /// Runs with it.
    pub puzzles: usize,
    /// Median over those runs, an entry a segment.
    pub median: Vec<f64>,
    /// First and third quartile.
    pub quartiles: Vec<[f64; 2]>,
}

/// One row of the table. `at`: the model's own number of segments.
pub fn tabulate(blanks: Blanks, runs: &[PuzzleRun], at: usize) -> StabilityRow {
    let n = runs.len();
    let share = |count: usize, of: usize| (count as f64 / of.max(1) as f64, wilson(count as u64, of as u64));
    let (right_at, right_at_interval) = share(runs.iter().filter(|r| r.exact(at)).count(), n);
    let (right_at_end, right_at_end_interval) = share(runs.iter().filter(|r| r.solved()).count(), n);
    let reached = runs.iter().filter(|r| r.first_right().is_some()).count();
    let left = runs.iter().filter(|r| Fate::of(r) == Fate::Leaves).count();
    let (left, left_interval) = share(left, reached);
    let early: Vec<usize> = runs.iter().filter_map(PuzzleRun::first_right).filter(|&first| first <= at).collect();
    let left_early = runs
        .iter()
        .filter(|r| r.first_right().is_some_and(|first| (first..=at.min(r.segments())).any(|k| !r.exact(k))))
        .count();
    let (reached, reached_interval) = share(reached, n);
    StabilityRow {
        blanks,
        puzzles: n,
        right_at,
        right_at_interval,
        right_at_end,
        right_at_end_interval,
        reached,
        reached_interval,
        left,
        left_interval,
        left_by_at: left_early as f64 / early.len().max(1) as f64,
        fixed_points: runs.iter().filter(|r| r.repeats.contains(&1)).count(),
        cycles: runs.iter().filter(|r| r.repeats.iter().any(|&p| p > 1)).count(),
    }
}

/// How the states of each fate move.
pub fn motions(runs: &[&PuzzleRun]) -> Vec<Motion> {
    let length = runs.iter().map(|r| r.segments()).min().unwrap_or(0);
    let of = |fate: Fate| {
        let members: Vec<&&PuzzleRun> = runs.iter().filter(|r| Fate::of(r) == fate).collect();
        let at = |k: usize| {
            let mut moves: Vec<f64> = members.iter().map(|r| f64::from(r.move_h[k])).collect();
            moves.sort_by(f64::total_cmp);
            [0.25, 0.5, 0.75].map(|q| moves[((moves.len() - 1) as f64 * q).round() as usize])
        };
        let columns: Vec<[f64; 3]> = if members.is_empty() { Vec::new() } else { (0..length).map(at).collect() };
        Motion {
            fate,
            puzzles: members.len(),
            median: columns.iter().map(|c| c[1]).collect(),
            quartiles: columns.iter().map(|c| [c[0], c[2]]).collect(),
        }
    };
    Fate::ALL.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::runs::run_of, *};
    use crate::puzzle::Geometry;

    fn solved() -> Puzzle {
        let text = "534678912672195348198342567859761423426853791713924856961537284287419635345286179";
        let solution = Geometry::SUDOKU.parse(text).unwrap();
        Puzzle::new(Geometry::SUDOKU, vec![BLANK; 81], Some(solution)).unwrap()
    }

    #[test]
    fn puzzles_have_their_blanks_and_their_seed() {
        let solutions = vec![solved(); 3];
        for (blanks, open) in [(Blanks::Cells(0), 0), (Blanks::Cells(5), 5), (Blanks::Row, 9), (Blanks::Cells(81), 81)]
        {
            let made = make_puzzles(&solutions, blanks, 7).unwrap();
            assert!(made.iter().all(|i| i.open_cells() == open), "{blanks}");
            assert_eq!(made, make_puzzles(&solutions, blanks, 7).unwrap());
        }
        let rows = make_puzzles(&solutions, Blanks::Row, 7).unwrap();
        for item in &rows {
            let open: Vec<usize> = (0..81).filter(|&c| item.is_open(c)).collect();
            assert!(open.iter().all(|c| c / 9 == open[0] / 9), "one row: {open:?}");
        }
        assert_ne!(
            make_puzzles(&solutions, Blanks::Cells(5), 7).unwrap(),
            make_puzzles(&solutions, Blanks::Cells(5), 8).unwrap()
        );
        assert!(make_puzzles(&[solved().unsolved()], Blanks::Row, 0).is_err());
        assert!(make_puzzles(&solutions, Blanks::Cells(82), 7).is_err(), "more than the board has");
        assert!("-1".parse::<Blanks>().is_err() && "row".parse() == Ok(Blanks::Row));
    }

    #[test]
    fn fates_and_shares() {
        let mut still = run_of(&[1, 9, 9, 9], &["a", "r", "r", "r"]);
        still.repeats = vec![0, 0, 1, 1];
        let leaves = run_of(&[9, 9, 9, 5], &["r", "r", "r", "b"]);
        let returns = run_of(&[9, 5, 9, 9], &["r", "b", "r", "r"]);
        let never = run_of(&[1, 1, 1, 1], &["a"; 4]);
        let runs = [still, leaves, returns, never];
        assert_eq!(runs.each_ref().map(Fate::of), [Fate::Stays, Fate::Leaves, Fate::Leaves, Fate::Never]);
        let row = tabulate(Blanks::Cells(2), &runs, 3);
        assert_eq!((row.right_at, row.right_at_end, row.reached), (0.75, 0.5, 0.75));
        assert!((row.left - 2.0 / 3.0).abs() < 1e-12 && (row.left_by_at - 1.0 / 3.0).abs() < 1e-12, "{row:?}");
        assert_eq!((row.fixed_points, row.cycles), (1, 0));
        let all: Vec<&PuzzleRun> = runs.iter().collect();
        let motions = motions(&all);
        assert_eq!(motions.iter().map(|m| m.puzzles).collect::<Vec<_>>(), [1, 2, 1]);
        assert_eq!(motions[0].median, [0.5; 4]);
    }
}
