//! Colour maps whose lightness only rises: order is read the same in colour, in greyscale and by colour-blind eyes.

use plotters::style::RGBColor;

/// A map from 0..=1 to colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colormap {
    Viridis,
    Plasma,
}

/// matplotlib's viridis (CC0) at 0, 1/8, ... 1.
const VIRIDIS: [u32; 9] =
    [0x44_01_54, 0x47_2d_7b, 0x3b_52_8b, 0x2c_72_8e, 0x21_91_8c, 0x28_ae_80, 0x5e_c9_62, 0xad_dc_30, 0xfd_e7_25];

/// matplotlib's plasma (CC0) at 0, 1/8, ... 1.
const PLASMA: [u32; 9] =
    [0x0d_08_87, 0x4c_02_a1, 0x7e_03_a8, 0xa9_23_95, 0xcc_46_78, 0xe5_6b_5d, 0xf8_94_41, 0xfd_c3_28, 0xf0_f9_21];

impl Colormap {
    /// The colour at `t`, clamped to 0..=1; NaN counts as 0.
    pub fn at(self, t: f64) -> RGBColor {
        let table = match self {
            Self::Viridis => &VIRIDIS,
            Self::Plasma => &PLASMA,
        };
        let t = if t.is_nan() { 0.0 } else { t.clamp(0.0, 1.0) } * (table.len() - 1) as f64;
        let below = (t.floor() as usize).min(table.len() - 2);
        let share = t - below as f64;
        let channel = |shift: u32| {
            let value = |rgb: u32| f64::from(rgb >> shift & 0xff);
            (value(table[below]) * (1.0 - share) + value(table[below + 1]) * share).round() as u8
        };
        RGBColor(channel(16), channel(8), channel(0))
    }

    /// Colour of step `i` of `n`, short of the map's lightest end, which would be lost on white paper.
    pub fn step(self, i: usize, n: usize) -> RGBColor {
        self.at(0.92 * i as f64 / n.saturating_sub(1).max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_anchors_are_matplotlibs() {
        assert_eq!(Colormap::Viridis.at(0.0), RGBColor(0x44, 0x01, 0x54));
        assert_eq!(Colormap::Viridis.at(0.5), RGBColor(0x21, 0x91, 0x8c));
        assert_eq!(Colormap::Plasma.at(1.0), RGBColor(0xf0, 0xf9, 0x21));
        assert_eq!(Colormap::Plasma.at(7.0), Colormap::Plasma.at(1.0));
        assert_eq!(Colormap::Plasma.at(f64::NAN), Colormap::Plasma.at(0.0));
    }

    /// Greyscale keeps the order: relative luminance never falls.
    #[test]
    fn lightness_rises() {
        for map in [Colormap::Viridis, Colormap::Plasma] {
            let luminance = |i: i32| {
                let RGBColor(r, g, b) = map.at(f64::from(i) / 64.0);
                0.2126 * f64::from(r).powf(2.2) + 0.7152 * f64::from(g).powf(2.2) + 0.0722 * f64::from(b).powf(2.2)
            };
            for i in 1..=64 {
                assert!(luminance(i) > luminance(i - 1), "{map:?} at {i}/64");
            }
        }
    }
}
