//! Several paths on one plane: puzzles, transforms of one puzzle, or checkpoints beside each other.

use anyhow::Result;
use plotters::style::RGBColor;

use super::{
    axes::{Axes, EqualAxes, Scale},
    canvas::{Canvas, Frame, Lettering, Picture, Point},
    chart::{SERIES, Words, heading},
    colormap::Colormap,
    style::{INK, PAPER, SOFT_INK, size},
    trajectory::draw_arrow,
};
use crate::analysis::trajectory::Trajectory;

/// Paths with names.
#[derive(Clone, Debug)]
pub struct PathsPicture<'a> {
    pub words: Words,
    pub paths: Vec<(String, &'a Trajectory)>,
}

const PLOT: Frame = Frame { left: 104.0, top: 120.0, width: 640.0, height: 610.0 };
const CELLS: Frame = Frame { left: 870.0, top: 530.0, width: 360.0, height: 200.0 };
/// Names that the legend has room for.
const NAMED: usize = 12;

impl PathsPicture<'_> {
    fn color(&self, k: usize) -> RGBColor {
        if self.paths.len() <= SERIES.len() { SERIES[k] } else { Colormap::Viridis.step(k, self.paths.len()) }
    }
}

impl Picture for PathsPicture<'_> {
    fn size(&self) -> [u32; 2] {
        [1280, 850]
    }

    fn draw(&self, canvas: &Canvas<'_>) -> Result<()> {
        self.words.draw(canvas, self.size())?;
        let all: Vec<[f64; 2]> = self.paths.iter().flat_map(|(_, t)| t.points.iter().copied()).collect();
        let axes = EqualAxes::around(&all, PLOT, 0.06);
        let ratio = self.paths.first().map_or([0.0; 2], |(_, t)| t.explained_variance_ratio);
        let name = |k: usize| format!("PC{} ({:.1} % of the variance of all)", k + 1, 100.0 * ratio[k]);
        axes.draw(canvas, [&name(0), &name(1)])?;
        for (k, (_, t)) in self.paths.iter().enumerate() {
            let points: Vec<Point> = t.points.iter().map(|&p| axes.place(p)).collect();
            for pair in points.windows(2) {
                draw_arrow(canvas, pair[0], pair[1], self.color(k))?;
            }
            for point in &points {
                canvas.disc(*point, 2.6, &self.color(k), None)?;
            }
        }
        // Ends last, so that no path hides them.
        for (k, (_, t)) in self.paths.iter().enumerate() {
            if let (Some(&start), Some(&end)) = (t.points.first(), t.points.last()) {
                let [x, y] = axes.place(start);
                let square = |r: f64| Frame { left: x - r, top: y - r, width: 2.0 * r, height: 2.0 * r };
                canvas.fill_rect(square(6.5), &PAPER)?;
                canvas.outline(square(5.0), &self.color(k), 2.5)?;
                end_mark(canvas, axes.place(end), t.solved(), self.color(k))?;
            }
        }
        self.draw_legend(canvas)?;
        self.draw_cells(canvas)
    }
}

/// A full diamond where the answer is right, a cross where it is not.
fn end_mark(canvas: &Canvas<'_>, [x, y]: Point, solved: bool, color: RGBColor) -> Result<()> {
    if solved {
        let diamond = |r: f64| [[x, y - r], [x + r, y], [x, y + r], [x - r, y]];
        canvas.fill_polygon(&diamond(12.0), &PAPER)?;
        canvas.fill_polygon(&diamond(9.5), &color)
    } else {
        for (ink, width) in [(PAPER, 7.0), (color, 3.6)] {
            canvas.line(&[[x - 7.0, y - 7.0], [x + 7.0, y + 7.0]], &ink, width)?;
            canvas.line(&[[x - 7.0, y + 7.0], [x + 7.0, y - 7.0]], &ink, width)?;
        }
        Ok(())
    }
}

impl PathsPicture<'_> {
    fn draw_legend(&self, canvas: &Canvas<'_>) -> Result<()> {
        let letters = Lettering::new(size::SMALL, INK);
        let mut at = [790.0, 132.0];
        for (k, (name, t)) in self.paths.iter().enumerate().take(NAMED) {
            end_mark(canvas, [at[0] + 10.0, at[1]], t.solved(), self.color(k))?;
            let verdict = match (t.solved_for_good(), t.first_solved()) {
                (Some(good), Some(first)) if good == first => format!("right from segment {good}"),
                (Some(good), Some(first)) => format!("right at {first}, for good at {good}"),
                (None, Some(first)) => format!("right at {first}, lost again"),
                _ => "not solved".to_owned(),
            };
            canvas.text_within(&format!("{name}: {verdict}"), [at[0] + 32.0, at[1]], 446.0, letters)?;
            at[1] += 27.0;
        }
        if self.paths.len() > NAMED {
            canvas.text(&format!("and {} more", self.paths.len() - NAMED), [at[0] + 32.0, at[1]], letters)?;
            at[1] += 27.0;
        }
        let small = Lettering { size: 15.0, ..Lettering::new(size::SMALL, SOFT_INK) };
        canvas.text("□ start    ◆ end, right    × end, wrong", [at[0], at[1] + 6.0], small)
    }

    fn draw_cells(&self, canvas: &Canvas<'_>) -> Result<()> {
        let known = self.paths.iter().all(|(_, t)| t.puzzle.solution().is_some());
        let n = self.paths.iter().map(|(_, t)| t.segments.len()).max().unwrap_or(1) as f64;
        let value = |t: &Trajectory, k: usize| match t.segments[k].end.cells {
            Some(right) if known => right.into(),
            _ => f64::from(t.segments[k].conflict.unwrap_or(0)),
        };
        let all: Vec<f64> =
            self.paths.iter().flat_map(|(_, t)| (0..t.segments.len()).map(move |k| value(t, k))).collect();
        let (low, high) = (all.iter().copied().fold(f64::INFINITY, f64::min), all.iter().copied().fold(1.0, f64::max));
        heading(canvas, CELLS, if known { "Right cells" } else { "Broken rules" })?;
        let low = if low.is_finite() { (low - 1.0).max(0.0) } else { 0.0 };
        let axes =
            Axes { frame: CELLS, x: Scale::counts(1.0, n), y: Scale { whole: true, ..Scale::linear(low, high + 0.5) } };
        axes.draw(canvas, ["segment", ""])?;
        for (k, (_, t)) in self.paths.iter().enumerate() {
            let points: Vec<Point> = (0..t.segments.len()).map(|i| axes.place([(i + 1) as f64, value(t, i)])).collect();
            canvas.line(&points, &self.color(k), 2.2)?;
            if let Some(&end) = points.last() {
                canvas.disc(end, 4.0, &self.color(k), None)?;
            }
        }
        Ok(())
    }
}
