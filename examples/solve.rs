//! Loads a checkpoint and solves a Sudoku: `cargo run --release --example solve -- CHECKPOINT [81 CHARACTERS]`.

use anyhow::{Context, Result};
use hrm::{checkpoint::Checkpoint, eval::infer, model, puzzle::Board};
use ndarray::Array2;

const PUZZLE: &str = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79";

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().context("name a checkpoint, such as checkpoint_example/sudoku-mini")?;
    let board: Board = args.next().as_deref().unwrap_or(PUZZLE).parse()?;

    let checkpoint = Checkpoint::load(path.as_ref())?.checkpoint;
    let hrm = checkpoint.model(model::Dims::sudoku(), tch::Device::Cpu, None)?;
    let inputs = Array2::from_shape_vec((1, 81), board.tokens().iter().map(|&t| i32::from(t)).collect())?;
    let batch = hrm::dataset::Batch { labels: inputs.clone(), inputs, puzzle_identifiers: vec![0].into() };
    let last = hrm.all_segments(&model::DeviceBatch::upload(&batch, hrm.device()), |_| ());

    // Tokens are 1 for a blank and digit + 1 otherwise.
    let answer = infer::host_tokens(&last.predictions())?.mapv(|token| (token - 1).max(0).to_string());
    answer.into_raw_vec_and_offset().0.chunks(9).for_each(|row| println!("{}", row.join(" ")));
    Ok(())
}
