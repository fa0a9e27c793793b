//! The eight symmetries of a square, numbered as upstream numbers them.
//!
//! 0 identity; 1, 2, 3 rotations by 90°, 180°, 270° counter-clockwise; 4 columns mirrored (left-right); 5 rows mirrored;
//! 6 transposed; 7 transposed along the other diagonal. Any other number is the identity, as upstream.

use ndarray::{Array2, ArrayView2, Axis};

/// The number of the symmetry that undoes symmetry `i`.
pub const DIHEDRAL_INVERSE: [usize; 8] = [0, 3, 2, 1, 4, 5, 6, 7];

/// The grid under symmetry `tid`.
///
/// # Shapes
/// - grid: `[rows, columns]`
/// - result: `[rows, columns]`, or `[columns, rows]` for 1, 3, 6 and 7
pub fn dihedral<T: Copy>(grid: ArrayView2<'_, T>, tid: usize) -> Array2<T> {
    let mut view = if matches!(tid, 1 | 3 | 6 | 7) { grid.reversed_axes() } else { grid };
    if matches!(tid, 1 | 2 | 5 | 7) {
        view.invert_axis(Axis(0));
    }
    if matches!(tid, 2 | 3 | 4 | 7) {
        view.invert_axis(Axis(1));
    }
    view.as_standard_layout().into_owned()
}

/// Undoes [`dihedral`] with the same `tid`.
pub fn inverse_dihedral<T: Copy>(grid: ArrayView2<'_, T>, tid: usize) -> Array2<T> {
    dihedral(grid, DIHEDRAL_INVERSE.get(tid).copied().unwrap_or(0))
}
