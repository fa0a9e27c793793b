//! How many puzzles are solved with the first k passes: a line for each way to choose an answer.

use anyhow::Result;
use plotters::style::RGBColor;

use super::{
    canvas::{Canvas, Frame, Lettering, Picture, Point},
    chart::SERIES,
    style::{FRAME, GRID, INK, SOFT_INK, size},
};
use crate::eval::{report::InferReport, scores::CurvePoint};

/// One line: a share of the puzzles for 1, 2, 3, .. passes.
#[derive(Clone, Debug, PartialEq)]
pub struct PassLine {
    pub name: String,
    pub shares: Vec<f64>,
}

/// The picture; lines are told apart by their marks and by names at their ends.
#[derive(Clone, Debug)]
pub struct PassCurvePicture {
    pub title: String,
    /// Puzzles and weights.
    pub sources: String,
    pub lines: Vec<PassLine>,
}

const SIZE: [u32; 2] = [1200, 760];
const PLOT: Frame = Frame { left: 110.0, top: 110.0, width: 820.0, height: 510.0 };

impl PassCurvePicture {
    /// Of an inference run; verified answers are left out where there are no rules.
    pub fn of(report: &InferReport) -> Self {
        let line = |name: &str, of: fn(&CurvePoint) -> Option<f64>| {
            let shares = report.pass_at_k.iter().map(of).collect::<Option<Vec<f64>>>()?;
            Some(PassLine { name: name.to_owned(), shares })
        };
        let lines = [
            line("any pass right", |p| Some(p.any_exact)),
            line("verified", |p| p.verified),
            line("vote", |p| Some(p.vote)),
            line("best halt", |p| Some(p.best_halt)),
        ];
        Self {
            title: format!("Puzzles solved with the first passes ({} puzzles)", report.total),
            sources: format!("Puzzles: {} · {} checkpoint(s)", report.data, report.checkpoints.len()),
            lines: lines.into_iter().flatten().collect(),
        }
    }

    fn most_passes(&self) -> usize {
        self.lines.iter().map(|l| l.shares.len()).max().unwrap_or(1).max(1)
    }

    /// The share at the top of the plot: a round number of percent above all lines.
    fn top(&self) -> f64 {
        let highest = self.lines.iter().flat_map(|l| &l.shares).copied().fold(0.0, f64::max);
        [0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8].into_iter().find(|&top| highest <= top).unwrap_or(1.0)
    }

    fn place(&self, passes: usize, share: f64) -> Point {
        let span = (self.most_passes() - 1).max(1) as f64;
        let x = if self.most_passes() == 1 { 0.5 } else { (passes - 1) as f64 / span };
        PLOT.at(x, 1.0 - share / self.top())
    }
}

/// Names at the lines' ends, moved apart where they would overlap: heights in the lines' order.
fn apart(heights: &[f64], gap: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by(|&a, &b| heights[a].total_cmp(&heights[b]));
    let mut moved = heights.to_vec();
    for pair in order.windows(2) {
        moved[pair[1]] = moved[pair[1]].max(moved[pair[0]] + gap);
    }
    moved
}

impl Picture for PassCurvePicture {
    fn size(&self) -> [u32; 2] {
        SIZE
    }

    fn draw(&self, canvas: &Canvas<'_>) -> Result<()> {
        canvas.text_within(&self.title, [PLOT.left, 40.0], 1050.0, Lettering::new(size::TITLE, INK).bold())?;
        canvas.text_within(&self.sources, [PLOT.left, 76.0], 1050.0, Lettering::new(size::SUBTITLE, SOFT_INK))?;
        let small = Lettering::new(size::SMALL, INK);
        for i in 0..=5 {
            let share = self.top() * f64::from(i) / 5.0;
            let y = self.place(1, share)[1];
            canvas.line(&[[PLOT.left, y], [PLOT.right(), y]], &GRID, 1.0)?;
            let percent = 100.0 * share;
            let text = if self.top() < 0.05 { format!("{percent:.1} %") } else { format!("{percent:.0} %") };
            canvas.text(&text, [PLOT.left - 10.0, y], small.right())?;
        }
        let most = self.most_passes();
        let step = most.div_ceil(10).max(1);
        for passes in (1..=most).filter(|k| *k == 1 || k % step == 0) {
            let x = self.place(passes, 0.0)[0];
            canvas.line(&[[x, PLOT.bottom()], [x, PLOT.bottom() + 6.0]], &FRAME, 1.0)?;
            canvas.text(&passes.to_string(), [x, PLOT.bottom() + 24.0], small.middle())?;
        }
        canvas.outline(PLOT, &FRAME, 1.0)?;
        let label = Lettering::new(size::LABEL, INK).middle();
        canvas.text("passes, in their order", [PLOT.at(0.5, 1.0)[0], PLOT.bottom() + 62.0], label)?;
        canvas.text("puzzles solved", [30.0, PLOT.at(0.0, 0.5)[1]], label.upwards())?;

        let ends: Vec<f64> =
            self.lines.iter().map(|l| self.place(most, l.shares.last().copied().unwrap_or(0.0))[1]).collect();
        let names = apart(&ends, 26.0);
        for (i, (line, name_at)) in self.lines.iter().zip(names).enumerate() {
            let color = SERIES[i % SERIES.len()];
            let points: Vec<Point> = line.shares.iter().enumerate().map(|(k, &s)| self.place(k + 1, s)).collect();
            canvas.line(&points, &color, 2.5)?;
            for &point in points.iter().step_by(step) {
                mark(canvas, i, point, color)?;
            }
            let last = line.shares.last().copied().unwrap_or(0.0);
            let text = format!("{} {:.1} %", line.name, 100.0 * last);
            let at = [PLOT.right() + 34.0, name_at];
            mark(canvas, i, [PLOT.right() + 18.0, name_at], color)?;
            canvas.text_within(&text, at, f64::from(SIZE[0]) - at[0] - 10.0, Lettering::new(size::SMALL, color))?;
        }
        Ok(())
    }
}

/// The i-th line's mark: a square, a cross, an upright cross, a hollow square.
fn mark(canvas: &Canvas<'_>, i: usize, [x, y]: Point, color: RGBColor) -> Result<()> {
    const R: f64 = 5.0;
    let square = Frame { left: x - R, top: y - R, width: 2.0 * R, height: 2.0 * R };
    match i % 4 {
        0 => canvas.fill_rect(square, &color),
        1 => {
            canvas.line(&[[x - R, y - R], [x + R, y + R]], &color, 2.5)?;
            canvas.line(&[[x - R, y + R], [x + R, y - R]], &color, 2.5)
        }
        2 => {
            canvas.line(&[[x - R - 1.0, y], [x + R + 1.0, y]], &color, 2.5)?;
            canvas.line(&[[x, y - R - 1.0], [x, y + R + 1.0]], &color, 2.5)
        }
        _ => canvas.outline(square, &color, 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_overlap() {
        assert_eq!(apart(&[10.0, 10.0, 50.0, 12.0], 20.0), [10.0, 30.0, 70.0, 50.0]);
        assert_eq!(apart(&[], 20.0), [] as [f64; 0]);
    }

    #[test]
    fn lines_lie_within_the_plot() {
        let line = |shares: &[f64]| PassLine { name: "vote".into(), shares: shares.to_vec() };
        for shares in [&[0.5][..], &[0.0, 0.005], &[0.3, 0.9, 1.0]] {
            let picture = PassCurvePicture { title: String::new(), sources: String::new(), lines: vec![line(shares)] };
            for (k, &share) in shares.iter().enumerate() {
                let [x, y] = picture.place(k + 1, share);
                assert!(x >= PLOT.left && x <= PLOT.right() && y >= PLOT.top - 1e-9 && y <= PLOT.bottom() + 1e-9);
            }
        }
    }
}
