//! Losses of single puzzles beside their mean, and when puzzles are solved.

use anyhow::Result;
use plotters::style::{Color, RGBColor};

use super::{
    axes::{Axes, Scale},
    canvas::{Canvas, Frame, Lettering, Picture, Point},
    chart::{Stroke, Words, curve, heading, interval, legend_line},
    colormap::Colormap,
    style::{INK, PAPER, SOFT_INK, WRONG, size},
};
use crate::analysis::{
    runs::PuzzleRun,
    segments::{SegmentMean, SegmentsSummary},
};

/// Single curves that are drawn; more only darken the picture.
const CURVES: usize = 200;
const NEVER: RGBColor = RGBColor(196, 120, 80);
const MAP: Colormap = Colormap::Viridis;
/// One curve of the means.
type MeanOf = fn(&SegmentMean) -> f64;

/// What `hrm analyze segments` draws.
#[derive(Clone, Debug)]
pub struct SegmentsPicture<'a> {
    pub words: Words,
    pub runs: &'a [PuzzleRun],
    pub summary: &'a SegmentsSummary,
}

const SINGLE: Frame = Frame { left: 110.0, top: 142.0, width: 560.0, height: 330.0 };
const ALIGNED: Frame = Frame { left: 810.0, top: 142.0, width: 560.0, height: 330.0 };
const STEPS: Frame = Frame { left: 110.0, top: 640.0, width: 560.0, height: 260.0 };
const MEANS: Frame = Frame { left: 810.0, top: 640.0, width: 360.0, height: 260.0 };

impl SegmentsPicture<'_> {
    fn segments(&self) -> usize {
        self.summary.segments.len()
    }

    fn loss_scale(&self) -> Scale {
        let all: Vec<f64> = self.runs.iter().flat_map(|r| r.loss.iter().copied()).collect();
        Scale::decades(all.into_iter())
    }

    fn color(&self, run: &PuzzleRun) -> RGBColor {
        run.right_for_good().map_or(NEVER, |k| MAP.step(k - 1, self.segments()))
    }
}

impl Picture for SegmentsPicture<'_> {
    fn size(&self) -> [u32; 2] {
        [1400, 1020]
    }

    fn draw(&self, canvas: &Canvas<'_>) -> Result<()> {
        self.words.draw(canvas, self.size())?;
        self.draw_single(canvas)?;
        self.draw_aligned(canvas)?;
        self.draw_steps(canvas)?;
        self.draw_means(canvas)
    }
}

impl SegmentsPicture<'_> {
    fn draw_single(&self, canvas: &Canvas<'_>) -> Result<()> {
        let shown = self.runs.len().min(CURVES);
        heading(canvas, SINGLE, &format!("Loss of single puzzles ({shown}) and the mean of all {}", self.runs.len()))?;
        let axes = Axes { frame: SINGLE, x: Scale::counts(1.0, self.segments() as f64), y: self.loss_scale() };
        axes.draw(canvas, ["segment", "loss per cell (nats)"])?;
        for run in self.runs.iter().take(CURVES) {
            let points = place(&axes, run.loss.iter().enumerate().map(|(k, &l)| [(k + 1) as f64, l]));
            canvas.line(&points, &self.color(run).mix(0.5), 1.2)?;
        }
        let mean = place(&axes, self.summary.segments.iter().map(|s| [s.segment as f64, s.loss]));
        curve(canvas, &mean, Stroke::solid(PAPER, 6.0))?;
        curve(canvas, &mean, Stroke::solid(INK, 3.4))?;
        for (left, stroke, name) in [
            (0.0, Stroke::solid(INK, 3.4), "mean"),
            (120.0, Stroke::solid(MAP.at(0.4), 2.0), "right: by its step"),
            (340.0, Stroke::solid(NEVER, 2.0), "wrong at the end"),
        ] {
            legend_line(canvas, [SINGLE.left + left, SINGLE.bottom() + 76.0], 220.0, stroke, name)?;
        }
        Ok(())
    }

    /// Each solved puzzle's loss, counted from the segment at which it is right for good.
    fn draw_aligned(&self, canvas: &Canvas<'_>) -> Result<()> {
        let solved: Vec<(usize, &PuzzleRun)> =
            self.runs.iter().filter_map(|r| Some((r.right_for_good().filter(|&k| k > 1)?, r))).collect();
        heading(canvas, ALIGNED, "The same, counted from each puzzle's own step")?;
        let reach = 6.0_f64.min(self.segments() as f64 - 1.0).max(1.0);
        let axes = Axes { frame: ALIGNED, x: Scale::counts(-reach, reach), y: self.loss_scale() };
        axes.draw(canvas, ["segments after the puzzle is right for good", "loss per cell (nats)"])?;
        let middle = axes.place([0.0, axes.y.low])[0];
        canvas.line(&[[middle, ALIGNED.top], [middle, ALIGNED.bottom()]], &SOFT_INK, 1.2)?;
        if solved.is_empty() {
            let how = Lettering::new(size::LABEL, SOFT_INK).middle();
            return canvas.text("no puzzle is solved after segment 1", ALIGNED.at(0.5, 0.5), how);
        }
        let shifted = |step: usize, run: &PuzzleRun| -> Vec<[f64; 2]> {
            let around = run.loss.iter().enumerate().map(|(k, &l)| [(k + 1) as f64 - step as f64, l]);
            around.filter(|p| p[0].abs() <= reach + 0.1).collect()
        };
        for (step, run) in solved.iter().take(CURVES) {
            let points = place(&axes, shifted(*step, run).into_iter());
            canvas.line(&points, &self.color(run).mix(0.5), 1.2)?;
        }
        let median = (-(reach as i64)..=reach as i64).filter_map(|offset| {
            let mut values: Vec<f64> = solved
                .iter()
                .filter_map(|(step, run)| {
                    let k = i64::try_from(*step).ok()? + offset;
                    run.loss.get(usize::try_from(k - 1).ok()?).copied()
                })
                .collect();
            // A median of a few late puzzles would say nothing of the solved.
            let enough = values.len() >= solved.len().div_ceil(20);
            values.sort_by(f64::total_cmp);
            Some([offset as f64, *values.get(values.len() / 2).filter(|_| enough)?])
        });
        let median = place(&axes, median);
        curve(canvas, &median, Stroke::solid(PAPER, 6.0))?;
        curve(canvas, &median, Stroke::solid(INK, 3.4))?;
        let at = [ALIGNED.left, ALIGNED.bottom() + 76.0];
        legend_line(canvas, at, 400.0, Stroke::solid(INK, 3.4), "median of the solved").map(drop)
    }

    fn draw_steps(&self, canvas: &Canvas<'_>) -> Result<()> {
        let grok = &self.summary.grokking;
        let n = self.segments();
        heading(canvas, STEPS, "When puzzles become right for good")?;
        let most = grok.at.iter().copied().max().unwrap_or(0).max(grok.never).max(1) as f64;
        let axes = Axes { frame: STEPS, x: Scale::counts(1.0, n as f64 + 2.0), y: Scale::linear(0.0, most * 1.12) };
        axes.draw_to(canvas, ["segment", "puzzles"], n as f64)?;
        let tick = Lettering::new(size::SMALL, INK).middle();
        let bars = grok.at.iter().enumerate().map(|(k, &count)| ((k + 1) as f64, count, MAP.step(k, n)));
        for (x, count, color) in bars.chain([(n as f64 + 2.0, grok.never, WRONG)]) {
            let (a, b) = (axes.place([x - 0.4, count as f64]), axes.place([x + 0.4, 0.0]));
            canvas.fill_rect(Frame { left: a[0], top: a[1], width: b[0] - a[0], height: b[1] - a[1] }, &color)?;
            if count > 0 && n <= 24 {
                canvas.text(
                    &count.to_string(),
                    [f64::midpoint(a[0], b[0]), a[1] - 10.0],
                    Lettering { size: 15.0, ..tick },
                )?;
            }
        }
        let [x, y] = axes.place([n as f64 + 2.0, 0.0]);
        canvas.text("never", [x, y + 16.0], tick)
    }

    fn draw_means(&self, canvas: &Canvas<'_>) -> Result<()> {
        heading(canvas, MEANS, "Means over all puzzles")?;
        let n = self.segments() as f64;
        let most = self.summary.segments.iter().map(|s| s.move_h).fold(1.0, f64::max);
        let axes = Axes { frame: MEANS, x: Scale::counts(1.0, n), y: Scale::linear(0.0, most.min(2.0)) };
        axes.draw(canvas, ["segment", "share, or |Δz|/|z|"])?;
        let rows: [(&str, MeanOf); 4] = [
            ("cells right", |s| s.cells),
            ("puzzles right", |s| s.exact),
            ("q says halt", |s| s.halts),
            ("|Δz_H|/|z_H|", |s| s.move_h),
        ];
        let mut at = [MEANS.right() + 18.0, MEANS.top + 14.0];
        for (k, (name, value)) in rows.iter().enumerate() {
            let points = place(&axes, self.summary.segments.iter().map(|s| [s.segment as f64, value(s)]));
            curve(canvas, &points, Stroke::series(k))?;
            at = legend_line(canvas, at, 1400.0 - at[0] - 16.0, Stroke::series(k), name)?;
        }
        if let Some(last) = self.summary.segments.last() {
            let between = [last.exact_interval.low, last.exact_interval.high].map(|v| axes.place([n, v])[1]);
            interval(canvas, axes.place([n, 0.0])[0], between, Stroke::series(1).color)?;
            let small = Lettering { size: 15.0, ..Lettering::new(size::SMALL, SOFT_INK) };
            canvas.text("interval: 95 %", [at[0], at[1] + 4.0], small)?;
        }
        Ok(())
    }
}

fn place(axes: &Axes, points: impl Iterator<Item = [f64; 2]>) -> Vec<Point> {
    points.map(|p| axes.place(p)).collect()
}
