//! Single cells: in which order they become right, and how sure the model is of them.

use serde::Serialize;

use super::runs::{PuzzleRun, hundredths_of};
use crate::puzzle::{Puzzle, boxes::MAX_SIDE, from_base36};

/// The segment from which on each cell is right to the end; none where it is wrong at the end. Length seq_len.
pub fn right_from(run: &PuzzleRun, item: &Puzzle) -> Vec<Option<usize>> {
    let answers: Vec<Vec<u8>> = run.answers.iter().map(|a| from_base36(a)).collect();
    let n = answers.len();
    let of_cell = |cell: usize| {
        let wanted = item.label(cell)?;
        let wrong = (0..n).rev().find(|&k| answers[k].get(cell) != Some(&wanted)).map_or(0, |k| k + 1);
        (wrong < n).then_some(wrong + 1)
    };
    (0..item.tokens().len()).map(of_cell).collect()
}

/// Open cells after one segment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellsAt {
    /// From 1.
    pub segment: usize,
    /// Share of the open cells that are right.
    pub right: f64,
    /// Mean confidence in those that are right, and in those that are wrong; none where there are none.
    pub sure_of_right: Option<f64>,
    /// As `sure_of_right`, for the wrong ones.
    pub sure_of_wrong: Option<f64>,
}

/// Open cells whose confidence lies in one tenth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reliability {
    /// From this tenth on, 0.0 to 0.9.
    pub from: f64,
    /// Open cells whose confidence lies in this tenth.
    pub cells: usize,
    /// Their mean confidence.
    pub confidence: f64,
    /// Share of them that is right.
    pub right: f64,
}

/// Open cells with the same number of candidates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ByCandidates {
    /// Digits that the givens of row, column and box leave.
    pub candidates: usize,
    /// Open cells with so many.
    pub cells: usize,
    /// Share that is right at the end.
    pub right: f64,
    /// Mean segment from which on those are right; none where none is.
    pub mean_step: Option<f64>,
}

/// What `hrm analyze cells` finds. Givens are left out everywhere.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellsSummary {
    /// Puzzles looked at.
    pub puzzles: usize,
    /// Open cells of all puzzles.
    pub open_cells: usize,
    /// One entry a segment.
    pub by_segment: Vec<CellsAt>,
    /// Cells right from segment k on to the end, k = 1, 2, ...
    pub right_from: Vec<usize>,
    /// Cells that are wrong at the end.
    pub never: usize,
    /// At the last segment, by tenths of confidence; tenths without cells are left out.
    pub reliability: Vec<Reliability>,
    /// Sudoku only.
    pub by_candidates: Vec<ByCandidates>,
}

/// Counts over runs and the puzzles that they are of, in the same order.
pub fn summarise_cells(runs: &[PuzzleRun], items: &[Puzzle]) -> CellsSummary {
    let segments = runs.iter().map(PuzzleRun::segments).min().unwrap_or(0);
    let mut counts = Counts {
        at: vec![[[0.0; 2]; 2]; segments],
        right_from: vec![0; segments],
        never: 0,
        tenths: [[0.0; 3]; 10],
        by: [[0.0; 3]; MAX_SIDE + 1],
    };
    for (run, item) in runs.iter().zip(items) {
        let open: Vec<usize> =
            (0..item.tokens().len()).filter(|&cell| item.label(cell).is_some() && item.is_open(cell)).collect();
        counts.add_answers(run, item, &open);
        counts.add_steps(run, item, &open);
    }
    counts.summary(runs.len())
}

/// Sums over open cells.
struct Counts {
    /// By segment, wrong and right: number, confidence.
    at: Vec<[[f64; 2]; 2]>,
    right_from: Vec<usize>,
    never: usize,
    /// By tenth of confidence at the last segment: number, confidence, right.
    tenths: [[f64; 3]; 10],
    /// By number of candidates: number, right, steps.
    by: [[f64; 3]; MAX_SIDE + 1],
}

impl Counts {
    fn add_answers(&mut self, run: &PuzzleRun, item: &Puzzle, open: &[usize]) {
        let last = self.at.len();
        for (k, (at, (answer, sure))) in self.at.iter_mut().zip(run.answers.iter().zip(&run.confidence)).enumerate() {
            let (answer, sure) = (from_base36(answer), hundredths_of(sure));
            for &cell in open.iter().filter(|&&cell| cell < answer.len().min(sure.len())) {
                let right = usize::from(Some(answer[cell]) == item.label(cell));
                // The middle of the hundredth.
                let confidence = (f64::from(sure[cell]) + 0.5) / 100.0;
                at[right][0] += 1.0;
                at[right][1] += confidence;
                if k + 1 == last {
                    let tenth = &mut self.tenths[usize::from(sure[cell] / 10).min(9)];
                    tenth[0] += 1.0;
                    tenth[1] += confidence;
                    tenth[2] += right as f64;
                }
            }
        }
    }

    fn add_steps(&mut self, run: &PuzzleRun, item: &Puzzle, open: &[usize]) {
        let steps = right_from(run, item);
        let left = item.geometry().boxes().map(|boxes| boxes.candidates(item.tokens())).unwrap_or_default();
        for &cell in open {
            match steps[cell] {
                Some(step) => self.right_from[step - 1] += 1,
                None => self.never += 1,
            }
            if let Some(Some(n)) = left.get(cell) {
                let row = &mut self.by[(*n).min(MAX_SIDE)];
                row[0] += 1.0;
                if let Some(step) = steps[cell] {
                    row[1] += 1.0;
                    row[2] += step as f64;
                }
            }
        }
    }

    fn summary(self, puzzles: usize) -> CellsSummary {
        let mean = |[count, sum]: [f64; 2]| (count > 0.0).then(|| sum / count);
        let by_segment = self.at.iter().enumerate().map(|(k, [wrong, right])| CellsAt {
            segment: k + 1,
            right: right[0] / (right[0] + wrong[0]).max(1.0),
            sure_of_right: mean(*right),
            sure_of_wrong: mean(*wrong),
        });
        let tenths = self.tenths.iter().enumerate().filter(|(_, t)| t[0] > 0.0);
        let reliability = tenths.map(|(k, t)| Reliability {
            from: k as f64 / 10.0,
            cells: t[0] as usize,
            confidence: t[1] / t[0],
            right: t[2] / t[0],
        });
        let by = self.by.iter().enumerate().filter(|(_, b)| b[0] > 0.0);
        let by_candidates = by.map(|(candidates, b)| ByCandidates {
            candidates,
            cells: b[0] as usize,
            right: b[1] / b[0],
            mean_step: (b[1] > 0.0).then(|| b[2] / b[1]),
        });
        CellsSummary {
            puzzles,
            open_cells: self.never + self.right_from.iter().sum::<usize>(),
            by_segment: by_segment.collect(),
            reliability: reliability.collect(),
            by_candidates: by_candidates.collect(),
            right_from: self.right_from,
            never: self.never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::runs::run_of, *};
    use crate::puzzle::Geometry;

    #[test]
    fn cells_become_right_one_after_the_other() {
        let item = Puzzle::new(Geometry::maze(2), vec![1, 2, 2, 2], Some(vec![1, 5, 2, 5])).unwrap();
        let mut run = run_of(&[2, 1, 3], &["1552", "1255", "1555"]);
        run.confidence = vec!["99905050".to_owned(), "99905050".to_owned(), "99952050".to_owned()];
        assert_eq!(right_from(&run, &item), [Some(1), Some(3), None, Some(2)]);
        let found = summarise_cells(&[run], &[item]);
        assert_eq!((found.open_cells, found.never, found.right_from.as_slice()), (3, 1, [0, 1, 1].as_slice()));
        assert!((found.by_segment[0].right - 1.0 / 3.0).abs() < 1e-12);
        assert!((found.by_segment[0].sure_of_right.unwrap() - 0.905).abs() < 1e-12);
        let top = found.reliability.last().unwrap();
        assert_eq!((top.from, top.cells, top.right), (0.9, 1, 1.0));
        assert!(found.by_candidates.is_empty());
    }
}
