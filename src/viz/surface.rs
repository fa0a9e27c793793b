//! The error landscape as a surface.

use anyhow::Result;
use plotters::style::RGBColor;

use super::{
    canvas::{Canvas, Frame, Lettering, Picture, Point},
    chart::{bar_tick, color_bar},
    colormap::Colormap,
    landscape::{Map, PATH},
    style::{GRID, INK, size},
};
use crate::analysis::landscape::{Grid, GridPoint};

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

    /// How near a square's middle is.
    fn nearness(&self, square: &[[f64; 3]; 4]) -> f64 {
        square.iter().map(|&corner| Self::along(self.towards, corner)).sum()
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

    fn draw(&self, canvas: &Canvas<'_>) -> Result<()> {
        let l = self.map.landscape;
        let subtitle = format!(
            "Broken rules, clipped at {}, around the state after segment {}; seen from {} degrees above, turned by {}",
            self.clip, l.centre_segment, self.elevation, self.azimuth
        );
        self.map.headings(canvas, subtitle, self.size())?;
        let view = View::new(self.elevation, self.azimuth, SURFACE);
        let values = self.values();
        let seen = || values.iter().flatten().flatten().copied();
        let (low, high) = (seen().fold(f64::INFINITY, f64::min), seen().fold(0.0, f64::max));
        let low = if low.is_finite() { low } else { 0.0 };
        let high = high.max(low + 1.0);
        let top = high.max(50.0_f64.min(f64::from(self.clip) * 1.25));
        draw_box(canvas, &view, l.grid, top, &self.map.axis_names())?;

        // Masked points as crosses on the floor, as upstream has them.
        let n = values.len();
        for (i, row) in values.iter().enumerate() {
            for (j, _) in row.iter().enumerate().filter(|(_, v)| v.is_none()) {
                cross(canvas, view.place([unit(i as f64, n), unit(j as f64, n), -1.0]))?;
            }
        }
        let shade = |square: &[[f64; 3]; 4]| {
            let middle = square.iter().map(|corner| corner[2]).sum::<f64>() / 4.0;
            lit(Colormap::Plasma.at(((middle + 1.0) / 2.0 * top - low) / (high - low)), square)
        };
        let mut patches = patches(&values, |v| 2.0 * v / top - 1.0);
        patches.sort_by(|a, b| view.nearness(a).total_cmp(&view.nearness(b)));
        for square in &patches {
            let (corners, color) = (square.map(|corner| view.place(corner)), shade(square));
            canvas.fill_polygon(&corners, &color)?;
            // Its own edges, so that no seam shows.
            let [first, ..] = corners;
            canvas.line(&[&corners[..], &[first]].concat(), &color, 0.75)?;
        }

        let bar = Frame { left: 1030.0, top: 240.0, width: 24.0, height: 440.0 };
        color_bar(canvas, bar, 88, |k| Colormap::Plasma.at((k as f64 + 0.5) / 88.0))?;
        let letters = Lettering::new(size::SMALL, INK);
        canvas.text("error", [bar.left, bar.top - 22.0], letters)?;
        for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
            bar_tick(canvas, bar, bar.at(0.0, 1.0 - share)[1], &format!("{:.0}", low + (high - low) * share))?;
        }
        if values.iter().flatten().any(Option::is_none) {
            let [x, y] = [bar.left, bar.bottom() + 40.0];
            cross(canvas, [x, y])?;
            canvas.text("has blanks", [x + 14.0, y], letters)?;
        }
        Ok(())
    }
}

/// Where grid line `k` of `n` lies in the unit cube.
fn unit(k: f64, n: usize) -> f64 {
    if n > 1 { 2.0 * k / (n - 1) as f64 - 1.0 } else { 0.0 }
}

fn cross(canvas: &Canvas<'_>, [x, y]: Point) -> Result<()> {
    for turn in [1.0, -1.0] {
        canvas.line(&[[x - 4.0, y - 4.0 * turn], [x + 4.0, y + 4.0 * turn]], &PATH, 1.6)?;
    }
    Ok(())
}

/// Each square of the grid, halved until the surface is smooth and linear in between, in the unit cube. `z_of` is the height
/// of a value.
fn patches(values: &[Vec<Option<f64>>], z_of: impl Fn(f64) -> f64) -> Vec<[[f64; 3]; 4]> {
    let n = values.len();
    let parts = 80_usize.div_ceil(n.max(2) - 1).max(1);
    let mut patches = Vec::new();
    for (i, j) in (0..n.saturating_sub(1)).flat_map(|i| (0..n - 1).map(move |j| (i, j))) {
        let corners = [values[i][j], values[i + 1][j], values[i][j + 1], values[i + 1][j + 1]];
        let [Some(a), Some(b), Some(c), Some(d)] = corners else { continue };
        let height = |s: f64, t: f64| {
            // Two triangles, as a linear interpolation over scattered points has them.
            if s + t <= 1.0 { a + s * (b - a) + t * (c - a) } else { d + (1.0 - s) * (c - d) + (1.0 - t) * (b - d) }
        };
        let corner = |p: usize, q: usize| {
            let [s, t] = [p, q].map(|k| k as f64 / parts as f64);
            [unit(i as f64 + s, n), unit(j as f64 + t, n), z_of(height(s, t))]
        };
        for (p, q) in (0..parts).flat_map(|p| (0..parts).map(move |q| (p, q))) {
            patches.push([corner(p, q), corner(p + 1, q), corner(p + 1, q + 1), corner(p, q + 1)]);
        }
    }
    patches
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
fn draw_box(canvas: &Canvas<'_>, view: &View, grid: Grid, top: f64, names: &[String; 2]) -> Result<()> {
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
