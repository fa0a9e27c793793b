//! New Sudokus out of old ones: some givens are taken away and others put in.
//!
//! A puzzle near a hard one is often hard too, where one made from nothing hardly ever is; this is how the collections of
//! the hardest puzzles were grown.

use rand_chacha::rand_core::RngCore;

use super::{
    solve::{has_one_solution, look_for},
    sudoku::{Board, CELLS, SIDE},
};
use crate::rng::{below, shuffle_front};

/// A puzzle with exactly one solution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grown {
    pub question: Board,
    pub answer: Board,
    /// As [`super::solve::rate`] counts.
    pub rating: u64,
}

/// Solutions that are looked at in order to choose givens among them.
const MOST_SOLUTIONS: usize = 128;

/// Takes `removed` random givens from `parent`, which must be solvable, and puts in random ones until one solution is
/// left: as many as were taken where that can be done, because more make an easier puzzle. With `minimal` then drops, in
/// random order, each given that is not needed. None where the solver gives up.
pub fn swap_clues(parent: &Board, removed: usize, minimal: bool, rng: &mut impl RngCore) -> Option<Grown> {
    let mut digits = *parent.digits();
    let mut givens: Vec<usize> = (0..CELLS).filter(|&cell| digits[cell] != 0).collect();
    shuffle_front(rng, &mut givens, removed);
    for &cell in givens.iter().take(removed) {
        digits[cell] = 0;
    }
    let mut left = removed;
    let found = loop {
        let mut search = look_for(&Board(digits), MOST_SOLUTIONS);
        if search.gave_up || search.found.is_empty() {
            return None;
        }
        if search.found.len() == 1 {
            break search;
        }
        // What tells one of these solutions from all others is enough, unless there are still more solutions.
        while search.found.len() > 1 {
            let (cell, digit) = choose(&search.found, left <= 1, parent, rng)?;
            digits[cell] = digit;
            search.found.retain(|solution| solution.0[cell] == digit);
            left = left.saturating_sub(1);
        }
    };
    let mut found = found;
    if minimal {
        drop_superfluous(&mut digits, rng);
        found = look_for(&Board(digits), 2);
    }
    Some(Grown { question: Board(digits), answer: *found.found.first()?, rating: found.guesses_to_first })
}

/// A cell and a digit of it that not all solutions have: with `last` one that leaves as few of them as can be, one if that
/// is possible; else any. Only if nothing else tells the solutions apart, a given of the parent's.
fn choose(solutions: &[Board], last: bool, parent: &Board, rng: &mut impl RngCore) -> Option<(usize, u8)> {
    let mut counts = [[0u16; SIDE + 1]; CELLS];
    for solution in solutions {
        for (counts, &digit) in counts.iter_mut().zip(&solution.0) {
            counts[usize::from(digit)] += 1;
        }
    }
    let every = solutions.len() as u16;
    let mut telling = Vec::new();
    for (cell, counts) in counts.iter().enumerate() {
        let digits = (1..=SIDE).filter(|&digit| counts[digit] > 0 && counts[digit] < every);
        telling.extend(digits.map(|digit| (counts[digit], cell, digit as u8)));
    }
    let new = |&&(_, cell, digit): &&(u16, usize, u8)| parent.0[cell] != digit;
    let any_new = telling.iter().any(|choice| new(&choice));
    telling.retain(|choice| !any_new || new(&choice));
    let fewest = telling.iter().map(|&(count, ..)| count).min()?;
    telling.retain(|&(count, ..)| !last || count == fewest);
    telling.get(below(rng, telling.len() as u32) as usize).map(|&(_, cell, digit)| (cell, digit))
}

/// Drops givens in random order as long as one solution is left. No given can be dropped afterwards: what was needed
/// among more givens is needed among fewer.
fn drop_superfluous(digits: &mut [u8; CELLS], rng: &mut impl RngCore) {
    let mut givens: Vec<usize> = (0..CELLS).filter(|&cell| digits[cell] != 0).collect();
    let count = givens.len();
    shuffle_front(rng, &mut givens, count);
    for cell in givens {
        let digit = std::mem::take(&mut digits[cell]);
        if !has_one_solution(&Board(*digits)) {
            digits[cell] = digit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        puzzle::solve::{Solutions, is_minimal, rate, solve},
        rng::{Purpose, stream},
    };

    #[test]
    fn grown_puzzles_have_one_solution_and_no_given_too_many() {
        let parent: Board =
            "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79".parse().unwrap();
        let mut different = std::collections::HashSet::new();
        for i in 0..60 {
            let minimal = i % 2 == 0;
            let mut rng = stream(Purpose::Examples, 2, i, 0);
            let grown = swap_clues(&parent, 1 + i as usize % 5, minimal, &mut rng).unwrap();
            assert_eq!(solve(&grown.question), Solutions::One(grown.answer));
            assert_eq!(rate(&grown.question), Some(grown.rating));
            assert!(!minimal || is_minimal(&grown.question));
            different.insert(grown.question);
        }
        assert!(different.len() > 50, "{}", different.len());
    }
}
