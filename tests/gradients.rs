//! The hand-written backward pass against finite differences, for the configs that no golden training case covers.
//!
//! With one H and one L cycle every parameter's effect on the loss has a gradient, so a directional derivative of the
//! loss can be held against it. Computed in f64 (the master weights stay f32).

mod common;

use hrm::{
    config::{LossType, PosEncodings},
    dtype::Dtype,
    model::{DeviceBatch, Dims, Exploration, Model, ModelConfig, loss_head},
};
use tch::{Device, Kind, Tensor};

fn config(change: impl Fn(&mut ModelConfig)) -> ModelConfig {
    let mut c = ModelConfig::sudoku();
    c.dims = Dims { seq_len: 13, vocab_size: 7, num_puzzle_identifiers: 3 };
    (c.h_cycles, c.l_cycles, c.h_layers, c.l_layers) = (1, 1, 2, 1);
    (c.hidden_size, c.num_heads, c.puzzle_emb_ndim, c.expansion) = (24, 3, 24, 1.0);
    (c.forward_dtype, c.halt_exploration_prob) = (Dtype::F64, 0.0);
    change(&mut c);
    c
}

fn check(name: &str, config: ModelConfig) {
    let rows = 4;
    tch::manual_seed(5);
    let ints = |high: i64, shape: &[i64]| Tensor::randint(high, shape, (Kind::Int, Device::Cpu));
    let cells = [rows, config.dims.seq_len];
    let labels = ints(config.dims.vocab_size, &cells).masked_fill(&ints(4, &cells).eq(0), -100);
    let batch = DeviceBatch {
        inputs: ints(config.dims.vocab_size, &cells),
        labels,
        puzzle_identifiers: ints(config.dims.num_puzzle_identifiers, &[rows]),
    };
    let draws = Exploration::draw(0, 1, 0, rows, config.halt_max_steps, Device::Cpu);
    let mut model = Model::new(config.clone(), Device::Cpu, 3).unwrap();
    // Puzzle rows and the q head start at zero, which would hide mistakes.
    if let Some(table) = model.puzzle_emb_mut() {
        let _ = table.uniform_(-0.5, 0.5);
    }
    let _ = model.params().master().shallow_clone().g_add_(&(Tensor::randn_like(model.params().master()) * 0.05));
    let tensors = model.tensors();
    let mut model = Model::from_tensors(config.clone(), &tensors, Device::Cpu).unwrap();
    model.params_mut().prepare_training();
    let carry = model.initial_carry(rows);

    // The target of q_continue moves with the parameters but has no gradient: hold it.
    let target = model.train_segment(&carry, &batch, &draws).target_q_continue;
    let loss = |model: &Model| {
        let result = model.train_segment(&carry, &batch, &draws);
        loss_head(model.ops(), config.loss_type, &result.segment, target.as_ref(), 0.5)
    };
    let result = model.train_segment(&carry, &batch, &draws);
    let grads = loss_head(model.ops(), config.loss_type, &result.segment, target.as_ref(), 0.5).grads;
    let puzzle = model.backward_segment(&result, &grads);
    assert_eq!(puzzle.is_some(), config.puzzle_emb_ndim > 0);

    let eps = 2e-4;
    for (i, spec) in Model::tensor_shapes(&config).iter().filter(|(n, _)| !n.ends_with("_init")).enumerate() {
        let (name_of, shape) = spec;
        let direction = Tensor::randn(shape.as_slice(), (Kind::Float, Device::Cpu));
        let shifted = |sign: f64| {
            let mut moved = tensors.clone();
            let at = moved.iter_mut().find(|(n, _)| n == name_of).unwrap();
            at.1 = hrm::model::to_raw(&(hrm::model::to_tensor(&at.1) + &direction * (sign * eps)));
            let model = Model::from_tensors(config.clone(), &moved, Device::Cpu).unwrap();
            loss(&model).loss.double_value(&[])
        };
        let numeric = (shifted(1.0) - shifted(-1.0)) / (2.0 * eps) * 0.5;
        let analytic = match model.params().list().iter().position(|s| &s.name == name_of) {
            Some(index) => (model.params().grad_of(index).unwrap() * &direction).sum(Kind::Double),
            None => {
                let rows = direction.index_select(0, &batch.puzzle_identifiers.to_kind(Kind::Int64));
                (puzzle.as_ref().unwrap() * rows).sum(Kind::Double)
            }
        };
        let analytic = analytic.double_value(&[]);
        let tolerance = 2e-3 * (1.0 + numeric.abs());
        assert!((numeric - analytic).abs() < tolerance, "{name}, {i} {name_of}: {analytic} but numerically {numeric}");
    }
}

#[test]
fn rope_and_stablemax() {
    check("base", config(|_| ()));
}

#[test]
fn learned_positions() {
    check("learned", config(|c| c.pos_encodings = PosEncodings::Learned));
}

#[test]
fn no_puzzle_embedding() {
    check("no puzzle embedding", config(|c| c.puzzle_emb_ndim = 0));
}

#[test]
fn padded_puzzle_embedding() {
    check("padded puzzle embedding", config(|c| c.puzzle_emb_ndim = 37));
}

#[test]
fn softmax_loss() {
    check("softmax", config(|c| c.loss_type = LossType::Softmax));
}

/// Two backward passes add up; after a clear the next one starts anew.
#[test]
fn gradients_accumulate_until_cleared() {
    let config = config(|_| ());
    let mut model = Model::new(config.clone(), Device::Cpu, 3).unwrap();
    model.params_mut().prepare_training();
    let batch = DeviceBatch::upload(&hrm::bench::sudoku_like_batch(4, &config, 1), Device::Cpu);
    let draws = Exploration::draw(0, 1, 0, 4, 16, Device::Cpu);
    let carry = model.initial_carry(4);
    let mut once = || {
        let result = model.train_segment(&carry, &batch, &draws);
        let metrics = loss_head(model.ops(), config.loss_type, &result.segment, result.target_q_continue.as_ref(), 1.0);
        assert!(model.backward_segment(&result, &metrics.grads).is_some());
        model.params().grad().unwrap()
    };
    let (first, second) = (once(), once());
    common::tensors::assert_close("twice", &second, &(&first * 2.0), 1e-7, 1e-6);
    model.params_mut().clear_grad();
    let result = model.train_segment(&carry, &batch, &draws);
    let metrics = loss_head(model.ops(), config.loss_type, &result.segment, result.target_q_continue.as_ref(), 1.0);
    assert!(model.backward_segment(&result, &metrics.grads).is_some());
    common::tensors::assert_close("after a clear", &model.params().grad().unwrap(), &first, 0.0, 0.0);
}
