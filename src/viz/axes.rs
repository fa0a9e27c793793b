//! Two axes in a frame, with round tick values: of equal scale for maps, each with its own scale for curves.

use anyhow::Result;

use super::{
    canvas::{Canvas, Frame, Lettering, Point},
    style::{FRAME, GRID, INK, size},
};

/// A mapping from data to a frame: one unit of data is as long along x as along y.
#[derive(Clone, Copy, Debug)]
pub struct EqualAxes {
    frame: Frame,
    /// Data at the frame's middle.
    centre: [f64; 2],
    /// Picture units per unit of data.
    scale: f64,
}

impl EqualAxes {
    /// Axes that show every point, with a margin of a share of the cloud's width around them.
    pub fn around(points: &[[f64; 2]], frame: Frame, margin: f64) -> Self {
        let span = |axis: usize| {
            let values = || points.iter().map(|p| p[axis]).filter(|v| v.is_finite());
            let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
            if low <= high { [low, high] } else { [0.0, 0.0] }
        };
        let spans = [span(0), span(1)];
        let needed = |axis: usize, room: f64| (spans[axis][1] - spans[axis][0]) * (1.0 + 2.0 * margin) / room;
        let per_unit = needed(0, frame.width).max(needed(1, frame.height));
        let scale = if per_unit > 0.0 { 1.0 / per_unit } else { frame.width / 2.0 };
        Self { frame, centre: spans.map(|[low, high]| f64::midpoint(low, high)), scale }
    }

    /// Where a point of data lies in the picture.
    pub fn place(&self, [x, y]: [f64; 2]) -> Point {
        let [middle_x, middle_y] = self.frame.at(0.5, 0.5);
        [middle_x + (x - self.centre[0]) * self.scale, middle_y - (y - self.centre[1]) * self.scale]
    }

    /// The grid, the frame, the tick values and the axes' names.
    pub fn draw(&self, canvas: &Canvas<'_>, names: [&str; 2]) -> Result<()> {
        let half = [self.frame.width / 2.0 / self.scale, self.frame.height / 2.0 / self.scale];
        let step = round_step(2.0 * half[0].max(half[1]) / 7.0);
        let along = |axis: usize| -> Vec<(f64, String)> {
            let around = ticks(self.centre[axis] - half[axis], self.centre[axis] + half[axis], step);
            around.into_iter().map(move |v| (self.place([v, v])[axis], tick_text(v, step))).collect()
        };
        draw_grid(canvas, self.frame, &along(0), &along(1), names)
    }
}

/// Lines at ticks, which are places along x or y and their texts; the frame, and the axes' names.
fn draw_grid(
    canvas: &Canvas<'_>,
    frame: Frame,
    along_x: &[(f64, String)],
    along_y: &[(f64, String)],
    names: [&str; 2],
) -> Result<()> {
    let tick = Lettering::new(size::SMALL, INK);
    for (x, text) in along_x {
        canvas.line(&[[*x, frame.top], [*x, frame.bottom()]], &GRID, 1.0)?;
        canvas.text(text, [*x, frame.bottom() + 16.0], tick.middle())?;
    }
    let mut widest = 0.0_f64;
    for (y, text) in along_y {
        canvas.line(&[[frame.left, *y], [frame.right(), *y]], &GRID, 1.0)?;
        canvas.text(text, [frame.left - 8.0, *y], tick.right())?;
        widest = widest.max(canvas.text_width(text, tick));
    }
    canvas.outline(frame, &FRAME, 1.0)?;
    let label = Lettering::new(size::LABEL, INK).middle();
    canvas.text(names[0], [frame.at(0.5, 1.0)[0], frame.bottom() + 45.0], label)?;
    canvas.text(names[1], [frame.left - widest - 26.0, frame.at(0.0, 0.5)[1]], label.upwards())
}

/// How values lie along one axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    pub low: f64,
    pub high: f64,
    pub logarithmic: bool,
    /// Ticks at whole numbers only.
    pub whole: bool,
}

impl Scale {
    /// Even steps from `low` to `high`.
    pub fn linear(low: f64, high: f64) -> Self {
        Self { low, high: if high > low { high } else { low + 1.0 }, logarithmic: false, whole: false }
    }

    /// Segments or other counts from `first` to `last`, with half a step of room at both ends.
    pub fn counts(first: f64, last: f64) -> Self {
        Self { whole: true, ..Self::linear(first - 0.5, last + 0.5) }
    }

    /// Even steps of the logarithm, over whole decades around the positive ones of `values`.
    pub fn decades(values: impl Iterator<Item = f64> + Clone) -> Self {
        let positive = || values.clone().filter(|v| *v > 0.0 && v.is_finite());
        let (low, high) = (positive().fold(f64::INFINITY, f64::min), positive().fold(0.0, f64::max));
        let [low, high] = if low <= high { [low.log10().floor(), high.log10().ceil()] } else { [-1.0, 0.0] };
        Self { low: 10_f64.powf(low), high: 10_f64.powf(high.max(low + 1.0)), logarithmic: true, whole: false }
    }

    /// 0 at `low`, 1 at `high`, clamped.
    pub fn share(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }

    /// Tick values and their texts, about `wanted` of them.
    pub(super) fn ticks(&self, wanted: f64) -> Vec<(f64, String)> {
        if self.logarithmic {
            let decades = (self.high / self.low).log10().round();
            let every = (decades / wanted).ceil().max(1.0) as usize;
            let first = self.low.log10().round();
            return (0..=decades as usize)
                .step_by(every)
                .map(|k| first + k as f64)
                .map(|power| (10_f64.powf(power), decade_text(power)))
                .collect();
        }
        let mut step = round_step((self.high - self.low) / wanted);
        if self.whole {
            step = step.max(1.0).round();
        }
        ticks(self.low, self.high, step).into_iter().map(|v| (v, tick_text(v, step))).collect()
    }
}

/// A power of ten: in full from 0.001 to 1000, as 1e−4 beyond.
fn decade_text(power: f64) -> String {
    let value = 10_f64.powf(power);
    match power as i32 {
        -3..=-1 => format!("{value:.*}", -power as usize),
        0..=3 => format!("{value:.0}"),
        _ => format!("1e{power:.0}").replace('-', "−"),
    }
}

/// Two axes with scales of their own.
#[derive(Clone, Copy, Debug)]
pub struct Axes {
    pub frame: Frame,
    pub x: Scale,
    pub y: Scale,
}

impl Axes {
    /// Where a point of data lies in the picture; points outside lie on the frame.
    pub fn place(&self, [x, y]: [f64; 2]) -> Point {
        self.frame.at(self.x.share(x), 1.0 - self.y.share(y))
    }

    /// The grid, the frame, the tick values and the axes' names.
    pub fn draw(&self, canvas: &Canvas<'_>, names: [&str; 2]) -> Result<()> {
        self.draw_to(canvas, names, f64::INFINITY)
    }

    /// The same, with ticks along x up to `last` alone: what lies beyond has labels of its own.
    pub fn draw_to(&self, canvas: &Canvas<'_>, names: [&str; 2], last: f64) -> Result<()> {
        let frame = self.frame;
        let along_x = self.x.ticks((frame.width / 70.0).clamp(2.0, 10.0)).into_iter().filter(|(v, _)| *v <= last);
        let along_y = self.y.ticks((frame.height / 42.0).clamp(2.0, 8.0)).into_iter();
        let along_x: Vec<_> = along_x.map(|(v, text)| (self.place([v, self.y.low])[0], text)).collect();
        let along_y: Vec<_> = along_y.map(|(v, text)| (self.place([self.x.low, v])[1], text)).collect();
        draw_grid(canvas, frame, &along_x, &along_y, names)
    }
}

/// The part of the line from `a` to `b` that lies within a frame.
pub fn clipped(frame: Frame, a: Point, b: Point) -> Option<[Point; 2]> {
    let (mut from, mut to) = (0.0_f64, 1.0_f64);
    let [dx, dy] = [b[0] - a[0], b[1] - a[1]];
    for (step, room) in
        [(-dx, a[0] - frame.left), (dx, frame.right() - a[0]), (-dy, a[1] - frame.top), (dy, frame.bottom() - a[1])]
    {
        if step == 0.0 {
            if room < 0.0 {
                return None;
            }
        } else if step < 0.0 {
            from = from.max(room / step);
        } else {
            to = to.min(room / step);
        }
    }
    (from <= to).then(|| [[a[0] + from * dx, a[1] + from * dy], [a[0] + to * dx, a[1] + to * dy]])
}

/// 1, 2 or 5 times a power of ten, the first that is at least `wanted`.
pub(super) fn round_step(wanted: f64) -> f64 {
    if !wanted.is_finite() || wanted <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(wanted.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|&step| step >= wanted * 0.999_999)
        .unwrap_or(10.0 * power)
}

/// Multiples of `step` inside an interval, at most a hundred.
pub(super) fn ticks(low: f64, high: f64, step: f64) -> Vec<f64> {
    let first = (low / step).ceil();
    (0..100).map(|i| (first + f64::from(i)) * step).take_while(|&v| v <= high).collect()
}

/// As many decimals as the step has, `−` for minus.
pub(super) fn tick_text(value: f64, step: f64) -> String {
    let decimals = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    let text = format!("{:.decimals$}", if value.abs() < step * 1e-6 { 0.0 } else { value });
    text.replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Frame = Frame { left: 100.0, top: 50.0, width: 400.0, height: 200.0 };

    #[test]
    fn one_unit_is_as_long_along_both_axes() {
        let axes = EqualAxes::around(&[[0.0, 0.0], [10.0, 1.0]], FRAME, 0.0);
        let (a, b, c) = (axes.place([0.0, 0.0]), axes.place([1.0, 0.0]), axes.place([0.0, 1.0]));
        assert!(((b[0] - a[0]) - (a[1] - c[1])).abs() < 1e-9, "{a:?} {b:?} {c:?}");
        assert!((a[0] - 100.0).abs() < 1e-9 && (axes.place([10.0, 0.0])[0] - 500.0).abs() < 1e-9);
    }

    #[test]
    fn a_single_point_lies_in_the_middle() {
        let axes = EqualAxes::around(&[[3.0, -2.0]], FRAME, 0.1);
        assert_eq!(axes.place([3.0, -2.0]), [300.0, 150.0]);
        let none = EqualAxes::around(&[[f64::NAN, 0.0]], FRAME, 0.1);
        assert!(none.place([0.0, 0.0])[0].is_finite());
    }

    #[test]
    fn lines_are_cut_at_the_frame() {
        let inside = clipped(FRAME, [0.0, 100.0], [600.0, 100.0]);
        assert_eq!(inside, Some([[100.0, 100.0], [500.0, 100.0]]));
        assert_eq!(clipped(FRAME, [0.0, 0.0], [600.0, 0.0]), None);
        assert_eq!(clipped(FRAME, [200.0, 100.0], [300.0, 120.0]), Some([[200.0, 100.0], [300.0, 120.0]]));
    }

    #[test]
    fn logarithmic_scales_cover_whole_decades() {
        let scale = Scale::decades([0.02, 3.0, 0.0].into_iter());
        assert!((scale.low - 0.01).abs() < 1e-12 && (scale.high - 10.0).abs() < 1e-9, "{scale:?}");
        assert!((scale.share(0.1) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!((scale.share(0.0), scale.share(1e9)), (0.0, 1.0));
        let texts: Vec<String> = scale.ticks(8.0).into_iter().map(|t| t.1).collect();
        assert_eq!(texts, ["0.01", "0.1", "1", "10"]);
        assert_eq!(decade_text(-5.0), "1e−5");
        assert!(Scale::decades(std::iter::empty()).share(0.5) > 0.0);
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(round_step(0.3), 0.5);
        assert_eq!(round_step(13.0), 20.0);
        assert_eq!(round_step(0.0), 1.0);
        assert_eq!(ticks(-11.0, 12.0, 5.0), [-10.0, -5.0, 0.0, 5.0, 10.0]);
        assert_eq!(tick_text(-0.5, 0.5), "−0.5");
        assert_eq!(tick_text(-1e-17, 0.5), "0.0");
        assert_eq!(tick_text(40.0, 20.0), "40");
    }
}
