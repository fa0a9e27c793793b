//! The input embedding: puzzle positions before the tokens, positions added when they are learned, times `sqrt(h)`.

use tch::{Kind, Tensor};

/// `0.707106781` keeps the variance when learned positions are added.
#[expect(clippy::approx_constant, reason = "upstream writes these nine digits, not 1/sqrt(2)")]
const LEARNED_SCALE: f64 = 0.707106781;

/// The sum of everything that a position starts from.
///
/// # Shapes
/// - `table`: `[V, h]` in the forward dtype; `tokens`: `[B, S]` integers
/// - `puzzle`: `[B, ndim]` in the forward dtype, right-padded with zeros to P whole positions
/// - `positions`: `[P + S, h]` in the forward dtype, when learned
/// - result: `[B, P + S, h]`
pub fn input_embedding(table: &Tensor, tokens: &Tensor, puzzle: Option<&Tensor>, positions: Option<&Tensor>) -> Tensor {
    let mut e = Tensor::embedding(table, tokens, -1, false, false); // [B, S, h]
    let (batch, _, hidden) = e.size3().expect("embedding gives [B, S, h]");
    if let Some(puzzle) = puzzle {
        let missing = puzzle_positions(puzzle, hidden) * hidden - puzzle.size()[1];
        let padded = if missing > 0 { puzzle.constant_pad_nd([0, missing]) } else { puzzle.shallow_clone() };
        e = Tensor::cat(&[padded.view([batch, -1, hidden]), e], 1); // [B, P + S, h]
    }
    if let Some(positions) = positions {
        e = (e + positions) * LEARNED_SCALE;
    }
    e * (hidden as f64).sqrt()
}

fn puzzle_positions(puzzle: &Tensor, hidden: i64) -> i64 {
    (puzzle.size()[1] + hidden - 1) / hidden
}

/// Gradients of [`input_embedding`].
#[derive(Debug)]
pub struct EmbeddingGrads {
    /// `[V, h]`, forward dtype.
    pub table: Tensor,
    /// `[B, ndim]`, f32.
    pub puzzle: Option<Tensor>,
    /// `[P + S, h]`, forward dtype.
    pub positions: Option<Tensor>,
}

/// # Shapes
/// `de`: `[B, P + S, h]`; `puzzle_ndim` is 0 without puzzle embedding.
pub fn input_embedding_backward(
    de: &Tensor,
    tokens: &Tensor,
    vocab_size: i64,
    puzzle_ndim: i64,
    learned: bool,
) -> EmbeddingGrads {
    let (batch, total, hidden) = de.size3().expect("de is [B, T, h]");
    let mut de = de * (hidden as f64).sqrt();
    let positions = learned.then(|| {
        de = &de * LEARNED_SCALE;
        de.sum_dim_intlist(&[0i64][..], false, Kind::Float).to_kind(de.kind())
    });
    let cells = tokens.size()[1];
    let in_front = total - cells;
    let puzzle = (puzzle_ndim > 0)
        .then(|| de.narrow(1, 0, in_front).reshape([batch, -1]).narrow(1, 0, puzzle_ndim).to_kind(Kind::Float));
    let at_cells = de.narrow(1, in_front, cells).reshape([-1, hidden]);
    let table = Tensor::embedding_dense_backward(&at_cells, &tokens.reshape([-1]), vocab_size, -1, false);
    EmbeddingGrads { table, puzzle, positions }
}
