//! Mazes as text: a square of `#` wall, space way, `S` start, `G` goal, `o` path, row by row.

/// The characters, in the order of their tokens 1..=5.
pub const CHARSET: &str = "# SGo";
/// Padding 0 and the five characters.
pub const VOCAB_SIZE: usize = 6;
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
}
