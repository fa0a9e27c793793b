//! Samplers against batches that upstream's loader recorded, and our own draws.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    ops::Range,
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result};
use common::{golden, json, snapshot::Transcript};
use hrm::dataset::{
    Dataset, DrawSource, PassDraws, PassKey, SampledBatch, SamplerConfig, SeededDraws, SequentialSampler, Split,
    TrainSampler,
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

fn open(path: &str, split: Split) -> Result<Arc<Dataset>> {
    Ok(Arc::new(Dataset::open(&golden(path), split)?))
}

fn indices(value: &Value) -> Vec<usize> {
    value.as_array().into_iter().flatten().filter_map(Value::as_u64).map(|x| x as usize).collect()
}

fn integers(value: &Value) -> Vec<i32> {
    value.as_array().into_iter().flatten().filter_map(Value::as_i64).map(|x| x as i32).collect()
}

/// The draws that upstream's loader made, pass by pass.
#[derive(Clone)]
struct Recorded(Vec<Value>);

struct RecordedPass {
    groups: Vec<usize>,
    puzzles: VecDeque<usize>,
    choices: VecDeque<Vec<usize>>,
}

impl DrawSource for Recorded {
    type Pass = RecordedPass;
    fn start(&mut self, key: PassKey) -> RecordedPass {
        let pass = &self.0[key.iteration as usize - 1];
        assert_eq!(pass["iteration"], key.iteration);
        let batches = pass["batches"].as_array().cloned().unwrap_or_default();
        RecordedPass {
            groups: indices(&pass["group_order"]),
            puzzles: batches.iter().flat_map(|b| indices(&b["puzzles"])).collect(),
            choices: batches
                .iter()
                .flat_map(|b| b["choices"].as_array().cloned())
                .flatten()
                .map(|c| indices(&c))
                .collect(),
        }
    }
}

impl PassDraws for RecordedPass {
    fn group_order(&mut self, epoch: usize, groups: usize) -> Vec<u32> {
        self.groups[epoch * groups..(epoch + 1) * groups].iter().map(|&g| g as u32).collect()
    }
    fn puzzle(&mut self, puzzles: Range<usize>) -> usize {
        let puzzle = self.puzzles.pop_front().expect("a puzzle was drawn here");
        assert!(puzzles.contains(&puzzle));
        puzzle
    }
    fn examples(&mut self, examples: Range<usize>, count: usize, chosen: &mut Vec<usize>) {
        let choice = self.choices.pop_front().expect("examples were drawn here");
        assert_eq!(choice.len(), count);
        chosen.extend(choice.iter().map(|&c| examples.start + c));
    }
}

fn config(run: &Value, rank: usize, world: usize) -> Result<SamplerConfig> {
    let number = |key: &str| run[key].as_u64().with_context(|| key.to_owned());
    Ok(SamplerConfig {
        seed: number("seed")?,
        global_batch_size: number("global_batch")? as usize,
        epochs_per_pass: number("epochs_per_iter")? as usize,
        rank,
        world,
    })
}

fn pass<D: DrawSource>(sampler: &mut TrainSampler<D>) -> Result<Vec<SampledBatch>> {
    let mut batches = Vec::new();
    while let Some(batch) = sampler.next_batch()? {
        batches.push(batch);
    }
    Ok(batches)
}

#[test]
fn recorded_draws_give_the_recorded_training_batches_on_every_rank() -> Result<()> {
    let record = &json(&golden("sampling/sampling.json"))?["train_mode"];
    let dataset = open("sampling/synthetic", Split::Train)?;
    let runs = record["runs"].as_array().context("runs")?;
    assert_eq!(runs.len(), 5);
    let mut batches_compared = 0;
    for run in runs {
        let iterations = run["iterations"].as_array().context("iterations")?;
        let global = config(run, 0, 1)?.global_batch_size;
        for world in (1..=global).filter(|world| global.is_multiple_of(*world)) {
            for rank in 0..world {
                let config = config(run, rank, world)?;
                let mut sampler = TrainSampler::with_draws(Arc::clone(&dataset), config, Recorded(iterations.clone()))?;
                for iteration in iterations {
                    let found = pass(&mut sampler)?;
                    let all = iteration["batches"].as_array().context("batches")?;
                    let wanted: Vec<&Value> = all.iter().filter(|b| b["dropped"] == false).collect();
                    assert_eq!(found.len(), wanted.len());
                    assert_eq!(iteration["yielded"], found.len());
                    let sizes: Vec<usize> = found.iter().map(|b| b.global_rows).collect();
                    assert_eq!(sizes, indices(&iteration["effective_sizes"]));
                    let mine = rank * global / world..(rank + 1) * global / world;
                    for (found, wanted) in found.iter().zip(&wanted) {
                        assert_eq!(found.examples, indices(&wanted["batch_indices"])[mine.clone()]);
                        let puzzles: Vec<usize> =
                            found.examples.iter().map(|&e| dataset.sets()[0].puzzle_of(e)).collect();
                        assert_eq!(puzzles, indices(&wanted["batch_puzzle_indices"])[mine.clone()]);
                        batches_compared += 1;
                    }
                    let (first, wanted) = (&found[0].batch, &iteration["first_yield"]);
                    for (row, at) in mine.clone().enumerate() {
                        assert_eq!(first.inputs.row(row).to_vec(), integers(&wanted["inputs"][at]));
                        assert_eq!(first.labels.row(row).to_vec(), integers(&wanted["labels"][at]));
                    }
                    let identifiers = integers(&wanted["puzzle_identifiers"]);
                    assert_eq!(first.puzzle_identifiers.to_vec(), identifiers[mine]);
                }
            }
        }
    }
    assert!(batches_compared > 500);
    Ok(())
}

/// Where every group has one puzzle of one example, batches follow the group order.
#[test]
fn a_recorded_group_order_decides_a_plain_datasets_batches() -> Result<()> {
    struct Order(Vec<Value>);
    struct OrderPass(Vec<usize>);
    impl DrawSource for Order {
        type Pass = OrderPass;
        fn start(&mut self, key: PassKey) -> OrderPass {
            OrderPass(indices(&self.0[key.iteration as usize - 1]["group_order"]))
        }
    }
    impl PassDraws for OrderPass {
        fn group_order(&mut self, epoch: usize, groups: usize) -> Vec<u32> {
            self.0[epoch * groups..(epoch + 1) * groups].iter().map(|&g| g as u32).collect()
        }
        fn puzzle(&mut self, puzzles: Range<usize>) -> usize {
            puzzles.start
        }
        fn examples(&mut self, examples: Range<usize>, _count: usize, chosen: &mut Vec<usize>) {
            chosen.push(examples.start);
        }
    }
    let record = &json(&golden("sampling/sampling.json"))?["train_mode"]["sudoku_noaug_group_order_seed0"];
    let passes = record.as_array().context("passes")?.clone();
    let dataset = open("dataset/sudoku_noaug", Split::Train)?;
    let config = SamplerConfig { seed: 0, global_batch_size: 4, epochs_per_pass: 2, rank: 0, world: 1 };
    let mut sampler = TrainSampler::with_draws(dataset, config, Order(passes.clone()))?;
    assert_eq!(sampler.batches_per_pass(), 10);
    for recorded in passes {
        let found = pass(&mut sampler)?;
        assert_eq!(recorded["yielded_batches"], found.len());
        let examples: Vec<usize> = found.into_iter().flat_map(|batch| batch.examples).collect();
        assert_eq!(examples, indices(&recorded["group_order"]));
    }
    Ok(())
}

/// The integers of every tensor of a safetensors file.
fn tensors(path: &Path) -> Result<BTreeMap<String, Vec<i32>>> {
    let bytes = fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let read = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let data = view.data();
        let values = match view.dtype() {
            Dtype::I32 => data.as_chunks().0.iter().map(|&x| i32::from_le_bytes(x)).collect(),
            Dtype::I16 => data.as_chunks().0.iter().map(|&x| i32::from(i16::from_le_bytes(x))).collect(),
            other => anyhow::bail!("{name}: {other:?}"),
        };
        Ok((name, values))
    };
    file.tensors().into_iter().map(read).collect()
}

#[test]
fn test_mode_matches_upstream_on_every_rank() -> Result<()> {
    let record = json(&golden("sampling/sampling.json"))?;
    let tensors = tensors(&golden("sampling/test_mode.safetensors"))?;
    let mut compared = 0;
    for case in record["test_mode"].as_array().context("cases")? {
        let number = |key: &str| case[key].as_u64().map(|n| n as usize).with_context(|| key.to_owned());
        let name = case["dataset"].as_str().context("dataset")?;
        let folder = if name == "synthetic" { "sampling/synthetic" } else { "dataset/sudoku_noaug" };
        let (global, world, rank) = (number("global_batch")?, number("world")?, number("rank")?);
        let sampler = SequentialSampler::new(open(folder, Split::Test)?, global, rank, world)?;
        assert_eq!(sampler.batches(), number("num_batches")?);
        let found = sampler.collect::<Result<Vec<_>>>()?;
        assert_eq!(found.len(), number("num_batches")?);
        assert_eq!(found.iter().map(|b| b.global_rows).collect::<Vec<_>>(), indices(&case["effective_sizes"]));
        let rows: Vec<usize> = found.iter().map(|b| b.batch.inputs.nrows()).collect();
        assert_eq!(rows, indices(&case["rows_per_batch"]));
        for (i, SampledBatch { batch, .. }) in found.iter().enumerate() {
            let wanted = |key: &str| {
                let name = format!("{name}.B{global}.of{world}.rank{rank}.batch{i}.{key}");
                tensors.get(&name).cloned().context(name)
            };
            assert_eq!(batch.inputs.iter().copied().collect::<Vec<_>>(), wanted("inputs")?);
            assert_eq!(batch.labels.iter().copied().collect::<Vec<_>>(), wanted("labels")?);
            assert_eq!(batch.puzzle_identifiers.to_vec(), wanted("puzzle_identifiers")?);
            compared += 3;
        }
    }
    assert_eq!(compared, tensors.len(), "every recorded tensor was compared");
    Ok(())
}

fn seeded(seed: u64, rank: usize, world: usize) -> SamplerConfig {
    SamplerConfig { seed, global_batch_size: 6, epochs_per_pass: 4, rank, world }
}

#[test]
fn our_draws_visit_every_group_once_an_epoch() -> Result<()> {
    let dataset = open("dataset/sudoku_noaug", Split::Train)?;
    let config = SamplerConfig { seed: 3, global_batch_size: 20, epochs_per_pass: 5, rank: 0, world: 1 };
    let mut sampler = TrainSampler::new(dataset, config)?;
    let mut orders = BTreeSet::new();
    for _ in 0..3 {
        let batches = pass(&mut sampler)?;
        assert_eq!(batches.len(), 5);
        for batch in batches {
            assert_eq!(batch.examples.iter().copied().collect::<BTreeSet<_>>(), (0..20).collect());
            orders.insert(batch.examples);
        }
    }
    assert_eq!(orders.len(), 15, "every epoch of every pass has an order of its own");
    Ok(())
}

#[test]
fn our_draws_are_reproducible_and_shared_by_the_ranks() -> Result<()> {
    let dataset = open("sampling/synthetic", Split::Train)?;
    let two_passes = |config: SamplerConfig| -> Result<Vec<Vec<usize>>> {
        let mut sampler = TrainSampler::new(Arc::clone(&dataset), config)?;
        let batches = [pass(&mut sampler)?, pass(&mut sampler)?].concat();
        Ok(batches.into_iter().map(|b| b.examples).collect())
    };
    let whole = two_passes(seeded(7, 0, 1))?;
    assert!(whole.len() > 20);
    assert_eq!(whole, two_passes(seeded(7, 0, 1))?);
    assert_ne!(whole, two_passes(seeded(8, 0, 1))?);
    let ranks = (0..3).map(|rank| two_passes(seeded(7, rank, 3))).collect::<Result<Vec<_>>>()?;
    for (i, global) in whole.iter().enumerate() {
        assert_eq!(&[&ranks[0][i][..], &ranks[1][i], &ranks[2][i]].concat(), global);
    }
    // A puzzle's examples are distinct within the visit that drew them, and every example comes up.
    let seen: BTreeSet<usize> = whole.iter().flatten().copied().collect();
    assert!(seen.len() > 40, "{} of 47 examples seen", seen.len());
    Ok(())
}

#[test]
fn a_restored_sampler_continues_with_the_very_next_batch() -> Result<()> {
    let dataset = open("sampling/synthetic", Split::Train)?;
    let mut sampler = TrainSampler::new(Arc::clone(&dataset), seeded(1, 1, 2))?;
    let mut log = Vec::new();
    let mut states = Vec::new();
    for _ in 0..40 {
        states.push(serde_json::to_string(&sampler.state())?);
        log.push(sampler.next_batch()?);
    }
    assert!(log.iter().filter(|batch| batch.is_none()).count() >= 2, "the log crosses the ends of passes");
    for (i, state) in states.iter().enumerate() {
        let state = serde_json::from_str(state)?;
        let mut resumed = TrainSampler::resumed(Arc::clone(&dataset), seeded(1, 1, 2), SeededDraws, state)?;
        assert_eq!(resumed.state(), state);
        for wanted in &log[i..] {
            assert_eq!(&resumed.next_batch()?, wanted);
        }
    }

    let mut state = sampler.state();
    state.batches_taken = 10_000;
    let refused = |config, state| {
        let error = TrainSampler::resumed(Arc::clone(&dataset), config, SeededDraws, state).map(|_| ());
        format!("{:#}", error.expect_err("refused"))
    };
    let mut said = Transcript::default();
    said.add("batches taken", &refused(seeded(1, 1, 2), state));
    said.add("seed", &refused(seeded(2, 1, 2), sampler.state()));
    state.set = 5;
    said.add("set", &refused(seeded(1, 1, 2), state));
    said.matches("states_that_do_not_fit_are_refused");

    let test = open("sampling/synthetic", Split::Test)?;
    let mut walk = SequentialSampler::new(test, 8, 0, 1)?;
    let _ = walk.next();
    let saved = walk.state();
    let mut again = walk.clone();
    let rest = walk.collect::<Result<Vec<_>>>()?;
    again.restore(saved)?;
    assert_eq!(again.collect::<Result<Vec<_>>>()?, rest);
    assert_eq!(rest.len(), 5);
    Ok(())
}

#[test]
fn impossible_batches_are_refused() -> Result<()> {
    let dataset = open("dataset/sudoku_noaug", Split::Train)?;
    let refused = |config: SamplerConfig| {
        TrainSampler::new(Arc::clone(&dataset), config).map(|_| ()).expect_err("refused").to_string()
    };
    let good = SamplerConfig { seed: 0, global_batch_size: 20, epochs_per_pass: 1, rank: 0, world: 1 };
    assert!(TrainSampler::new(Arc::clone(&dataset), good).is_ok());
    let mut said = Transcript::default();
    for config in [
        SamplerConfig { global_batch_size: 21, ..good },
        SamplerConfig { world: 3, ..good },
        SamplerConfig { rank: 1, ..good },
        SamplerConfig { global_batch_size: 0, ..good },
        SamplerConfig { epochs_per_pass: 0, ..good },
    ] {
        said.add(&format!("{config:?}"), &refused(config));
    }
    said.matches("impossible_batches_are_refused");
    assert!(SequentialSampler::new(Arc::clone(&dataset), 5, 0, 2).is_err());
    assert!(SequentialSampler::new(Arc::clone(&dataset), 0, 0, 1).is_err());
    assert!(dataset.sets()[0].rows_as_stored(&[20]).is_err());
    Ok(())
}
