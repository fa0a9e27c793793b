//! The error landscape as a map, and the flow's basins.

use anyhow::Result;
use plotters::style::{Color, RGBColor};

use super::{
    axes::{EqualAxes, clipped},
    canvas::{Canvas, Frame, Lettering, Picture, Point},
    chart::{Words, bar_tick, color_bar},
    colormap::Colormap,
    style::{FRAME, INK, PAPER, size},
};
use crate::analysis::landscape::{Basin, Grid, GridPoint, Landscape};

const MASKED: RGBColor = RGBColor(176, 176, 176);
pub(super) const PATH: RGBColor = RGBColor(228, 26, 28);
const FLOW: RGBColor = RGBColor(0, 235, 245);
const DARK: RGBColor = RGBColor(16, 16, 24);

/// A grid with the words around it.
#[derive(Clone, Debug)]
pub struct Map<'a> {
    pub landscape: &'a Landscape,
    pub title: String,
    /// Where puzzle and weights come from, for the last line.
    pub sources: String,
}

impl Map<'_> {
    pub(super) fn axis_names(&self) -> [String; 2] {
        let l = self.landscape;
        let share = |k: usize| 100.0 * l.explained_variance_ratio[k];
        [
            format!("PC1 ({:.1} % of the trace), steps of √(T·h)/8 = {:.2}", share(0), l.scale),
            format!("PC2 ({:.1} % of the trace)", share(1)),
        ]
    }

    fn axes(&self, frame: Frame) -> EqualAxes {
        let Grid { low, high, step } = self.landscape.grid;
        EqualAxes::around(&[[low - step / 2.0; 2], [high + step / 2.0; 2]], frame, 0.0)
    }

    /// The square of a grid point.
    fn cell(&self, axes: &EqualAxes, at: [f64; 2]) -> Frame {
        let half = self.landscape.grid.step / 2.0;
        let (a, b) = (axes.place([at[0] - half, at[1] + half]), axes.place([at[0] + half, at[1] - half]));
        Frame { left: a[0], top: a[1], width: b[0] - a[0], height: b[1] - a[1] }
    }

    fn draw_path(&self, canvas: &Canvas<'_>, axes: &EqualAxes, frame: Frame) -> Result<()> {
        let points: Vec<Point> = self.landscape.trajectory.iter().map(|&p| axes.place(p)).collect();
        for (color, width) in [(PAPER, 5.0), (PATH, 2.6)] {
            for pair in points.windows(2) {
                if let Some(line) = clipped(frame, pair[0], pair[1]) {
                    canvas.line(&line, &color, width)?;
                }
            }
        }
        for &point in points.iter().filter(|p| within(frame, **p)) {
            canvas.disc(point, 3.6, &PATH, Some((PAPER, 1.2)))?;
        }
        if let Some(&start) = points.first().filter(|p| within(frame, **p)) {
            canvas.square(start, 8.0, &PAPER)?;
            canvas.square(start, 6.0, &PATH)?;
        }
        if let Some(&end) = points.last().filter(|p| within(frame, **p)) {
            canvas.diamond(end, 12.0, &PAPER)?;
            canvas.diamond(end, 9.0, &PATH)?;
        }
        Ok(())
    }

    /// The words around the picture.
    pub(super) fn headings(&self, canvas: &Canvas<'_>, subtitle: String, picture: [u32; 2]) -> Result<()> {
        Words { title: self.title.clone(), subtitle, sources: self.sources.clone() }.draw(canvas, picture)
    }
}

fn within(frame: Frame, [x, y]: Point) -> bool {
    x >= frame.left && x <= frame.right() && y >= frame.top && y <= frame.bottom()
}

/// An arrow cut at the frame, dark below its colour so that it is seen on every ground.
fn arrow(canvas: &Canvas<'_>, frame: Frame, from: Point, to: Point) -> Result<()> {
    let Some([a, b]) = clipped(frame, from, to) else { return Ok(()) };
    let length = (b[0] - a[0]).hypot(b[1] - a[1]);
    if length < 1.5 {
        return canvas.disc(a, 2.2, &FLOW, Some((DARK, 0.8)));
    }
    let head = (length * 0.4).min(11.0);
    let [ux, uy] = [(b[0] - a[0]) / length, (b[1] - a[1]) / length];
    let at = |forward: f64, aside: f64| [b[0] + ux * forward - uy * aside, b[1] + uy * forward + ux * aside];
    let arrow_head =
        |grow: f64| [at(grow, 0.0), at(-head - grow, head * 0.48 + grow), at(-head - grow, -head * 0.48 - grow)];
    canvas.line(&[a, at(-head, 0.0)], &DARK, 3.4)?;
    canvas.fill_polygon(&arrow_head(1.2), &DARK)?;
    canvas.line(&[a, at(-head, 0.0)], &FLOW, 1.8)?;
    canvas.fill_polygon(&arrow_head(0.0), &FLOW)
}

/// Where a legend is written, line by line.
struct Legend {
    at: Point,
}

impl Legend {
    fn row(&mut self, canvas: &Canvas<'_>, text: &str, width: f64) -> Result<Point> {
        let [x, y] = self.at;
        canvas.text_within(text, [x + 34.0, y], width - 34.0, Lettering::new(size::SMALL, INK))?;
        self.at[1] += 28.0;
        Ok([x, y])
    }
}

/// The landscape from above: errors as colours, the trace in red, one segment's way as cyan arrows.
#[derive(Clone, Debug)]
pub struct HeatMap<'a> {
    pub map: Map<'a>,
    /// Errors at and above it have one colour.
    pub clip: u32,
    /// Points whose board has blanks are grey.
    pub mask_blanks: bool,
    /// Which points have an arrow.
    pub arrows: Vec<usize>,
}

const HEAT: Frame = Frame { left: 104.0, top: 108.0, width: 800.0, height: 800.0 };

impl HeatMap<'_> {
    fn value(&self, point: &GridPoint) -> Option<u32> {
        (!self.mask_blanks || point.blanks == 0).then(|| point.error.min(self.clip))
    }
}

impl Picture for HeatMap<'_> {
    fn size(&self) -> [u32; 2] {
        [1200, 1010]
    }

    fn draw(&self, canvas: &Canvas<'_>) -> Result<()> {
        let l = self.map.landscape;
        let subtitle = format!(
            "Broken rules of the answer at each state, on the plane of the trace's two principal components around segment {}",
            l.centre_segment
        );
        self.map.headings(canvas, subtitle, self.size())?;
        let axes = self.map.axes(HEAT);
        let values: Vec<Option<u32>> = l.points.iter().map(|p| self.value(p)).collect();
        let seen = || values.iter().flatten().copied();
        let (low, high) = (seen().min().unwrap_or(0), seen().max().unwrap_or(1));
        let (low, high) = if low < high { (low, high) } else { (low.saturating_sub(1), high + 1) };
        let shade = |v: u32| Colormap::Viridis.at(f64::from(v - low) / f64::from(high - low));
        let names = self.map.axis_names();
        axes.draw(canvas, [&names[0], &names[1]])?;
        for (point, value) in l.points.iter().zip(&values) {
            canvas.fill_rect(self.map.cell(&axes, point.at), &value.map_or(MASKED, shade))?;
        }
        canvas.outline(HEAT, &FRAME, 1.0)?;
        for &i in &self.arrows {
            let Some((point, dest)) = l.points.get(i).and_then(|p| Some((p, p.dest()?))) else { continue };
            if self.value(point).is_some() {
                arrow(canvas, HEAT, axes.place(point.at), axes.place(dest))?;
            }
        }
        self.map.draw_path(canvas, &axes, HEAT)?;

        let bar = Frame { left: 946.0, top: 156.0, width: 26.0, height: 420.0 };
        color_bar(canvas, bar, 84, |k| Colormap::Viridis.at((k as f64 + 0.5) / 84.0))?;
        canvas.text("error: broken rules", [bar.left, bar.top - 30.0], Lettering::new(size::SMALL, INK))?;
        for k in 0..=4 {
            let value = f64::from(low) + f64::from(high - low) * f64::from(k) / 4.0;
            let more = if value >= f64::from(self.clip) { " or more" } else { "" };
            bar_tick(canvas, bar, bar.at(0.0, 1.0 - f64::from(k) / 4.0)[1], &format!("{value:.0}{more}"))?;
        }

        let mut legend = Legend { at: [930.0, 640.0] };
        let room = 250.0;
        let at = legend.row(canvas, "the trace of z_H", room)?;
        canvas.line(&[[at[0], at[1]], [at[0] + 24.0, at[1]]], &PATH, 2.6)?;
        canvas.disc([at[0] + 12.0, at[1]], 3.6, &PATH, Some((PAPER, 1.2)))?;
        let at = legend.row(canvas, "its start (may lie outside)", room)?;
        canvas.square([at[0] + 12.0, at[1]], 6.0, &PATH)?;
        let at = legend.row(canvas, "its end", room)?;
        canvas.diamond([at[0] + 12.0, at[1]], 9.0, &PATH)?;
        if !self.arrows.is_empty() {
            let at = legend.row(canvas, "one segment from there", room)?;
            let whole = Frame { left: 0.0, top: 0.0, width: 1200.0, height: 1010.0 };
            arrow(canvas, whole, [at[0], at[1]], [at[0] + 26.0, at[1]])?;
        }
        if self.mask_blanks {
            let at = legend.row(canvas, "board with blanks", room)?;
            canvas.square([at[0] + 12.0, at[1]], 9.0, &MASKED)?;
        }
        Ok(())
    }
}

/// Colours of basins after Okabe and Ito, lightened; the rightmost answer keeps the first.
const BASINS: [RGBColor; 7] = [
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(240, 228, 66),
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
];
const OTHERS: RGBColor = RGBColor(200, 200, 206);
const UNSETTLED: RGBColor = RGBColor(246, 246, 248);

/// The flow: every grid point in the colour of the answer that it reaches.
#[derive(Clone, Debug)]
pub struct Basins<'a> {
    pub map: Map<'a>,
    /// By the number of points.
    pub basins: &'a [Basin],
    pub of_point: &'a [Option<usize>],
    /// Which points' ways are drawn.
    pub ways: Vec<usize>,
}

const FLOW_MAP: Frame = Frame { left: 104.0, top: 108.0, width: 760.0, height: 760.0 };

/// A place near `end` for a numbered disc that covers none of those `taken`.
fn free_place(end: Point, taken: &[Point]) -> Point {
    let rings = (1..6).flat_map(|ring| (0..12).map(move |turn| (f64::from(ring), f64::from(turn))));
    let place = |(ring, turn): (f64, f64)| {
        let angle = (turn + 0.5 * ring) / 12.0 * std::f64::consts::TAU;
        [end[0] + 34.0 * ring * angle.cos(), end[1] + 34.0 * ring * angle.sin()]
    };
    let free = |p: &Point| within(FLOW_MAP, *p) && taken.iter().all(|t| (t[0] - p[0]).hypot(t[1] - p[1]) > 30.0);
    rings.map(place).find(free).unwrap_or(end)
}

impl Picture for Basins<'_> {
    fn size(&self) -> [u32; 2] {
        [1280, 980]
    }

    fn draw(&self, canvas: &Canvas<'_>) -> Result<()> {
        let l = self.map.landscape;
        let subtitle = format!(
            "Every point of the plane in the colour of the answer that it has settled on after {} more segments",
            l.segments
        );
        self.map.headings(canvas, subtitle, self.size())?;
        let axes = self.map.axes(FLOW_MAP);
        let names = self.map.axis_names();
        axes.draw(canvas, [&names[0], &names[1]])?;
        for (point, &basin) in l.points.iter().zip(self.of_point) {
            canvas.fill_rect(self.map.cell(&axes, point.at), &basin_color(basin))?;
        }
        canvas.outline(FLOW_MAP, &FRAME, 1.0)?;
        for &i in &self.ways {
            let Some(point) = l.points.get(i) else { continue };
            let way: Vec<Point> =
                std::iter::once(point.at).chain(point.path.iter().copied()).map(|p| axes.place(p)).collect();
            for pair in way.windows(2) {
                if let Some(line) = clipped(FLOW_MAP, pair[0], pair[1]) {
                    canvas.line(&line, &DARK.mix(0.55), 1.0)?;
                }
            }
            canvas.disc(way[0], 2.2, &DARK, None)?;
        }
        self.map.draw_path(canvas, &axes, FLOW_MAP)?;
        let number = Lettering::new(size::SMALL, INK).bold().middle();
        let mut taken: Vec<Point> = Vec::new();
        for (k, basin) in self.basins.iter().enumerate().take(BASINS.len()) {
            let end = axes.place(basin.middle);
            if within(FLOW_MAP, end) {
                let at = free_place(end, &taken);
                taken.push(at);
                canvas.line(&[end, at], &INK, 1.5)?;
                canvas.disc(end, 4.0, &basin_color(Some(k)), Some((INK, 1.5)))?;
                canvas.disc(at, 13.0, &basin_color(Some(k)), Some((INK, 1.5)))?;
                canvas.text(&(k + 1).to_string(), at, number)?;
            }
        }
        self.draw_legend(canvas)
    }
}

fn basin_color(basin: Option<usize>) -> RGBColor {
    match basin {
        None => UNSETTLED,
        Some(k) => BASINS.get(k).copied().unwrap_or(OTHERS),
    }
}

impl Basins<'_> {
    fn draw_legend(&self, canvas: &Canvas<'_>) -> Result<()> {
        let mut legend = Legend { at: [900.0, 136.0] };
        let heading = Lettering::new(size::LABEL, INK).bold();
        canvas.text("Answers reached", legend.at, heading)?;
        legend.at[1] += 36.0;
        let total = self.map.landscape.points.len().max(1) as f64;
        let percent = |n: usize| format!("{:.1} %", 100.0 * n as f64 / total);
        let swatch = |at: Point, color: RGBColor| {
            let square = Frame { left: at[0] + 2.0, top: at[1] - 10.0, width: 20.0, height: 20.0 };
            canvas.fill_rect(square, &color)?;
            canvas.outline(square, &FRAME, 1.0)
        };
        for (k, basin) in self.basins.iter().enumerate().take(BASINS.len()) {
            let what = match (basin.right, basin.error, basin.givens_changed) {
                (Some(true), ..) => "the solution".to_owned(),
                (_, 0, 0) => "breaks no rule".to_owned(),
                (_, 0, 1) => "a Sudoku, but changes 1 given".to_owned(),
                (_, 0, n) => format!("a Sudoku, but changes {n} givens"),
                (_, 1, _) => "wrong, breaks 1 rule".to_owned(),
                (_, n, _) => format!("wrong, breaks {n} rules"),
            };
            let at = legend.row(canvas, &format!("{}  {what}: {}", k + 1, percent(basin.points)), 350.0)?;
            swatch(at, basin_color(Some(k)))?;
        }
        let rest = self.basins.iter().skip(BASINS.len());
        let (others, points) = rest.fold((0, 0), |(n, p), b| (n + 1, p + b.points));
        if others > 0 {
            let at = legend.row(canvas, &format!("{others} other answers: {}", percent(points)), 350.0)?;
            swatch(at, OTHERS)?;
        }
        let unsettled = self.of_point.iter().filter(|b| b.is_none()).count();
        let at = legend.row(canvas, &format!("still changing: {}", percent(unsettled)), 350.0)?;
        swatch(at, UNSETTLED)?;
        legend.at[1] += 14.0;
        let at = legend.row(canvas, "the puzzle's own trace of z_H", 350.0)?;
        canvas.line(&[[at[0], at[1]], [at[0] + 24.0, at[1]]], &PATH, 2.6)?;
        let at = legend.row(canvas, "paths from grid points", 350.0)?;
        canvas.disc([at[0] + 2.0, at[1]], 2.2, &DARK, None)?;
        canvas.line(&[[at[0] + 2.0, at[1]], [at[0] + 24.0, at[1]]], &DARK.mix(0.55), 1.0)?;
        let at = legend.row(canvas, "where a basin's points end, mean", 350.0)?;
        canvas.disc([at[0] + 12.0, at[1]], 11.0, &BASINS[0], Some((INK, 1.5)))?;
        canvas.text("1", [at[0] + 12.0, at[1]], Lettering::new(size::SMALL, INK).bold().middle())
    }
}
