//! Mazes with one shortest path, as long as wanted.
//!
//! Ways are carved through solid wall along a random spanning tree of every other cell, and some walls then give way, so
//! that there are loops and a shortest path is more than the only path. Start and goal are the ends of a long shortest
//! path that no other equals. Hardness is the length of the path, as in Maze-Hard of the HRM paper, which keeps 30×30
//! mazes whose shortest path has more than 110 steps.

use rand_chacha::rand_core::RngCore;

use super::{
    maze::{FREE, GOAL, PATH, START, WALL},
    shortest_path::{Distances, check_solves, neighbours, shortest},
};
use crate::rng::below;

/// A maze and its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeMaze {
    /// `[side * side]`
    pub question: Vec<u8>,
    /// `[side * side]`
    pub answer: Vec<u8>,
    /// Steps from start to goal.
    pub steps: usize,
}

/// One try at a maze whose only shortest path has `least` steps or more.
pub fn make_maze(side: usize, least: usize, rng: &mut impl RngCore) -> Option<MadeMaze> {
    if side < 3 {
        return None;
    }
    let mut tokens = vec![WALL; side * side];
    carve(&mut tokens, side, rng);
    open_walls(&mut tokens, side, rng);

    // The farthest cell from anywhere is one end of a long path, the farthest from there with one way to it the other.
    let free: Vec<usize> = (0..tokens.len()).filter(|&cell| tokens[cell] == FREE).collect();
    let any = *free.get(below(rng, free.len() as u32) as usize)?;
    let from_any = Distances::from(&tokens, side, any);
    let reached = |steps: &[usize], cell: usize| if steps[cell] == usize::MAX { 0 } else { steps[cell] };
    let start = *free.iter().max_by_key(|&&cell| reached(&from_any.steps, cell))?;
    let from_start = Distances::from(&tokens, side, start);
    let alone = |cell: &usize| from_start.ways[*cell] == 1 && reached(&from_start.steps, *cell) >= least.max(1);
    let ends: Vec<usize> = free.into_iter().filter(alone).collect();
    let goal = *ends.get(below(rng, ends.len() as u32) as usize)?;
    let (start, goal) = if rng.next_u32() & 1 == 0 { (start, goal) } else { (goal, start) };

    tokens[start] = START;
    tokens[goal] = GOAL;
    let found = shortest(&tokens, side).ok()?;
    let mut answer = tokens.clone();
    found.path.iter().for_each(|&cell| answer[cell] = PATH);
    debug_assert!(check_solves(&tokens, &answer, side).is_ok());
    Some(MadeMaze { question: tokens, answer, steps: found.steps })
}

/// Opens ways along a random spanning tree of the cells with even row and column.
fn carve(tokens: &mut [u8], side: usize, rng: &mut impl RngCore) {
    let half = side.div_ceil(2) as u32;
    let first = 2 * below(rng, half) as usize * side + 2 * below(rng, half) as usize;
    tokens[first] = FREE;
    let mut trail = vec![first];
    while let Some(&at) = trail.last() {
        let (row, column) = (at / side, at % side);
        let closed = [
            (row >= 2).then(|| (at.wrapping_sub(2 * side), at.wrapping_sub(side))),
            (row + 2 < side).then_some((at + 2 * side, at + side)),
            (column >= 2).then(|| (at.wrapping_sub(2), at.wrapping_sub(1))),
            (column + 2 < side).then_some((at + 2, at + 1)),
        ];
        let closed: Vec<_> = closed.into_iter().flatten().filter(|&(next, _)| tokens[next] == WALL).collect();
        let Some(&(next, between)) = closed.get(below(rng, closed.len() as u32) as usize) else {
            trail.pop();
            continue;
        };
        tokens[next] = FREE;
        tokens[between] = FREE;
        trail.push(next);
    }
}

/// Lets up to a tenth of the walls between two ways go.
fn open_walls(tokens: &mut [u8], side: usize, rng: &mut impl RngCore) {
    let share = below(rng, 11);
    for cell in 0..tokens.len() {
        let ways = neighbours(cell, side, tokens.len()).filter(|&next| tokens[next] == FREE).count();
        if tokens[cell] == WALL && ways == 2 && below(rng, 100) < share {
            tokens[cell] = FREE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    #[test]
    fn made_mazes_have_one_shortest_path_of_the_length_wanted() {
        for (side, least) in [(30, 110), (10, 15), (5, 4), (3, 1), (4, 2)] {
            let mut made = 0;
            for i in 0..40 {
                let Some(maze) = make_maze(side, least, &mut stream(Purpose::Generate, 3, i, side as u64)) else {
                    continue;
                };
                let found = check_solves(&maze.question, &maze.answer, side).unwrap();
                assert!(!found.several && found.steps == maze.steps && maze.steps >= least);
                made += 1;
            }
            assert!(made >= 5, "{made} of 40 with side {side}");
        }
        assert_eq!(make_maze(2, 1, &mut stream(Purpose::Generate, 3, 0, 0)), None);
    }
}
