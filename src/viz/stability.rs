//! How often a right answer is reached and left again, by the number of blanks; how states move meanwhile.

use anyhow::Result;
use plotters::style::RGBColor;

use super::{
    axes::{Axes, Scale},
    canvas::{Canvas, Frame, Lettering, Picture, Point},
    chart::{Stroke, Words, band, curve, heading, interval, legend_line},
    style::{FRAME, GRID, INK, RIGHT, SOFT_INK, WRONG, size},
};
use crate::{
    analysis::stability::{Fate, Motion, StabilityRow},
    eval::stats::Interval,
};

/// One checkpoint's rows.
#[derive(Clone, Debug)]
pub struct StabilitySeries<'a> {
    pub name: String,
    pub rows: &'a [StabilityRow],
    pub motions: &'a [Motion],
}

/// What `hrm analyze stability` draws.
#[derive(Clone, Debug)]
pub struct StabilityPicture<'a> {
    pub words: Words,
    pub series: Vec<StabilitySeries<'a>>,
    /// Segments that were run, and the model's own number.
    pub segments: usize,
    pub own_segments: usize,
}

const RIGHT_SHARE: Frame = Frame { left: 110.0, top: 142.0, width: 600.0, height: 280.0 };
const LEFT_SHARE: Frame = Frame { left: 860.0, top: 142.0, width: 600.0, height: 280.0 };
const MOTION_HEIGHT: f64 = 270.0;
/// Below the names of the upper panels' axes, the checkpoints; below those of the lower ones', what becomes of answers.
const LEGEND_BELOW: f64 = 80.0;
const LEGEND_STEP: f64 = 27.0;

impl Picture for StabilityPicture<'_> {
    fn size(&self) -> [u32; 2] {
        [1500, (self.motion_top() + MOTION_HEIGHT + LEGEND_BELOW + 3.0 * LEGEND_STEP + 40.0) as u32]
    }

    fn draw(&self, canvas: &Canvas<'_>) -> Result<()> {
        self.words.draw(canvas, self.size())?;
        heading(canvas, RIGHT_SHARE, &format!("Right after segment {}", self.own_segments))?;
        self.draw_shares(canvas, RIGHT_SHARE, "puzzles right", |r| (r.right_at, r.right_at_interval))?;
        heading(canvas, LEFT_SHARE, &format!("Right answers left again within {} segments", self.segments))?;
        self.draw_shares(canvas, LEFT_SHARE, "of the answers reached", |r| (r.left, r.left_interval))?;
        let n = self.series.len().max(1) as f64;
        let width = (1350.0 - 110.0 * (n - 1.0)) / n;
        for (k, series) in self.series.iter().enumerate() {
            let left = 110.0 + k as f64 * (width + 110.0);
            let frame = Frame { left, top: self.motion_top(), width, height: MOTION_HEIGHT };
            self.draw_motion(canvas, frame, series, k)?;
        }
        let mut at = [RIGHT_SHARE.left, RIGHT_SHARE.bottom() + LEGEND_BELOW];
        for (k, series) in self.series.iter().enumerate() {
            at = legend_line(canvas, at, 1350.0, Stroke::series(k), &series.name)?;
        }
        Ok(())
    }
}

impl StabilityPicture<'_> {
    /// Where the lower panels begin: below the names of the checkpoints, with room for headings.
    fn motion_top(&self) -> f64 {
        RIGHT_SHARE.bottom() + LEGEND_BELOW + LEGEND_STEP * self.series.len() as f64 + 40.0
    }

    /// Shares by the number of blanks, which stand at even distances.
    fn draw_shares(
        &self,
        canvas: &Canvas<'_>,
        frame: Frame,
        name: &str,
        value: impl Fn(&StabilityRow) -> (f64, Interval),
    ) -> Result<()> {
        let letters = Lettering::new(size::SMALL, INK);
        let Some(first) = self.series.first() else { return Ok(()) };
        let n = first.rows.len().max(1) as f64;
        let y = |share: f64| frame.at(0.0, 1.0 - share)[1];
        for k in 0..=4 {
            let share = f64::from(k) / 4.0;
            canvas.line(&[[frame.left, y(share)], [frame.right(), y(share)]], &GRID, 1.0)?;
            canvas.text(&format!("{:.0} %", 100.0 * share), [frame.left - 8.0, y(share)], letters.right())?;
        }
        canvas.outline(frame, &FRAME, 1.0)?;
        let x = |i: usize| frame.at((i as f64 + 0.5) / n, 0.0)[0];
        for (i, row) in first.rows.iter().enumerate() {
            canvas.text(&row.blanks.to_string(), [x(i), frame.bottom() + 16.0], letters.middle())?;
        }
        let label = Lettering::new(size::LABEL, INK).middle();
        canvas.text("blank cells (row: the nine of one row)", [frame.at(0.5, 0.0)[0], frame.bottom() + 44.0], label)?;
        canvas.text(name, [frame.left - 84.0, frame.at(0.0, 0.5)[1]], label.upwards())?;
        for (k, series) in self.series.iter().enumerate() {
            let stroke = Stroke::series(k);
            // Side by side, so that intervals of several checkpoints are all seen.
            let aside = (k as f64 - (self.series.len() as f64 - 1.0) / 2.0) * 9.0;
            let known: Vec<(usize, f64, Interval)> = series
                .rows
                .iter()
                .enumerate()
                .map(|(i, row)| (i, value(row).0, value(row).1))
                .filter(|(_, _, between)| between.high - between.low < 1.0)
                .collect();
            let points: Vec<Point> = known.iter().map(|(i, share, _)| [x(*i) + aside, y(*share)]).collect();
            curve(canvas, &points, stroke)?;
            for (point, (_, _, between)) in points.iter().zip(&known) {
                interval(canvas, point[0], [y(between.low), y(between.high)], stroke.color)?;
                canvas.disc(*point, 4.5, &stroke.color, None)?;
            }
        }
        Ok(())
    }

    fn draw_motion(&self, canvas: &Canvas<'_>, frame: Frame, series: &StabilitySeries<'_>, k: usize) -> Result<()> {
        let which = if self.series.len() > 1 { format!(", checkpoint {}", k + 1) } else { String::new() };
        heading(canvas, frame, &format!("How the state moves{which}: median, quartiles"))?;
        let all: Vec<f64> = self
            .series
            .iter()
            .flat_map(|s| s.motions)
            .flat_map(|m| m.quartiles.iter().flatten().copied())
            .filter(|v| *v > 1e-7)
            .collect();
        let axes = Axes { frame, x: Scale::counts(1.0, self.segments as f64), y: Scale::decades(all.into_iter()) };
        axes.draw(canvas, ["segment", if k == 0 { "|Δz_H| / |z_H|" } else { "" }])?;
        let own = axes.place([self.own_segments as f64 + 0.5, axes.y.low])[0];
        if self.own_segments < self.segments {
            canvas.line(&[[own, frame.top], [own, frame.bottom()]], &SOFT_INK, 1.2)?;
        }
        let strokes: [(RGBColor, Option<[f64; 2]>); 3] =
            [(RIGHT, None), (RGBColor(150, 90, 150), Some([11.0, 5.0])), (WRONG, Some([3.0, 4.0]))];
        let mut at = [frame.left, frame.bottom() + LEGEND_BELOW];
        for (motion, (color, _)) in series.motions.iter().zip(strokes) {
            let edge = |q: usize| -> Vec<Point> {
                motion.quartiles.iter().enumerate().map(|(i, v)| axes.place([(i + 1) as f64, v[q]])).collect()
            };
            band(canvas, &edge(0), &edge(1), color)?;
        }
        for (motion, (color, dash)) in series.motions.iter().zip(strokes) {
            let points: Vec<Point> =
                motion.median.iter().enumerate().map(|(i, &v)| axes.place([(i + 1) as f64, v])).collect();
            curve(canvas, &points, Stroke { color, width: 2.8, dash })?;
        }
        for (motion, (color, dash)) in series.motions.iter().zip(strokes) {
            let name = format!("{} ({})", Fate::name(motion.fate), motion.puzzles);
            at = legend_line(canvas, at, frame.width, Stroke { color, width: 2.8, dash }, &name)?;
        }
        Ok(())
    }
}
