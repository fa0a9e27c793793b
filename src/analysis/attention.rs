//! Where a model's layers look: attention maps of one puzzle at one segment, and how much of it goes to the cells that
//! Sudoku's rules tie together.

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tch::{Kind, Tensor};

use super::runs::batch_of;
use crate::{
    model::{AttentionMap, Model},
    puzzle::{Geometry, Puzzle},
};

/// How one head of one layer spreads its attention, in the mean over the cells that look.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeadShares {
    /// `H` or `L`.
    pub module: char,
    /// From 0.
    pub layer: usize,
    pub head: usize,
    /// On the cell itself.
    pub itself: f64,
    /// On other cells of the same row, column and box. A cell of the same box and row counts in both.
    pub row: f64,
    pub column: f64,
    pub cell_box: f64,
    /// On cells that share none of them.
    pub elsewhere: f64,
    /// On the puzzle embedding's positions.
    pub puzzle: f64,
    /// Entropy of the attention of a cell, in bits, mean.
    pub entropy: f64,
}

/// The maps of a puzzle after some segments.
#[derive(Debug)]
pub struct PuzzleMaps {
    /// Positions in front of the cells.
    pub in_front: usize,
    /// One row each.
    pub maps: Vec<AttentionMap>,
    /// The largest difference between a layer's output and what the recomputed map gives, over the output's largest value.
    pub largest_difference: f64,
}

/// Runs a puzzle up to `segment` (from 1) and takes the maps of its last updates.
pub fn attention_of(model: &Model, puzzle: &Puzzle, segment: usize) -> Result<PuzzleMaps> {
    ensure!(segment >= 1, "segments count from 1");
    let batch = batch_of(model, std::slice::from_ref(puzzle))?;
    let mut session = model.unroll(model.fresh_carry(batch));
    session.run(segment - 1, |_, _| Ok(()))?;
    let maps = model.attention_maps(session.carry())?;
    let mut largest_difference = 0.0_f64;
    for map in &maps {
        let out = map.out.f_to_kind(Kind::Float)?;
        let worst = out.f_sub(&map.recomputed)?.f_abs()?.f_max()?.f_double_value(&[])?;
        let scale = out.f_abs()?.f_max()?.f_double_value(&[])?;
        largest_difference = largest_difference.max(worst / scale.max(1e-12));
    }
    Ok(PuzzleMaps { in_front: usize::try_from(model.config().puzzle_emb_len())?, maps, largest_difference })
}

impl PuzzleMaps {
    /// One map on the host: `[n][T][T]` flattened, and n and T.
    pub fn values(&self, k: usize) -> Result<(Vec<f32>, usize, usize)> {
        let map = self.maps.get(k).context("no such layer")?;
        let size = map.probabilities.size();
        let flat = map.probabilities.f_to_device(tch::Device::Cpu)?.f_reshape([-1])?;
        Ok((Vec::try_from(flat)?, usize::try_from(size[1])?, usize::try_from(size[2])?))
    }

    /// Shares of every head; Sudoku's units where the puzzle has them.
    pub fn shares(&self, geometry: Geometry) -> Result<Vec<HeadShares>> {
        let mut all = Vec::new();
        for (k, map) in self.maps.iter().enumerate() {
            let (values, heads, total) = self.values(k)?;
            for head in 0..heads {
                let at = |from: usize, to: usize| f64::from(values[(head * total + from) * total + to]);
                let mut sums = [0.0_f64; 7];
                let cells = total - self.in_front;
                for from in 0..cells {
                    let row = |to: usize| at(self.in_front + from, to);
                    sums[5] += (0..self.in_front).map(row).sum::<f64>();
                    sums[6] -= (0..total).map(row).map(|p| if p > 0.0 { p * p.log2() } else { 0.0 }).sum::<f64>();
                    for to in 0..cells {
                        let p = row(self.in_front + to);
                        let tied = geometry.boxes().map_or([false; 3], |boxes| boxes.shared(from, to));
                        if from == to {
                            sums[0] += p;
                            continue;
                        }
                        for (unit, tied) in tied.iter().enumerate() {
                            sums[1 + unit] += if *tied { p } else { 0.0 };
                        }
                        sums[4] += if tied.contains(&true) { 0.0 } else { p };
                    }
                }
                let mean = sums.map(|s| s / cells as f64);
                all.push(HeadShares {
                    module: map.module,
                    layer: map.layer,
                    head,
                    itself: mean[0],
                    row: mean[1],
                    column: mean[2],
                    cell_box: mean[3],
                    elsewhere: mean[4],
                    puzzle: mean[5],
                    entropy: mean[6],
                });
            }
        }
        Ok(all)
    }

    /// The maps as named arrays `[n, T, T]`, f32.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        self.maps
            .iter()
            .map(|m| (format!("{}{}", m.module, m.layer), m.probabilities.select(0, 0).contiguous()))
            .collect()
    }
}
