//! Mazes as text: a square of `#` wall, space way, `S` start, `G` goal, `o` path, row by row.

/// The characters, in the order of their tokens 1..=5.
pub const CHARSET: &str = "# SGo";
/// Padding 0 and the five characters.
pub const VOCAB_SIZE: usize = 6;
/// Token of a wall.
pub const WALL: u8 = 1;
/// Token of a free cell.
pub const FREE: u8 = 2;
/// Token of the start.
pub const START: u8 = 3;
/// Token of the goal.
pub const GOAL: u8 = 4;
/// Token of a cell of the path.
pub const PATH: u8 = 5;

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

/// The least of a maze's eight turned and mirrored versions, which stands for all of them.
pub fn canonical(tokens: &[u8], side: usize) -> Vec<u8> {
    let Ok(grid) = ndarray::ArrayView2::from_shape((side, side), tokens) else { return tokens.to_vec() };
    let versions = (0..8).map(|tid| super::dihedral(grid, tid).into_raw_vec_and_offset().0);
    versions.min().unwrap_or_default()
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
    fn text_there_and_back_and_turned() {
        let question = parse("S          #  #G", 4).unwrap();
        assert_eq!(text(&question), "S          #  #G");
        let turned = super::super::dihedral(ndarray::ArrayView2::from_shape((4, 4), &question).unwrap(), 3);
        assert_eq!(canonical(&question, 4), canonical(turned.as_slice().unwrap(), 4));
    }
}
