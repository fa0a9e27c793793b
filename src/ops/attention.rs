//! `softmax(q k^T / sqrt(d)) v`, every position attending to every other.

use tch::Tensor;

use super::{RopeTables, rope};

/// Self-attention on the packed projection, through libtorch's scaled dot product attention.
///
/// # Shapes
/// - `qkv`: `[B, T, 3h]`, features as heads `[q 0..n | k 0..n | v 0..n]` of d each
/// - result: `[B, T, h]`, heads in order
pub fn attention(qkv: &Tensor, num_heads: i64, tables: Option<&RopeTables>) -> Tensor {
    let (batch, total, width) = qkv.size3().expect("qkv is [B, T, 3h]");
    let head_dim = width / (3 * num_heads);
    let heads = qkv.view([batch, total, 3 * num_heads, head_dim]); // [B, T, 3n, d]
    let v = heads.narrow(2, 2 * num_heads, num_heads); // [B, T, n, d]
    let qk = heads.narrow(2, 0, 2 * num_heads); // [B, T, 2n, d]
    let qk = match tables {
        Some(tables) => rope(&qk, tables),
        None => qk,
    };
    let q = qk.narrow(2, 0, num_heads).transpose(1, 2); // [B, n, T, d]
    let k = qk.narrow(2, num_heads, num_heads).transpose(1, 2);
    let out =
        Tensor::scaled_dot_product_attention(&q, &k, &v.transpose(1, 2), None::<&Tensor>, 0.0, false, None, false);
    out.transpose(1, 2).reshape([batch, total, num_heads * head_dim]) // [B, T, h]
}
