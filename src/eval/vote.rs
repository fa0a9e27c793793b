//! Upstream's rule for "solved", over several checkpoints and several transforms of one puzzle.
//!
//! ```text
//! pass (checkpoint c, permutation p): exact = every cell of the prediction equals the permuted label
//!                                     halted = the last segment's q_halt > q_continue
//! Sudoku, checkpoint c: exact halted passes × 2 > halted passes     (none halted, or a tie: not solved)
//! Maze,   checkpoint c: any exact pass, halted or not
//! solved = any checkpoint solves
//! ```
//!
//! It is no consensus vote: it counts passes that are *right*, which takes the label. Upstream's figure and nothing
//! that a solver without the answers could reach, so it is always reported under its own name.

use crate::puzzle::PuzzleKind;

/// Whether one checkpoint's passes over a puzzle count as a solution.
pub fn checkpoint_solves(kind: PuzzleKind, passes: &[PassOutcome]) -> bool {
    match kind {
        PuzzleKind::Sudoku => {
            let halted = passes.iter().filter(|p| p.halted).count();
            let right = passes.iter().filter(|p| p.halted && p.exact).count();
            2 * right > halted
        }
        PuzzleKind::Maze => passes.iter().any(|p| p.exact),
    }
}

/// What one pass over one puzzle came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassOutcome {
    /// Every cell right, givens included; a label that marks "no label" must be matched like any other.
    pub exact: bool,
    /// `q_halt > q_continue` in the last segment; a halt in an earlier one does not count.
    pub halted: bool,
}

/// How many of the `T` cells of a prediction equal the label.
pub fn matching_cells<'a>(
    predictions: impl IntoIterator<Item = &'a i32>,
    labels: impl IntoIterator<Item = &'a i32>,
) -> u64 {
    predictions.into_iter().zip(labels).filter(|(p, l)| p == l).count() as u64
}

/// Upstream's last line: `13/21, accuracy=0.6190476190476191`, the number as Python prints a float.
pub fn summary_line(correct: u64, total: u64) -> String {
    let accuracy = if total == 0 { 0.0 } else { correct as f64 / total as f64 };
    format!("{correct}/{total}, accuracy={}", python_float(accuracy))
}

/// Python's `repr` of a float between 0 and 1: the shortest text that reads back equal, with an exponent below 1e-4.
fn python_float(x: f64) -> String {
    if x == 0.0 || x >= 1e-4 {
        return format!("{x:?}");
    }
    let text = format!("{x:e}"); // 5e-5, 1.25e-7
    match text.split_once("e-") {
        Some((digits, exponent)) => format!("{digits}e-{exponent:0>2}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(text: &str) -> Vec<PassOutcome> {
        // E exact and halted, e exact only, W wrong and halted, w wrong only
        text.chars().map(|c| PassOutcome { exact: "Ee".contains(c), halted: c.is_uppercase() }).collect()
    }

    #[test]
    fn sudoku_needs_a_majority_of_the_halted_passes() {
        for (text, solved) in [("E", true), ("e", false), ("EW", false), ("EWE", true), ("Eww", true), ("eeeW", false)]
        {
            assert_eq!(checkpoint_solves(PuzzleKind::Sudoku, &passes(text)), solved, "{text}");
        }
    }

    #[test]
    fn maze_needs_one_exact_pass() {
        for (text, solved) in [("e", true), ("Ww", false), ("We", true)] {
            assert_eq!(checkpoint_solves(PuzzleKind::Maze, &passes(text)), solved, "{text}");
        }
    }

    /// Texts as Python 3.11 prints them.
    #[test]
    fn accuracy_reads_as_in_python() {
        assert_eq!(summary_line(3, 10), "3/10, accuracy=0.3");
        assert_eq!(summary_line(0, 10), "0/10, accuracy=0.0");
        assert_eq!(summary_line(4, 9), "4/9, accuracy=0.4444444444444444");
        assert_eq!(summary_line(7, 7), "7/7, accuracy=1.0");
        assert_eq!(summary_line(1, 10_000), "1/10000, accuracy=0.0001");
        assert_eq!(summary_line(1, 20_000), "1/20000, accuracy=5e-05");
        assert_eq!(summary_line(1, 422_786), "1/422786, accuracy=2.365262804350191e-06");
    }
}
