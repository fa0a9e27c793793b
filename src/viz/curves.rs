//! Runs over their steps in one picture: loss, exact accuracy, halting, and for each run its exact accuracy after every
//! segment.

use anyhow::Result;
use indicatif::HumanFloatCount;
use plotters::style::{Color, RGBColor};

use super::{
    axes::{round_step, tick_text, ticks},
    canvas::{Canvas, Frame, Lettering, Picture, Point},
    chart::{SERIES, Stroke, curve},
    colormap::Colormap,
    style::{FRAME, GRID, INK, PAPER, SOFT_INK, size},
};
use crate::analysis::curves::{Curve, RunCurves};

const WIDTH: u32 = 1200;
const COLUMNS: [f64; 2] = [92.0, 688.0];
const PANEL: [f64; 2] = [450.0, 230.0];
/// From one row of panels to the next.
const ROW: f64 = 342.0;
const LEGEND_LINE: f64 = 28.0;
const MAP: Colormap = Colormap::Viridis;

/// Some runs, numbered from 1 in this order.
#[derive(Clone, Debug)]
pub struct CurvesPicture<'a> {
    pub runs: &'a [RunCurves],
}

/// One curve of a panel.
struct Drawn<'a> {
    curve: &'a Curve,
    color: RGBColor,
    width: f64,
    /// Marks every point: few, and far apart.
    marked: bool,
    dashed: bool,
    /// At the curve's end.
    label: Option<String>,
}

impl CurvesPicture<'_> {
    fn head(&self) -> f64 {
        96.0 + LEGEND_LINE * self.runs.len() as f64
    }

    fn rows(&self) -> usize {
        2 + self.runs.len().div_ceil(2)
    }

    /// Where panel `index` lies, counted row by row.
    fn frame(&self, index: usize) -> Frame {
        let row = index / 2;
        Frame {
            left: COLUMNS[index % 2],
            top: self.head() + 40.0 + ROW * row as f64,
            width: PANEL[0],
            height: PANEL[1],
        }
    }

    /// A curve of every run, with the runs' numbers at their ends.
    fn of_runs<'a>(&'a self, pick: impl Fn(&'a RunCurves) -> &'a Curve, marked: bool, width: f64) -> Vec<Drawn<'a>> {
        let drawn = |(i, run): (usize, &'a RunCurves)| Drawn {
            curve: pick(run),
            color: SERIES[i % SERIES.len()],
            width,
            marked,
            dashed: false,
            label: Some((i + 1).to_string()),
        };
        self.runs.iter().enumerate().map(drawn).collect()
    }
}

impl Picture for CurvesPicture<'_> {
    fn size(&self) -> [u32; 2] {
        [WIDTH, (self.head() + ROW * self.rows() as f64) as u32 + 10]
    }

    fn draw(&self, canvas: &Canvas<'_>) -> Result<()> {
        let width = f64::from(WIDTH) - 60.0;
        let title = match self.runs {
            [one] => format!("Training of {}", one.name),
            runs => format!("Training of {} runs", runs.len()),
        };
        canvas.text_within(&title, [30.0, 36.0], width, Lettering::new(size::TITLE, INK).bold())?;
        for (i, run) in self.runs.iter().enumerate() {
            let y = 80.0 + LEGEND_LINE * i as f64;
            let color = SERIES[i % SERIES.len()];
            canvas.line(&[[30.0, y], [66.0, y]], &color, 3.0)?;
            let each = run.steps_per_point;
            let plural = if each == 1 { "" } else { "s" };
            let text =
                format!("{}  {}: training in means over {each} step{plural}, dots at evaluations", i + 1, run.name);
            canvas.text_within(&text, [78.0, y], width - 48.0, Lettering::new(size::SUBTITLE, SOFT_INK))?;
        }

        let mut loss = self.of_runs(|r| &r.loss, false, 1.6);
        let mut evaluated = self.of_runs(|r| &r.evaluation_loss, true, 2.4);
        // One number a run is enough.
        evaluated.iter_mut().for_each(|d| d.label = None);
        loss.append(&mut evaluated);
        draw_panel(canvas, self.frame(0), "Token loss per puzzle", &loss, Range::FromData)?;
        let mut exact = self.of_runs(|r| &r.training_exact, false, 1.0);
        exact.iter_mut().for_each(|d| d.label = None);
        exact.extend(self.of_runs(|r| &r.exact, true, 2.4));
        let averaged = self.of_runs(|r| &r.averaged_exact, false, 2.4);
        exact.extend(averaged.into_iter().map(|d| Drawn { dashed: true, label: None, ..d }));
        let any = self.runs.iter().any(|r| !r.averaged_exact.is_empty());
        let title = format!("Exact accuracy (thin: in training{})", if any { "; dashed: EMA" } else { "" });
        draw_panel(canvas, self.frame(1), &title, &exact, Range::Share)?;
        let segments = self.of_runs(|r| &r.segments, false, 1.6);
        draw_panel(canvas, self.frame(2), "Segments per puzzle, mean", &segments, Range::FromZero)?;
        let halting = self.of_runs(|r| &r.halt_accuracy, false, 1.6);
        draw_panel(canvas, self.frame(3), "Halting value right (q_halt accuracy)", &halting, Range::Share)?;
        for (i, run) in self.runs.iter().enumerate() {
            draw_segments(canvas, self.frame(4 + i), i + 1, run)?;
        }
        Ok(())
    }
}

fn draw_segments(canvas: &Canvas<'_>, frame: Frame, number: usize, run: &RunCurves) -> Result<()> {
    let n = run.exact_by_segment.len();
    let curves: Vec<Drawn<'_>> = (0..n)
        .map(|i| Drawn {
            curve: &run.exact_by_segment[i],
            color: MAP.step(i, n.max(2)),
            width: 1.8,
            marked: true,
            dashed: false,
            label: (i == 0 || i + 1 == n).then(|| (i + 1).to_string()),
        })
        .collect();
    let title = match n {
        0 => format!("Run {number}: no evaluation yet"),
        _ => format!("Run {number}: exact after segment 1 (dark) to {n} (light)"),
    };
    draw_panel(canvas, frame, &title, &curves, Range::Share)
}

/// What a panel's upright axis covers.
#[derive(Clone, Copy, PartialEq)]
enum Range {
    FromData,
    FromZero,
    /// From 0 to the largest value, as per cent.
    Share,
}

fn draw_panel(canvas: &Canvas<'_>, frame: Frame, title: &str, curves: &[Drawn<'_>], range: Range) -> Result<()> {
    canvas.text_within(title, [frame.left, frame.top - 22.0], frame.width, Lettering::new(size::SUBTITLE, INK))?;
    let percent = if range == Range::Share { 100.0 } else { 1.0 };
    let values = || curves.iter().flat_map(|d| d.curve).map(|&(_, v)| v * percent);
    let right = curves.iter().flat_map(|d| d.curve).map(|&(step, _)| step).fold(1.0, f64::max);
    let low = if range == Range::FromData { values().fold(f64::INFINITY, f64::min) } else { 0.0 };
    let high = values().fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = if high > low { (low, high + 0.06 * (high - low)) } else { spread(low.min(high)) };
    let place =
        |(step, value): (f64, f64)| -> Point { frame.at(step / right, 1.0 - ((value * percent) - low) / (high - low)) };

    let tick = Lettering::new(size::SMALL, INK);
    let step = round_step((high - low) / 5.0);
    for value in ticks(low, high, step) {
        let y = frame.at(0.0, 1.0 - (value - low) / (high - low))[1];
        canvas.line(&[[frame.left, y], [frame.right(), y]], &GRID, 1.0)?;
        let unit = if range == Range::Share { " %" } else { "" };
        canvas.text(&format!("{}{unit}", tick_text(value, step)), [frame.left - 8.0, y], tick.right())?;
    }
    let step = round_step(right / 4.0);
    for value in ticks(0.0, right, step) {
        let x = frame.at(value / right, 0.0)[0];
        canvas.line(&[[x, frame.top], [x, frame.bottom()]], &GRID, 1.0)?;
        canvas.text(&HumanFloatCount(value).to_string(), [x, frame.bottom() + 16.0], tick.middle())?;
    }
    canvas.outline(frame, &FRAME, 1.0)?;
    canvas.text(
        "step",
        [frame.at(0.5, 1.0)[0], frame.bottom() + 42.0],
        Lettering::new(size::SMALL, SOFT_INK).middle(),
    )?;

    let mut taken: Vec<Point> = Vec::new();
    for drawn in curves {
        let points: Vec<Point> = drawn.curve.iter().map(|&p| place(p)).collect();
        let dash = drawn.dashed.then_some([7.0, 7.0]);
        curve(canvas, &points, Stroke { color: drawn.color, width: drawn.width, dash })?;
        if drawn.marked && points.len() <= 60 {
            for &point in &points {
                canvas.disc(point, 3.5, &drawn.color, Some((PAPER, 0.8)))?;
            }
        }
        if let (Some(label), Some(&end)) = (&drawn.label, points.last()) {
            let how = Lettering::new(size::SMALL, drawn.color).bold();
            let width = canvas.text_width(label, how);
            let near = |p: &&Point| (p[0] - end[0]).abs() < width + 16.0;
            let beside: Vec<f64> = taken.iter().filter(near).map(|p| p[1]).collect();
            let y = free_height(end[1], &beside, [frame.top, frame.bottom()]);
            taken.push([end[0], y]);
            let at = [end[0] + 8.0, y];
            if at[0] + width < frame.right() {
                let back = Frame { left: at[0] - 3.0, top: y - 10.0, width: width + 6.0, height: 20.0 };
                canvas.fill_rect(back, &PAPER.mix(0.8))?;
            }
            canvas.text(label, at, how)?;
        }
    }
    Ok(())
}

/// An axis around a single value, or around nothing.
fn spread(value: f64) -> (f64, f64) {
    match value.is_finite() {
        true if value > 0.0 => (0.0, value * 1.2),
        true if value < 0.0 => (value * 1.2, 0.0),
        _ => (0.0, 1.0),
    }
}

/// The height nearest to the wanted one, between two limits, at which no label stands yet.
fn free_height(wanted: f64, taken: &[f64], [top, bottom]: [f64; 2]) -> f64 {
    let free = |y: &f64| (top..=bottom).contains(y) && taken.iter().all(|t| (t - y).abs() >= size::SMALL);
    let tries = (0..40).flat_map(|i| [f64::from(i), -f64::from(i)]).map(|i| wanted + i * 4.0);
    tries.into_iter().find(free).unwrap_or(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_give_way_to_one_another() {
        assert_eq!(free_height(50.0, &[], [0.0, 100.0]), 50.0);
        assert!(free_height(99.0, &[100.0], [0.0, 100.0]) <= 82.0);
        let y = free_height(50.0, &[50.0, 68.0], [0.0, 100.0]);
        assert!([50.0, 68.0].iter().all(|t: &f64| (t - y).abs() >= size::SMALL), "{y}");
    }

    #[test]
    fn an_axis_around_one_value_has_a_height() {
        for value in [0.0, 3.0, -2.0, f64::INFINITY, f64::NAN] {
            let (low, high) = spread(value);
            assert!(high > low && low.is_finite() && high.is_finite(), "{value}");
        }
    }
}
