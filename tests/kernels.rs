//! The fused CUDA kernels against the plain form in f64 on random inputs, sizes odd and usual.
//!
//! They need a GPU: `HRM_TEST_DEVICE=cuda cargo test --release --test kernels -- --ignored --test-threads 1`.

mod common;

use common::tensors::{assert_close, device, f64s};
use hrm::{
    config::{LossType, ModelConfig, PosEncodings},
    dims::Dims,
    ops::{self, FlatState, Fused, HeadInputs, Normed, RopeTables},
    optim::{AdamAtan2, AdamConfig},
};
use tch::{Kind, Tensor};

/// Models with one puzzle slot, and rows of a batch.
fn cases() -> Vec<(ModelConfig, i64)> {
    let sizes = |hidden_size, num_heads, total: i64, vocab_size, rope| ModelConfig {
        hidden_size,
        num_heads,
        puzzle_emb_ndim: hidden_size,
        pos_encodings: if rope { PosEncodings::Rope } else { PosEncodings::Learned },
        dims: Dims { seq_len: total - 1, vocab_size, num_puzzle_identifiers: 1 },
        ..ModelConfig::sudoku()
    };
    vec![
        (sizes(512, 8, 82, 11, true), 19),
        (sizes(512, 8, 82, 11, true), 1),
        (sizes(256, 4, 82, 11, true), 7),
        (sizes(256, 8, 128, 6, true), 3),
        (sizes(64, 4, 26, 6, true), 5),
        (sizes(96, 3, 17, 33, false), 4),
        (sizes(32, 1, 1, 2, true), 3),
        (sizes(1536, 24, 97, 11, false), 2),
    ]
}

fn bf16(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, device())).to_kind(Kind::BFloat16)
}

fn wide(t: &Tensor) -> Tensor {
    t.to_kind(Kind::Double)
}

#[track_caller]
fn relative(what: &str, sizes: &ModelConfig, found: &Tensor, wanted: &Tensor, limit: f64) {
    assert_eq!(found.size(), wanted.size(), "{what}");
    let error =
        (wide(found) - wide(wanted)).norm().double_value(&[]) / wide(wanted).norm().double_value(&[]).max(1e-30);
    println!("{what:24} {error:.2e} {sizes:?}");
    assert!(error < limit, "{what}, {sizes:?}: relative error {error:e}");
}

fn kernels(sizes: &ModelConfig) -> Fused {
    let tch::Device::Cuda(index) = device() else { panic!("set HRM_TEST_DEVICE=cuda") };
    ops::fused_available().unwrap();
    Fused::new(index, sizes, true).unwrap()
}

#[test]
#[ignore = "needs a GPU"]
fn norm_swiglu_and_injection() {
    for (sizes, batch) in cases() {
        let fused = kernels(&sizes);
        let shape = [batch, sizes.total_seq(), sizes.hidden_size];
        let (x, branch, dy) = (bf16(&shape), bf16(&shape), bf16(&shape));
        let found = fused.residual_rms_norm(&x, &branch, 1e-5).unwrap();
        let s = (&x + &branch).to_kind(Kind::Double);
        let r = (s.square().mean_dim(&[-1i64][..], true, Kind::Double) + 1e-5).rsqrt();
        relative("rms", &sizes, &found.y, &(&s * &r), 3e-3);
        relative("rms r", &sizes, &found.r, &r, 1e-6);
        let normed = Normed { y: found.y.copy(), r: found.r.copy() };
        let y = wide(&normed.y);
        let mean = (wide(&dy) * &y).mean_dim(&[-1i64][..], true, Kind::Double);
        let want = (wide(&dy) - y * mean) * wide(&normed.r);
        relative("rms backward", &sizes, &fused.residual_rms_norm_backward(&dy, &normed).unwrap(), &want, 3e-3);
        let injected = fused.inject(&x, &branch, &dy).unwrap();
        assert_close("inject", &injected, &(&x + (&branch + &dy)), 0.0, 0.0);

        let gate_up = bf16(&[batch, sizes.total_seq(), 2 * sizes.intermediate_size()]) * 2.0;
        let halves = wide(&gate_up).chunk(2, -1);
        relative("swiglu", &sizes, &fused.swiglu(&gate_up).unwrap(), &(halves[0].silu() * &halves[1]), 4e-3);
        let dh = bf16(&[batch, sizes.total_seq(), sizes.intermediate_size()]);
        let (g, u, d) = (&halves[0], &halves[1], wide(&dh));
        let s = g.sigmoid();
        let want = Tensor::cat(&[&d * u * &s * (g - g * &s + 1.0), &d * g * &s], -1);
        relative("swiglu backward", &sizes, &fused.swiglu_backward(&dh, &gate_up).unwrap(), &want, 4e-3);
    }
}

#[test]
#[ignore = "needs a GPU"]
fn attention_both_ways() {
    for (sizes, batch) in cases() {
        let fused = kernels(&sizes);
        let width = sizes.num_heads * sizes.head_dim();
        let tables = (sizes.pos_encodings == PosEncodings::Rope)
            .then(|| RopeTables::new(sizes.total_seq(), sizes.head_dim(), 10_000.0, device()));
        let qkv = bf16(&[batch, sizes.total_seq(), 3 * width]);
        let (out, lse) = fused.attention(&qkv, tables.as_ref(), true).unwrap();
        let exact = ops::attention(&wide(&qkv), sizes.num_heads, tables.as_ref());
        relative("attention", &sizes, &out, &exact.out, 6e-3);
        let (again, none) = fused.attention(&qkv, tables.as_ref(), false).unwrap();
        assert!(again.equal(&out) && none.is_none(), "the same bits without the tape");
        let d_out = bf16(&[batch, sizes.total_seq(), width]);
        let found = fused.attention_backward(&d_out, &qkv, &out, &lse.unwrap(), tables.as_ref()).unwrap();
        let want = ops::attention_backward(&wide(&d_out), &exact, tables.as_ref());
        for (i, part) in ["dq", "dk", "dv"].iter().enumerate() {
            let cut = |t: &Tensor| t.narrow(2, i as i64 * width, width);
            if sizes.total_seq() > 1 || *part == "dv" {
                relative(part, &sizes, &cut(&found), &cut(&want), 1.2e-2);
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn matrix_products_of_any_rows() {
    let sizes = ModelConfig::sudoku();
    let fused = kernels(&sizes);
    for (rows, inner, outer) in [(82, 512, 1536), (8446, 512, 3072), (1, 64, 192), (333, 1536, 512), (77, 96, 24)] {
        let (x, w) = (bf16(&[1, rows, inner]), bf16(&[outer, inner]));
        let want = wide(&x).matmul(&wide(&w).tr());
        for _ in 0..2 {
            relative("linear", &sizes, &fused.linear(&x, &w).unwrap(), &want, 3e-3);
        }
        let (d, base) = (bf16(&[1, rows, outer]), bf16(&[1, rows, inner]));
        let want = wide(&d).matmul(&wide(&w));
        relative("d input", &sizes, &fused.linear_backward(&d, &w, None).unwrap(), &want, 3e-3);
        relative(
            "d input onto",
            &sizes,
            &fused.linear_backward(&d, &w, Some(&base)).unwrap(),
            &(want + wide(&base)),
            3e-3,
        );
    }
    assert!(
        fused.linear(&bf16(&[1, 3, 20]), &bf16(&[7, 20])).is_none(),
        "sizes that are no multiples of 8 are torch's"
    );
}

/// Products with what follows them: Hopper's own kernels, at sizes that have them.
#[test]
#[ignore = "needs a GPU"]
fn fused_products_of_any_rows() {
    for (sizes, batch) in cases() {
        let fused = kernels(&sizes);
        let (hidden, inter, total) = (sizes.hidden_size, sizes.intermediate_size(), sizes.total_seq());
        for batch in [batch, 1, 384 / total + 1, 9000 / total] {
            let x = bf16(&[batch, total, hidden]);
            let w = bf16(&[2 * inter, hidden]) * (1.0 / hidden as f64).sqrt();
            if let Some((both, h)) = fused.linear_swiglu(&x, &w, true) {
                let want = wide(&x).matmul(&wide(&w).tr());
                relative("gate and up", &sizes, &both.unwrap(), &want, 3e-3);
                let halves = want.chunk(2, -1);
                relative("swiglu of a product", &sizes, &h, &(halves[0].silu() * &halves[1]), 5e-3);
                let (none, again) = fused.linear_swiglu(&x, &w, false).unwrap();
                assert!(none.is_none() && again.equal(&h), "the same bits without the tape");
            }
            let gate_up = bf16(&[batch, total, 2 * inter]) * 2.0;
            let w = bf16(&[hidden, inter]) * (1.0 / hidden as f64).sqrt();
            if let Some(found) = fused.linear_swiglu_backward(&x, &w, &gate_up) {
                let (halves, d) = (wide(&gate_up).chunk(2, -1), wide(&x).matmul(&wide(&w)));
                let (g, u, s) = (&halves[0], &halves[1], halves[0].sigmoid());
                let want = Tensor::cat(&[&d * u * &s * (g - g * &s + 1.0), &d * g * &s], -1);
                relative("swiglu backward of a product", &sizes, &found, &want, 4e-3);
                assert!(fused.linear_swiglu_backward(&x, &w, &gate_up).unwrap().equal(&found), "the same bits twice");
            }
            for inner in [hidden, inter] {
                let (branch, w) = (bf16(&[batch, total, inner]), bf16(&[hidden, inner]) * (1.0 / inner as f64).sqrt());
                let Some(found) = fused.linear_residual_rms_norm(&branch, &w, &x, 1e-5) else { continue };
                let s = wide(&x) + wide(&branch).matmul(&wide(&w).tr());
                let r = (s.square().mean_dim(&[-1i64][..], true, Kind::Double) + 1e-5).rsqrt();
                relative("rms of a product", &sizes, &found.y, &(&s * &r), 3e-3);
                relative("its r", &sizes, &found.r, &r, 1e-5);
                let again = fused.linear_residual_rms_norm(&branch, &w, &x, 1e-5).unwrap();
                assert!(again.y.equal(&found.y) && again.r.equal(&found.r), "the same bits twice");
            }
        }
    }
}

/// Sequences that no attention kernel holds: rope alone has a kernel, attention is libtorch's.
#[test]
#[ignore = "needs a GPU"]
fn long_sequences_fall_back_with_fused_rope() {
    let sizes = ModelConfig {
        dims: Dims { seq_len: 900, vocab_size: 6, num_puzzle_identifiers: 1 },
        hidden_size: 128,
        num_heads: 4,
        puzzle_emb_ndim: 128,
        ..ModelConfig::sudoku()
    };
    let fused = kernels(&sizes);
    assert_eq!(fused.missing(), ["attention"]);
    let tables = RopeTables::new(sizes.total_seq(), sizes.head_dim(), 10_000.0, device());
    let qkv = bf16(&[2, sizes.total_seq(), 3 * 128]);
    let heads = qkv.view([2, sizes.total_seq(), 12, 32]);
    let want = ops::rope(&wide(&heads.narrow(2, 0, 8)), &tables);
    relative("rope", &sizes, &fused.rope(&qkv, &tables, false).unwrap(), &want, 3e-3);
    let d = bf16(&[2, sizes.total_seq(), 2 * 128]);
    let want = ops::rope_backward(&wide(&d.view([2, sizes.total_seq(), 8, 32])), &tables);
    relative("rope backward", &sizes, &fused.rope(&d, &tables, true).unwrap(), &want, 3e-3);

    let chosen = ops::Ops::choose(device(), &sizes);
    let attended = chosen.attention(qkv.copy(), 4, Some(&tables), true);
    let exact = ops::attention(&wide(&qkv), 4, Some(&tables));
    relative("long attention", &sizes, &attended.out, &exact.out, 8e-3);
    let d_out = bf16(&[2, sizes.total_seq(), 128]);
    let found = chosen.attention_backward(&d_out, &attended, Some(&tables));
    let want = ops::attention_backward(&wide(&d_out), &exact, Some(&tables));
    relative("long attention backward", &sizes, &found, &want, 1.5e-2);
}

#[test]
#[ignore = "needs a GPU"]
fn loss_head_and_adam() {
    for (sizes, batch) in cases().into_iter().filter(|(s, _)| s.dims.seq_len > 0) {
        let fused = kernels(&sizes);
        let logits = bf16(&[batch, sizes.dims.seq_len, sizes.dims.vocab_size]) * 3.0;
        let labels = Tensor::randint(sizes.dims.vocab_size, [batch, sizes.dims.seq_len], (Kind::Int, device()));
        let ignored = Tensor::rand([batch, sizes.dims.seq_len], (Kind::Float, device())).lt(0.2);
        let labels = labels.masked_fill(&ignored, -100);
        let q = |_| Tensor::randn([batch], (Kind::Float, device()));
        let (q_halt, q_continue, target) = (q(0), q(1), q(2).sigmoid());
        let steps = Tensor::randint_low(1, 17, [batch], (Kind::Int, device()));
        let inputs = HeadInputs {
            logits: &logits,
            labels: &labels,
            q_halt: &q_halt,
            q_continue: &q_continue,
            target_q_continue: Some(&target),
            steps: &steps,
        };
        let found = fused.stablemax_head(&inputs, 0.25).unwrap();

        let plain = ops::token_loss(LossType::Stablemax, &logits, &labels);
        let mask = labels.not_equal(-100);
        let cells = mask.sum_dim_intlist(&[-1i64][..], false, Kind::Int64);
        let weight = cells.clamp_min(1).to_kind(Kind::Double).reciprocal();
        let lm = (&plain.loss * weight.unsqueeze(-1)).sum(Kind::Double);
        let want = plain.d_logits * (weight * 0.25).view([-1, 1, 1]);
        if want.norm().double_value(&[]) > 0.0 {
            relative("d_logits", &sizes, &found.d_logits, &want, 4e-3);
        }
        let hits = logits.argmax(-1, false).eq_tensor(&labels).logical_and(&mask);
        let exact = hits.sum_dim_intlist(&[-1i64][..], false, Kind::Int64).eq_tensor(&cells);
        let (halt, d_halt) = ops::bce_with_logits(&q_halt, &exact.to_kind(Kind::Float));
        let (go_on, d_go_on) = ops::bce_with_logits(&q_continue, &target);
        let values = f64s(&found.values);
        assert_close("lm_loss", &Tensor::from(values[5]), &lm.to_device(tch::Device::Cpu), 1e-9, 1e-9);
        assert_close("q_halt_loss", &Tensor::from(values[6]), &halt.to_device(tch::Device::Cpu), 1e-5, 1e-5);
        assert_close("q_continue_loss", &Tensor::from(values[7]), &go_on.to_device(tch::Device::Cpu), 1e-5, 1e-5);
        let loss = &lm + (halt + go_on) * 0.5;
        assert_close("loss", &found.loss, &loss, 1e-5, 1e-5);
        assert_close("d_q", &found.d_q, &(Tensor::stack(&[d_halt, d_go_on], 1) * 0.125), 1e-6, 1e-5);
        let valid = cells.gt(0);
        assert_eq!(values[0], valid.sum(Kind::Double).double_value(&[]));
        assert_eq!(values[2], exact.logical_and(&valid).sum(Kind::Double).double_value(&[]));
        assert_eq!(values[4], (steps * valid).sum(Kind::Double).double_value(&[]));
    }

    let fused = kernels(&cases()[0].0);
    let config = AdamConfig { beta1: 0.9, beta2: 0.95, weight_decay: 0.1 };
    let master = Tensor::randn([4096 + 4], (Kind::Float, device()));
    let copy = master.to_kind(Kind::BFloat16);
    let (plain, mut a) = (master.copy(), AdamAtan2::new(&master, config));
    let mut b = AdamAtan2::new(&master, config);
    for step in 0..5 {
        let grad = bf16(&[4096 + 4]) * if step == 2 { 1e-6 } else { 1.0 };
        let lr = 1e-3 * (step + 1) as f64;
        let now = b.begin_step(lr);
        let scalars = Tensor::from_slice(&[now.keep as f32, now.root as f32, now.rate as f32]).to_device(device());
        a.step(&plain, grad.to_kind(Kind::Float), lr);
        let state = FlatState { master: &master, m: &b.m, v: &b.v, grad: &grad, copy: &copy };
        fused.adam_atan2(&state, &scalars, (0.1, 0.05)).unwrap();
        assert_close("m", &b.m, &a.m, 1e-7, 1e-5);
        assert_close("v", &b.v, &a.v, 1e-7, 1e-5);
        assert_close("param", &master, &plain, 1e-6, 1e-5);
        assert_close("copy", &copy, &master.to_kind(Kind::BFloat16), 0.0, 0.0);
    }
}
