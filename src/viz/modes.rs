//! How runs end: counts of the four modes with intervals, and how the error goes in each.

use anyhow::Result;
use plotters::style::{Color, RGBColor};

use super::{
    axes::{Axes, Scale},
    canvas::{Canvas, Frame, Lettering, Picture, Point},
    chart::{Stroke, Words, curve, heading},
    style::{FRAME, GRID, INK, PAPER, SOFT_INK, size},
};
use crate::analysis::{
    modes::{Mode, ModesSummary, classify},
    runs::PuzzleRun,
};

/// What `hrm analyze modes` draws.
#[derive(Clone, Debug)]
pub struct ModesPicture<'a> {
    pub words: Words,
    pub runs: &'a [PuzzleRun],
    pub summary: &'a ModesSummary,
}

const SHARES: Frame = Frame { left: 230.0, top: 142.0, width: 1000.0, height: 220.0 };
const PANELS: f64 = 490.0;
/// Single curves in a panel.
const CURVES: usize = 60;

/// Blues for successes, oranges for failures; the lighter of each is the trivial one.
pub fn mode_color(mode: Mode) -> RGBColor {
    match mode {
        Mode::TrivialSuccess => RGBColor(86, 160, 216),
        Mode::NonTrivialSuccess => RGBColor(0, 82, 148),
        Mode::TrivialFailure => RGBColor(236, 150, 60),
        Mode::NonTrivialFailure => RGBColor(176, 56, 0),
    }
}

impl Picture for ModesPicture<'_> {
    fn size(&self) -> [u32; 2] {
        [1400, 860]
    }

    fn draw(&self, canvas: &Canvas<'_>) -> Result<()> {
        self.words.draw(canvas, self.size())?;
        self.draw_shares(canvas)?;
        for (k, mode) in Mode::ALL.into_iter().enumerate() {
            let frame = Frame { left: 90.0 + 332.0 * k as f64, top: PANELS, width: 262.0, height: 240.0 };
            self.draw_mode(canvas, frame, mode, k == 0)?;
        }
        Ok(())
    }
}

impl ModesPicture<'_> {
    fn draw_shares(&self, canvas: &Canvas<'_>) -> Result<()> {
        let letters = Lettering::new(size::SMALL, INK);
        let highest = self.summary.modes.iter().map(|m| m.interval.high).fold(0.05, f64::max).min(1.0);
        let scale = Scale::linear(0.0, (highest * 1.05).min(1.0));
        let x = |share: f64| SHARES.at(scale.share(share), 0.0)[0];
        heading(canvas, SHARES, &format!("Share of {} puzzles, with 95 % intervals", self.summary.puzzles))?;
        let percents = Scale::linear(0.0, 100.0 * scale.high);
        for (value, text) in percents.ticks(8.0) {
            let x = x(value / 100.0);
            canvas.line(&[[x, SHARES.top], [x, SHARES.bottom()]], &GRID, 1.0)?;
            canvas.text(&format!("{text} %"), [x, SHARES.bottom() + 16.0], letters.middle())?;
        }
        let step = SHARES.height / 4.0;
        for (k, count) in self.summary.modes.iter().enumerate() {
            let top = SHARES.top + step * (k as f64 + 0.2);
            let bar = Frame { left: SHARES.left, top, width: x(count.share) - SHARES.left, height: step * 0.6 };
            canvas.fill_rect(bar, &mode_color(count.mode))?;
            let y = bar.at(0.0, 0.5)[1];
            let (low, high) = (x(count.interval.low), x(count.interval.high));
            canvas.line(&[[low, y], [high, y]], &INK, 1.6)?;
            for end in [low, high] {
                canvas.line(&[[end, y - 5.0], [end, y + 5.0]], &INK, 1.6)?;
            }
            canvas.text(count.mode.name(), [SHARES.left - 12.0, y], letters.right())?;
            let text = format!("{} ({:.1} %)", count.count, 100.0 * count.share);
            canvas.text(&text, [high + 12.0, y], letters)?;
        }
        canvas.line(&[SHARES.at(0.0, 0.0), SHARES.at(0.0, 1.0)], &FRAME, 1.2)
    }

    fn draw_mode(&self, canvas: &Canvas<'_>, frame: Frame, mode: Mode, first: bool) -> Result<()> {
        let members: Vec<&PuzzleRun> =
            self.runs.iter().filter(|r| classify(r, &self.summary.criteria) == mode).collect();
        heading(canvas, frame, &format!("{} ({})", mode.name(), members.len()))?;
        let n = self.runs.iter().map(PuzzleRun::segments).max().unwrap_or(1) as f64;
        let wrong = |run: &PuzzleRun, k: usize| run.cells.saturating_sub(run.right[k]) as f64;
        let most = self.runs.iter().flat_map(|r| (0..r.segments()).map(move |k| wrong(r, k))).fold(1.0, f64::max);
        let axes = Axes { frame, x: Scale::counts(1.0, n), y: Scale::linear(0.0, most) };
        axes.draw(canvas, ["segment", if first { "wrong cells" } else { "" }])?;
        if members.is_empty() {
            return canvas.text("none", frame.at(0.5, 0.5), Lettering::new(size::LABEL, SOFT_INK).middle());
        }
        for run in members.iter().take(CURVES) {
            let points: Vec<Point> = (0..run.segments()).map(|k| axes.place([(k + 1) as f64, wrong(run, k)])).collect();
            canvas.line(&points, &mode_color(mode).mix(0.4), 1.2)?;
        }
        // One run of its own, so that a single way is seen whole.
        let one = members[0];
        let points: Vec<Point> = (0..one.segments()).map(|k| axes.place([(k + 1) as f64, wrong(one, k)])).collect();
        curve(canvas, &points, Stroke::solid(PAPER, 5.0))?;
        curve(canvas, &points, Stroke::solid(mode_color(mode), 3.0))?;
        let small = Lettering { size: 15.0, ..Lettering::new(size::SMALL, SOFT_INK) };
        canvas.text(&format!("bold: puzzle {}", one.index), [frame.right() - 4.0, frame.top + 14.0], small.right())
    }
}
