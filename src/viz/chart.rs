//! Parts that charts of curves and bars share: strokes that greyscale keeps apart, legends, intervals.

use anyhow::Result;
use plotters::style::{Color, RGBColor};

use super::{
    canvas::{Canvas, Frame, Lettering, Point},
    style::{FRAME, INK, SOFT_INK, size},
};

/// Colours of series after Okabe and Ito, dark enough for lines on white.
pub const SERIES: [RGBColor; 7] = [
    RGBColor(0, 96, 168),
    RGBColor(200, 72, 0),
    RGBColor(0, 128, 92),
    RGBColor(170, 70, 130),
    RGBColor(90, 90, 98),
    RGBColor(176, 128, 0),
    RGBColor(40, 140, 190),
];

/// How a curve is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stroke {
    pub color: RGBColor,
    pub width: f64,
    /// Length of dashes and of the gaps between them; none is a solid line.
    pub dash: Option<[f64; 2]>,
}

impl Stroke {
    pub fn solid(color: RGBColor, width: f64) -> Self {
        Self { color, width, dash: None }
    }

    /// The `k`-th of several curves: a colour and a dash of its own.
    pub fn series(k: usize) -> Self {
        const DASHES: [Option<[f64; 2]>; 4] = [None, Some([11.0, 5.0]), Some([3.0, 4.0]), Some([18.0, 6.0])];
        Self { color: SERIES[k % SERIES.len()], width: 2.8, dash: DASHES[k % DASHES.len()] }
    }
}

/// A curve through points.
pub fn curve(canvas: &Canvas<'_>, points: &[Point], stroke: Stroke) -> Result<()> {
    let Some([on, off]) = stroke.dash else { return canvas.line(points, &stroke.color, stroke.width) };
    let mut along = 0.0;
    for pair in points.windows(2) {
        let [dx, dy] = [pair[1][0] - pair[0][0], pair[1][1] - pair[0][1]];
        let length = dx.hypot(dy);
        let at = |s: f64| [pair[0][0] + dx * s / length.max(1e-9), pair[0][1] + dy * s / length.max(1e-9)];
        let mut done = 0.0;
        while done < length {
            let phase = (along + done) % (on + off);
            let step = if phase < on { on - phase } else { on + off - phase }.min(length - done).max(1e-6);
            if phase < on {
                canvas.line(&[at(done), at(done + step)], &stroke.color, stroke.width)?;
            }
            done += step;
        }
        along += length;
    }
    Ok(())
}

/// One line of a legend below another; returns where the next one goes.
pub fn legend_line(canvas: &Canvas<'_>, at: Point, width: f64, stroke: Stroke, name: &str) -> Result<Point> {
    curve(canvas, &[at, [at[0] + 36.0, at[1]]], stroke)?;
    canvas.text_within(name, [at[0] + 46.0, at[1]], width - 46.0, Lettering::new(size::SMALL, INK))?;
    Ok([at[0], at[1] + 27.0])
}

/// An upright interval with short ends.
pub fn interval(canvas: &Canvas<'_>, x: f64, [low, high]: [f64; 2], color: RGBColor) -> Result<()> {
    canvas.line(&[[x, low], [x, high]], &color, 1.6)?;
    for y in [low, high] {
        canvas.line(&[[x - 4.0, y], [x + 4.0, y]], &color, 1.6)?;
    }
    Ok(())
}

/// The area between two curves.
pub fn band(canvas: &Canvas<'_>, low: &[Point], high: &[Point], color: RGBColor) -> Result<()> {
    let outline: Vec<Point> = low.iter().chain(high.iter().rev()).copied().collect();
    if low.len() > 1 { canvas.fill_polygon(&outline, &color.mix(0.16)) } else { Ok(()) }
}

/// The words around a picture.
#[derive(Clone, Debug)]
pub struct Words {
    pub title: String,
    pub subtitle: String,
    /// Where the numbers come from, for the last line.
    pub sources: String,
}

impl Words {
    pub fn draw(&self, canvas: &Canvas<'_>, [width, height]: [u32; 2]) -> Result<()> {
        let room = f64::from(width) - 60.0;
        canvas.text_within(&self.title, [30.0, 36.0], room, Lettering::new(size::TITLE, INK).bold())?;
        canvas.text_within(&self.subtitle, [30.0, 74.0], room, Lettering::new(size::SUBTITLE, SOFT_INK))?;
        let foot = [30.0, f64::from(height) - 24.0];
        canvas.text_within(&self.sources, foot, room, Lettering::new(size::SMALL, SOFT_INK))
    }
}

/// An upright bar of colours, the first at the bottom.
pub fn color_bar(canvas: &Canvas<'_>, bar: Frame, n: usize, color: impl Fn(usize) -> RGBColor) -> Result<()> {
    let top = |k: usize| bar.at(0.0, 1.0 - k as f64 / n as f64)[1];
    for k in 0..n {
        canvas.fill_rect(Frame { top: top(k + 1), height: top(k) - top(k + 1), ..bar }, &color(k))?;
    }
    canvas.outline(bar, &FRAME, 1.0)
}

/// A value beside a bar of colours.
pub fn bar_tick(canvas: &Canvas<'_>, bar: Frame, y: f64, text: &str) -> Result<()> {
    canvas.line(&[[bar.right(), y], [bar.right() + 5.0, y]], &FRAME, 1.0)?;
    canvas.text(text, [bar.right() + 11.0, y], Lettering::new(size::SMALL, INK))
}

/// A panel's heading above its frame.
pub fn heading(canvas: &Canvas<'_>, frame: Frame, text: &str) -> Result<()> {
    let how = Lettering::new(size::LABEL, INK).bold();
    canvas.text_within(text, [frame.left, frame.top - 22.0], frame.width, how)
}
