//! PCA and the conflict loss against golden/landscape (exact f64 SVD in numpy, upstream's own conflict loss).

mod common;

use common::tensors::{Tensors, assert_close, assert_near, config, device, f64s, json, raw_tensors};
use hrm::{
    analysis::{
        facts,
        landscape::{Grid, Plane},
        pca::Pca,
        trajectory,
    },
    model::{DeviceBatch, Model, Rows as _},
    puzzle::{Boxes, Geometry, Puzzle},
};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

#[test]
fn random_trajectory_matches_the_exact_svd() {
    let facts = json("landscape/pca_random.json");
    let data = Tensors::load("landscape/pca_random.safetensors");
    let points = data.get("trajectory").flatten(1, 2); // [20, 83 * 64]
    let pca = Pca::fit(&points, 3).unwrap();
    assert_close("mean", &pca.mean, &data.get("mean"), 1e-6, 1e-6);
    assert_close("components", &pca.components.narrow(0, 0, 2), &data.get("components"), 1e-7, 1e-6);
    for (k, wanted) in facts["singular_values_top3"].as_array().unwrap().iter().enumerate() {
        assert_near("singular value", pca.singular_values[k], wanted.as_f64().unwrap(), 1e-8);
    }
    for (k, (wanted, share)) in
        f64s(&data.get("explained_variance")).iter().zip(f64s(&data.get("explained_variance_ratio"))).enumerate()
    {
        assert_near("explained variance", pca.explained_variance[k], *wanted, 1e-8 * wanted);
        assert_near("explained variance ratio", pca.explained_variance_ratio[k], share, 1e-10);
    }
    let projected = pca.project(&points).unwrap();
    assert_close("projection", &projected.narrow(1, 0, 2), &data.get("projected"), 1e-5, 1e-7);
}

/// Upstream's scikit-learn result differs from ours by no more than its own randomised solver's error.
#[test]
fn sklearn_as_upstream_uses_it_is_near() {
    let facts = json("landscape/pca_random.json");
    let pca = Pca::fit(&Tensors::load("landscape/pca_random.safetensors").get("trajectory").flatten(1, 2), 2).unwrap();
    for run in facts["sklearn_as_seed_uses_it"].as_array().unwrap() {
        for k in 0..2 {
            let theirs = run["explained_variance_ratio"][k].as_f64().unwrap();
            assert_near("explained variance ratio", pca.explained_variance_ratio[k], theirs, 1e-5);
        }
    }
}

/// golden/landscape: the model of golden/model/base for 16 segments, and its one puzzle.
struct Landscape {
    facts: Value,
    data: Tensors,
    model: Model,
    batch: DeviceBatch,
}

fn landscape() -> Landscape {
    let facts = json("landscape/landscape.json");
    let data = Tensors::load("landscape/landscape.safetensors");
    let mut config = config(&json("model/base.json"));
    config.halt_max_steps = 16;
    let model = Model::from_tensors(config, &raw_tensors("model/base.weights.safetensors"), device()).unwrap();
    let tokens = |name: &str| data.get(name).to_kind(Kind::Int).view([1, 81]).to_device(device());
    let batch = DeviceBatch {
        inputs: tokens("input_tokens"),
        labels: tokens("label_tokens"),
        puzzle_identifiers: Tensor::from_slice(&[facts["puzzle_identifier"].as_i64().unwrap() as i32])
            .to_device(device()),
    };
    Landscape { facts, data, model, batch }
}

/// The model for 16 segments on the landscape's puzzle: our whole way from weights to picture.
#[test]
fn trajectory_of_a_model_matches_the_landscape_golden() {
    let Landscape { facts, data, model, batch } = landscape();
    let states = trajectory::trace_states(&model, batch, |_, _| Ok(())).unwrap(); // [32, T * h]
    assert_eq!(states.size()[0], facts["trace_length"].as_i64().unwrap());
    let pca = Pca::fit(&states, 4).unwrap();
    for (found, wanted) in pca.singular_values.iter().zip(f64s(&data.get("singular_values"))) {
        assert_near("singular value", *found, wanted, 1e-3);
    }
    let cpu = |t: &Tensor| t.to_device(Device::Cpu);
    assert_close("mean", &cpu(&pca.mean), &data.get("pca_mean"), 1e-4, 1e-4);
    assert_close("components", &cpu(&pca.components.narrow(0, 0, 2)), &data.get("pca_components"), 1e-5, 0.0);

    let centre = data.get("center_z_H").view([1, -1]);
    let last = cpu(&states.narrow(0, states.size()[0] - 1, 1));
    assert_close("z_H after segment 16", &last, &centre, 1e-3, 1e-3);
    let scale = facts["scale"].as_f64().unwrap();
    let width = (model.config().total_seq() * model.config().hidden_size) as f64;
    assert_near("scale", width.sqrt() / 8.0, scale, 1e-12);
    let along =
        (pca.project(&states).unwrap() - pca.project(&states.narrow(0, states.size()[0] - 1, 1)).unwrap()) / scale;
    assert_close("trajectory", &cpu(&along.narrow(1, 0, 2)), &data.get("trajectory_projected_over_scale"), 1e-3, 1e-3);
}

/// Upstream's landscape without its cast to bf16 (the `f32_no_cast` block): errors, answers, and where a segment leads.
#[test]
fn landscape_matches_the_golden_in_f32() {
    let Landscape { facts, data, model, batch } = landscape();
    // What the notebook prints as each segment's loss.
    let wanted = facts["segment_losses"].as_array().unwrap();
    model
        .unroll(model.fresh_carry(batch.shallow_clone()))
        .run(16, |number, segment| {
            let loss = facts::head_loss(&model, segment).unwrap();
            assert_near(&format!("loss of segment {number}"), loss, wanted[number - 1].as_f64().unwrap(), 1e-3);
            Ok(())
        })
        .unwrap();
    let plane = Plane::around(&model, Boxes::NINE, batch, 16).unwrap();
    assert_near("scale", plane.scale, facts["scale"].as_f64().unwrap(), 1e-12);
    let overlay = f64s(&data.get("trajectory_projected_over_scale"));
    assert_eq!(plane.trajectory.len(), 32);
    for (found, wanted) in plane.trajectory.iter().flatten().zip(&overlay) {
        assert_near("trajectory", *found, *wanted, 1e-3);
    }

    let golden = &facts["f32_no_cast"];
    let clean = golden["smallest_top2_logit_gap"].as_object().unwrap();
    let threshold = facts["threshold"].as_f64().unwrap();
    let grid = Grid { low: -2.0, high: 2.0, step: 1.0 };
    // Batches of another size than the grid's, so that a point's result does not hang on its neighbours.
    let points: Vec<_> = grid.points().chunks(7).flat_map(|batch| plane.explore(&model, batch, 1).unwrap()).collect();
    assert_eq!(points.len(), golden["dest"].as_object().unwrap().len());
    let mut compared = 0;
    for point in &points {
        let key = format!("{},{}", point.at[0] as i64, point.at[1] as i64);
        for k in 0..2 {
            let wanted = golden["dest"][&key][k].as_f64().unwrap();
            assert_near(&format!("dest of {key}"), point.dest().unwrap()[k], wanted, 1e-3);
        }
        // Where two logits nearly tie, the tie may fall either way.
        if clean[&key].as_f64().unwrap() > 1e-3 {
            compared += 1;
            let wanted = golden["e_raw"][&key].as_f64().unwrap();
            assert_eq!(f64::from(point.error), wanted, "error at {key}");
            assert_eq!(f64::from(point.error).min(threshold), golden["e_value"][&key].as_f64().unwrap());
        }
    }
    assert!(compared > 15, "only {compared} of 25 errors were compared");
}

#[test]
fn conflict_loss_matches_upstream() {
    let boards = json("landscape/conflict_loss.json");
    let boards = boards.as_array().unwrap();
    assert!(!boards.is_empty());
    for (i, case) in boards.iter().enumerate() {
        // Upstream counts digits only, whatever stands in other cells.
        let token = |digit: &Value| digit.as_i64().and_then(|d| u8::try_from(d + 1).ok()).unwrap_or(0);
        let board: Vec<u8> = case["board"].as_array().unwrap().iter().map(token).collect();
        assert_eq!(f64::from(Boxes::NINE.conflicts(&board)), case["loss"].as_f64().unwrap(), "board {i}");
    }
}

#[test]
fn a_puzzle_of_the_wrong_kind_is_refused() {
    let config = config(&json("model/base.json"));
    let model = Model::from_tensors(config, &raw_tensors("model/base.weights.safetensors"), Device::Cpu).unwrap();
    let watch = |geometry: Geometry| {
        let puzzle = Puzzle::new(geometry, vec![1; geometry.cells()], None).unwrap();
        trajectory::trace_puzzle(&model, &puzzle).unwrap_err().to_string()
    };
    let mut said = common::snapshot::Transcript::default();
    said.add("too small", &watch(Geometry::sudoku(4).unwrap()));
    said.add("a maze", &watch(Geometry::maze(9)));
    said.matches("a_puzzle_of_the_wrong_kind_is_refused");
}
