//! Mazes as text: a square of `#` wall, space way, `S` start, `G` goal, `o` path, row by row.

/// The characters, in the order of their tokens 1..=5.
pub const CHARSET: &str = "# SGo";
/// Padding 0 and the five characters.
pub const VOCAB_SIZE: usize = 6;
/// Token of a wall.
pub const WALL: u8 = 1;
/// Token of a free cell.
pub const FREE: u8 = 2;
/// Token of a cell of the path.
pub const PATH: u8 = 5;
/// Token of the start.
pub const START: i32 = 3;
/// Token of the goal.
pub const GOAL: i32 = 4;

/// Why a text is no maze.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MazeError {
    #[error("character {} is {found:?}; a maze is written with '#', ' ', 'S', 'G' and 'o'", .position + 1)]
    Character { found: char, position: usize },
    #[error("{found} characters; this list's mazes have {wanted} ({side} rows of {side})")]
    Length { found: usize, wanted: usize, side: usize },
    #[error("a maze without cells")]
    Empty,
}

/// The side of a square maze of `cells` cells: `⌊√cells⌋`, as upstream takes it from the first row.
pub fn side(cells: usize) -> usize {
    cells.isqrt()
}

/// The tokens of a maze of `side`×`side` cells.
///
/// # Shapes
/// - result: `[side * side]`
pub fn parse(text: &str, side: usize) -> Result<Vec<u8>, MazeError> {
    if side == 0 {
        return Err(MazeError::Empty);
    }
    let tokens = text
        .chars()
        .enumerate()
        .map(|(position, found)| {
            CHARSET.find(found).map(|token| token as u8 + 1).ok_or(MazeError::Character { found, position })
        })
        .collect::<Result<Vec<u8>, _>>()?;
    let wanted = side.saturating_mul(side);
    if tokens.len() != wanted {
        return Err(MazeError::Length { found: tokens.len(), wanted, side });
    }
    Ok(tokens)
}

/// A maze as text.
///
/// # Shapes
/// - tokens: any
pub fn text(tokens: &[u8]) -> String {
    tokens
        .iter()
        .map(|&token| char::from(*CHARSET.as_bytes().get(usize::from(token).wrapping_sub(1)).unwrap_or(&b'?')))
        .collect()
}

/// Why an answer does not solve its maze.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MazeFault {
    #[error("{starts} starts and {goals} goals; a maze has one of each")]
    Ends { starts: usize, goals: usize },
    #[error("cell {} of the question is part of a path already", .cell + 1)]
    PathGiven { cell: usize },
    #[error("cell {} of the answer differs from the question by more than a path on a free cell", .cell + 1)]
    Changed { cell: usize },
    #[error("no way leads from start to goal")]
    NoWay,
    #[error("the path has {found} steps, the shortest {shortest}; or its cells do not join")]
    NotShortest { found: usize, shortest: usize },
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
/// - tokens: `[side * side]`
pub fn shortest(tokens: &[u8], side: usize) -> Result<Shortest, MazeFault> {
    let count = |token: i32| tokens.iter().filter(|&&t| i32::from(t) == token).count();
    let place = |token: i32| tokens.iter().position(|&t| i32::from(t) == token);
    let ends = MazeFault::Ends { starts: count(START), goals: count(GOAL) };
    let (Some(start), Some(goal)) = (place(START), place(GOAL)) else { return Err(ends) };
    if ends != (MazeFault::Ends { starts: 1, goals: 1 }) {
        return Err(ends);
    }
    let found = distances(tokens, side, start);
    let steps = found.steps[goal];
    if steps == usize::MAX {
        return Err(MazeFault::NoWay);
    }
    let mut path = Vec::with_capacity(steps);
    let mut at = goal;
    while at != start {
        let before = neighbours(at, side).find(|&cell| found.steps[cell] + 1 == found.steps[at]);
        at = before.ok_or(MazeFault::NoWay)?;
        if at != start {
            path.push(at);
        }
    }
    path.reverse();
    Ok(Shortest { steps, several: found.ways[goal] > 1, path })
}

/// Steps from one cell to each, and in how many ways (two stands for more).
pub(super) struct Distances {
    /// `usize::MAX` where no way leads.
    pub steps: Vec<usize>,
    pub ways: Vec<u8>,
}

pub(super) fn distances(tokens: &[u8], side: usize, from: usize) -> Distances {
    let mut found = Distances { steps: vec![usize::MAX; tokens.len()], ways: vec![0; tokens.len()] };
    (found.steps[from], found.ways[from]) = (0, 1);
    let mut queue = std::collections::VecDeque::from([from]);
    while let Some(at) = queue.pop_front() {
        for next in neighbours(at, side).filter(|&cell| tokens[cell] != WALL) {
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

/// The cells that touch a cell at its sides.
pub(super) fn neighbours(cell: usize, side: usize) -> impl Iterator<Item = usize> {
    let (row, column) = (cell / side, cell % side);
    let up = (row > 0).then(|| cell - side);
    let down = (row + 1 < side).then(|| cell + side);
    let left = (column > 0).then(|| cell - 1);
    let right = (column + 1 < side).then(|| cell + 1);
    [up, down, left, right].into_iter().flatten()
}

/// Checks that an answer is its maze with a shortest path drawn in.
///
/// # Shapes
/// - question, answer: `[side * side]`
pub fn check_solves(question: &[u8], answer: &[u8], side: usize) -> Result<Shortest, MazeFault> {
    if let Some(cell) = question.iter().position(|&t| t == PATH) {
        return Err(MazeFault::PathGiven { cell });
    }
    let changed = |(&q, &a): (&u8, &u8)| q != a && !(q == FREE && a == PATH);
    if let Some(cell) = question.iter().zip(answer).position(changed) {
        return Err(MazeFault::Changed { cell });
    }
    let shortest = shortest(question, side)?;
    // Only the path is left open: it leads to the goal in as few steps as it has cells exactly if it is one.
    let only_path: Vec<u8> = answer.iter().map(|&t| if t == FREE { WALL } else { t }).collect();
    let cells = answer.iter().filter(|&&t| t == PATH).count();
    match self::shortest(&only_path, side) {
        Ok(found) if found.steps == shortest.steps && cells + 1 == shortest.steps => Ok(shortest),
        _ => Err(MazeFault::NotShortest { found: cells + 1, shortest: shortest.steps }),
    }
}

/// The least of a maze's eight turned and mirrored versions, which stands for all of them.
pub fn canonical(tokens: &[u8], side: usize) -> Vec<u8> {
    let Ok(grid) = ndarray::ArrayView2::from_shape((side, side), tokens) else { return tokens.to_vec() };
    let versions = (0..8).map(|tid| super::dihedral(grid, tid).into_raw_vec_and_offset().0);
    versions.min().unwrap_or_default()
}

/// Upstream's maze permutation in batched inference: start and goal change places for any `perm` but 0. It is its own
/// inverse.
///
/// # Shapes
/// - tokens: any
pub fn swap_start_goal(tokens: &mut [i32], perm: u32) {
    if perm == 0 {
        return;
    }
    for token in tokens {
        *token = match *token {
            START => GOAL,
            GOAL => START,
            other => other,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing() {
        assert_eq!(parse("# SGo####", 3), Ok(vec![1, 2, 3, 4, 5, 1, 1, 1, 1]));
        assert_eq!(parse("# SG", 2), Ok(vec![1, 2, 3, 4]));
        assert_eq!(parse("# SX", 2), Err(MazeError::Character { found: 'X', position: 3 }));
        assert_eq!(parse("# S", 2), Err(MazeError::Length { found: 3, wanted: 4, side: 2 }));
        assert_eq!(parse("", 0), Err(MazeError::Empty));
        assert_eq!(side(900), 30);
        assert_eq!(side(24), 4);
    }
    #[test]
    fn answers_are_checked() {
        let tokens = |text: &str| parse(text, 4).unwrap();
        let question = tokens("S          #  #G"); // the goal is walled in
        let shortest = check_solves(&question, &tokens("Sooo       #  #G"), 4);
        assert!(matches!(shortest, Err(MazeFault::NoWay)), "{shortest:?}");
        let open = tokens(&format!("S{}G", " ".repeat(14)));
        let found = super::shortest(&open, 4).unwrap();
        assert_eq!((found.steps, found.several, found.path.len()), (6, true, 5));
        assert_eq!(check_solves(&open, &tokens("Sooo   o   o   G"), 4).map(|s| s.steps), Ok(6));
        let long = check_solves(&open, &tokens("So  oo  oo   ooG"), 4);
        assert!(matches!(long, Err(MazeFault::NotShortest { found: 8, shortest: 6 })), "{long:?}");
        assert_eq!(
            check_solves(&open, &tokens("Sooo   o       G"), 4),
            Err(MazeFault::NotShortest { found: 5, shortest: 6 })
        );
        assert_eq!(check_solves(&open, &tokens("S#             G"), 4), Err(MazeFault::Changed { cell: 1 }));
        assert_eq!(super::shortest(&tokens(&" ".repeat(16)), 4), Err(MazeFault::Ends { starts: 0, goals: 0 }));
        let turned = super::super::dihedral(ndarray::ArrayView2::from_shape((4, 4), &question).unwrap(), 3);
        assert_eq!(canonical(&question, 4), canonical(turned.as_slice().unwrap(), 4));
        assert_eq!(text(&open), format!("S{}G", " ".repeat(14)));
    }
}
