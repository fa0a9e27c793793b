//! Upstream's voting rule against golden/vote: upstream's own batch_inference run on scripted predictions.

mod common;

use common::tensors::{Tensors, json};
use hrm::{
    eval::vote::{PassOutcome, checkpoint_solves, matching_cells, summary_line},
    puzzle::Geometry,
};
use tch::{Kind, Tensor};

fn ints(t: &Tensor) -> Vec<i32> {
    Vec::try_from(t.to_kind(Kind::Int).contiguous().view([-1])).unwrap()
}

fn check(case: &str) {
    let facts = json(&format!("vote/{case}.json"));
    let data = Tensors::load(&format!("vote/{case}.safetensors"));
    let size = |key: &str| facts[key].as_u64().unwrap() as usize;
    let (batches, rows, perms, checkpoints) =
        (size("num_batch"), size("batch_size"), size("permutes"), size("checkpoints"));
    let cells = size("seq_len");
    let maze = facts["dataset"] == "maze";
    let geometry = if maze { Geometry::maze(cells.isqrt()) } else { Geometry::SUDOKU };
    assert!(perms <= geometry.permutations() as usize);

    let labels = ints(&data.get("labels"));
    let predictions = ints(&data.get("predictions")); // [checkpoint, batch, perm, row, cell]
    let halts = ints(&data.get("halts")); // [checkpoint, batch, perm, row]
    let wanted = ints(&data.get("per_checkpoint_correct")); // [checkpoint, puzzle]
    let mut solved = vec![false; batches * rows];
    for checkpoint in 0..checkpoints {
        for puzzle in 0..batches * rows {
            let (batch, row) = (puzzle / rows, puzzle % rows);
            let passes: Vec<PassOutcome> = (0..perms)
                .map(|perm| {
                    let at = ((checkpoint * batches + batch) * perms + perm) * rows + row;
                    let mut label = labels[puzzle * cells..][..cells].to_vec();
                    geometry.permute(&mut label, perm as u32);
                    let right = matching_cells(&predictions[at * cells..][..cells], &label);
                    PassOutcome { exact: right == cells as u64, halted: halts[at] != 0 }
                })
                .collect();
            let found = checkpoint_solves(geometry.kind().unwrap(), &passes);
            assert_eq!(
                i32::from(found),
                wanted[checkpoint * batches * rows + puzzle],
                "{case}, checkpoint {checkpoint}, puzzle {puzzle}: {passes:?}"
            );
            solved[puzzle] |= found;
        }
    }
    let wanted: Vec<bool> = ints(&data.get("correct")).iter().map(|&c| c != 0).collect();
    assert_eq!(solved, wanted, "{case}");
    let correct = solved.iter().filter(|&&s| s).count() as u64;
    assert_eq!(summary_line(correct, (batches * rows) as u64), facts["summary_line"].as_str().unwrap(), "{case}");
}

#[test]
fn sudoku_one_permutation() {
    check("sudoku_1perm");
}

#[test]
fn sudoku_nine_permutations() {
    check("sudoku_1ckpt_9perm");
}

#[test]
fn sudoku_three_checkpoints_four_permutations() {
    check("sudoku_3ckpt_4perm");
}

#[test]
fn maze_one_permutation() {
    check("maze_1perm");
}

#[test]
fn maze_two_permutations_two_checkpoints() {
    check("maze_2perm");
}
