//! A model's work on many puzzles, segment by segment: what the analyses of segments, modes and stability are made of.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor, no_grad};

use super::{
    facts::{SegmentFacts, facts_of},
    landscape::relative_moves,
};
use crate::{
    dataset::Batch,
    model::{DeviceBatch, Model, Segment},
    puzzle::{Puzzle, base36},
};

/// One puzzle's run. All lists have an entry a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PuzzleRun {
    /// The puzzle's place in the set.
    pub index: usize,
    /// Cells to fill in.
    pub open: usize,
    /// Cells with a label.
    pub cells: usize,
    /// Mean token loss over the labelled cells, as in training (nats).
    pub loss: Vec<f64>,
    /// Labelled cells that are right, givens included.
    pub right: Vec<usize>,
    /// Sudoku: broken rules of the answer; empty for mazes.
    pub conflict: Vec<u32>,
    /// The model's q of halting.
    pub q_halt: Vec<f32>,
    /// The model's q of going on.
    pub q_continue: Vec<f32>,
    /// |Δz_H| / |z_H|, against the state before the segment.
    pub move_h: Vec<f32>,
    /// |Δz_L| / |z_L|.
    pub move_l: Vec<f32>,
    /// The least p for which z_H and z_L are bitwise those of p segments before; 0 where there is none among those kept.
    pub repeats: Vec<usize>,
    /// Tokens of the answer, a character a cell in base 36.
    pub answers: Vec<String>,
    /// How probable the model holds each cell of its answer, two digits a cell: 00 to 99 hundredths.
    pub confidence: Vec<String>,
}

impl PuzzleRun {
    /// Segments run.
    pub fn segments(&self) -> usize {
        self.right.len()
    }

    /// Whether this can be the run of that item: every list has `segments` entries.
    pub fn fits(&self, item: &Puzzle, segments: usize) -> bool {
        let sudoku = item.geometry().is_sudoku();
        let lengths = [
            self.loss.len(),
            self.right.len(),
            self.q_halt.len(),
            self.q_continue.len(),
            self.move_h.len(),
            self.move_l.len(),
            self.repeats.len(),
            self.answers.len(),
            self.confidence.len(),
        ];
        self.index == item.index()
            // Earlier versions counted the cells of a maze's path.
            && (!sudoku || self.open == item.open_cells())
            && lengths.iter().all(|&n| n == segments)
            && self.conflict.len() == if sudoku { segments } else { 0 }
            && self.answers.iter().all(|a| a.len() == item.tokens().len())
    }

    /// Whether the answer after segment `k` (from 1) is wholly right.
    pub fn exact(&self, k: usize) -> bool {
        k.checked_sub(1).and_then(|i| self.right.get(i)) == Some(&self.cells)
    }

    /// Whether the last answer is right.
    pub fn solved(&self) -> bool {
        self.exact(self.segments())
    }

    /// The first segment whose answer is right.
    pub fn first_right(&self) -> Option<usize> {
        (1..=self.segments()).find(|&k| self.exact(k))
    }

    /// The first segment from which on the answer stays right to the end: the step at which the puzzle is "grokked".
    pub fn right_for_good(&self) -> Option<usize> {
        let wrong = (1..=self.segments()).rev().find(|&k| !self.exact(k)).unwrap_or(0);
        (wrong < self.segments()).then_some(wrong + 1)
    }

    /// The segment over which the loss falls most, and that fall's share of the fall from the first to the least loss.
    pub fn steepest_fall(&self) -> Option<(usize, f64)> {
        let falls = self.loss.windows(2).enumerate().map(|(i, pair)| (i + 2, pair[0] - pair[1]));
        let (segment, fall) = falls.max_by(|a, b| a.1.total_cmp(&b.1))?;
        let whole = self.loss[0] - self.loss.iter().copied().fold(f64::INFINITY, f64::min);
        (whole > 0.0).then(|| (segment, fall / whole))
    }

    /// Whether the answer stayed the same over the last `window` segments.
    pub fn settled(&self, window: usize) -> bool {
        self.answers.len() >= window.max(1) && {
            let tail = &self.answers[self.answers.len() - window.max(1)..];
            tail.iter().all(|a| a == &tail[0])
        }
    }

    /// The least period from 2 to `longest` that the answers have over the last two periods; none where they settled.
    pub fn answer_cycle(&self, longest: usize) -> Option<usize> {
        let n = self.answers.len();
        (2..=longest).find(|&p| {
            n >= 2 * p
                && (n - p..n).all(|i| self.answers[i] == self.answers[i - p])
                && self.answers[n - p..].iter().any(|a| a != &self.answers[n - 1])
        })
    }

    /// Whether q says halt after segment `k` (from 1).
    pub fn wants_halt(&self, k: usize) -> bool {
        k >= 1 && k <= self.segments() && self.q_halt[k - 1] > self.q_continue[k - 1]
    }
}

/// Runs puzzles together for `segments` segments each, none of which is ever restarted.
///
/// States are compared bit by bit with those of up to `longest_cycle` segments before.
pub fn run_puzzles(model: &Model, items: &[Puzzle], segments: usize, longest_cycle: usize) -> Result<Vec<PuzzleRun>> {
    if items.is_empty() {
        return Ok(Vec::new());
    }
    let batch = batch_of(model, items)?;
    let mut runs: Vec<PuzzleRun> = items.iter().map(|item| PuzzleRun::empty(item, segments)).collect();
    let rows = batch.rows();
    let (h_init, l_init) = model.initial_state();
    let size = [rows, model.config().total_seq(), model.config().hidden_size];
    let mut kept: Vec<[Tensor; 2]> = vec![[h_init.expand(size, false), l_init.expand(size, false)]];
    let mut session = model.unroll(model.fresh_carry(batch));
    session.run(segments, |number, segment| {
        no_grad(|| record(segment, &facts_of(model, number, segment, items)?, items, &kept, &mut runs))?;
        if kept.len() >= longest_cycle.max(1) {
            drop(kept.remove(0));
        }
        if number < segments {
            kept.push([segment.carry.z_h.shallow_clone(), segment.carry.z_l.shallow_clone()]);
        }
        Ok(())
    })?;
    for run in &runs {
        let finite = run.loss.iter().all(|x| x.is_finite())
            && [&run.q_halt, &run.q_continue, &run.move_h, &run.move_l].iter().all(|v| v.iter().all(|x| x.is_finite()));
        ensure!(finite, "puzzle {}: the model's states hold NaN or infinite values: it has diverged", run.index);
    }
    Ok(runs)
}

/// Puzzles as a batch on the model's device, all with puzzle identifier 0.
///
/// # Errors
/// Puzzles of another size or alphabet than the model's.
pub fn batch_of(model: &Model, puzzles: &[Puzzle]) -> Result<DeviceBatch> {
    let dims = model.config().dims;
    for puzzle in puzzles {
        let geometry = puzzle.geometry();
        ensure!(
            i64::try_from(geometry.cells()) == Ok(dims.seq_len),
            "puzzle {} has {} cells, the model takes {}: give a puzzle of the kind that the checkpoint was trained on",
            puzzle.index(),
            geometry.cells(),
            dims.seq_len
        );
        ensure!(
            i64::try_from(geometry.vocab_size()) == Ok(dims.vocab_size),
            "a {geometry} puzzle has {} tokens, the model has {}: the checkpoint was trained on another kind of puzzle",
            geometry.vocab_size(),
            dims.vocab_size
        );
    }
    Ok(DeviceBatch::upload(&Batch::of_puzzles(puzzles), model.device()))
}

impl PuzzleRun {
    fn empty(item: &Puzzle, segments: usize) -> Self {
        Self {
            index: item.index(),
            open: item.open_cells(),
            cells: item.labelled_cells(),
            loss: Vec::with_capacity(segments),
            right: Vec::with_capacity(segments),
            conflict: Vec::new(),
            q_halt: Vec::with_capacity(segments),
            q_continue: Vec::with_capacity(segments),
            move_h: Vec::with_capacity(segments),
            move_l: Vec::with_capacity(segments),
            repeats: Vec::with_capacity(segments),
            answers: Vec::with_capacity(segments),
            confidence: Vec::with_capacity(segments),
        }
    }
}

/// Adds one segment of every row. `kept`: the states before, the latest last.
fn record(
    segment: &Segment,
    facts: &[SegmentFacts],
    items: &[Puzzle],
    kept: &[[Tensor; 2]],
    runs: &mut [PuzzleRun],
) -> Result<()> {
    let (z_h, z_l) = (&segment.carry.z_h, &segment.carry.z_l);
    let [before_h, before_l] = &kept[kept.len() - 1];
    let (move_h, move_l) = (relative_moves(before_h, z_h)?, relative_moves(before_l, z_l)?);
    let mut repeats = vec![0; runs.len()];
    for (back, [old_h, old_l]) in kept.iter().rev().enumerate() {
        let same =
            |a: &Tensor, b: &Tensor| -> Result<Tensor> { Ok(a.f_eq_tensor(b)?.f_flatten(1, -1)?.f_all_dim(1, false)?) };
        let equal = same(z_h, old_h)?.f_logical_and(&same(z_l, old_l)?)?.f_to_device(Device::Cpu)?;
        for (row, equal) in Vec::<bool>::try_from(equal)?.into_iter().enumerate() {
            if equal && repeats[row] == 0 {
                repeats[row] = back + 1;
            }
        }
    }
    for (row, ((run, facts), item)) in runs.iter_mut().zip(facts).zip(items).enumerate() {
        run.right.push(item.right_cells(&facts.prediction).unwrap_or(0));
        run.conflict.extend(facts.conflict);
        run.loss.push(facts.loss.unwrap_or(0.0));
        run.q_halt.push(facts.q_halt);
        run.q_continue.push(facts.q_continue);
        run.move_h.push(move_h[row]);
        run.move_l.push(move_l[row]);
        run.repeats.push(repeats[row]);
        let hundredths = facts.confidence.iter().map(|p| (p * 100.0).floor().clamp(0.0, 99.0));
        run.confidence.push(hundredths.map(|c| format!("{c:02}")).collect());
        run.answers.push(base36(&facts.prediction));
    }
    Ok(())
}

/// Hundredths of a confidence's text.
pub fn hundredths_of(confidence: &str) -> Vec<u8> {
    let digits = confidence.as_bytes().as_chunks::<2>().0;
    digits.iter().map(|[a, b]| 10 * a.wrapping_sub(b'0').min(9) + b.wrapping_sub(b'0').min(9)).collect()
}

/// A run whose answers are those given, on a puzzle of as many cells as the longest count of right ones.
#[cfg(test)]
pub(super) fn run_of(right: &[usize], answers: &[&str]) -> PuzzleRun {
    let n = right.len();
    PuzzleRun {
        index: 0,
        open: 5,
        cells: 9,
        loss: right.iter().map(|&r| 9.0 - r as f64).collect(),
        right: right.to_vec(),
        conflict: vec![0; n],
        q_halt: vec![-1.0; n],
        q_continue: vec![0.0; n],
        move_h: vec![0.5; n],
        move_l: vec![0.5; n],
        repeats: vec![0; n],
        answers: answers.iter().map(|a| (*a).to_owned()).collect(),
        confidence: vec![String::new(); n],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_a_run() {
        let run = run_of(&[3, 9, 5, 9, 9], &["a", "r", "b", "r", "r"]);
        assert_eq!((run.first_right(), run.right_for_good()), (Some(2), Some(4)));
        assert_eq!(run.steepest_fall(), Some((2, 1.0)));
        assert!(run.settled(2) && !run.settled(3) && !run.settled(6));
        let lost = run_of(&[9, 8], &["r", "a"]);
        assert_eq!((lost.first_right(), lost.right_for_good(), lost.solved()), (Some(1), None, false));
        let flat = run_of(&[4, 4], &["a", "a"]);
        assert_eq!(flat.steepest_fall(), None);
    }

    /// A journal of the version before, without its first line.
    #[test]
    fn stored_runs_are_read_and_written_as_they_were() {
        let stored = include_str!("../../tests/stored/runs.jsonl").lines().skip(1);
        let runs: Vec<PuzzleRun> = stored.clone().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            runs.iter().map(|r| (r.segments(), r.right[2], r.wants_halt(3))).collect::<Vec<_>>(),
            [(3, 58, false), (3, 81, true)]
        );
        assert!(runs.iter().map(|run| serde_json::to_string(run).unwrap()).eq(stored));
    }

    #[test]
    fn cycles_of_answers() {
        assert_eq!(run_of(&[0; 6], &["x", "y", "a", "b", "a", "b"]).answer_cycle(4), Some(2));
        assert_eq!(run_of(&[0; 6], &["a", "a", "a", "a", "a", "a"]).answer_cycle(4), None);
        assert_eq!(run_of(&[0; 6], &["a", "b", "c", "a", "b", "c"]).answer_cycle(4), Some(3));
        assert_eq!(run_of(&[0; 6], &["a", "b", "c", "a", "b", "d"]).answer_cycle(4), None);
    }

    #[test]
    fn hundredths_are_read() {
        assert_eq!(hundredths_of("0099507"), [0, 99, 50]);
    }
}
