//! The error landscape around a state that the model reached, on the plane of a trace's two principal components:
//!
//! ```text
//! centre = z_H after a segment (the last)            scale = sqrt(T·h) / 8
//! z(i, j) = centre + i·scale·pc1 + j·scale·pc2       (rounded to the forward dtype)
//! error   = conflict loss of the digits that lm_head(z) says
//! dest    = (project(z_H after one more segment from z, centre z_L) − project(centre)) / scale
//! ```
//!
//! as upstream's notebook has it; the flow goes on for many segments and sorts the grid by the answer that is reached.
//! Grid points are forwarded as batches.

use std::{collections::HashMap, ops::ControlFlow};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::{identity::GridIdentity, pca::Pca, runs::batch_of, trajectory::trace_states};
use crate::{
    eval::infer::host_tokens,
    journal::{Journal, run_batches},
    model::{DeviceBatch, Model, Rows as _},
    puzzle::{Boxes, Geometry, Puzzle},
};

/// A plane through state space, in units of `scale` from its centre.
#[derive(Debug)]
pub struct Plane {
    pca: Pca,
    /// `[1, T, h]`, f32.
    centre_h: Tensor,
    /// `[1, T, h]`, forward dtype.
    centre_l: Tensor,
    /// The centre's coordinates, before they are taken off.
    centre_at: [f64; 2],
    batch: DeviceBatch,
    boxes: Boxes,
    /// Length of one grid unit, in the units of the principal components.
    pub scale: f64,
    /// Where z_H was after every H cycle.
    pub trajectory: Vec<[f64; 2]>,
    /// Of the trace.
    pub explained_variance_ratio: [f64; 2],
}

/// One point of the grid and where it leads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GridPoint {
    /// Along the first and second component.
    pub at: [f64; 2],
    /// Conflict loss of the digits that the state says, not clipped.
    pub error: u32,
    /// Cells without a digit in it.
    pub blanks: u32,
    /// Where z_H is after each further segment.
    pub path: Vec<[f64; 2]>,
    /// |Δz_H| / |z_H| of the last segment.
    pub last_move: f32,
    /// The answer after each further segment, as text; only those of the last where one segment was asked for.
    pub answers: Vec<String>,
}

impl GridPoint {
    /// Where one more segment leads.
    pub fn dest(&self) -> Option<[f64; 2]> {
        self.path.first().copied()
    }

    /// The answer that stayed the same over the last `window` segments.
    pub fn settled(&self, window: usize) -> Option<&str> {
        let last = self.answers.last()?;
        let tail = self.answers.get(self.answers.len().checked_sub(window.max(1))?..)?;
        tail.iter().all(|a| a == last).then_some(last)
    }
}

/// The grid's corners and how far its points are apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Grid {
    /// First coordinate on both axes.
    pub low: f64,
    /// Last coordinate on both axes.
    pub high: f64,
    /// Distance between neighbouring points.
    pub step: f64,
}

impl Grid {
    /// Upstream's: -20 to 20.
    pub const UPSTREAM: Self = Self { low: -20.0, high: 20.0, step: 1.0 };

    /// Points along one side.
    pub fn side(&self) -> usize {
        ((self.high - self.low) / self.step + 1e-9).floor() as usize + 1
    }

    /// All points, the first coordinate slowest.
    pub fn points(&self) -> Vec<[f64; 2]> {
        let at = |k: usize| self.low + k as f64 * self.step;
        let n = self.side();
        (0..n * n).map(|k| [at(k / n), at(k % n)]).collect()
    }
}

impl Plane {
    /// Runs the model on a puzzle for `halt_max_steps` segments; the plane is that of the trace's two principal
    /// components, its centre z_H after segment `centre`.
    ///
    /// # Errors
    /// A maze; a puzzle that the model does not take; a centre beyond the last segment.
    pub fn of(model: &Model, puzzle: &Puzzle, centre: usize) -> Result<Self> {
        let boxes = puzzle.geometry().boxes().with_context(|| {
            format!(
                "a landscape shows broken Sudoku rules, and this is a {}: give a Sudoku and a checkpoint that was trained on \
                 Sudokus",
                puzzle.geometry()
            )
        })?;
        Self::around(model, boxes, batch_of(model, std::slice::from_ref(puzzle))?, centre)
    }

    /// [`Plane::of`] for a batch of one Sudoku that is on the device.
    pub fn around(model: &Model, boxes: Boxes, batch: DeviceBatch, centre: usize) -> Result<Self> {
        let segments = usize::try_from(model.config().halt_max_steps)?;
        ensure!((1..=segments).contains(&centre), "no segment {centre}: the centre must be 1 to {segments}");
        let mut at_centre = None;
        let states = trace_states(model, batch.shallow_clone(), |number, segment| {
            if number == centre {
                at_centre = Some((segment.carry.z_h.f_to_kind(Kind::Float)?, segment.carry.z_l.shallow_clone()));
            }
            Ok(())
        })?; // [points, T * h]
        let (centre_h, centre_l) = at_centre.context("the centre's segment was not run")?;
        let pca = Pca::fit(&states, 2).context("the trace of z_H has no principal components")?;
        let scale = ((model.config().total_seq() * model.config().hidden_size) as f64).sqrt() / 8.0;
        let explained_variance_ratio = [pca.explained_variance_ratio[0], pca.explained_variance_ratio[1]];
        let mut plane = Self {
            pca,
            centre_h,
            centre_l,
            centre_at: [0.0; 2],
            batch,
            boxes,
            scale,
            trajectory: Vec::new(),
            explained_variance_ratio,
        };
        let centre_at = plane.coordinates(&plane.centre_h)?;
        plane.centre_at = centre_at[0].map(|x| x * scale);
        plane.trajectory = plane.coordinates(&states)?;
        Ok(plane)
    }

    /// Coordinates of states in the plane. `z`: `[n, ...]` with T·h numbers a row.
    fn coordinates(&self, z: &Tensor) -> Result<Vec<[f64; 2]>> {
        let flat = self.pca.project(&z.f_reshape([z.size()[0], -1])?)?; // [n, 2]
        let flat: Vec<f64> = Vec::try_from(flat.f_to_device(Device::Cpu)?.f_reshape([-1])?)?;
        let along = |p: &[f64], k: usize| (p[k] - self.centre_at[k]) / self.scale;
        Ok(flat.chunks_exact(2).map(|p| [along(p, 0), along(p, 1)]).collect())
    }

    /// The states at points of the plane, `[n, T, h]` f32.
    fn states(&self, points: &[[f64; 2]]) -> Result<Tensor> {
        let flat: Vec<f64> = points.iter().flatten().map(|x| x * self.scale).collect();
        let along = Tensor::from_slice(&flat).f_view([points.len() as i64, 2])?.f_to_device(self.centre_h.device())?;
        let (total, hidden) = (self.centre_h.size()[1], self.centre_h.size()[2]);
        let moved = along.f_matmul(&self.pca.components)?.f_to_kind(Kind::Float)?; // [n, T * h]
        Ok(moved.f_view([points.len() as i64, total, hidden])?.f_add(&self.centre_h)?)
    }

    /// Runs grid points for `segments` segments each, as one batch.
    pub fn explore(&self, model: &Model, points: &[[f64; 2]], segments: usize) -> Result<Vec<GridPoint>> {
        let rows = points.len() as i64;
        let widen = |t: &Tensor| {
            let size: Vec<i64> = std::iter::once(rows).chain(t.size()[1..].iter().copied()).collect();
            t.expand(size, false).contiguous()
        };
        let batch = self.batch.map_tensors(widen);
        let carry = model.carry_at(&self.states(points)?, &widen(&self.centre_l), batch);
        let said = tokens(&model.logits(&carry.z_h))?;
        let mut found: Vec<GridPoint> = points
            .iter()
            .zip(&said)
            .map(|(&at, board)| GridPoint {
                at,
                error: self.boxes.conflicts(board),
                blanks: board.iter().filter(|&&token| self.boxes.digit(token).is_none()).count() as u32,
                path: Vec::with_capacity(segments),
                last_move: 0.0,
                answers: Vec::new(),
            })
            .collect();
        let mut before = carry.z_h.shallow_clone();
        model.unroll(carry).run(segments, |_, segment| {
            let z_h = &segment.carry.z_h;
            let moves = relative_moves(&before, z_h)?;
            for (((point, at), answer), moved) in
                found.iter_mut().zip(self.coordinates(z_h)?).zip(tokens(&segment.logits)?).zip(moves)
            {
                point.path.push(at);
                point.last_move = moved;
                point.answers.push(Geometry::Sudoku(self.boxes).text(&answer));
            }
            before = z_h.shallow_clone();
            Ok(())
        })?;
        let finite = found.iter().all(|p| p.last_move.is_finite() && p.path.iter().flatten().all(|x| x.is_finite()));
        ensure!(finite, "the states hold NaN or infinite values: the model has diverged");
        Ok(found)
    }
}

/// |after − before| / |before| of every row, f32 from f64 sums. Both `[B, T, h]`.
pub fn relative_moves(before: &Tensor, after: &Tensor) -> Result<Vec<f32>> {
    let flat = |t: &Tensor| -> Result<Tensor> { Ok(t.f_to_kind(Kind::Float)?.f_flatten(1, -1)?) };
    let (before, after) = (flat(before)?, flat(after)?);
    let length = |t: &Tensor| -> Result<Tensor> {
        Ok(t.f_square()?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)?.f_sqrt()?)
    };
    let share = length(&after.f_sub(&before)?)?.f_div(&length(&before)?.f_clamp_min(1e-30)?)?;
    Ok(Vec::try_from(share.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?)?)
}

/// The tokens that logits say. `logits`: `[n, S, V]`.
fn tokens(logits: &Tensor) -> Result<Vec<Vec<u8>>> {
    let tokens = host_tokens(&logits.argmax(-1, false))?;
    Ok(tokens.outer_iter().map(|row| row.iter().map(|&t| u8::try_from(t)).collect()).collect::<Result<_, _>>()?)
}

/// A landscape or a flow: a grid of points on the plane of one puzzle's trace.
#[derive(Clone, Debug, Serialize)]
pub struct Landscape {
    /// The grid that was explored.
    pub grid: Grid,
    /// See [`Plane::scale`].
    pub scale: f64,
    /// Segment (from 1) whose end is the grid's centre.
    pub centre_segment: usize,
    /// Where z_H was after every H cycle, in the grid's units.
    pub trajectory: Vec<[f64; 2]>,
    /// H cycles a segment, which is points of `trajectory` a segment.
    pub h_cycles: usize,
    /// Share of the trace's variance along each of the two components.
    pub explained_variance_ratio: [f64; 2],
    /// Further segments from each point.
    pub segments: usize,
    /// The first coordinate slowest.
    pub points: Vec<GridPoint>,
}

impl Landscape {
    /// What the grid's errors say, in one line.
    pub fn verdict(&self) -> String {
        let total = self.points.len();
        let clean = self.points.iter().filter(|p| p.error == 0 && p.blanks == 0).count();
        match self.points.iter().map(|p| p.error).min() {
            Some(_) if clean > 0 => {
                let share = 100.0 * clean as f64 / total as f64;
                format!("{share:.1} % of {total} states around its end give valid Sudokus")
            }
            Some(least) => {
                format!("none of {total} states around its end gives a valid Sudoku, the least error is {least}")
            }
            None => "an empty grid".to_owned(),
        }
    }
}

/// What to explore.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LandscapePlan {
    /// The grid to explore.
    pub grid: Grid,
    /// 1 is upstream's landscape.
    pub segments: usize,
    /// Segment (from 1) whose end is the grid's centre.
    pub centre_segment: usize,
    /// Grid points that the model computes at once.
    pub batch_size: usize,
}

/// Explores the grid batch by batch; see `run_batches` for the journal. None where `watch` stopped it.
pub fn explore(
    model: &Model,
    plane: &Plane,
    plan: &LandscapePlan,
    journal: Option<&mut Journal<GridIdentity, GridPoint>>,
    done: Vec<Option<GridPoint>>,
    watch: impl FnMut(&[GridPoint]) -> ControlFlow<()>,
) -> Result<Option<Landscape>> {
    let points = plan.grid.points();
    let compute = |batch: &[[f64; 2]]| plane.explore(model, batch, plan.segments);
    let found = run_batches(&points, plan.batch_size, journal, done, compute, watch)?;
    Ok((!found.stopped).then(|| Landscape {
        grid: plan.grid,
        scale: plane.scale,
        centre_segment: plan.centre_segment,
        trajectory: plane.trajectory.clone(),
        h_cycles: usize::try_from(model.config().h_cycles).unwrap_or(1),
        explained_variance_ratio: plane.explained_variance_ratio,
        segments: plan.segments,
        points: found.results,
    }))
}

/// Grid points that end at the same answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Basin {
    /// 81 characters.
    pub answer: String,
    /// Grid points that end there.
    pub points: usize,
    /// Conflict loss of the answer.
    pub error: u32,
    /// Given cells that it overwrites. An answer without error that is not the solution overwrites at least one.
    pub givens_changed: u32,
    /// Equal to the solution; none where that is unknown.
    pub right: Option<bool>,
    /// The mean of where its points end.
    pub middle: [f64; 2],
    /// The largest distance of an end from that mean.
    pub spread: f64,
}

/// The answers that points settle on, by the number of points; and each point's basin, none where its answer still
/// changes in the last `window` segments.
pub fn basins(points: &[GridPoint], window: usize, puzzle: &Puzzle) -> (Vec<Basin>, Vec<Option<usize>>) {
    let geometry = puzzle.geometry();
    let solution = puzzle.solution().map(|tokens| geometry.text(tokens));
    let mut members: HashMap<&str, Vec<usize>> = HashMap::new();
    for (i, point) in points.iter().enumerate() {
        if let Some(answer) = point.settled(window) {
            members.entry(answer).or_default().push(i);
        }
    }
    let mut sorted: Vec<(&str, Vec<usize>)> = members.into_iter().collect();
    sorted.sort_by(|(a, x), (b, y)| y.len().cmp(&x.len()).then(a.cmp(b)));
    let mut of_point = vec![None; points.len()];
    let basins = sorted
        .iter()
        .enumerate()
        .map(|(k, (answer, members))| {
            members.iter().for_each(|&i| of_point[i] = Some(k));
            let ends: Vec<[f64; 2]> = members.iter().filter_map(|&i| points[i].path.last().copied()).collect();
            let mean = |axis: usize| ends.iter().map(|p| p[axis]).sum::<f64>() / ends.len().max(1) as f64;
            let middle = [mean(0), mean(1)];
            let distance = |p: &[f64; 2]| (p[0] - middle[0]).hypot(p[1] - middle[1]);
            let tokens: Vec<u8> = answer.chars().map(|symbol| geometry.token(symbol).unwrap_or(0)).collect();
            let changed = |&(&given, &token): &(&u8, &u8)| !geometry.is_open(given) && given != token;
            Basin {
                answer: (*answer).to_owned(),
                points: members.len(),
                error: geometry.boxes().map_or(0, |boxes| boxes.conflicts(&tokens)),
                givens_changed: puzzle.tokens().iter().zip(&tokens).filter(changed).count() as u32,
                right: solution.as_ref().map(|s| s == answer),
                middle,
                spread: ends.iter().map(distance).fold(0.0, f64::max),
            }
        })
        .collect();
    (basins, of_point)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_has_upstreams_points() {
        let points = Grid::UPSTREAM.points();
        assert_eq!(points.len(), 1681);
        assert_eq!((points[0], points[1], points[1680]), ([-20.0, -20.0], [-20.0, -19.0], [20.0, 20.0]));
        let fine = Grid { low: -1.0, high: 1.0, step: 0.1 };
        assert_eq!(fine.side(), 21);
    }

    #[test]
    fn basins_are_sorted_and_unsettled_points_have_none() {
        let point = |answers: &[&str], end: f64| GridPoint {
            at: [0.0; 2],
            error: 0,
            blanks: 0,
            path: vec![[end, 0.0]],
            last_move: 0.0,
            answers: answers.iter().map(|a| a.repeat(81)).collect(),
        };
        let points =
            [point(&["1", "1"], 1.0), point(&["2", "1"], 0.0), point(&["1", "1"], 3.0), point(&["2", "2"], 5.0)];
        let parse = |text: String| Geometry::SUDOKU.parse(&text).unwrap();
        let (tokens, solution) = (parse(format!("112{}", ".".repeat(78))), parse("2".repeat(81)));
        let puzzle = Puzzle::new(Geometry::SUDOKU, tokens, Some(solution)).unwrap();
        let (basins, of_point) = basins(&points, 2, &puzzle);
        assert_eq!((basins[0].givens_changed, basins[1].givens_changed), (1, 2));
        assert_eq!(of_point, [Some(0), None, Some(0), Some(1)]);
        assert_eq!((basins[0].points, basins[0].middle, basins[0].spread), (2, [2.0, 0.0], 1.0));
        assert_eq!((basins[0].error, basins[0].right, basins[1].right), (216, Some(false), Some(true)));
    }
}
