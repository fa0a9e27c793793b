//! Sign-SGD on the puzzle embedding: for every identifier in the batch,
//! `row <- row (1 - lr wd) - lr sign(sum of its gradients)`, `sign(0) = 0`. Other rows are untouched.

use tch::{Kind, Tensor, no_grad};

/// One step on the table in place.
///
/// # Shapes
/// - `table`: `[num_puzzle_identifiers, ndim]`, f32
/// - `identifiers`: `[N]` integers, duplicates allowed (all ranks' rows together)
/// - `grad`: `[N, ndim]`, f32
/// - `scalars`: `[2]`, f32, on the table's device: `1 - lr wd` and `lr`
pub fn sparse_sign_sgd(table: &mut Tensor, identifiers: &Tensor, grad: &Tensor, scalars: &Tensor) {
    no_grad(|| {
        let ids = identifiers.to_kind(Kind::Int64);
        // Sums over equal identifiers as one small product: every duplicate computes the same row, so writing them
        // all is harmless, and nothing waits for a list of distinct identifiers.
        let same = ids.unsqueeze(0).eq_tensor(&ids.unsqueeze(1)).to_kind(Kind::Double); // [N, N]
        let summed = same.matmul(&grad.to_kind(Kind::Double)); // [N, ndim]
        let rows = table.index_select(0, &ids) * scalars.get(0);
        let rows = rows - summed.sign().to_kind(Kind::Float) * scalars.get(1);
        let _ = table.index_copy_(0, &ids, &rows);
    });
}
