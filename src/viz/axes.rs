//! Two axes of equal scale in a frame, with round tick values.

use anyhow::Result;
use plotters::backend::DrawingBackend;

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
    pub fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>, names: [&str; 2]) -> Result<()>
    where
        DB::ErrorType: 'static,
    {
        let frame = self.frame;
        let half = [frame.width / 2.0 / self.scale, frame.height / 2.0 / self.scale];
        let step = round_step(2.0 * half[0].max(half[1]) / 7.0);
        let tick = Lettering::new(size::SMALL, INK);
        for value in ticks(self.centre[0] - half[0], self.centre[0] + half[0], step) {
            let x = self.place([value, self.centre[1]])[0];
            canvas.line(&[[x, frame.top], [x, frame.bottom()]], &GRID, 1.0)?;
            canvas.text(&tick_text(value, step), [x, frame.bottom() + 16.0], tick.middle())?;
        }
        let mut widest = 0.0_f64;
        for value in ticks(self.centre[1] - half[1], self.centre[1] + half[1], step) {
            let y = self.place([self.centre[0], value])[1];
            let text = tick_text(value, step);
            canvas.line(&[[frame.left, y], [frame.right(), y]], &GRID, 1.0)?;
            canvas.text(&text, [frame.left - 8.0, y], tick.right())?;
            widest = widest.max(canvas.text_width(&text, tick));
        }
        canvas.outline(frame, &FRAME, 1.0)?;
        let label = Lettering::new(size::LABEL, INK).middle();
        canvas.text(names[0], [frame.at(0.5, 1.0)[0], frame.bottom() + 46.0], label)?;
        canvas.text(names[1], [frame.left - widest - 26.0, frame.at(0.0, 0.5)[1]], label.upwards())
    }
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
