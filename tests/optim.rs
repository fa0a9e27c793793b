//! Both optimisers and the schedule against tests/golden/optim.

mod common;

use common::tensors::{Tensors, assert_close, assert_near, json};
use hrm::optim::{AdamAtan2, AdamConfig, CosineSchedule, sparse_sign_sgd, total_steps};

#[test]
fn adam_atan2_five_steps() {
    let info = json("optim/adam_atan2.json");
    let data = Tensors::load("optim/adam_atan2.safetensors");
    let number = |v: &serde_json::Value| v.as_f64().unwrap();
    let config = AdamConfig {
        beta1: number(&info["betas"][0]),
        beta2: number(&info["betas"][1]),
        weight_decay: number(&info["weight_decay"]),
    };
    for name in ["w", "b"] {
        let param = data.get(&format!("init.{name}")).copy();
        let mut adam = AdamAtan2::new(&param, config);
        for (i, lr) in info["lr_per_step"].as_array().unwrap().iter().enumerate() {
            let step = i + 1;
            let get = |what: &str| data.get(&format!("step{step}.{what}.{name}"));
            adam.step(&param, get("grad").copy(), number(lr));
            let at = |what: &str| format!("{name}, step {step}, {what}");
            assert_close(&at("exp_avg"), &adam.m, &get("exp_avg"), 1e-7, 1e-6);
            assert_close(&at("exp_avg_sq"), &adam.v, &get("exp_avg_sq"), 1e-8, 1e-6);
            assert_close(&at("param"), &param, &get("param"), 1e-7, 1e-6);
        }
    }
}

/// The first step is sign-like whatever the gradient's size: lr / (1 - b1) * atan(1 - b1).
#[test]
fn first_step_does_not_depend_on_the_gradients_size() {
    let config = AdamConfig { beta1: 0.9, beta2: 0.95, weight_decay: 0.0 };
    let param = tch::Tensor::zeros([4], (tch::Kind::Float, tch::Device::Cpu));
    let grad = tch::Tensor::from_slice(&[1e3f32, -1e-3, 1e-10, 0.0]);
    AdamAtan2::new(&param, config).step(&param, grad, 1e-3);
    let full = 1e-3 / 0.1 * (0.1f64).atan();
    let want = tch::Tensor::from_slice(&[-full as f32, full as f32, -full as f32, 0.0]);
    assert_close("first step", &param, &want, 1e-9, 1e-5);
}

#[test]
fn sign_sgd_on_the_rows_of_the_batch() {
    let info = json("optim/sparse_signsgd.json");
    let data = Tensors::load("optim/sparse_signsgd.safetensors");
    let cases = info["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let get = |t: &str| data.get(&format!("{}{t}", case["prefix"].as_str().unwrap()));
        let mut table = get("weights").copy();
        let number = |k: &str| case[k].as_f64().unwrap();
        let keep = 1.0 - number("lr") * number("weight_decay");
        let scalars = tch::Tensor::from_slice(&[keep as f32, number("lr") as f32]);
        sparse_sign_sgd(&mut table, &get("ids"), &get("grad"), &scalars);
        let at = case["mode"].as_str().unwrap();
        assert_close(at, &table, &get("weights_after"), info["tolerance"]["atol"].as_f64().unwrap(), 0.0);
    }
}

#[test]
fn learning_rate_schedules() {
    let info = json("optim/lr_schedule.json");
    let schedules = info["schedules"].as_array().unwrap();
    assert!(schedules.len() > 1);
    for s in schedules {
        let schedule = CosineSchedule {
            warmup_steps: s["warmup"].as_f64().unwrap().round() as i64,
            total_steps: s["total"].as_i64().unwrap(),
            min_ratio: s["min_ratio"].as_f64().unwrap(),
        };
        let pairs = s["steps"].as_array().unwrap().iter().zip(s["lr"].as_array().unwrap());
        for (step, lr) in pairs {
            let (step, lr) = (step.as_i64().unwrap(), lr.as_f64().unwrap());
            let found = schedule.lr(s["base_lr"].as_f64().unwrap(), step);
            assert_near(&format!("{schedule:?} step {step}"), found, lr, 1e-15 + 1e-12 * lr);
        }
    }
}

#[test]
fn number_of_steps() {
    for row in json("optim/total_steps.json").as_array().unwrap() {
        let int = |k: &str| row[k].as_i64().unwrap();
        let mean = row["mean_puzzle_examples"].as_f64().unwrap();
        let found = total_steps(int("epochs"), int("total_groups"), mean, int("global_batch_size"));
        assert_eq!(found, int("total_steps"), "{row}");
    }
}
