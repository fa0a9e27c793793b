//! An exact Sudoku solver: how many solutions a puzzle has, how hard it is, whether it needs every given.

use super::{
    sudoku::{Board, CELLS},
    triads::{Search, search},
};

/// Guesses before the search gives up. The hardest known puzzles take some thousands.
const MOST_GUESSES: u64 = 2_000_000;

/// What is known about a puzzle's solutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solutions {
    /// The givens contradict each other, at once or after some steps.
    None,
    /// Exactly one, this.
    One(Board),
    /// At least two.
    Several,
    /// The search gave up.
    Unknown,
}

/// Counts a puzzle's solutions up to two.
pub fn solve(puzzle: &Board) -> Solutions {
    let search = look_for(puzzle, 2);
    match search.found.as_slice() {
        [] | [_] if search.gave_up => Solutions::Unknown,
        [] => Solutions::None,
        &[board] => Solutions::One(board),
        _ => Solutions::Several,
    }
}

/// A search for up to `limit` solutions.
pub(super) fn look_for(puzzle: &Board, limit: usize) -> Search {
    search(puzzle, limit, MOST_GUESSES)
}

/// The guesses that the tdoku solver makes up to the first solution, which is the column `rating` of Sudoku-Extreme; 0
/// for a puzzle that propagation alone solves. None where there is no solution (or the search gave up).
///
/// The figure belongs to the puzzle as it is written: an equivalent one, with rows exchanged, say, has another.
pub fn rate(puzzle: &Board) -> Option<u64> {
    let search = look_for(puzzle, 1);
    search.found.first().map(|_| search.guesses)
}

/// Whether the puzzle has one solution and no given could be left out.
pub fn is_minimal(puzzle: &Board) -> bool {
    let without = |cell: usize| {
        let mut digits = *puzzle.digits();
        digits[cell] = 0;
        Board(digits)
    };
    let givens = (0..CELLS).filter(|&cell| puzzle.digits()[cell] != 0);
    has_one_solution(puzzle) && givens.map(without).all(|fewer| !has_one_solution(&fewer))
}

/// Whether the puzzle has exactly one solution.
pub fn has_one_solution(puzzle: &Board) -> bool {
    matches!(solve(puzzle), Solutions::One(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(text: &str) -> Board {
        text.parse().unwrap()
    }

    #[test]
    fn one_none_several() {
        let question = board("53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79");
        let answer = board("534678912672195348198342567859761423426853791713924856961537284287419635345286179");
        assert_eq!(solve(&question), Solutions::One(answer));
        assert_eq!(solve(&answer), Solutions::One(answer));
        assert_eq!(solve(&board(&".".repeat(81))), Solutions::Several);
        assert_eq!(solve(&board(&format!("11{}", ".".repeat(79)))), Solutions::None);
        // No clash among the givens, but the first cell has no candidate: 1-8 in its row, 9 in its column.
        let stuck = format!(".12345678{}9{}", ".".repeat(9), ".".repeat(62));
        assert_eq!(solve(&board(&stuck)), Solutions::None);
    }

    #[test]
    fn a_puzzle_with_17_givens() {
        let hard = board(".......1.4.........2...........5.4.7..8...3....1.9....3..4..2...5.1........8.6...");
        let Solutions::One(found) = solve(&hard) else { panic!("one solution") };
        assert!(found.check_solves(&hard).is_ok());
    }
}
