//! The study of attention: where the layers look at one puzzle.

use anyhow::{Result, bail};
use serde::Serialize;

use super::{Files, StudyFolder};
use crate::{
    analysis::{
        attention::{HeadShares, PuzzleMaps},
        subject::ChosenPuzzle,
    },
    checkpoint::{Checkpoint, safetensors_file},
    model::{Model, to_raw},
    puzzle::Puzzle,
    viz::{
        attention::{AttentionPicture, LayerMap},
        chart::Words,
    },
};

/// The document of `hrm analyze attention`.
#[derive(Debug, Serialize)]
pub struct AttentionReport {
    title: String,
    pub pictures: Vec<String>,
    pub maps: String,
    /// numpy's files.
    pub arrays: Vec<String>,
    checkpoint: String,
    step: Option<u64>,
    dtype: &'static str,
    puzzle: Vec<u8>,
    segment: usize,
    /// Row and column of the cell that the picture shows, from 1.
    cell: [usize; 2],
    /// Between the recomputed output and the forward pass's, over the latter's largest value.
    largest_difference: f64,
    heads: Vec<HeadShares>,
}

/// What it writes.
pub const FILES: Files = Files {
    folder: "analysis/attention",
    journal: None,
    pictures: &["attention"],
    others: &["maps.safetensors", "shares.npy", "shares.json"],
};

/// Maps of attention that were found, and what is shown of them.
#[derive(Debug)]
pub struct AttentionStudy<'a> {
    pub checkpoint: &'a Checkpoint,
    pub model: &'a Model,
    pub chosen: &'a ChosenPuzzle,
    pub segment: usize,
    pub found: &'a PuzzleMaps,
    /// Of all heads, see [`PuzzleMaps::shares`].
    pub shares: Vec<HeadShares>,
    /// The cell whose view is drawn.
    pub cell: usize,
    /// The layers that are drawn, as [`wanted_layers`] numbers them.
    pub layers: &'a [usize],
}

impl AttentionStudy<'_> {
    /// Draws the picture and writes the maps, the table and `shares.json`; returns the document and its file.
    ///
    /// # Errors
    /// Those of the file system and of drawing; a failure inside libtorch.
    pub fn write(self, output: &StudyFolder) -> Result<(AttentionReport, String)> {
        let Self { checkpoint, model, chosen, segment, found, shares, cell, layers } = self;
        let puzzle = &chosen.puzzle;
        let width = puzzle.geometry().width();
        let at = [cell / width + 1, cell % width + 1];
        let title = title(puzzle, segment, &shares);
        let names = layer_names(model);
        let map = |&k: &usize| -> Result<LayerMap> {
            let (values, heads, total) = found.values(k)?;
            Ok(LayerMap { name: names[k].clone(), values, heads, total })
        };
        let picture = AttentionPicture {
            words: Words {
                title: title.clone(),
                subtitle: format!(
                    "Left: each position's attention; right: the board as the cell in row {}, column {} sees it, by head",
                    at[0], at[1]
                ),
                sources: chosen.sources(checkpoint),
            },
            layers: layers.iter().map(map).collect::<Result<_>>()?,
            in_front: found.in_front,
            cell,
            puzzle: puzzle.clone(),
        };
        let pictures = output.picture("attention", &picture)?;
        let maps = output.path("maps.safetensors");
        let tensors: Vec<_> = found.tensors().into_iter().map(|(name, t)| (name, to_raw(&t))).collect();
        safetensors_file::write(&maps, output.of_files(), &tensors)?;
        let columns = |s: &HeadShares| [s.itself, s.row, s.column, s.cell_box, s.elsewhere, s.puzzle, s.entropy];
        let table: Vec<[f64; 7]> = shares.iter().map(columns).collect();
        let report = AttentionReport {
            title,
            pictures,
            maps: maps.display().to_string(),
            arrays: vec![output.array("shares", &ndarray::arr2(&table))?],
            checkpoint: checkpoint.path.display().to_string(),
            step: checkpoint.step,
            dtype: model.config().forward_dtype.short_name(),
            puzzle: puzzle.tokens().to_vec(),
            segment,
            cell: at,
            largest_difference: found.largest_difference,
            heads: shares,
        };
        let file = output.json("shares.json", &report)?;
        Ok((report, file))
    }
}

/// All layers: H0, H1, .., L0, ..
fn layer_names(model: &Model) -> Vec<String> {
    let modules = [('H', model.config().h_layers), ('L', model.config().l_layers)];
    modules.iter().flat_map(|(module, n)| (0..*n).map(move |i| format!("{module}{i}"))).collect()
}

/// The numbers of the layers that are called so; none of them means the first and last of each module.
///
/// # Errors
/// A name that no layer of the model has.
pub fn wanted_layers(asked: &[String], model: &Model) -> Result<Vec<usize>> {
    let names = layer_names(model);
    let all = names.as_slice();
    if asked.is_empty() {
        let of = |module: char| (0..all.len()).filter(move |&k| all[k].starts_with(module));
        let mut chosen: Vec<usize> =
            ['H', 'L'].into_iter().flat_map(|m| [of(m).next(), of(m).next_back()]).flatten().collect();
        chosen.dedup();
        return Ok(chosen);
    }
    asked
        .iter()
        .map(|name| match all.iter().position(|a| a.eq_ignore_ascii_case(name.trim())) {
            Some(k) => Ok(k),
            None => bail!("--layers {name}: this model has {}", all.join(", ")),
        })
        .collect()
}

fn title(puzzle: &Puzzle, segment: usize, shares: &[HeadShares]) -> String {
    let name = puzzle.title();
    let tied = |s: &HeadShares| 1.0 - s.itself - s.elsewhere - s.puzzle;
    match shares.iter().max_by(|a, b| tied(a).total_cmp(&tied(b))) {
        Some(best) if puzzle.geometry().is_sudoku() => format!(
            "{name}, segment {segment}: head {} of {}{} gives {:.0} % to row, column and box",
            best.head,
            best.module,
            best.layer,
            100.0 * tied(best)
        ),
        _ => format!("{name}: where the layers look in segment {segment}"),
    }
}
