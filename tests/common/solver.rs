//! A small untrained model that solves some easy boards at some segments: it shows what is given, and what it puts into
//! blanks changes from segment to segment.
#![allow(dead_code, reason = "each test program uses a part")]

use std::path::Path;

use anyhow::{Context, Result};
use hrm::{
    checkpoint::{Checkpoint, CheckpointMeta, RawTensor, safetensors_file},
    config::{ArchConfig, TrainConfig},
    dataset::{Dataset, DatasetMeta, SetArrays, Split},
    dtype::Dtype,
    model::{Dims, Model, ModelConfig, to_raw},
    puzzle::Board,
    store::Existing,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor};

/// Segments of its passes.
pub const SEGMENTS: i64 = 6;

fn config() -> TrainConfig {
    let arch = ArchConfig {
        H_cycles: 1,
        L_cycles: 1,
        H_layers: 1,
        L_layers: 1,
        hidden_size: 32,
        num_heads: 2,
        puzzle_emb_ndim: 32,
        halt_max_steps: SEGMENTS,
        forward_dtype: Some(Dtype::F32),
        ..ArchConfig::default()
    };
    TrainConfig { arch, data_path: "data/nowhere".into(), ..TrainConfig::default() }
}

/// Weights: lm_head shows the token's own embedding, the layers are weaker than what they add to, the q head is random.
fn tensors(seed: u64, dims: Dims) -> Result<Vec<(String, RawTensor)>> {
    let config = ModelConfig::new(&config().arch, dims)?;
    // Not from torch's generator, which all tests of a program share.
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut normal = || {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        (radius * (2.0 * std::f64::consts::PI * rng.random::<f64>()).cos()) as f32
    };
    let mut embedding: Vec<f32> = Vec::new();
    let mut tensors = Vec::new();
    for (name, shape) in Model::tensor_shapes(&config) {
        let n = shape.iter().product::<i64>() as usize;
        let fan_in = *shape.last().context("a shape")? as f32;
        let mut drawn = |std: f32| (0..n).map(|_| std * normal()).collect::<Vec<f32>>();
        let values = if name.ends_with("_init") {
            drawn(0.7)
        } else if name.ends_with("embed_tokens.embedding_weight") {
            embedding = drawn(1.0 / fan_in.sqrt());
            embedding.clone()
        } else if name.ends_with("lm_head.weight") {
            // No padding as an answer, and no blank of a Sudoku.
            let hidden = if dims == Dims::sudoku() { 2 } else { 1 };
            let at = |i: usize| if i < hidden * fan_in as usize { 0.0 } else { embedding[i] };
            (0..n).map(at).collect()
        } else if name.ends_with("q_head.weight") {
            drawn(1.0)
        } else if name.ends_with("q_head.bias") {
            vec![-2.0, 0.0]
        } else if name.ends_with("puzzle_emb.weights") {
            vec![0.0; n]
        } else if name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight") {
            drawn(OUTPUT_GAIN / fan_in.sqrt())
        } else {
            drawn(1.0 / fan_in.sqrt())
        };
        tensors.push((name, to_raw(&Tensor::from_slice(&values).view(shape.as_slice()))));
    }
    Ok(tensors)
}

/// How strongly attention and MLPs write: enough to change what stands in blanks, too little to change givens often.
const OUTPUT_GAIN: f32 = 0.35;

pub fn model(seed: u64) -> Result<Model> {
    of_size(seed, Dims::sudoku())
}

/// The same for other puzzles.
pub fn of_size(seed: u64, dims: Dims) -> Result<Model> {
    let config = ModelConfig::new(&config().arch, dims)?;
    Model::from_tensors(config, &tensors(seed, dims)?, Device::Cpu)
}

/// The same as a run folder with `step_1`.
pub fn write(folder: &Path, seed: u64) -> Result<()> {
    write_of_size(folder, seed, Dims::sudoku())
}

pub fn write_of_size(folder: &Path, seed: u64, dims: Dims) -> Result<()> {
    let meta = CheckpointMeta::of_this_process(Some(1), None);
    safetensors_file::save_folder(&folder.join("step_1"), Existing::Refuse, &config(), &meta, &tensors(seed, dims)?)?;
    Checkpoint::load(folder).map(drop)
}

/// Solved boards of the bundled test rows with `i % 5` cells blanked out in the i-th.
pub fn boards(count: usize) -> Result<Vec<[Board; 2]>> {
    let bundled = Dataset::bundled_test(Some(count))?;
    let rows = bundled.sets()[0].rows_as_stored(&(0..count).collect::<Vec<_>>())?;
    rows.labels
        .outer_iter()
        .enumerate()
        .map(|(i, label)| {
            let answer = Board::from_tokens(&label.to_vec())?;
            let mut digits = *answer.digits();
            for k in 0..i % 5 {
                digits[(i * 31 + k * 17) % 81] = 0;
            }
            Ok([Board::from_digits(digits)?, answer])
        })
        .collect()
}

pub fn dataset(count: usize) -> Result<Dataset> {
    let mut arrays = SetArrays::default();
    for [question, answer] in boards(count)? {
        arrays.inputs.extend(question.tokens());
        arrays.labels.extend(answer.tokens());
    }
    of_arrays(arrays, Dims::sudoku())
}

/// Mazes of 5 × 5 cells, start and goal side by side in every third: the model solves those by showing what is given.
pub fn mazes(count: usize) -> Result<Dataset> {
    let mut arrays = SetArrays::default();
    for i in 0..count {
        let mut maze: Vec<u8> = (0..25).map(|c| if (c * 7 + i) % 4 == 0 { 1 } else { 2 }).collect();
        let start = i % 20;
        let goal = if i % 3 == 0 { start + 5 } else { (start + 12) % 25 };
        (maze[start], maze[goal]) = (3, 4);
        arrays.labels.extend(&maze);
        arrays.inputs.extend(maze);
    }
    of_arrays(arrays, maze_dims())
}

pub fn maze_dims() -> Dims {
    Dims { seq_len: 25, vocab_size: 6, num_puzzle_identifiers: 1 }
}

fn of_arrays(mut arrays: SetArrays, dims: Dims) -> Result<Dataset> {
    let count = arrays.inputs.len() / dims.seq_len as usize;
    arrays.puzzle_identifiers = vec![0; count];
    arrays.puzzle_indices = (0..=count as i32).collect();
    arrays.group_indices = arrays.puzzle_indices.clone();
    let meta = DatasetMeta {
        pad_id: 0,
        ignore_label_id: Some(0),
        blank_identifier_id: 0,
        vocab_size: dims.vocab_size,
        seq_len: dims.seq_len,
        num_puzzle_identifiers: 1,
        total_groups: count as i64,
        mean_puzzle_examples: 1.0,
        sets: vec!["all".into()],
    };
    Dataset::from_sets(Split::Test, meta, vec![("all".into(), arrays)])
}

/// The same as a list that `hrm build-dataset` reads.
pub fn csv(count: usize) -> Result<String> {
    let mut text = "source,question,answer,rating\n".to_owned();
    for (i, [question, answer]) in boards(count)?.into_iter().enumerate() {
        text += &format!("{},{question},{answer},{}\n", ["puzzles0", "puzzles1"][i % 2], i % 60);
    }
    Ok(text)
}
