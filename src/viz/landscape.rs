//! The error landscape as a map and as a surface, and the flow's basins.

use anyhow::Result;
use plotters::{
    backend::DrawingBackend,
    style::{Color, RGBColor},
};

use super::{
    axes::{EqualAxes, clipped},
    canvas::{Canvas, Frame, Lettering, Picture, Point},
    colormap::Colormap,
    style::{FRAME, GRID, INK, PAPER, SOFT_INK, size},
};
use crate::analysis::landscape::{Basin, Grid, GridPoint, Landscape};

const MASKED: RGBColor = RGBColor(176, 176, 176);
const PATH: RGBColor = RGBColor(228, 26, 28);
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
    fn axis_names(&self) -> [String; 2] {
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
        // A hair wider, so that no seams show.
        Frame { left: a[0], top: a[1], width: b[0] - a[0] + 0.3, height: b[1] - a[1] + 0.3 }
    }

    fn draw_path<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>, axes: &EqualAxes, frame: Frame) -> Result<()>
    where
        DB::ErrorType: 'static,
    {
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
        let start = points.first().filter(|p| within(frame, **p));
        if let Some(&[x, y]) = start {
            let square = |r: f64| Frame { left: x - r, top: y - r, width: 2.0 * r, height: 2.0 * r };
            canvas.fill_rect(square(8.0), &PAPER)?;
            canvas.fill_rect(square(6.0), &PATH)?;
        }
        if let Some(&[x, y]) = points.last().filter(|p| within(frame, **p)) {
            let diamond = |r: f64| [[x, y - r], [x + r, y], [x, y + r], [x - r, y]];
            canvas.fill_polygon(&diamond(12.0), &PAPER)?;
            canvas.fill_polygon(&diamond(9.0), &PATH)?;
        }
        Ok(())
    }

    fn headings<DB: DrawingBackend>(
        &self,
        canvas: &Canvas<'_, DB>,
        subtitle: &str,
        [width, height]: [u32; 2],
    ) -> Result<()>
    where
        DB::ErrorType: 'static,
    {
        let room = f64::from(width) - 60.0;
        canvas.text_within(&self.title, [30.0, 36.0], room, Lettering::new(size::TITLE, INK).bold())?;
        canvas.text_within(subtitle, [30.0, 74.0], room, Lettering::new(size::SUBTITLE, SOFT_INK))?;
        let foot = [30.0, f64::from(height) - 24.0];
        canvas.text_within(&self.sources, foot, room, Lettering::new(size::SMALL, SOFT_INK))
    }
}

fn within(frame: Frame, [x, y]: Point) -> bool {
    x >= frame.left && x <= frame.right() && y >= frame.top && y <= frame.bottom()
}

/// An arrow cut at the frame, dark below its colour so that it is seen on every ground.
fn arrow<DB: DrawingBackend>(canvas: &Canvas<'_, DB>, frame: Frame, from: Point, to: Point) -> Result<()>
where
    DB::ErrorType: 'static,
{
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
    fn row<DB: DrawingBackend>(&mut self, canvas: &Canvas<'_, DB>, text: &str, width: f64) -> Result<Point>
    where
        DB::ErrorType: 'static,
    {
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

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>) -> Result<()>
    where
        DB::ErrorType: 'static,
    {
        let l = self.map.landscape;
        let subtitle = format!(
            "Broken rules that a state says, on the plane of the trace's two principal components around segment {}",
            l.centre_segment
        );
        self.map.headings(canvas, &subtitle, self.size())?;
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
        let n = 84;
        for k in 0..n {
            let top = bar.at(0.0, 1.0 - f64::from(k + 1) / f64::from(n))[1];
            let slice = Frame { top, height: bar.height / f64::from(n) + 0.3, ..bar };
            canvas.fill_rect(slice, &Colormap::Viridis.at((f64::from(k) + 0.5) / f64::from(n)))?;
        }
        canvas.outline(bar, &FRAME, 1.0)?;
        let letters = Lettering::new(size::SMALL, INK);
        canvas.text("error: broken rules", [bar.left, bar.top - 30.0], letters)?;
        for k in 0..=4 {
            let value = f64::from(low) + f64::from(high - low) * f64::from(k) / 4.0;
            let y = bar.at(0.0, 1.0 - f64::from(k) / 4.0)[1];
            let more = if value >= f64::from(self.clip) { " or more" } else { "" };
            canvas.line(&[[bar.right(), y], [bar.right() + 5.0, y]], &FRAME, 1.0)?;
            canvas.text(&format!("{value:.0}{more}"), [bar.right() + 11.0, y], letters)?;
        }

        let mut legend = Legend { at: [930.0, 640.0] };
        let room = 250.0;
        let at = legend.row(canvas, "the trace of z_H", room)?;
        canvas.line(&[[at[0], at[1]], [at[0] + 24.0, at[1]]], &PATH, 2.6)?;
        canvas.disc([at[0] + 12.0, at[1]], 3.6, &PATH, Some((PAPER, 1.2)))?;
        let at = legend.row(canvas, "its start (may lie outside)", room)?;
        canvas.fill_rect(Frame { left: at[0] + 6.0, top: at[1] - 6.0, width: 12.0, height: 12.0 }, &PATH)?;
        let [x, y] = legend.row(canvas, "its end", room)?;
        canvas.fill_polygon(&[[x + 12.0, y - 9.0], [x + 21.0, y], [x + 12.0, y + 9.0], [x + 3.0, y]], &PATH)?;
        if !self.arrows.is_empty() {
            let at = legend.row(canvas, "one segment from there", room)?;
            let whole = Frame { left: 0.0, top: 0.0, width: 1200.0, height: 1010.0 };
            arrow(canvas, whole, [at[0], at[1]], [at[0] + 26.0, at[1]])?;
        }
        if self.mask_blanks {
            let at = legend.row(canvas, "board with blanks", room)?;
            canvas.fill_rect(Frame { left: at[0] + 3.0, top: at[1] - 9.0, width: 18.0, height: 18.0 }, &MASKED)?;
        }
        Ok(())
    }
}

/// The landscape as a surface, seen from `elevation` and `azimuth` degrees as matplotlib counts them.
#[derive(Clone, Debug)]
pub struct Surface<'a> {
    pub map: Map<'a>,
    pub clip: u32,
    pub mask_blanks: bool,
    pub elevation: f64,
    pub azimuth: f64,
}

/// From the unit cube to the picture.
struct View {
    right: [f64; 3],
    up: [f64; 3],
    towards: [f64; 3],
    centre: Point,
    scale: f64,
}

impl View {
    fn new(elevation: f64, azimuth: f64, frame: Frame) -> Self {
        let (e, a) = (elevation.to_radians(), azimuth.to_radians());
        let mut view = Self {
            right: [-a.sin(), a.cos(), 0.0],
            up: [-a.cos() * e.sin(), -a.sin() * e.sin(), e.cos()],
            towards: [a.cos() * e.cos(), a.sin() * e.cos(), e.sin()],
            centre: [0.0; 2],
            scale: 1.0,
        };
        let corners: Vec<Point> =
            (0..8_u8).map(|k| view.place([0, 1, 2].map(|axis| if k >> axis & 1 == 1 { 1.0 } else { -1.0 }))).collect();
        let span = |axis: usize| {
            let values = corners.iter().map(|c| c[axis]);
            [values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max)]
        };
        let [x, y] = [span(0), span(1)];
        view.scale = (frame.width / (x[1] - x[0])).min(frame.height / (y[1] - y[0]));
        let middle = frame.at(0.5, 0.5);
        view.centre =
            [middle[0] - view.scale * f64::midpoint(x[0], x[1]), middle[1] - view.scale * f64::midpoint(y[0], y[1])];
        view
    }

    /// Height is drawn at three quarters of the sides, as matplotlib does.
    fn along(direction: [f64; 3], p: [f64; 3]) -> f64 {
        direction[0] * p[0] + direction[1] * p[1] + direction[2] * p[2] * 0.75
    }

    fn place(&self, p: [f64; 3]) -> Point {
        [
            self.centre[0] + self.scale * Self::along(self.right, p),
            self.centre[1] - self.scale * Self::along(self.up, p),
        ]
    }

    fn nearness(&self, p: [f64; 3]) -> f64 {
        Self::along(self.towards, p)
    }
}

const SURFACE: Frame = Frame { left: 120.0, top: 130.0, width: 830.0, height: 690.0 };

impl Surface<'_> {
    /// Values of the grid, `[i][j]`; none where masked.
    fn values(&self) -> Vec<Vec<Option<f64>>> {
        let side = self.map.landscape.grid.side();
        let value = |p: &GridPoint| (!self.mask_blanks || p.blanks == 0).then(|| f64::from(p.error.min(self.clip)));
        self.map.landscape.points.chunks(side).map(|row| row.iter().map(value).collect()).collect()
    }
}

impl Picture for Surface<'_> {
    fn size(&self) -> [u32; 2] {
        [1200, 940]
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>) -> Result<()>
    where
        DB::ErrorType: 'static,
    {
        let l = self.map.landscape;
        let subtitle = format!(
            "Broken rules, clipped at {}, around the state after segment {}; seen from {} degrees above, turned by {}",
            self.clip, l.centre_segment, self.elevation, self.azimuth
        );
        self.map.headings(canvas, &subtitle, self.size())?;
        let view = View::new(self.elevation, self.azimuth, SURFACE);
        let values = self.values();
        let seen = || values.iter().flatten().flatten().copied();
        let (low, high) = (seen().fold(f64::INFINITY, f64::min), seen().fold(0.0, f64::max));
        let low = if low.is_finite() { low } else { 0.0 };
        let high = high.max(low + 1.0);
        let top = high.max(50.0_f64.min(f64::from(self.clip) * 1.25));
        let z_of = |v: f64| 2.0 * v / top - 1.0;
        draw_box(canvas, &view, l.grid, top, &self.map.axis_names())?;

        // Masked points as crosses on the floor, as upstream has them.
        let n = values.len();
        let unit = |k: f64| if n > 1 { 2.0 * k / (n - 1) as f64 - 1.0 } else { 0.0 };
        for (i, row) in values.iter().enumerate() {
            for (j, _) in row.iter().enumerate().filter(|(_, v)| v.is_none()) {
                let [x, y] = view.place([unit(i as f64), unit(j as f64), -1.0]);
                for turn in [1.0, -1.0] {
                    canvas.line(&[[x - 4.0, y - 4.0 * turn], [x + 4.0, y + 4.0 * turn]], &PATH, 1.6)?;
                }
            }
        }

        // Each square of the grid, halved until the surface is smooth, linear in between; far ones first.
        let parts = 80_usize.div_ceil(n.max(2) - 1).max(1);
        let mut patches: Vec<(f64, [Point; 4], RGBColor)> = Vec::new();
        for i in 0..n.saturating_sub(1) {
            for j in 0..n - 1 {
                let corners = [values[i][j], values[i + 1][j], values[i][j + 1], values[i + 1][j + 1]];
                let [Some(a), Some(b), Some(c), Some(d)] = corners else { continue };
                let height = |s: f64, t: f64| {
                    // Two triangles, as a linear interpolation over scattered points has them.
                    if s + t <= 1.0 {
                        a + s * (b - a) + t * (c - a)
                    } else {
                        d + (1.0 - s) * (c - d) + (1.0 - t) * (b - d)
                    }
                };
                for p in 0..parts {
                    for q in 0..parts {
                        let share = |k: usize| k as f64 / parts as f64;
                        let corner = |s: f64, t: f64| [unit(i as f64 + s), unit(j as f64 + t), z_of(height(s, t))];
                        let square = [
                            corner(share(p), share(q)),
                            corner(share(p + 1), share(q)),
                            corner(share(p + 1), share(q + 1)),
                            corner(share(p), share(q + 1)),
                        ];
                        let middle = |axis: usize| square.iter().map(|c| c[axis]).sum::<f64>() / 4.0;
                        let value = (middle(2) + 1.0) / 2.0 * top;
                        let color = lit(Colormap::Plasma.at((value - low) / (high - low)), &square);
                        let nearness = view.nearness([middle(0), middle(1), middle(2)]);
                        patches.push((nearness, square.map(|c| view.place(c)), color));
                    }
                }
            }
        }
        patches.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (_, corners, color) in &patches {
            canvas.fill_polygon(corners, color)?;
            // Its own edges, so that no seam shows; one by one, as sharp corners of a whole outline would stick out.
            for k in 0..4 {
                canvas.line(&[corners[k], corners[(k + 1) % 4]], color, 0.5)?;
            }
        }

        let bar = Frame { left: 1030.0, top: 240.0, width: 24.0, height: 440.0 };
        let steps = 88;
        for k in 0..steps {
            let y = bar.at(0.0, 1.0 - f64::from(k + 1) / f64::from(steps))[1];
            let slice = Frame { top: y, height: bar.height / f64::from(steps) + 0.3, ..bar };
            canvas.fill_rect(slice, &Colormap::Plasma.at((f64::from(k) + 0.5) / f64::from(steps)))?;
        }
        canvas.outline(bar, &FRAME, 1.0)?;
        let letters = Lettering::new(size::SMALL, INK);
        canvas.text("error", [bar.left, bar.top - 22.0], letters)?;
        for k in 0..=4 {
            let y = bar.at(0.0, 1.0 - f64::from(k) / 4.0)[1];
            canvas.line(&[[bar.right(), y], [bar.right() + 5.0, y]], &FRAME, 1.0)?;
            let value = low + (high - low) * f64::from(k) / 4.0;
            canvas.text(&format!("{value:.0}"), [bar.right() + 11.0, y], letters)?;
        }
        if values.iter().flatten().any(Option::is_none) {
            let [x, y] = [bar.left, bar.bottom() + 40.0];
            for turn in [1.0, -1.0] {
                canvas.line(&[[x - 4.0, y - 4.0 * turn], [x + 4.0, y + 4.0 * turn]], &PATH, 1.6)?;
            }
            canvas.text("has blanks", [x + 14.0, y], letters)?;
        }
        Ok(())
    }
}

/// A colour under light from one side: slopes are seen, the order of lightness is nearly kept.
fn lit(color: RGBColor, square: &[[f64; 3]; 4]) -> RGBColor {
    let edge = |a: [f64; 3], b: [f64; 3]| [b[0] - a[0], b[1] - a[1], b[2] - a[2]];
    let (u, v) = (edge(square[0], square[2]), edge(square[3], square[1]));
    let normal = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    let length = normal.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
    let sign = if normal[2] < 0.0 { -1.0 } else { 1.0 };
    let light = [0.35, -0.45, 0.82];
    let cosine = sign * normal.iter().zip(light).map(|(n, l)| n * l).sum::<f64>() / length;
    let share = 0.72 + 0.28 * cosine.clamp(0.0, 1.0);
    let dim = |c: u8| (f64::from(c) * share).round() as u8;
    RGBColor(dim(color.0), dim(color.1), dim(color.2))
}

/// The three far walls with their grids, and values along the near edges.
fn draw_box<DB: DrawingBackend>(
    canvas: &Canvas<'_, DB>,
    view: &View,
    grid: Grid,
    top: f64,
    names: &[String; 2],
) -> Result<()>
where
    DB::ErrorType: 'static,
{
    let away = |axis: usize| if view.towards[axis] > 0.0 { -1.0 } else { 1.0 };
    let (far_x, far_y) = (away(0), away(1));
    let floor = -1.0;
    let wall = RGBColor(247, 247, 250);
    let quad = |corners: [[f64; 3]; 4]| corners.map(|c| view.place(c));
    let walls = [
        quad([[far_x, -1.0, -1.0], [far_x, 1.0, -1.0], [far_x, 1.0, 1.0], [far_x, -1.0, 1.0]]),
        quad([[-1.0, far_y, -1.0], [1.0, far_y, -1.0], [1.0, far_y, 1.0], [-1.0, far_y, 1.0]]),
        quad([[-1.0, -1.0, floor], [1.0, -1.0, floor], [1.0, 1.0, floor], [-1.0, 1.0, floor]]),
    ];
    for corners in &walls {
        canvas.fill_polygon(corners, &wall)?;
    }
    let line = |a: [f64; 3], b: [f64; 3]| canvas.line(&[view.place(a), view.place(b)], &GRID, 1.2);
    let unit = |v: f64| 2.0 * (v - grid.low) / (grid.high - grid.low).max(1e-9) - 1.0;
    let letters = Lettering::new(size::SMALL, INK).middle();
    // A text on the side of a near edge that looks away from the surface.
    let beside = |edge: [f64; 3], far: [f64; 3], by: f64| {
        let ([x, y], [from_x, from_y]) = (view.place(edge), view.place(far));
        let (dx, dy) = (x - from_x, y - from_y);
        let length = dx.hypot(dy).max(1e-9);
        [x + dx / length * by, y + dy / length * by]
    };
    let along_x = |at: f64, by: f64| beside([at, -far_y, floor], [at, far_y, floor], by);
    let along_y = |at: f64, by: f64| beside([-far_x, at, floor], [far_x, at, floor], by);
    for k in 0..=4 {
        let value = grid.low + (grid.high - grid.low) * f64::from(k) / 4.0;
        let at = unit(value);
        line([at, -1.0, floor], [at, 1.0, floor])?;
        line([at, far_y, -1.0], [at, far_y, 1.0])?;
        line([-1.0, at, floor], [1.0, at, floor])?;
        line([far_x, at, -1.0], [far_x, at, 1.0])?;
        let text = format!("{}", (value * 100.0).round() / 100.0).replace('-', "−");
        canvas.text(&text, along_x(at, 26.0), letters)?;
        canvas.text(&text, along_y(at, 26.0), letters)?;
    }
    // The upright edge at the picture's left end carries the heights.
    let edges = [[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]];
    let left = |e: &[f64; 2]| view.place([e[0], e[1], 0.0])[0];
    let edge = edges.into_iter().min_by(|a, b| left(a).total_cmp(&left(b))).unwrap_or([-1.0, -1.0]);
    let step = if top > 40.0 { 10.0 } else { (top / 4.0).ceil().max(1.0) };
    for k in 0..=(top / step).floor() as usize {
        let value = k as f64 * step;
        let z = 2.0 * value / top - 1.0;
        line([far_x, -1.0, z], [far_x, 1.0, z])?;
        line([-1.0, far_y, z], [1.0, far_y, z])?;
        let [x, y] = view.place([edge[0], edge[1], z]);
        canvas.text(&format!("{value:.0}"), [x - 10.0, y], Lettering::new(size::SMALL, INK).right())?;
    }
    let [x, y] = view.place([edge[0], edge[1], 0.0]);
    let label = Lettering::new(size::LABEL, INK).middle();
    canvas.text("error, clipped", [x - 64.0, y], label.upwards())?;
    let short = |name: &str| name.split(" (").next().unwrap_or(name).to_owned();
    canvas.text(&short(&names[0]), along_x(0.0, 66.0), label)?;
    canvas.text(&short(&names[1]), along_y(0.0, 66.0), label)
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

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>) -> Result<()>
    where
        DB::ErrorType: 'static,
    {
        let l = self.map.landscape;
        let subtitle = format!(
            "Every point of the plane in the colour of the answer that it has settled on after {} more segments",
            l.segments
        );
        self.map.headings(canvas, &subtitle, self.size())?;
        let axes = self.map.axes(FLOW_MAP);
        let names = self.map.axis_names();
        axes.draw(canvas, [&names[0], &names[1]])?;
        let color = |basin: Option<usize>| match basin {
            None => UNSETTLED,
            Some(k) => BASINS.get(k).copied().unwrap_or(OTHERS),
        };
        for (point, &basin) in l.points.iter().zip(self.of_point) {
            canvas.fill_rect(self.map.cell(&axes, point.at), &color(basin))?;
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
                canvas.disc(end, 4.0, &color(Some(k)), Some((INK, 1.5)))?;
                canvas.disc(at, 13.0, &color(Some(k)), Some((INK, 1.5)))?;
                canvas.text(&(k + 1).to_string(), at, number)?;
            }
        }

        let mut legend = Legend { at: [900.0, 136.0] };
        let heading = Lettering::new(size::LABEL, INK).bold();
        canvas.text("Answers reached", legend.at, heading)?;
        legend.at[1] += 36.0;
        let total = l.points.len().max(1) as f64;
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
            swatch(at, color(Some(k)))?;
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
        let at = legend.row(canvas, "ways from grid points", 350.0)?;
        canvas.disc([at[0] + 2.0, at[1]], 2.2, &DARK, None)?;
        canvas.line(&[[at[0] + 2.0, at[1]], [at[0] + 24.0, at[1]]], &DARK.mix(0.55), 1.0)?;
        let at = legend.row(canvas, "where a basin's points end, mean", 350.0)?;
        canvas.disc([at[0] + 12.0, at[1]], 11.0, &BASINS[0], Some((INK, 1.5)))?;
        canvas.text("1", [at[0] + 12.0, at[1]], number)
    }
}
