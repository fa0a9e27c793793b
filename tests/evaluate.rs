//! Evaluation against golden/e2e/evaluate.json: upstream's `evaluate` on two tiny checkpoints and 11 puzzles in f32,
//! global batch 8, so that the last batch is padded.

mod common;

use std::sync::Arc;

use anyhow::{Context, Result};
use common::{
    golden,
    tensors::{assert_near, json},
};
use hrm::{
    checkpoint::Checkpoint,
    dataset::{Dataset, SequentialSampler, Split},
    dtype::Dtype,
    eval::evaluate::{Evaluation, EvaluationSums},
    model::Dims,
};
use tch::Device;

const A: &str = "checkpoint/tiny ACT-torch/Model gold fish/step_12";
const B: &str = "e2e/run_b/step_30";

/// What one of `world` processes finds on its share of the rows, before anything is reduced.
fn evaluate(checkpoint: &str, rank: usize, world: usize) -> Result<Evaluation> {
    tch::set_num_threads(1);
    let data = Arc::new(Dataset::open(&golden("e2e/data"), Split::Test)?);
    let loaded = Checkpoint::load(&golden(checkpoint))?;
    let model = loaded.checkpoint.model(Dims::from(data.meta()), Device::Cpu, Some(Dtype::F32))?;
    let mut sums = EvaluationSums::default();
    for batch in SequentialSampler::new(Arc::clone(&data), 8, rank, world)? {
        let batch = batch?;
        sums.add(&model, data.sets()[batch.set].name(), &batch.batch);
    }
    sums.finish(false)
}

fn compare(what: &str, found: &Evaluation, wanted: &serde_json::Value) -> Result<()> {
    let wanted = wanted.as_object().context("sets")?;
    let found = serde_json::to_value(found)?;
    let sets = found.as_object().context("an object")?;
    assert!(sets.keys().eq(wanted.keys()), "{what}: sets {:?}", sets.keys());
    for (set, metrics) in wanted {
        let metrics = metrics.as_object().context("metrics")?;
        let mut names: Vec<_> = metrics.keys().collect();
        names.sort();
        let found = sets[set].as_object().context("an object")?;
        assert!(found.keys().eq(names), "{what}: {:?}", found.keys());
        // 6 metrics of the last segment, 3 of each of the 16.
        assert_eq!(metrics.len(), 6 + 3 * 16);
        for (name, value) in metrics {
            let value = value.as_f64().with_context(|| name.clone())?;
            assert_near(&format!("{what}, {set}/{name}"), found[name].as_f64().context("a number")?, value, 1e-3);
        }
    }
    Ok(())
}

#[test]
fn every_metric_matches_upstream() -> Result<()> {
    let golden = json("e2e/evaluate.json");
    for (name, checkpoint) in [("A_step_12", A), ("B_step_30", B)] {
        compare(name, &evaluate(checkpoint, 0, 1)?, &golden["metrics"][name])?;
    }
    Ok(())
}

/// The second process gets a batch of padding alone for the last batch: q_halt_loss counts it, nothing else does.
#[test]
fn the_shares_of_two_processes_match_upstream() -> Result<()> {
    let golden = json("e2e/evaluate.json");
    for (name, checkpoint) in [("A_step_12", A), ("B_step_30", B)] {
        let ranks = golden["metrics"][format!("{name}_per_rank_of_2_unreduced_means")].clone();
        let ranks = ranks.as_array().context("ranks")?;
        assert_eq!(ranks.len(), 2);
        for (rank, wanted) in ranks.iter().enumerate() {
            compare(&format!("{name}, rank {rank} of 2"), &evaluate(checkpoint, rank, 2)?, wanted)?;
        }
    }
    Ok(())
}
