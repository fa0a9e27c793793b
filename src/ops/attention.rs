//! `softmax(q k^T / sqrt(d)) v`, every position attending to every other, on the packed projection.
//!
//! Backward, with `P` the probabilities: `dv = P^T do`, `dS = P (do v^T - rowsum(do o))`, `dq = dS k / sqrt(d)`,
//! `dk = dS^T q / sqrt(d)`.

use tch::{Kind, Tensor};

use super::{
    RopeTables,
    rope::{rope, rope_backward},
};

/// Attention's result and what its backward pass needs.
#[derive(Debug)]
pub struct Attended {
    /// `[B, T, h]`, heads in order.
    pub out: Tensor,
    tape: Tape,
}

#[derive(Debug)]
enum Tape {
    /// `[B, n, T, d]` each, rotated.
    Plain {
        q: Tensor,
        k: Tensor,
        v: Tensor,
    },
    /// The packed projection as it was, and the rows' log-sum-exp.
    Fused {
        qkv: Tensor,
        lse: Tensor,
    },
    None,
}

impl Attended {
    pub(super) fn fused(out: Tensor, tape: Option<(Tensor, Tensor)>) -> Self {
        Self { out, tape: tape.map_or(Tape::None, |(qkv, lse)| Tape::Fused { qkv, lse }) }
    }

    /// The probabilities that the tape's q and k give, recomputed plainly: `softmax(q k^T / sqrt(d))`, `[B, n, T, T]` f32;
    /// and what they make of v, `[B, T, h]` f32, which is `out` up to rounding. None where nothing was kept.
    pub fn probabilities(&self, num_heads: i64, tables: Option<&RopeTables>) -> Option<(Tensor, Tensor)> {
        let (q, k, v) = match &self.tape {
            Tape::Plain { q, k, v } => (q.shallow_clone(), k.shallow_clone(), v.shallow_clone()),
            Tape::Fused { qkv, .. } => {
                let (batch, total, width) = qkv.size3().expect("qkv is [B, T, 3h]");
                let heads = qkv.view([batch, total, 3 * num_heads, width / (3 * num_heads)]); // [B, T, 3n, d]
                let qk = heads.narrow(2, 0, 2 * num_heads);
                let qk = tables.map_or_else(|| qk.shallow_clone(), |tables| rope(&qk, tables));
                let part = |t: &Tensor, from: i64| t.narrow(2, from, num_heads).transpose(1, 2); // [B, n, T, d]
                (part(&qk, 0), part(&qk, num_heads), part(&heads, 2 * num_heads))
            }
            Tape::None => return None,
        };
        let (batch, _, total, head_dim) = q.size4().expect("q is [B, n, T, d]");
        let wide = |t: &Tensor| t.to_kind(Kind::Float);
        let scores = wide(&q).matmul(&wide(&k).transpose(2, 3)) / (head_dim as f64).sqrt();
        let p = scores.softmax(-1, Kind::Float); // [B, n, T, T]
        let out = p.matmul(&wide(&v)).transpose(1, 2).reshape([batch, total, num_heads * head_dim]); // [B, T, h]
        Some((p, out))
    }

    pub(super) fn fused_tape(&self) -> Option<(&Tensor, &Tensor)> {
        match &self.tape {
            Tape::Fused { qkv, lse } => Some((qkv, lse)),
            _ => None,
        }
    }
}

/// Self-attention through libtorch's scaled dot product attention.
///
/// # Shapes
/// `qkv`: `[B, T, 3h]`, features as heads `[q 0..n | k 0..n | v 0..n]` of d each.
pub fn attention(qkv: &Tensor, num_heads: i64, tables: Option<&RopeTables>) -> Attended {
    attention_with(qkv, num_heads, |heads| match tables {
        Some(tables) => rope(&heads.narrow(2, 0, 2 * num_heads), tables),
        None => heads.narrow(2, 0, 2 * num_heads),
    })
}

/// [`attention`] with the caller's rope: from all heads, `[B, T, 3n, d]`, to the rotated q and k, `[B, T, 2n, d]`.
pub(super) fn attention_with(qkv: &Tensor, num_heads: i64, rotate: impl FnOnce(&Tensor) -> Tensor) -> Attended {
    let (batch, total, width) = qkv.size3().expect("qkv is [B, T, 3h]");
    let head_dim = width / (3 * num_heads);
    let heads = qkv.view([batch, total, 3 * num_heads, head_dim]); // [B, T, 3n, d]
    let v = heads.narrow(2, 2 * num_heads, num_heads).transpose(1, 2); // [B, n, T, d]
    let qk = rotate(&heads); // [B, T, 2n, d]
    let q = qk.narrow(2, 0, num_heads).transpose(1, 2); // [B, n, T, d]
    let k = qk.narrow(2, num_heads, num_heads).transpose(1, 2);
    let out = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, 0.0, false, None, false);
    let out = out.transpose(1, 2).reshape([batch, total, num_heads * head_dim]); // [B, T, h]
    Attended { out, tape: Tape::Plain { q, k, v } }
}

/// Gradient of the packed projection.
///
/// # Shapes
/// `d_out`: `[B, T, h]`; result `[B, T, 3h]`.
pub fn attention_backward(d_out: &Tensor, attended: &Attended, tables: Option<&RopeTables>) -> Tensor {
    attention_backward_with(d_out, attended, |dqk| match tables {
        Some(tables) => rope_backward(&dqk, tables),
        None => dqk,
    })
}

/// [`attention_backward`] with the caller's rope, backward, on `[b, T, 2n, d]`.
pub(super) fn attention_backward_with(
    d_out: &Tensor,
    attended: &Attended,
    rotate_back: impl Fn(Tensor) -> Tensor,
) -> Tensor {
    let Tape::Plain { q, k, v } = &attended.tape else {
        panic!("the plain backward pass of attention needs the tape of the plain forward pass");
    };
    let (batch, num_heads, total, head_dim) = q.size4().expect("q is [B, n, T, d]");
    let kind = d_out.kind();
    // The probabilities are recomputed for a slice of the batch at a time, so that long sequences fit in memory.
    let rows = ((1 << 26) / (num_heads * total * total).max(1)).clamp(1, batch);
    let parts: Vec<Tensor> = (0..batch)
        .step_by(rows as usize)
        .map(|first| {
            let count = rows.min(batch - first);
            let slice = |t: &Tensor| t.narrow(0, first, count);
            let (q, k, v) = (slice(q), slice(k), slice(v));
            let heads = |t: &Tensor| slice(t).view([count, total, num_heads, head_dim]).transpose(1, 2);
            let (d_o, o) = (heads(d_out), heads(&attended.out)); // [b, n, T, d]
            let scale = 1.0 / (head_dim as f64).sqrt();
            let p = (q.matmul(&k.transpose(2, 3)).to_kind(Kind::Float) * scale).softmax(-1, Kind::Float); // [b, n, T, T]
            let dv = p.to_kind(kind).transpose(2, 3).matmul(&d_o);
            let dp = d_o.matmul(&v.transpose(2, 3)).to_kind(Kind::Float);
            let delta =
                (d_o.to_kind(Kind::Float) * o.to_kind(Kind::Float)).sum_dim_intlist(&[-1i64][..], true, Kind::Float);
            let ds = (p * (dp - delta) * scale).to_kind(kind);
            let (dq, dk) = (ds.matmul(&k), ds.transpose(2, 3).matmul(&q)); // [b, n, T, d]
            let dqk = rotate_back(Tensor::cat(&[dq, dk], 1).transpose(1, 2)); // [b, T, 2n, d]
            Tensor::cat(&[dqk, dv.transpose(1, 2)], 2).view([count, total, 3 * num_heads * head_dim])
        })
        .collect();
    Tensor::cat(&parts, 0)
}
