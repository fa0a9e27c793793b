//! Whether answers are right by the puzzle's own rules, on the device, without any label.
//!
//! [`Geometry::check`] answers the same question for one answer on the host.
//!
//! - Sudoku: every cell holds a digit, the givens stand, no digit occurs twice in a row, a column or a box. Of a puzzle
//!   with one solution that is the solution.
//! - Maze: the marked cells join start and goal without crossing walls, and are as many as a shortest way has. There may
//!   be several such ways; what the answer has in other cells does not count.
//! - Unknown kinds: no answer is right.

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::{
    model::rows,
    puzzle::{
        Geometry,
        boxes::FIRST_DIGIT,
        maze::{GOAL, PATH, START},
        shortest_path,
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
        /// The cells of the 3N units. `[3N * N]`, int64
        units: Tensor,
        /// 2^(digit − 1) of each token, 0 where it is no digit. `[N + 2]`, int64
        bits: Tensor,
        side: i64,
    },
    Maze {
        height: i64,
        width: i64,
    },
    Unknown,
}

impl DevicePuzzles {
    /// # Shapes
    /// - tokens: `[N * cells]`
    pub fn new(geometry: Geometry, tokens: &[u8], device: Device) -> Self {
        let shape = [-1, geometry.cells() as i64];
        let questions = Tensor::from_slice(tokens).view(shape).to_device(device);
        let rules = match geometry {
            Geometry::Sudoku(boxes) => {
                let cells = boxes.units().flat_map(|unit| (0..boxes.side()).map(move |k| boxes.cell(unit, k) as i64));
                let bit = |token: usize| token.checked_sub(FIRST_DIGIT.into()).map_or(0, |digit| 1_i64 << digit);
                let bits: Vec<i64> = (0..geometry.vocab_size()).map(bit).collect();
                Rules::Sudoku {
                    units: Tensor::from_slice(&cells.collect::<Vec<_>>()).to_device(device),
                    bits: Tensor::from_slice(&bits).to_device(device),
                    side: boxes.side() as i64,
                }
            }
            Geometry::Maze { height, width } => Rules::Maze { height: height as i64, width: width as i64 },
            Geometry::Unknown { .. } => Rules::Unknown,
        };
        let distances = matches!(rules, Rules::Maze { .. }).then(|| {
            let of_maze = |maze: &[u8]| shortest_path::distances(maze, geometry.width());
            let all: Vec<i16> = tokens.par_chunks(geometry.cells()).flat_map_iter(of_maze).collect();
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
            (Rules::Sudoku { units, bits, side }, _) => sudoku(&questions.tokens, answers, units, bits, *side),
            (&Rules::Maze { height, width }, Some(distances)) => {
                shortest_way(&questions.tokens, distances, answers, [height, width])
            }
            (Rules::Maze { .. }, None) | (Rules::Unknown, _) => answers.select(1, 0).zeros_like().to_kind(Kind::Bool),
        }
    }
}

/// All N digits stand in a unit exactly if its N powers of two add up to 2^N − 1: fewer than N different ones do not.
fn sudoku(questions: &Tensor, answers: &Tensor, units: &Tensor, bits: &Tensor, side: i64) -> Tensor {
    let powers = bits.index_select(0, &answers.reshape([-1])).view_as(answers); // [B, N * N]
    let sums = powers.index_select(1, units).view([-1, 3 * side, side]).sum_dim_intlist(-1, false, Kind::Int64);
    let kept = questions.lt(i64::from(FIRST_DIGIT)).logical_or(&answers.eq_tensor(questions)); // [B, N * N]
    sums.eq((1 << side) - 1).all_dim(1, false).logical_and(&kept.all_dim(1, false))
}

/// As many marks as a shortest way has between its ends, on open cells, and each with a marked neighbour (or the start)
/// one step nearer to the start, the goal too: then they are such a way.
fn shortest_way(questions: &Tensor, distances: &Tensor, answers: &Tensor, [height, width]: [i64; 2]) -> Tensor {
    let goal = questions.eq(i64::from(GOAL));
    let marked = answers.eq(i64::from(PATH));
    let count = marked.sum_dim_intlist(1, false, Kind::Int64); // [B]
    let shortest = (distances * &goal).sum_dim_intlist(1, false, Kind::Int64); // [B]
    let closed = distances.le(0).logical_or(&goal); // walls, the start, the goal
    let open = marked.logical_and(&closed).logical_not().all_dim(1, false);

    const FAR: f64 = -9.0;
    let reached = marked.logical_or(&questions.eq(i64::from(START)));
    let steps = distances.masked_fill(&reached.logical_not(), FAR as i64).view([-1, height, width]);
    let around = steps.pad([1, 1, 1, 1], "constant", FAR); // [B, height + 2, width + 2]
    let nearer = |row: i64, column: i64| {
        let neighbour = around.narrow(1, row, height).narrow(2, column, width).reshape_as(distances);
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

    fn check(geometry: Geometry, cases: &[(Vec<u8>, Vec<u8>)]) -> usize {
        let cells = cases[0].0.len();
        let questions: Vec<u8> = cases.iter().flat_map(|(q, _)| q.clone()).collect();
        let answers: Vec<i64> = cases.iter().flat_map(|(_, a)| a.iter().map(|&t| i64::from(t))).collect();
        let puzzles = DevicePuzzles::new(geometry, &questions, Device::Cpu);
        let order: Vec<i64> = (0..cases.len() as i64).rev().collect();
        let order = Tensor::from_slice(&order);
        let answers = Tensor::from_slice(&answers).view([-1, cells as i64]).index_select(0, &order);
        let found: Vec<bool> = Vec::try_from(puzzles.verify(&puzzles.rows(&order), &answers)).unwrap();
        for ((question, answer), found) in cases.iter().rev().zip(&found) {
            assert_eq!(*found, geometry.is_right(question, answer), "{question:?} {answer:?}");
        }
        found.into_iter().filter(|&f| f).count()
    }

    #[test]
    fn sudoku_on_the_device_as_on_the_host() {
        let nine = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79";
        let right = "534678912672195348198342567859761423426853791713924856961537284287419635345286179";
        let six = "1..4..4...23.31.6456..3..126.5..531.";
        for (side, question, answer) in [(9, nine, right), (6, six, "123456456123231564564231312645645312")] {
            sudokus_of(Geometry::sudoku(side).unwrap(), question, answer);
        }
    }

    fn sudokus_of(geometry: Geometry, question: &str, answer: &str) {
        let [question, answer] = [question, answer].map(|text| geometry.parse(text).unwrap());
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut cases = vec![(question.clone(), answer.clone()), (question.clone(), question.clone())];
        for changed in 0..200 {
            let mut answer = answer.clone();
            // One cell, or two swapped cells, which often keep a row, a column or a box whole.
            let (a, b) = (rng.random_range(0..geometry.cells()), rng.random_range(0..geometry.cells()));
            if changed % 2 == 0 {
                answer[a] = rng.random_range(0..geometry.vocab_size() as u8)
            } else {
                answer.swap(a, b)
            }
            cases.push((question.clone(), answer));
        }
        let verified = check(geometry, &cases);
        assert!((1..100).contains(&verified), "{verified}");
    }

    #[test]
    fn mazes_on_the_device_as_on_the_host() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let ((height, width), mut cases) = ((4, 9), Vec::new());
        for _ in 0..400 {
            let mut maze: Vec<u8> = (0..height * width).map(|_| if rng.random_bool(0.3) { 1 } else { 2 }).collect();
            let (start, goal) = (rng.random_range(0..18), rng.random_range(18..36));
            (maze[start], maze[goal]) = (START, GOAL);
            // A shortest way, drawn backwards from the goal; sometimes with a cell too many or too few.
            let steps = shortest_path::distances(&maze, width);
            let mut answer = maze.clone();
            let mut at = goal;
            while steps[at] > 1 {
                let nearer = |next: &usize| {
                    let apart = (at / width).abs_diff(next / width) + (at % width).abs_diff(next % width);
                    apart == 1 && steps[*next] == steps[at] - 1
                };
                at = (0..height * width).rev().find(nearer).unwrap();
                answer[at] = PATH;
            }
            for _ in 0..rng.random_range(0..3) {
                let cell = rng.random_range(0..height * width);
                answer[cell] = [1, 2, 3, 4, 5][rng.random_range(0..5)];
            }
            cases.push((maze, answer));
        }
        let verified = check(Geometry::Maze { height, width }, &cases);
        assert!((50..350).contains(&verified), "{verified}");
    }
}
