//! The studies of landscapes: errors around the state that a model ends in, and where many segments lead from there.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use ndarray::{Array2, Array3};
use serde::Serialize;

use super::{Files, StudyFolder, Watcher, batch_size, interrupted};
use crate::{
    analysis::{
        identity::GridIdentity,
        landscape::{Basin, Grid, GridPoint, Landscape, LandscapePlan, Plane, basins, explore},
        subject::ChosenPuzzle,
    },
    checkpoint::Checkpoint,
    model::Model,
    rng::{Purpose, distinct, stream},
    viz::{
        landscape::{Basins, HeatMap, Map},
        surface::Surface,
    },
};

/// What `hrm viz landscape` writes.
pub const LANDSCAPE_FILES: Files = Files {
    folder: "landscape",
    journal: Some("points.jsonl"),
    pictures: &["landscape", "surface"],
    others: &["error.npy", "end.npy", "landscape.json"],
};

/// What `hrm viz flow` writes.
pub const FLOW_FILES: Files = Files {
    folder: "flow",
    journal: Some("points.jsonl"),
    pictures: &["flow"],
    others: &["error.npy", "end.npy", "basin.npy", "flow.json"],
};

/// What to explore.
#[derive(Clone, Copy, Debug)]
pub struct GridStudyPlan {
    /// `landscape` or `flow`.
    pub name: &'static str,
    pub grid: Grid,
    /// Segments from every point.
    pub segments: usize,
    /// The segment whose z_H is the centre; none for the last.
    pub centre: Option<usize>,
    /// Points per batch.
    pub batch_size: Option<u64>,
    /// Share of the points that are drawn with an arrow or a way, from 0 to 1.
    pub density: f64,
    pub seed: u64,
}

/// A puzzle with the checkpoint that works on it.
#[derive(Debug)]
pub struct GridSubject {
    pub checkpoint: Checkpoint,
    pub chosen: ChosenPuzzle,
    pub model: Model,
}

/// A landscape that was computed, with what the pictures say beside it.
#[derive(Debug)]
pub struct Explored<'a> {
    subject: &'a GridSubject,
    output: &'a StudyFolder,
    pub landscape: Landscape,
    /// Which points are drawn with an arrow or a way.
    drawn: Vec<usize>,
    /// Points that were computed now, not read from the journal.
    pub computed: usize,
    pub took: Duration,
}

impl GridStudyPlan {
    /// Refuses a puzzle that has no landscape.
    ///
    /// # Errors
    /// A puzzle that is no Sudoku.
    pub fn check_puzzle(&self, chosen: &ChosenPuzzle) -> Result<()> {
        ensure!(
            chosen.puzzle.geometry().is_sudoku(),
            "{} is a {}: the landscape counts broken Sudoku rules; give a Sudoku and a checkpoint that was trained on \
             Sudokus",
            chosen.origin,
            chosen.puzzle.geometry()
        );
        Ok(())
    }

    /// The segment whose z_H is the centre.
    ///
    /// # Errors
    /// A centre that is no segment of the model.
    pub fn centre_of(&self, model: &Model) -> Result<usize> {
        let last = usize::try_from(model.config().halt_max_steps)?;
        let centre = self.centre.unwrap_or(last);
        ensure!((1..=last).contains(&centre), "--centre {centre}: the model runs segments 1 to {last}");
        Ok(centre)
    }

    /// Computes the points, on with what the journal holds where that is wanted.
    ///
    /// # Errors
    /// Those of [`GridStudyPlan::centre_of`]; [`crate::outcome::Interrupted`]; a journal of other points; a failure inside libtorch or of the
    /// file system.
    pub fn run<'a>(
        &self,
        subject: &'a GridSubject,
        output: &'a StudyFolder,
        watcher: &dyn Watcher,
    ) -> Result<Explored<'a>> {
        const FILE: &str = "points.jsonl";
        let GridSubject { checkpoint, chosen, model } = subject;
        let Self { name, grid, segments, .. } = *self;
        let centre_segment = self.centre_of(model)?;
        let asked = GridIdentity {
            what: name,
            weights: checkpoint.weights_digest(),
            puzzle: chosen.puzzle.tokens().to_vec(),
            grid,
            segments,
            centre: centre_segment,
            dtype: model.config().forward_dtype.short_name(),
        };
        let (mut journal, done) = output.journal::<_, GridPoint>(FILE, &asked)?;
        let points = grid.points();
        let total = points.len();
        let whole = |p: &GridPoint| p.path.len() == segments && p.answers.len() == segments;
        let done = done.place(&points, |p, at| p.at == *at && whole(p))?;
        let before = done.iter().flatten().count();
        if before > 0 {
            watcher.line(format_args!("{before} of {total} points were there already"));
        }

        let plane = Plane::of(model, &chosen.puzzle, centre_segment)?;
        let plan = LandscapePlan { grid, segments, centre_segment, batch_size: batch_size(self.batch_size, model) };
        let bar = watcher.bar(total, name, "points");
        bar.set_position(before as u64);
        let mut reached = before;
        let started = Instant::now();
        let landscape = explore(model, &plane, &plan, Some(&mut journal), done, |found| {
            reached += found.len();
            bar.inc(found.len() as u64);
            if watcher.asked_to_stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        bar.finish_and_clear();
        let landscape = landscape.ok_or_else(|| interrupted(watcher, reached, total, output.folder()))?;
        let count = (self.density * total as f64).round() as u32;
        let drawn = distinct(&mut stream(Purpose::Analysis, self.seed, 0, 0), total as u32, count);
        Ok(Explored {
            subject,
            output,
            landscape,
            drawn: drawn.into_iter().map(|i| i as usize).collect(),
            computed: total - before,
            took: started.elapsed(),
        })
    }
}

/// What both documents begin with.
#[derive(Debug, Serialize)]
pub struct GridHead {
    pub title: String,
    pub pictures: Vec<String>,
    /// numpy's files.
    pub arrays: Vec<String>,
    checkpoint: String,
    step: Option<u64>,
    dtype: &'static str,
    puzzle: Vec<u8>,
    solution: Option<Vec<u8>>,
}

/// How the pictures of a landscape look.
#[derive(Clone, Copy, Debug)]
pub struct LandscapeLook {
    /// Errors from here on have the same colour.
    pub clip: u32,
    /// Grey out the points whose board has blanks.
    pub mask_blanks: bool,
    /// Elevation of the viewpoint, in degrees, Azimuth of the viewpoint, in degrees.
    pub elevation: f64,
    pub azimuth: f64,
}

/// The document of `hrm viz landscape`.
#[derive(Debug, Serialize)]
pub struct LandscapeReport<'a> {
    #[serde(flatten)]
    pub head: GridHead,
    clip: u32,
    #[serde(flatten)]
    landscape: &'a Landscape,
}

/// The document of `hrm viz flow`.
#[derive(Debug, Serialize)]
pub struct FlowReport<'a> {
    #[serde(flatten)]
    pub head: GridHead,
    settle: u32,
    pub basins: Vec<Basin>,
    /// Index into `basins` of every point, null where its answer still changes.
    basin_of_point: Vec<Option<usize>>,
    #[serde(flatten)]
    landscape: &'a Landscape,
}

impl FlowReport<'_> {
    /// Points whose answer still changes, as a share of all.
    pub fn unsettled(&self) -> f64 {
        let unsettled = self.basin_of_point.iter().filter(|b| b.is_none()).count();
        unsettled as f64 / self.basin_of_point.len() as f64
    }
}

impl Explored<'_> {
    fn map(&self, title: String) -> Map<'_> {
        let GridSubject { chosen, checkpoint, .. } = self.subject;
        Map { landscape: &self.landscape, title, sources: chosen.sources(checkpoint) }
    }

    fn head(&self, title: String, pictures: Vec<String>, arrays: Vec<String>) -> GridHead {
        let GridSubject { checkpoint, chosen, model } = self.subject;
        GridHead {
            title,
            pictures,
            arrays,
            checkpoint: checkpoint.path.display().to_string(),
            step: checkpoint.step,
            dtype: model.config().forward_dtype.short_name(),
            puzzle: chosen.puzzle.tokens().to_vec(),
            solution: chosen.puzzle.solution().map(<[u8]>::to_vec),
        }
    }

    /// The grid's errors `[side, side]` and where its points end `[side, side, 2]`, f32, for numpy; the first index goes
    /// along the first component.
    fn point_arrays(&self) -> Result<Vec<String>> {
        let (side, points) = (self.landscape.grid.side(), &self.landscape.points);
        let error = Array2::from_shape_fn((side, side), |(i, j)| points[i * side + j].error as f32);
        let end = |(i, j, axis): (usize, usize, usize)| {
            points[i * side + j].path.last().map_or(f32::NAN, |at| at[axis] as f32)
        };
        let ends = Array3::from_shape_fn((side, side, 2), end);
        Ok(vec![self.output.array("error", &error)?, self.output.array("end", &ends)?])
    }

    /// Draws map and surface, and writes the arrays and `landscape.json`; returns the document and its file.
    ///
    /// # Errors
    /// Those of the file system and of drawing.
    pub fn write_landscape(&self, look: &LandscapeLook) -> Result<(LandscapeReport<'_>, String)> {
        let title = format!("{}: {}", self.subject.chosen.puzzle.title(), self.landscape.verdict());
        let LandscapeLook { clip, mask_blanks, elevation, azimuth } = *look;
        let heat = HeatMap { map: self.map(title.clone()), clip, mask_blanks, arrows: self.drawn.clone() };
        let surface = Surface { map: self.map(title.clone()), clip, mask_blanks, elevation, azimuth };
        let mut pictures = self.output.picture("landscape", &heat)?;
        pictures.extend(self.output.picture("surface", &surface)?);
        let head = self.head(title, pictures, self.point_arrays()?);
        let report = LandscapeReport { head, clip, landscape: &self.landscape };
        let file = self.output.json("landscape.json", &report)?;
        Ok((report, file))
    }

    /// Finds the basins, of answers that stayed the same over the last `settle` segments, draws them, and writes the
    /// arrays and `flow.json`; returns the document and its file.
    ///
    /// # Errors
    /// Those of the file system and of drawing.
    pub fn write_flow(&self, settle: u32) -> Result<(FlowReport<'_>, String)> {
        let chosen = &self.subject.chosen;
        let (found, of_point) = basins(&self.landscape.points, settle as usize, &chosen.puzzle);
        let total = self.landscape.points.len();
        let percent = |n: usize| 100.0 * n as f64 / total as f64;
        let right: usize = found.iter().filter(|b| b.right == Some(true)).map(|b| b.points).sum();
        let unsettled = of_point.iter().filter(|b| b.is_none()).count();
        let wrong = found.iter().filter(|b| b.right != Some(true)).count();
        let title = format!(
            "{}: {:.0} % of the plane flows to the solution, {:.0} % to {wrong} wrong answer{}",
            chosen.puzzle.title(),
            percent(right),
            percent(total - right - unsettled),
            if wrong == 1 { "" } else { "s" },
        );
        let picture =
            Basins { map: self.map(title.clone()), basins: &found, of_point: &of_point, ways: self.drawn.clone() };
        let pictures = self.output.picture("flow", &picture)?;
        let side = self.landscape.grid.side();
        let number = |k: usize| of_point[k].and_then(|basin| i32::try_from(basin).ok()).unwrap_or(-1);
        let mut arrays = self.point_arrays()?;
        let numbers = Array2::from_shape_fn((side, side), |(i, j)| number(i * side + j));
        arrays.push(self.output.array("basin", &numbers)?);
        let report = FlowReport {
            head: self.head(title, pictures, arrays),
            settle,
            basins: found,
            basin_of_point: of_point,
            landscape: &self.landscape,
        };
        let file = self.output.json("flow.json", &report)?;
        Ok((report, file))
    }
}
