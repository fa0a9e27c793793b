//! Shortest ways through a maze, a step to one of four neighbours each, and whether an answer marks one.
//!
//! Two checks share one rule, [`check_marks`]: a model's answer counts by its marked cells alone, a dataset's
//! ([`check_solves`]) must be its question in every other cell too.

use std::collections::VecDeque;

use super::maze::{FREE, GOAL, PATH, START, WALL};

/// The steps to a wall, and to a cell that no way reaches.
pub const NO_WAY: i16 = -1;

/// Why an answer does not solve its maze.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MazeFault {
    #[error("{cells} cells do not divide into rows of {width}")]
    Cells { cells: usize, width: usize },
    #[error("{starts} starts and {goals} goals; a maze has one of each")]
    Ends { starts: usize, goals: usize },
    #[error("cell {} of the question is already part of a path", .cell + 1)]
    PathGiven { cell: usize },
    #[error("cell {} of the answer differs from the question by more than a path on a free cell", .cell + 1)]
    Changed { cell: usize },
    #[error("no path leads from start to goal")]
    NoWay,
    /// `shortest` is in steps, one more than the cells between start and goal.
    #[error("{marked} cells are marked as a path, a shortest has {}, all joined from start to goal", .shortest.saturating_sub(1))]
    NotShortest { marked: usize, shortest: usize },
}

/// Steps from one cell to each, and in how many ways (two stands for more).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Distances {
    /// `usize::MAX` where no way leads.
    pub steps: Vec<usize>,
    pub ways: Vec<u8>,
}

impl Distances {
    /// Breadth first from a cell; everything but a wall is open.
    ///
    /// # Shapes
    /// - tokens: `[height * width]`
    pub fn from(tokens: &[u8], width: usize, cell: usize) -> Self {
        let mut found = Self { steps: vec![usize::MAX; tokens.len()], ways: vec![0; tokens.len()] };
        (found.steps[cell], found.ways[cell]) = (0, 1);
        let mut queue = VecDeque::from([cell]);
        while let Some(at) = queue.pop_front() {
            for next in neighbours(at, width, tokens.len()).filter(|&cell| tokens[cell] != WALL) {
                if found.steps[next] == usize::MAX {
                    found.steps[next] = found.steps[at] + 1;
                    queue.push_back(next);
                }
                if found.steps[next] == found.steps[at] + 1 {
                    found.ways[next] = (found.ways[next] + found.ways[at]).min(2);
                }
            }
        }
        found
    }
}

/// The cells that touch a cell at its sides, in a maze of `cells` cells.
pub(super) fn neighbours(cell: usize, width: usize, cells: usize) -> impl Iterator<Item = usize> {
    let column = cell % width;
    let up = cell.checked_sub(width);
    let down = Some(cell + width).filter(|&below| below < cells);
    let left = (column > 0).then(|| cell - 1);
    let right = (column + 1 < width).then(|| cell + 1);
    [up, down, left, right].into_iter().flatten()
}

/// The cells of a maze's only start and only goal.
fn ends(tokens: &[u8], width: usize) -> Result<[usize; 2], MazeFault> {
    if width == 0 || !tokens.len().is_multiple_of(width) {
        return Err(MazeFault::Cells { cells: tokens.len(), width });
    }
    let places = |token: u8| (0..tokens.len()).filter(|&cell| tokens[cell] == token).collect::<Vec<_>>();
    match (places(START).as_slice(), places(GOAL).as_slice()) {
        (&[start], &[goal]) => Ok([start, goal]),
        (starts, goals) => Err(MazeFault::Ends { starts: starts.len(), goals: goals.len() }),
    }
}

/// Steps from the start to every cell; [`NO_WAY`] for walls and what they enclose, and everywhere in a maze without
/// exactly one start and one goal.
///
/// # Shapes
/// - maze: `[height * width]`, row by row; result: the same
pub fn distances(maze: &[u8], width: usize) -> Vec<i16> {
    let Ok([start, _]) = ends(maze, width) else { return vec![NO_WAY; maze.len()] };
    let number = |steps: usize| if steps == usize::MAX { NO_WAY } else { i16::try_from(steps).unwrap_or(i16::MAX) };
    Distances::from(maze, width, start).steps.into_iter().map(number).collect()
}

/// What a search finds of a maze.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortest {
    /// Steps from start to goal, which is one more than the cells between them.
    pub steps: usize,
    /// Whether another path is as short.
    pub several: bool,
    /// The cells between start and goal of one shortest path.
    pub path: Vec<usize>,
}

/// The shortest path from start to goal; cells touch at their sides.
///
/// # Shapes
/// - tokens: `[height * width]`
pub fn shortest(tokens: &[u8], width: usize) -> Result<Shortest, MazeFault> {
    let [start, goal] = ends(tokens, width)?;
    let found = Distances::from(tokens, width, start);
    let steps = found.steps[goal];
    if steps == usize::MAX {
        return Err(MazeFault::NoWay);
    }
    let mut path = Vec::with_capacity(steps);
    let mut at = goal;
    while at != start {
        let before =
            neighbours(at, width, tokens.len()).find(|&cell| found.steps[cell].checked_add(1) == Some(found.steps[at]));
        at = before.ok_or(MazeFault::NoWay)?;
        if at != start {
            path.push(at);
        }
    }
    path.reverse();
    Ok(Shortest { steps, several: found.ways[goal] > 1, path })
}

/// Checks that the cells which `answer` marks, and no others, are a shortest way from the question's start to its goal.
/// What the answer has elsewhere does not count.
///
/// # Shapes
/// - question, answer: `[height * width]`
pub fn check_marks(question: &[u8], answer: &[u8], width: usize) -> Result<Shortest, MazeFault> {
    if answer.len() != question.len() {
        return Err(MazeFault::Cells { cells: answer.len(), width });
    }
    let shortest = shortest(question, width)?;
    let marked = |cell: &usize| answer[*cell] == PATH;
    let closed = |cell: &usize| [WALL, START, GOAL].contains(&question[*cell]);
    if let Some(cell) = (0..question.len()).find(|cell| marked(cell) && closed(cell)) {
        return Err(MazeFault::Changed { cell });
    }
    // Only the marks are left open: they lead to the goal in as few steps as there are of them exactly if they are one
    // shortest way.
    let left_open = |cell: usize| marked(&cell) || [START, GOAL].contains(&question[cell]);
    let marks: Vec<u8> = (0..question.len()).map(|cell| if left_open(cell) { question[cell] } else { WALL }).collect();
    let count = (0..question.len()).filter(marked).count();
    match self::shortest(&marks, width) {
        Ok(way) if way.steps == shortest.steps && count + 1 == shortest.steps => Ok(shortest),
        _ => Err(MazeFault::NotShortest { marked: count, shortest: shortest.steps }),
    }
}

/// [`check_marks`], and that the answer is its question but for the path.
///
/// # Shapes
/// - question, answer: `[height * width]`
pub fn check_solves(question: &[u8], answer: &[u8], width: usize) -> Result<Shortest, MazeFault> {
    if let Some(cell) = question.iter().position(|&t| t == PATH) {
        return Err(MazeFault::PathGiven { cell });
    }
    let changed = |(&q, &a): (&u8, &u8)| q != a && !(q == FREE && a == PATH);
    if let Some(cell) = question.iter().zip(answer).position(changed) {
        return Err(MazeFault::Changed { cell });
    }
    check_marks(question, answer, width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::puzzle::Geometry;

    fn maze(text: &str) -> Vec<u8> {
        Geometry::maze(4).parse(&text.replace('/', "")).unwrap()
    }

    #[test]
    fn distances_go_round_walls() {
        let found = distances(&maze("S  #/## #/   #/ ##G"), 4);
        assert_eq!(found, [0, 1, 2, -1, -1, -1, 3, -1, 6, 5, 4, -1, 7, -1, -1, -1]);
        assert_eq!(distances(&maze("S  #/## #/   #/ ###"), 4), [NO_WAY; 16], "no goal");
        assert_eq!(distances(&maze("SS #/## #/   #/ ##G"), 4), [NO_WAY; 16], "two starts");
        assert_eq!(distances(&[START, FREE, GOAL], 2), [NO_WAY; 3], "no rows of two");
    }

    #[test]
    fn shortest_paths() {
        let found = shortest(&maze("S   /    /    /   G"), 4).unwrap();
        assert_eq!((found.steps, found.several, found.path.len()), (6, true, 5));
        let only = shortest(&maze("S###/ ###/ ###/   G"), 4).unwrap();
        assert_eq!(only, Shortest { steps: 6, several: false, path: vec![4, 8, 12, 13, 14] });
        assert_eq!(shortest(&maze("    /    /    /    "), 4), Err(MazeFault::Ends { starts: 0, goals: 0 }));
        assert_eq!(shortest(&maze("S  S/    /    /   G"), 4), Err(MazeFault::Ends { starts: 2, goals: 1 }));
        assert_eq!(shortest(&maze("S # / ###/## #/   G"), 4), Err(MazeFault::NoWay));
        assert_eq!(shortest(&[START, GOAL, FREE], 2), Err(MazeFault::Cells { cells: 3, width: 2 }));
    }

    /// What a model's answer and what a dataset's answer must be.
    #[test]
    fn only_a_shortest_way_counts() {
        let question = maze("S   / ## / ## /   G");
        let gap = MazeFault::NotShortest { marked: 5, shortest: 6 };
        for (answer, marks, solves) in [
            ("Sooo/ ##o/ ##o/   G", Ok(6), Ok(6)),
            ("S   /o## /o## /oooG", Ok(6), Ok(6)),
            // what is not marked counts in a dataset alone
            ("####/o###/o###/ooo#", Ok(6), Err(MazeFault::Changed { cell: 0 })),
            (
                "So#o/ ##o/ ##o/   G",
                Err(MazeFault::NotShortest { marked: 4, shortest: 6 }),
                Err(MazeFault::Changed { cell: 2 }),
            ),
        ] {
            let answer = maze(answer);
            assert_eq!(check_marks(&question, &answer, 4).map(|s| s.steps), marks, "{answer:?}");
            assert_eq!(check_solves(&question, &answer, 4).map(|s| s.steps), solves, "{answer:?}");
        }
        for (answer, fault) in [
            ("Sooo/o##o/o##o/oooG", MazeFault::NotShortest { marked: 10, shortest: 6 }), // both
            ("Soo / ##o/ ##o/o  G", gap),                                                // as many marks, but a gap
            ("Sooo/ ##o/ ## /   G", MazeFault::NotShortest { marked: 4, shortest: 6 }),
            ("Sooo/ ##o/ ## /   o", MazeFault::Changed { cell: 15 }), // the goal is no cell to mark
            ("Soo / #oo/ ## /   G", MazeFault::Changed { cell: 6 }),  // through a wall
        ] {
            for check in [check_marks, check_solves] {
                assert_eq!(check(&question, &maze(answer), 4), Err(fault), "{answer}");
            }
        }
        let open = maze("S   /    /    /   G");
        let long = MazeFault::NotShortest { marked: 7, shortest: 6 };
        assert_eq!(check_solves(&open, &maze("So  /oo  /oo  / ooG"), 4), Err(long));
        assert_eq!(check_solves(&open, &maze("S#  /    /    /   G"), 4), Err(MazeFault::Changed { cell: 1 }));
        assert_eq!(check_solves(&maze("So  /    /    /   G"), &open, 4), Err(MazeFault::PathGiven { cell: 1 }));
        let closed = maze("S # / ###/## #/   G");
        for check in [check_marks, check_solves] {
            assert_eq!(check(&closed, &maze("So# /o###/## #/   G"), 4), Err(MazeFault::NoWay), "no way at all");
            assert_eq!(check(&open, &open[..4], 4), Err(MazeFault::Cells { cells: 4, width: 4 }));
        }
    }
}
