//! The input embedding: puzzle positions before the tokens, all times `sqrt(h)`.

use tch::Tensor;

/// Rows of the token table with the puzzle embedding in front.
///
/// # Shapes
/// - `table`: `[V, h]` in the forward dtype; `tokens`: `[B, S]` integers
/// - `puzzle`: `[B, ndim]` in the forward dtype, right-padded with zeros to whole positions
/// - result: `[B, P + S, h]`, not yet scaled
pub fn input_embedding(table: &Tensor, tokens: &Tensor, puzzle: Option<&Tensor>) -> Tensor {
    let e = Tensor::embedding(table, tokens, -1, false, false); // [B, S, h]
    let Some(puzzle) = puzzle else { return e };
    let (batch, _, hidden) = e.size3().expect("embedding gives [B, S, h]");
    let ndim = puzzle.size()[1];
    let positions = (ndim + hidden - 1) / hidden;
    let missing = positions * hidden - ndim;
    let padded = if missing > 0 { puzzle.constant_pad_nd([0, missing]) } else { puzzle.shallow_clone() };
    Tensor::cat(&[padded.view([batch, positions, hidden]), e], 1) // [B, P + S, h]
}

/// `0.707106781 (e + pos)`: keeps the variance when learned positions are added.
///
/// # Shapes
/// `e`: `[B, T, h]`; `positions`: `[T, h]`.
pub fn add_learned_positions(e: &Tensor, positions: &Tensor) -> Tensor {
    (e + positions) * 0.707106781
}
