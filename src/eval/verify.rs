//! Whether answers are right by the puzzle's own rules, on the device, without any label.
//!
//! - Sudoku: every cell holds a digit, the givens stand, no digit stands twice in a row, a column or a box. Of a puzzle
//!   with one solution that is the solution.
//! - Maze: the marked cells join start and goal without crossing walls, and are as many as a shortest way has. There may
//!   be several such ways; what the answer has in other cells does not count.

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::{
    model::rows,
    puzzle::{
        Board, PuzzleKind,
        maze::{self, GOAL, PATH, START},
        shortest_path,
        sudoku::{SIDE, Unit},
    },
};

/// Puzzles on a device, with what their verification needs.
#[derive(Debug)]
pub struct DevicePuzzles {
    /// `[N, S]`, uint8
    questions: Tensor,
    /// Steps from the start to every cell of a maze. `[N, S]`, int16
    distances: Option<Tensor>,
    rules: Rules,
}

/// The puzzles of a batch's rows.
#[derive(Debug)]
pub struct Questions {
    /// `[B, S]`, int64
    pub tokens: Tensor,
    distances: Option<Tensor>,
}
rows!(Questions { tokens, distances });

#[derive(Debug)]
enum Rules {
    Sudoku {
        /// The cells of the 27 units. `[243]`, int64
        units: Tensor,
        /// 2^(digit − 1) of each token, 0 where it is no digit. `[11]`, int64
        bits: Tensor,
    },
    Maze,
}

impl DevicePuzzles {
    /// # Shapes
    /// - tokens: `[N * seq_len]`
    pub fn new(kind: PuzzleKind, tokens: &[u8], seq_len: usize, device: Device) -> Self {
        let shape = [-1, seq_len as i64];
        let questions = Tensor::from_slice(tokens).view(shape).to_device(device);
        let rules = match kind {
            PuzzleKind::Sudoku => {
                let cells: Vec<i64> = Unit::all().flat_map(|u| (0..SIDE).map(move |k| u.cell(k) as i64)).collect();
                let bits: Vec<i64> =
                    (0..kind.vocab_size()).map(|token| if token >= 2 { 1 << (token - 2) } else { 0 }).collect();
                Rules::Sudoku {
                    units: Tensor::from_slice(&cells).to_device(device),
                    bits: Tensor::from_slice(&bits).to_device(device),
                }
            }
            PuzzleKind::Maze => Rules::Maze,
        };
        let distances = matches!(rules, Rules::Maze).then(|| {
            let side = maze::side(seq_len);
            let all: Vec<i16> =
                tokens.par_chunks(seq_len).flat_map_iter(|maze| shortest_path::distances(maze, side)).collect();
            Tensor::from_slice(&all).view(shape).to_device(device)
        });
        Self { questions, distances, rules }
    }

    /// The puzzles with these indices, `[B]` int64.
    pub fn rows(&self, indices: &Tensor) -> Questions {
        let wide = |t: &Tensor| t.index_select(0, indices).to_kind(Kind::Int64);
        Questions { tokens: wide(&self.questions), distances: self.distances.as_ref().map(wide) }
    }

    /// Row by row, whether the answer is right by the rules.
    ///
    /// # Shapes
    /// - answers: `[B, S]`, int64, tokens of the vocabulary
    /// - result: `[B]`, bool
    pub fn verify(&self, questions: &Questions, answers: &Tensor) -> Tensor {
        match (&self.rules, &questions.distances) {
            (Rules::Sudoku { units, bits }, _) => sudoku(&questions.tokens, answers, units, bits),
            (Rules::Maze, Some(distances)) => shortest_way(&questions.tokens, distances, answers),
            (Rules::Maze, None) => answers.select(1, 0).zeros_like().to_kind(Kind::Bool),
        }
    }
}

/// The same question for one answer on the host.
///
/// # Shapes
/// - question, answer: `[S]`
pub fn is_right(kind: PuzzleKind, question: &[u8], answer: &[u8]) -> bool {
    match kind {
        PuzzleKind::Sudoku => match (Board::from_tokens(question), Board::from_tokens(answer)) {
            (Ok(question), Ok(answer)) => answer.check_solves(&question).is_ok(),
            _ => false,
        },
        PuzzleKind::Maze => shortest_path::check_marks(question, answer, maze::side(question.len())).is_ok(),
    }
}

/// All nine digits stand in a unit exactly if its nine powers of two add up to 511: fewer than nine different ones do not.
fn sudoku(questions: &Tensor, answers: &Tensor, units: &Tensor, bits: &Tensor) -> Tensor {
    let powers = bits.index_select(0, &answers.reshape([-1])).view_as(answers); // [B, 81]
    let sums = powers.index_select(1, units).view([-1, 27, SIDE as i64]).sum_dim_intlist(-1, false, Kind::Int64);
    let kept = questions.lt(2).logical_or(&answers.eq_tensor(questions)); // [B, 81]
    sums.eq(511).all_dim(1, false).logical_and(&kept.all_dim(1, false))
}

/// As many marks as a shortest way has between its ends, on open cells, and each with a marked neighbour (or the start)
/// one step nearer to the start, the goal too: then they are such a way.
fn shortest_way(questions: &Tensor, distances: &Tensor, answers: &Tensor) -> Tensor {
    let side = maze::side(questions.size()[1] as usize) as i64;
    let goal = questions.eq(i64::from(GOAL));
    let marked = answers.eq(i64::from(PATH));
    let count = marked.sum_dim_intlist(1, false, Kind::Int64); // [B]
    let shortest = (distances * &goal).sum_dim_intlist(1, false, Kind::Int64); // [B]
    let closed = distances.le(0).logical_or(&goal); // walls, the start, the goal
    let open = marked.logical_and(&closed).logical_not().all_dim(1, false);

    const FAR: f64 = -9.0;
    let reached = marked.logical_or(&questions.eq(i64::from(START)));
    let steps = distances.masked_fill(&reached.logical_not(), FAR as i64).view([-1, side, side]); // [B, side, side]
    let around = steps.pad([1, 1, 1, 1], "constant", FAR); // [B, side + 2, side + 2]
    let nearer = |row: i64, column: i64| {
        let neighbour = around.narrow(1, row, side).narrow(2, column, side).reshape_as(distances);
        neighbour.eq_tensor(&(distances - 1))
    };
    let joined = nearer(0, 1).logical_or(&nearer(2, 1)).logical_or(&nearer(1, 0)).logical_or(&nearer(1, 2));
    let joined = joined.logical_or(&marked.logical_or(&goal).logical_not()).all_dim(1, false);
    shortest.gt(0).logical_and(&count.eq_tensor(&(shortest - 1))).logical_and(&open).logical_and(&joined)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn check(kind: PuzzleKind, cases: &[(Vec<u8>, Vec<u8>)]) -> usize {
        let cells = cases[0].0.len();
        let questions: Vec<u8> = cases.iter().flat_map(|(q, _)| q.clone()).collect();
        let answers: Vec<i64> = cases.iter().flat_map(|(_, a)| a.iter().map(|&t| i64::from(t))).collect();
        let puzzles = DevicePuzzles::new(kind, &questions, cells, Device::Cpu);
        let order: Vec<i64> = (0..cases.len() as i64).rev().collect();
        let order = Tensor::from_slice(&order);
        let answers = Tensor::from_slice(&answers).view([-1, cells as i64]).index_select(0, &order);
        let found: Vec<bool> = Vec::try_from(puzzles.verify(&puzzles.rows(&order), &answers)).unwrap();
        for ((question, answer), found) in cases.iter().rev().zip(&found) {
            assert_eq!(*found, is_right(kind, question, answer), "{question:?} {answer:?}");
        }
        found.into_iter().filter(|&f| f).count()
    }

    #[test]
    fn sudoku_on_the_device_as_on_the_host() {
        let text = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79";
        let right = "534678912672195348198342567859761423426853791713924856961537284287419635345286179";
        let [question, answer] = [text, right].map(|t| t.parse::<Board>().unwrap().tokens().to_vec());
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut cases = vec![(question.clone(), answer.clone()), (question.clone(), question.clone())];
        for changed in 0..200 {
            let mut answer = answer.clone();
            // One cell, or two swapped cells, which often keep a row, a column or a box whole.
            let (a, b) = (rng.random_range(0..81), rng.random_range(0..81));
            if changed % 2 == 0 {
                answer[a] = rng.random_range(0..11)
            } else {
                answer.swap(a, b)
            }
            cases.push((question.clone(), answer));
        }
        let verified = check(PuzzleKind::Sudoku, &cases);
        assert!((1..100).contains(&verified), "{verified}");
    }

    #[test]
    fn mazes_on_the_device_as_on_the_host() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let (side, mut cases) = (6, Vec::new());
        for _ in 0..400 {
            let mut maze: Vec<u8> = (0..side * side).map(|_| if rng.random_bool(0.3) { 1 } else { 2 }).collect();
            let (start, goal) = (rng.random_range(0..18), rng.random_range(18..36));
            (maze[start], maze[goal]) = (START, GOAL);
            // A shortest way, drawn backwards from the goal; sometimes with a cell too many or too few.
            let steps = shortest_path::distances(&maze, side);
            let mut answer = maze.clone();
            let mut at = goal;
            while steps[at] > 1 {
                let nearer = |next: &usize| {
                    let apart = (at / side).abs_diff(next / side) + (at % side).abs_diff(next % side);
                    apart == 1 && steps[*next] == steps[at] - 1
                };
                at = (0..side * side).rev().find(nearer).unwrap();
                answer[at] = PATH;
            }
            for _ in 0..rng.random_range(0..3) {
                let cell = rng.random_range(0..side * side);
                answer[cell] = [1, 2, 3, 4, 5][rng.random_range(0..5)];
            }
            cases.push((maze, answer));
        }
        let verified = check(PuzzleKind::Maze, &cases);
        assert!((50..350).contains(&verified), "{verified}");
    }
}
