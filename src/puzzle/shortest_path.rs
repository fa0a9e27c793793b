//! Shortest ways through a maze, a step to one of four neighbours each, and whether an answer marks one.

use std::collections::VecDeque;

use super::maze::{GOAL, START};

/// Token of a wall.
pub const WALL: i32 = 1;
/// Token of a marked cell of the way.
pub const WAY: i32 = 5;
/// The distance of a wall, and of a cell that no way reaches.
pub const NO_WAY: i16 = -1;

/// Steps from the start to every cell, breadth first; [`NO_WAY`] for walls and what they enclose, and everywhere in a
/// maze without exactly one start and one goal.
///
/// # Shapes
/// - maze: `[side * side]`, row by row; result: the same
pub fn distances(maze: &[u8], side: usize) -> Vec<i16> {
    let mut steps = vec![NO_WAY; maze.len()];
    let only = |token: i32| {
        let mut at = (0..maze.len()).filter(|&c| i32::from(maze[c]) == token);
        at.next().filter(|_| at.next().is_none())
    };
    let (Some(start), Some(_), true) = (only(START), only(GOAL), side * side == maze.len()) else { return steps };
    steps[start] = 0;
    let mut queue = VecDeque::from([start]);
    while let Some(cell) = queue.pop_front() {
        let (row, column) = (cell / side, cell % side);
        let neighbours = [
            (row > 0).then(|| cell - side),
            (row + 1 < side).then_some(cell + side),
            (column > 0).then(|| cell - 1),
            (column + 1 < side).then_some(cell + 1),
        ];
        for next in neighbours.into_iter().flatten() {
            if steps[next] == NO_WAY && i32::from(maze[next]) != WALL {
                steps[next] = steps[cell].saturating_add(1);
                queue.push_back(next);
            }
        }
    }
    steps
}

/// Whether the cells that `answer` marks, and no others, are a shortest way from `maze`'s start to its goal. What the
/// answer has elsewhere does not count.
pub fn marks_shortest_way(maze: &[u8], answer: &[u8], side: usize) -> bool {
    let Some(goal) = maze.iter().position(|&t| i32::from(t) == GOAL) else { return false };
    let shortest = distances(maze, side)[goal];
    let marked = |cell: usize| i32::from(answer[cell]) == WAY;
    let on_open = (0..maze.len()).all(|c| !marked(c) || ![WALL, START, GOAL].contains(&i32::from(maze[c])));
    let count = (0..maze.len()).filter(|&c| marked(c)).count();
    if shortest == NO_WAY || !on_open || count + 1 != usize::from(shortest.unsigned_abs()) {
        return false;
    }
    // As many marks as a shortest way has, and a way among them alone: then it is all of them.
    let marks: Vec<u8> = (0..maze.len())
        .map(|c| if marked(c) || [START, GOAL].contains(&i32::from(maze[c])) { maze[c] } else { WALL as u8 })
        .collect();
    distances(&marks, side)[goal] == shortest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::puzzle::maze::parse;

    fn maze(text: &str) -> Vec<u8> {
        parse(&text.replace('/', ""), 4).unwrap()
    }

    #[test]
    fn distances_go_round_walls() {
        let found = distances(&maze("S  #/## #/   #/ ##G"), 4);
        assert_eq!(found, [0, 1, 2, -1, -1, -1, 3, -1, 6, 5, 4, -1, 7, -1, -1, -1]);
        assert_eq!(distances(&maze("S  #/## #/   #/ ###"), 4), [NO_WAY; 16], "no goal");
        assert_eq!(distances(&maze("SS #/## #/   #/ ##G"), 4), [NO_WAY; 16], "two starts");
    }

    #[test]
    fn only_a_shortest_way_counts() {
        let question = maze("S   / ## / ## /   G");
        for (answer, wanted) in [
            ("Sooo/ ##o/ ##o/   G", true),
            ("S   /o## /o## /oooG", true),
            ("####/o###/o###/ooo#", true),  // what is not marked does not count
            ("Sooo/o##o/o##o/oooG", false), // both
            ("Soo / ##o/ ##o/o  G", false), // as many marks, but a gap
            ("Sooo/ ##o/ ## /   G", false),
            ("Sooo/ ##o/ ##o/   o", false), // the goal is no cell to mark
            ("Soo / #oo/ ## /   G", false), // through a wall
        ] {
            assert_eq!(marks_shortest_way(&question, &maze(answer), 4), wanted, "{answer}");
        }
        let closed = maze("S # / ###/## #/   G");
        assert!(!marks_shortest_way(&closed, &maze("So#o/o###/## #/   G"), 4), "no way at all");
    }
}
