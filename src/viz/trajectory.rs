//! The picture of a [`Trajectory`]: the path of z_H in the plane of its two principal components, the answer that it
//! led to, and how the answer got better segment by segment.

use anyhow::Result;
use plotters::style::{Color, RGBColor};

use super::{
    axes::EqualAxes,
    board::{AnswerBoard, legend_entry},
    canvas::{Canvas, Frame, Lettering, Picture, Point},
    chart::{Words, bar_tick, color_bar},
    colormap::Colormap,
    style::{FRAME, GRID, INK, PAPER, RIGHT, SOFT_INK, size},
};
use crate::{analysis::trajectory::Trajectory, puzzle::CellMark};

const WIDTH: u32 = 1200;
const HEIGHT: u32 = 810;
const PLOT: Frame = Frame { left: 104.0, top: 112.0, width: 600.0, height: 580.0 };
const COLOR_BAR: Frame = Frame { left: 726.0, top: 146.0, width: 20.0, height: 546.0 };
const BOARD: Frame = Frame { left: 858.0, top: 142.0, width: 312.0, height: 312.0 };
const BARS: Frame = Frame { left: 892.0, top: 564.0, width: 278.0, height: 128.0 };
const MAP: Colormap = Colormap::Viridis;

/// A trajectory with the words around it.
#[derive(Clone, Debug)]
pub struct TrajectoryPicture<'a> {
    pub trajectory: &'a Trajectory,
    /// What the puzzle is called, e.g. `Sudoku 12`.
    pub puzzle_name: String,
    /// Where puzzle and weights come from, for the last line.
    pub sources: String,
}

impl TrajectoryPicture<'_> {
    /// What the picture shows, in one line.
    pub fn title(&self) -> String {
        let t = self.trajectory;
        let last = t.segments.len();
        let verdict = match (t.solved(), t.first_solved()) {
            (true, Some(first)) => format!("solved, first right at segment {first} of {last}"),
            (_, Some(first)) => format!("not solved: right at segment {first}, lost again by segment {last}"),
            _ => match t.segments.last().and_then(|s| s.end.cells) {
                Some(right) => {
                    format!("not solved, {right} of {} cells right at segment {last}", t.puzzle.tokens().len())
                }
                None => format!("not solved after segment {last}"),
            },
        };
        format!("{}: {verdict}", self.puzzle_name)
    }

    fn subtitle(&self) -> String {
        let t = self.trajectory;
        let halt = match t.first_halt() {
            Some(segment) => format!("q says halt after segment {segment}"),
            None => "q never says halt".to_owned(),
        };
        let plural = if t.h_cycles == 1 { "" } else { "s" };
        format!(
            "State z_H after each H cycle ({} segments of {} cycle{plural}) in its two principal components; {halt}",
            t.segments.len(),
            t.h_cycles
        )
    }
}

impl Picture for TrajectoryPicture<'_> {
    fn size(&self) -> [u32; 2] {
        [WIDTH, HEIGHT]
    }

    fn draw(&self, canvas: &Canvas<'_>) -> Result<()> {
        let words = Words { title: self.title(), subtitle: self.subtitle(), sources: self.sources.clone() };
        words.draw(canvas, self.size())?;
        draw_path(canvas, self.trajectory)?;
        draw_color_bar(canvas, self.trajectory)?;
        draw_answer(canvas, self.trajectory)?;
        draw_progress(canvas, self.trajectory)
    }
}

fn draw_path(canvas: &Canvas<'_>, t: &Trajectory) -> Result<()> {
    let axes = EqualAxes::around(&t.points, PLOT, 0.09);
    let share = |k: usize| format!("PC{} ({:.1} % of the variance)", k + 1, 100.0 * t.explained_variance_ratio[k]);
    axes.draw(canvas, [&share(0), &share(1)])?;

    let points: Vec<Point> = t.points.iter().map(|&p| axes.place(p)).collect();
    let n = points.len();
    for (i, pair) in points.windows(2).enumerate() {
        draw_arrow(canvas, pair[0], pair[1], MAP.step(i + 1, n))?;
    }
    for (i, &point) in points.iter().enumerate() {
        let ends_segment = (i + 1) % t.h_cycles.max(1) == 0;
        let radius = if ends_segment { 5.5 } else { 3.0 };
        canvas.disc(point, radius, &MAP.step(i, n), Some((INK, 0.9)))?;
    }

    let mut labels = Labels { canvas, points: &points, placed: Vec::new() };
    let (Some(&start), Some(&end)) = (points.first(), points.last()) else { return Ok(()) };
    canvas.square(start, 9.25, &INK)?;
    canvas.square(start, 6.75, &PAPER)?;
    canvas.square(start, 3.5, &MAP.step(0, n))?;
    canvas.diamond(end, 13.0, &INK)?;
    canvas.diamond(end, 9.5, &MAP.step(n - 1, n))?;
    let of_segment = |segment: usize| points.get(segment * t.h_cycles - 1).copied();
    if let Some((first, at)) = t.first_solved().and_then(|s| Some((s, of_segment(s)?))) {
        for i in 0..48 {
            let angle = |i: i32| f64::from(i) / 48.0 * std::f64::consts::TAU;
            let on_ring = |i: i32| [at[0] + 17.0 * angle(i).cos(), at[1] + 17.0 * angle(i).sin()];
            canvas.line(&[on_ring(i), on_ring(i + 1)], &RIGHT, 2.5)?;
        }
        if first == t.segments.len() {
            labels.place("end: first right here", end, RIGHT)?;
        } else {
            labels.place(&format!("first right: segment {first}"), at, RIGHT)?;
            labels.place("end", end, INK)?;
        }
    } else {
        labels.place("end", end, INK)?;
    }
    labels.place("start", start, INK)
}

/// A line with a head at its middle, where no marker hides it.
pub(super) fn draw_arrow(canvas: &Canvas<'_>, from: Point, to: Point, color: RGBColor) -> Result<()> {
    canvas.line(&[from, to], &color, 2.6)?;
    let [dx, dy] = [to[0] - from[0], to[1] - from[1]];
    let length = dx.hypot(dy);
    if length < 26.0 {
        return Ok(());
    }
    let [ux, uy] = [dx / length, dy / length];
    let along = |forward: f64, aside: f64| {
        let at = length * 0.5 + forward;
        [from[0] + ux * at - uy * aside, from[1] + uy * at + ux * aside]
    };
    canvas.fill_polygon(&[along(9.0, 0.0), along(-6.0, 7.0), along(-2.5, 0.0), along(-6.0, -7.0)], &color)
}

/// Texts beside points of the path, each put where it hides least.
struct Labels<'a, 'b> {
    canvas: &'a Canvas<'b>,
    points: &'a [Point],
    placed: Vec<Frame>,
}

impl Labels<'_, '_> {
    fn place(&mut self, text: &str, at: Point, color: RGBColor) -> Result<()> {
        let how = Lettering::new(size::LABEL, color).bold().middle();
        let (width, height) = (self.canvas.text_width(text, how) + 10.0, size::LABEL * 1.3);
        let mut best: Option<(f64, Frame)> = None;
        for distance in [24.0, 40.0, 60.0, 90.0, 130.0] {
            for turn in 0..16 {
                let angle = f64::from(turn) / 16.0 * std::f64::consts::TAU;
                let (x, y) = (angle.cos(), angle.sin());
                // The box's near side, not its middle, keeps the distance.
                let middle = [at[0] + x * (distance + width / 2.0), at[1] + y * (distance + height / 2.0)];
                let frame = Frame { left: middle[0] - width / 2.0, top: middle[1] - height / 2.0, width, height };
                let cost = self.cost(frame) + distance * 0.05;
                if best.is_none_or(|(least, _)| cost < least) {
                    best = Some((cost, frame));
                }
            }
        }
        let Some((_, frame)) = best else { return Ok(()) };
        let nearest = [at[0].clamp(frame.left, frame.right()), at[1].clamp(frame.top, frame.bottom())];
        let gap = (nearest[0] - at[0]).hypot(nearest[1] - at[1]);
        if gap > 34.0 {
            let from = [at[0] + (nearest[0] - at[0]) * 16.0 / gap, at[1] + (nearest[1] - at[1]) * 16.0 / gap];
            self.canvas.line(&[from, nearest], &SOFT_INK, 1.0)?;
        }
        self.canvas.fill_rect(frame, &PAPER.mix(0.85))?;
        self.canvas.text(text, frame.at(0.5, 0.5), how)?;
        self.placed.push(frame);
        Ok(())
    }

    /// How much of the path, of other labels and of the frame's outside a label would cover.
    fn cost(&self, frame: Frame) -> f64 {
        let inside = |p: Point, margin: f64| {
            p[0] > frame.left - margin
                && p[0] < frame.right() + margin
                && p[1] > frame.top - margin
                && p[1] < frame.bottom() + margin
        };
        let on_path = |pair: &[Point]| {
            let steps = 8;
            (0..=steps)
                .filter(|&i| {
                    let share = f64::from(i) / f64::from(steps);
                    let between = |k: usize| pair[0][k] + (pair[1][k] - pair[0][k]) * share;
                    inside([between(0), between(1)], 3.0)
                })
                .count() as f64
        };
        let markers = self.points.iter().filter(|&&p| inside(p, 12.0)).count() as f64;
        let overlaps = self.placed.iter().filter(|o| {
            frame.left < o.right() && o.left < frame.right() && frame.top < o.bottom() && o.top < frame.bottom()
        });
        let outside = frame.left < PLOT.left + 4.0
            || frame.right() > PLOT.right() - 4.0
            || frame.top < PLOT.top + 4.0
            || frame.bottom() > PLOT.bottom() - 4.0;
        self.points.windows(2).map(on_path).sum::<f64>()
            + 3.0 * markers
            + 50.0 * overlaps.count() as f64
            + if outside { 1000.0 } else { 0.0 }
    }
}

fn draw_color_bar(canvas: &Canvas<'_>, t: &Trajectory) -> Result<()> {
    let n = t.points.len();
    let top = |i: usize| COLOR_BAR.at(0.0, 1.0 - i as f64 / n as f64)[1];
    color_bar(canvas, COLOR_BAR, n, |k| MAP.step(k, n))?;
    canvas.text("segment", [COLOR_BAR.left - 6.0, COLOR_BAR.top - 20.0], Lettering::new(size::SMALL, INK))?;
    for segment in ticked_segments(t.segments.len(), 8) {
        let y = f64::midpoint(top((segment - 1) * t.h_cycles), top(segment * t.h_cycles));
        bar_tick(canvas, COLOR_BAR, y, &segment.to_string())?;
    }
    Ok(())
}

/// The first, the last, and even steps between: at most about `most` of `1..=n`, the last two never crowded.
pub(super) fn ticked_segments(n: usize, most: usize) -> Vec<usize> {
    let step = n.div_ceil(most).max(1);
    let mut ticks: Vec<usize> = (1..=n).filter(|s| *s == 1 || *s == n || s % step == 0).collect();
    ticks.retain(|&s| s == 1 || s == n || (n - s >= step.div_ceil(2) && s > step.div_ceil(2)));
    ticks
}

fn draw_answer(canvas: &Canvas<'_>, t: &Trajectory) -> Result<()> {
    let Some(last) = t.segments.last() else { return Ok(()) };
    let heading = Lettering::new(size::LABEL, INK).middle();
    canvas.text(
        &format!("Answer after segment {}", last.end.segments),
        [BOARD.at(0.5, 0.0)[0], BOARD.top - 22.0],
        heading,
    )?;
    let geometry = t.puzzle.geometry();
    AnswerBoard { puzzle: &t.puzzle, answer: &last.prediction }.draw(canvas, BOARD)?;
    let given = geometry.given_name();
    let entries: &[(CellMark, &str)] = match t.puzzle.solution() {
        Some(_) => &[(CellMark::Given, given), (CellMark::Right, "right"), (CellMark::Wrong, "wrong")],
        None => &[(CellMark::Given, given), (CellMark::Unknown, "filled in")],
    };
    let mut x = BOARD.left;
    for &(mark, name) in entries {
        x += legend_entry(canvas, geometry, mark, name, [x, BOARD.bottom() + 28.0])? + 24.0;
    }
    Ok(())
}

/// Bars of what is right after each segment; of what is surely wrong where the solution is unknown.
fn draw_progress(canvas: &Canvas<'_>, t: &Trajectory) -> Result<()> {
    let cells = t.puzzle.tokens().len() as f64;
    let known = t.puzzle.solution().is_some();
    let values: Vec<f64> = t
        .segments
        .iter()
        .map(|s| match s.end.cells {
            Some(right) if known => right.into(),
            _ => f64::from(s.conflict.unwrap_or(0)) + s.blanks as f64,
        })
        .collect();
    let top = if known { cells } else { values.iter().copied().fold(1.0, f64::max) };
    let heading = match (known, t.puzzle.geometry().is_sudoku()) {
        (true, _) => format!("Right cells, of {cells}"),
        (false, true) => "Blanks and broken rules".to_owned(),
        (false, false) => return Ok(()),
    };
    let heading = if t.first_solved().is_some() { format!("{heading} (• solved)") } else { heading };
    canvas.text(&heading, [BOARD.at(0.5, 0.0)[0], BARS.top - 34.0], Lettering::new(size::LABEL, INK).middle())?;
    let tick = Lettering::new(size::SMALL, INK);
    for share in [0.0, 0.5, 1.0] {
        let y = BARS.at(0.0, 1.0 - share)[1];
        canvas.line(&[[BARS.left, y], [BARS.right(), y]], &GRID, 1.0)?;
        if share != 0.5 {
            canvas.text(&format!("{}", share * top), [BARS.left - 7.0, y], tick.right())?;
        }
    }
    let n = values.len();
    let step = BARS.width / n as f64;
    for (i, (&value, facts)) in values.iter().zip(&t.segments).enumerate() {
        let height = BARS.height * value / top;
        let bar = Frame {
            left: BARS.left + (i as f64 + 0.12) * step,
            top: BARS.bottom() - height,
            width: 0.76 * step,
            height,
        };
        let color = MAP.step((i + 1) * t.h_cycles - 1, t.points.len());
        canvas.fill_rect(bar, &color)?;
        if facts.end.is_right() {
            let middle = [bar.at(0.5, 0.0)[0], BARS.top - 9.0];
            canvas.disc(middle, (0.2 * step).clamp(2.0, 4.5), &RIGHT, None)?;
        }
    }
    canvas.line(&[[BARS.left, BARS.bottom()], [BARS.right(), BARS.bottom()]], &FRAME, 1.0)?;
    for segment in ticked_segments(n, 5) {
        let x = BARS.left + (segment as f64 - 0.5) * step;
        canvas.text(&segment.to_string(), [x, BARS.bottom() + 16.0], tick.middle())?;
    }
    let label = Lettering::new(size::LABEL, INK).middle();
    canvas.text("segment", [BARS.at(0.5, 0.0)[0], BARS.bottom() + 46.0], label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_hold_first_and_last_without_crowding() {
        assert_eq!(ticked_segments(16, 8), [1, 2, 4, 6, 8, 10, 12, 14, 16]);
        assert_eq!(ticked_segments(16, 5), [1, 4, 8, 12, 16]);
        assert_eq!(ticked_segments(1, 5), [1]);
        assert_eq!(ticked_segments(3, 5), [1, 2, 3]);
        assert_eq!(ticked_segments(0, 5), Vec::<usize>::new());
    }
}
