//! CUDA graphs against the same work launched one by one.
//!
//! They need a GPU: `HRM_TEST_DEVICE=cuda cargo test --release --test graphs -- --ignored --test-threads 1`.

mod common;

use common::tensors::{assert_close, device};
use hrm::{
    bench::sudoku_like_batch,
    config::TrainConfig,
    model::{DeviceBatch, Exploration, Model, ModelConfig},
    ops::Ops,
    train::Trainer,
};
use tch::Kind;

fn config() -> ModelConfig {
    let mut c = ModelConfig::sudoku();
    (c.hidden_size, c.num_heads, c.puzzle_emb_ndim) = (128, 4, 128);
    (c.h_layers, c.l_layers, c.halt_max_steps) = (2, 2, 4);
    c
}

/// Ten steps with the graph, ten without, ten in the plain form: the same losses within bf16 noise, and the graph's
/// equal to the eager ones up to the algorithms that libraries choose.
#[test]
#[ignore = "needs a GPU"]
fn recorded_training_steps_follow_the_eager_ones() {
    follow_the_eager_ones(&TrainConfig::default());
    let ours = TrainConfig { ema_decay: 0.9, grad_accum: 4, log_grad_norm: true, ..TrainConfig::default() };
    follow_the_eager_ones(&ours);
}

fn follow_the_eager_ones(base: &TrainConfig) {
    let run = |graph: bool, plain: bool| {
        let mut model = Model::new(config(), device(), 11).unwrap();
        if plain {
            model.set_ops(Ops::plain());
        }
        let hyper = TrainConfig { global_batch_size: 32, lr_warmup_steps: 5, ..base.clone() };
        let mut trainer = Trainer::new(model, &hyper, 100, 32);
        if !graph {
            trainer.forbid_graph();
        }
        let mut losses = Vec::new();
        for step in 1..=10 {
            let batch = DeviceBatch::upload(&sudoku_like_batch(32, &config(), step as u64), device());
            let draws = Exploration::draw(3, step, 0, 32, 4, device());
            let report = trainer.train_step(&batch, &draws).unwrap();
            losses.push(report.metrics.to_device(tch::Device::Cpu));
        }
        assert_eq!((trainer.step, trainer.adam.steps), (10, 10));
        let average = trainer.ema.as_ref().map(|ema| ema.copy());
        (losses, trainer.model.params().master().copy(), trainer.carry.steps.copy(), average)
    };
    let (eager, eager_params, eager_steps, eager_average) = run(false, false);
    let (graph, graph_params, graph_steps, graph_average) = run(true, false);
    let (plain, plain_params, ..) = run(false, true);
    assert_eq!(graph_average.is_some(), base.ema_decay > 0.0);
    if let (Some(found), Some(wanted)) = (graph_average, eager_average) {
        assert_close("average", &found, &wanted, 2e-3, 0.0);
        let lag = (&found - &graph_params).abs().max().double_value(&[]);
        assert!(lag > 1e-5, "the average lags behind the weights: {lag}");
    }
    for (i, ((e, g), p)) in eager.iter().zip(&graph).zip(&plain).enumerate() {
        assert_close(&format!("step {} in the graph", i + 1), &g.get(5), &e.get(5), 0.0, 2e-3);
        if base.log_grad_norm {
            assert_close(&format!("gradient norm of step {}", i + 1), &g.get(8), &e.get(8), 0.0, 2e-2);
        }
        assert_close(&format!("step {} in the plain form", i + 1), &p.get(5), &e.get(5), 0.0, 1e-2);
    }
    assert_close("carry", &graph_steps, &eager_steps, 0.0, 0.0);
    // Ten steps of Adam-atan2 at lr <= 1e-4 move no element by more than about 1e-3; gradients near zero may flip.
    assert_close("parameters", &graph_params, &eager_params, 2e-3, 0.0);
    assert_close("parameters, plain", &plain_params, &eager_params, 2e-3, 0.0);
    let moved = (&graph_params - Model::new(config(), device(), 11).unwrap().params().master()).abs().max();
    assert!(moved.double_value(&[]) > 1e-4, "the recorded steps changed the parameters");
}

#[test]
#[ignore = "needs a GPU"]
fn recorded_segments_give_the_same_answers() {
    let model = Model::new(config(), device(), 5).unwrap();
    for (rows, seed) in [(7, 1), (7, 2), (19, 3), (7, 4)] {
        let batch = DeviceBatch::upload(&sudoku_like_batch(rows, &config(), seed), device());
        let mut traced = Vec::new();
        let last = model.all_segments(&batch, |s| traced.push(s.logits.copy()));
        let mut carry = model.initial_carry(rows);
        for (k, found) in traced.iter().enumerate() {
            let segment = model.segment(&carry, &batch, false);
            let distance = (found.to_kind(Kind::Float) - segment.logits.to_kind(Kind::Float)).norm();
            let relative = distance.double_value(&[]) / segment.logits.to_kind(Kind::Float).norm().double_value(&[]);
            assert!(relative < 2e-2, "{rows} rows, segment {}: {relative}", k + 1);
            carry = segment.carry;
        }
        assert_eq!(traced.len(), 4);
        assert!(last.logits.equal(&traced[3]), "the last segment is returned");
        assert_close("halted", &last.carry.halted, &carry.halted, 0.0, 0.0);
    }
}
