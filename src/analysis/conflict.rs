//! Conflicts on a Sudoku board:
//!
//! ```text
//! loss = Σ over the 27 units (rows, columns, boxes)  Σ digit 1..9  max(0, times it stands in the unit − 1)
//! ```
//!
//! 0 on a solved or an empty board, at most 216 (every cell the same digit: 27 units of 8 each). It is upstream's
//! measure of how far a prediction is from being a Sudoku solution; it does not look at the givens.

/// The conflict loss of a board of digits, row by row. Values outside 1..=9 are blanks.
pub fn conflict_loss(board: &[i32; 81]) -> u32 {
    let units = (0..27).map(|unit| (0..9).map(move |i| unit_cell(unit, i)));
    units
        .map(|cells| {
            let mut counts = [0_u32; 10];
            for cell in cells {
                if let digit @ 1..=9 = board[cell] {
                    counts[digit as usize] += 1;
                }
            }
            counts[1..].iter().map(|&n| n.saturating_sub(1)).sum::<u32>()
        })
        .sum()
}

/// The `i`-th cell of a unit: 0..9 are the rows, 9..18 the columns, 18..27 the boxes.
fn unit_cell(unit: usize, i: usize) -> usize {
    let k = unit % 9;
    match unit / 9 {
        0 => 9 * k + i,
        1 => 9 * i + k,
        _ => 9 * (3 * (k / 3) + i / 3) + 3 * (k % 3) + i % 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_equal_and_foreign_values() {
        assert_eq!(conflict_loss(&[0; 81]), 0);
        assert_eq!(conflict_loss(&[5; 81]), 216);
        assert_eq!(conflict_loss(&[-3; 81]), 0);
        assert_eq!(conflict_loss(&[10; 81]), 0);
    }

    #[test]
    fn one_pair_counts_in_every_unit_that_it_shares() {
        let mut board = [0; 81];
        (board[0], board[1]) = (7, 7); // same row, same box
        assert_eq!(conflict_loss(&board), 2);
        (board[1], board[8]) = (0, 7); // same row only
        assert_eq!(conflict_loss(&board), 1);
    }
}
