//! Token losses, their gradients and the halting loss against tests/golden/losses.

mod common;

use common::tensors::{Tensors, assert_close, assert_near, json};
use hrm::{config::LossType, ops};
use tch::{Kind, Tensor};

#[test]
fn token_losses_and_gradients() {
    let data = Tensors::load("losses/losses.safetensors");
    let info = json("losses/losses.json");
    let cases = info["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let text = |k: &str| case[k].as_str().unwrap();
        let (name, loss, dtype) = (text("name"), text("loss"), text("logits_dtype"));
        let kind = if dtype == "bfloat16" { Kind::BFloat16 } else { Kind::Float };
        let at = format!("{name}.{loss}.{dtype}");
        let logits = data.get(&format!("{name}.logits")).to_kind(kind);
        let labels = data.get(&format!("{name}.labels"));
        let loss_type = if loss == "stablemax" { LossType::Stablemax } else { LossType::Softmax };
        let tokens = ops::token_loss(loss_type, &logits, &labels);
        let wanted_kind = if loss == "stablemax" { Kind::Double } else { Kind::Float };
        assert_eq!(tokens.loss.kind(), wanted_kind, "{at}");
        let tolerance = if loss == "stablemax" { 1e-12 } else { 1e-6 };
        assert_close(&at, &tokens.loss, &data.get(&format!("{at}.loss_per_token")), tolerance, tolerance);
        // Upstream's total: each row's tokens over its number of labels, summed.
        let count = labels.not_equal(-100).sum_dim_intlist(&[-1i64][..], true, Kind::Int64).clamp_min(1);
        let total = (&tokens.loss / &count).sum(tokens.loss.kind()).double_value(&[]);
        let want = case["total"].as_f64().unwrap();
        assert_near(&at, total, want, 1e-6 * (1.0 + want));
        let grad = tokens.d_logits / count.unsqueeze(-1);
        assert!(bool::try_from(grad.isfinite().all()).unwrap(), "{at}: the gradient is finite");
        let tolerance = if kind == Kind::BFloat16 { 5e-3 } else { 1e-6 };
        assert_close(&format!("{at} gradient"), &grad, &data.get(&format!("{at}.grad")), 1e-7, tolerance);
    }
}

/// x = 0 takes the x + 1 branch with slope 1; far values stay finite.
#[test]
fn stablemax_gradient_is_finite_everywhere() {
    for x in [0.0f32, -0.0, 1.0, -1.0, 1e4, -1e4, 1e-30, -1e-30] {
        let logits = Tensor::from_slice(&[x, 0.5, -0.5]).view([1, 1, 3]);
        let grad = ops::token_loss(LossType::Stablemax, &logits, &Tensor::from_slice(&[0i32]).view([1, 1])).d_logits;
        assert!(bool::try_from(grad.isfinite().all()).unwrap(), "x = {x}");
        if x == 0.0 {
            // s = [1, 1.5, 1/1.5]; d(-log p)/dx = -1/s + 1/sum.
            let want = -1.0 + 1.0 / (1.0 + 1.5 + 1.0 / 1.5);
            assert_near("slope at 0", grad.double_value(&[0, 0, 0]), want, 1e-7);
        }
    }
}

#[test]
fn binary_cross_entropy() {
    let data = Tensors::load("losses/bce.safetensors");
    let (x, target) = (data.get("x"), data.get("target"));
    for i in 0..x.size()[0] {
        let (one, _) = ops::bce_with_logits(&x.narrow(0, i, 1), &target.narrow(0, i, 1));
        assert_close("element", &one, &data.get("bce_elem").get(i), 1e-6, 1e-6);
    }
    let leaf = x.copy().set_requires_grad(true);
    let (loss, grad) = ops::bce_with_logits(&leaf, &target);
    assert_close("sum", &loss, &data.get("bce_elem").sum(Kind::Float), 1e-5, 1e-6);
    loss.backward();
    assert_close("gradient", &grad.detach(), &leaf.grad(), 1e-6, 1e-6);
}
