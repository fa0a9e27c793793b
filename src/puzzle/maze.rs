//! The tokens of mazes: `#` wall, space way, `S` start, `G` goal, `o` path.

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

/// The least of a maze's turned and mirrored versions, which stands for all of them: eight of a square one, four of any
/// other.
///
/// # Shapes
/// - tokens, result: `[height * width]`
pub fn canonical(tokens: &[u8], height: usize, width: usize) -> Vec<u8> {
    let Ok(grid) = ndarray::ArrayView2::from_shape((height, width), tokens) else { return tokens.to_vec() };
    // Those of another shape come first in no order that means anything.
    let versions = (0..8).map(|tid| super::dihedral(grid, tid)).filter(|version| version.dim() == (height, width));
    versions.map(|version| version.into_raw_vec_and_offset().0).min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Geometry, dihedral},
        *,
    };

    #[test]
    fn a_turned_maze_is_the_same() {
        let square = Geometry::maze(4).parse("S          #  #G").unwrap();
        let turned = dihedral(ndarray::ArrayView2::from_shape((4, 4), &square).unwrap(), 3);
        assert_eq!(canonical(&square, 4, 4), canonical(turned.as_slice().unwrap(), 4, 4));
        let oblong = Geometry::Maze { height: 2, width: 3 }.parse("S #  G").unwrap();
        let turned = dihedral(ndarray::ArrayView2::from_shape((2, 3), &oblong).unwrap(), 2);
        assert_eq!(canonical(&oblong, 2, 3), canonical(turned.as_slice().unwrap(), 2, 3));
    }
}
