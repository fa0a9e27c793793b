//! Pictures of how z_H moves: one path, several on one plane, or one that moves.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{Watcher, save_picture};
use crate::{
    analysis::{
        subject::{ChosenPuzzle, origins},
        trajectory::{PointsPer, Subject, Trajectory, trace_together},
    },
    checkpoint::{Checkpoint, short_names, weights_name},
    model::Model,
    puzzle::{Puzzle, Transform},
    store::{Existing, write_bytes},
    viz::{animation::render_gif, chart::Words, trajectories::PathsPicture, trajectory::TrajectoryPicture},
};

/// What is traced and where the picture goes.
#[derive(Debug)]
pub struct TrajectoryPlan<'a> {
    pub chosen: &'a [ChosenPuzzle],
    pub checkpoints: &'a [Checkpoint],
    /// Transforms of each puzzle.
    pub permutes: u32,
    pub points: PointsPer,
    /// The picture; `.gif` shows one path that moves.
    pub file: PathBuf,
    /// What to do with a file that is there already.
    pub existing: Existing,
    /// Everything that has a path in the picture.
    traced: Vec<Traced>,
}

#[derive(Debug)]
struct Traced {
    /// Index into the checkpoints.
    checkpoint: usize,
    puzzle: Puzzle,
    name: String,
}

/// What was traced.
#[derive(Debug)]
pub struct TracedPaths {
    pub title: String,
    /// In the picture's order; at least one.
    pub paths: Vec<Trajectory>,
    /// What each is called.
    pub names: Vec<String>,
}

/// Whether a picture's name ends in `.gif`.
pub fn is_gif(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gif"))
}

impl<'a> TrajectoryPlan<'a> {
    /// Every puzzle under every transform with every checkpoint, named by what differs.
    ///
    /// # Errors
    /// More transforms than a puzzle has; several paths in a GIF.
    pub fn new(
        chosen: &'a [ChosenPuzzle],
        checkpoints: &'a [Checkpoint],
        permutes: u32,
        points: PointsPer,
        file: PathBuf,
        existing: Existing,
    ) -> Result<Self> {
        let mut plan = Self { chosen, checkpoints, permutes, points, file, existing, traced: Vec::new() };
        let short = short_names(&checkpoints.iter().collect::<Vec<_>>());
        for (checkpoint, weights) in short.iter().enumerate() {
            for one in chosen {
                let geometry = one.puzzle.geometry();
                let most = geometry.permutations();
                ensure!(
                    (1..=most).contains(&permutes),
                    "--guesses {permutes}: a {} puzzle has {most} transforms: give 1 to {most}",
                    geometry
                );
                for permutation in 0..permutes {
                    let name = plan.name_of(one, permutation, weights);
                    plan.traced.push(Traced { checkpoint, puzzle: permuted(&one.puzzle, permutation)?, name });
                }
            }
        }
        let paths = plan.traced.len();
        ensure!(
            !is_gif(&plan.file) || paths == 1,
            "{}: a GIF shows one path, this would be {paths}: take .png or .svg",
            plan.file.display()
        );
        Ok(plan)
    }

    /// What is the same for all paths is in the title.
    fn name_of(&self, one: &ChosenPuzzle, permutation: u32, weights: &str) -> String {
        let mut name = Vec::new();
        if self.chosen.len() > 1 || (self.permutes == 1 && self.checkpoints.len() == 1) {
            name.push(one.puzzle.title());
        }
        if self.permutes > 1 {
            name.push(format!("guess {permutation}"));
        }
        if self.checkpoints.len() > 1 {
            name.push(weights.to_owned());
        }
        name.join(", ")
    }

    /// Traces the paths with the checkpoints' models and draws them.
    ///
    /// # Errors
    /// Those of drawing and of the file system; a failure inside libtorch.
    pub fn run(&self, models: &[Model], watcher: &dyn Watcher) -> Result<TracedPaths> {
        let subjects: Vec<Subject<'_>> =
            self.traced.iter().map(|t| Subject { model: &models[t.checkpoint], puzzle: &t.puzzle }).collect();
        let bar = watcher.bar(subjects.len(), "trace", "paths");
        let paths = trace_together(&subjects, self.points, || bar.inc(1))?;
        bar.finish_and_clear();
        let title = match paths.as_slice() {
            [one] => self.draw_one(one, watcher)?,
            many => self.draw_many(many)?,
        };
        Ok(TracedPaths { title, paths, names: self.traced.iter().map(|t| t.name.clone()).collect() })
    }

    fn sources(&self) -> String {
        let weights: Vec<String> = self.checkpoints.iter().map(weights_name).collect();
        format!("{} · Weights: {}", origins(self.chosen), weights.join(" and "))
    }

    fn draw_one(&self, trajectory: &Trajectory, watcher: &dyn Watcher) -> Result<String> {
        let puzzle_name = self.chosen[0].puzzle.title();
        let picture = TrajectoryPicture { trajectory, puzzle_name, sources: self.sources() };
        if is_gif(&self.file) {
            let bar = watcher.bar(trajectory.points.len() + 1, "draw", "frames");
            write_bytes(&self.file, self.existing, &render_gif(trajectory, &picture.title(), || bar.inc(1))?)?;
            bar.finish_and_clear();
        } else {
            save_picture(&picture, &self.file, self.existing)?;
        }
        Ok(picture.title())
    }

    fn draw_many(&self, paths: &[Trajectory]) -> Result<String> {
        let solved = paths.iter().filter(|t| t.solved()).count();
        let what = match (self.chosen, self.checkpoints.len()) {
            ([one], 1) => format!("{} under {} transforms", one.puzzle.title(), self.permutes),
            ([one], _) => format!("{}, two checkpoints", one.puzzle.title()),
            (several, _) => format!("{} puzzles", several.len()),
        };
        let title = format!("{what}: {solved} of {} paths end at the right answer", paths.len());
        let per = if self.points == PointsPer::Cycle { "H cycle" } else { "segment" };
        let words = Words {
            title: title.clone(),
            subtitle: format!("State z_H after each {per}, on the plane of the two principal components of all paths"),
            sources: self.sources(),
        };
        let paths = self.traced.iter().map(|t| t.name.clone()).zip(paths).collect();
        save_picture(&PathsPicture { words, paths }, &self.file, self.existing)?;
        Ok(title)
    }
}

fn permuted(puzzle: &Puzzle, permutation: u32) -> Result<Puzzle> {
    let geometry = puzzle.geometry();
    let transform = Transform::permuted(geometry, permutation);
    let solution = puzzle.solution().map(|tokens| transform.apply(tokens));
    Ok(Puzzle::new(geometry, transform.apply(puzzle.tokens()), solution)?)
}

/// A path and what it is called.
#[derive(Debug, Serialize)]
pub struct NamedPath<'a> {
    name: &'a str,
    #[serde(flatten)]
    trajectory: &'a Trajectory,
}

/// The document of `hrm viz trajectory`.
#[derive(Debug, Serialize)]
pub struct TrajectoryReport<'a> {
    title: String,
    picture: String,
    checkpoint: String,
    step: Option<u64>,
    dtype: &'static str,
    solved: bool,
    first_solved_segment: Option<usize>,
    first_halt_segment: Option<usize>,
    /// The first, or only, path.
    #[serde(flatten)]
    trajectory: &'a Trajectory,
    /// All paths where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths: Vec<NamedPath<'a>>,
}

impl TracedPaths {
    /// The document, of the first checkpoint that was traced.
    pub fn report<'t>(&'t self, plan: &TrajectoryPlan<'_>, models: &[Model]) -> TrajectoryReport<'t> {
        let (one, checkpoint) = (&self.paths[0], &plan.checkpoints[0]);
        let named = self.names.iter().zip(&self.paths).map(|(name, trajectory)| NamedPath { name, trajectory });
        TrajectoryReport {
            title: self.title.clone(),
            picture: plan.file.display().to_string(),
            checkpoint: checkpoint.path.display().to_string(),
            step: checkpoint.step,
            dtype: models[0].config().forward_dtype.short_name(),
            solved: one.solved(),
            first_solved_segment: one.first_solved(),
            first_halt_segment: one.first_halt(),
            trajectory: one,
            paths: if self.paths.len() > 1 { named.collect() } else { Vec::new() },
        }
    }
}
