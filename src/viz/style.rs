//! The look that every picture shares: fonts, sizes, colours. Lengths are units of a picture about 1,200 wide, so that
//! the smallest text is still read when the picture is shown at half that width.

use std::sync::OnceLock;

use ab_glyph::FontRef;
use anyhow::{Context, Result};
use plotters::style::RGBColor;

/// What an SVG viewer looks for; the first that it has.
pub const FONT_NAMES: &str = "DejaVu Sans, Verdana, Arial, sans-serif";

/// The fonts that the binary carries.
#[derive(Debug)]
pub struct Fonts {
    pub regular: FontRef<'static>,
    pub bold: FontRef<'static>,
}

/// DejaVu Sans, regular and bold.
pub fn fonts() -> Result<&'static Fonts> {
    static FONTS: OnceLock<Option<Fonts>> = OnceLock::new();
    let load = || {
        let regular = FontRef::try_from_slice(include_bytes!("../../assets/fonts/DejaVuSans.ttf"));
        let bold = FontRef::try_from_slice(include_bytes!("../../assets/fonts/DejaVuSans-Bold.ttf"));
        Some(Fonts { regular: regular.ok()?, bold: bold.ok()? })
    };
    FONTS.get_or_init(load).as_ref().context("the embedded fonts cannot be read: this build of hrm is damaged")
}

/// Em sizes of text.
pub mod size {
    pub const TITLE: f64 = 29.0;
    pub const SUBTITLE: f64 = 20.0;
    pub const LABEL: f64 = 21.0;
    pub const SMALL: f64 = 18.0;
}

pub const PAPER: RGBColor = RGBColor(255, 255, 255);
pub const INK: RGBColor = RGBColor(26, 26, 30);
pub const SOFT_INK: RGBColor = RGBColor(84, 84, 94);
pub const GRID: RGBColor = RGBColor(228, 228, 234);
pub const FRAME: RGBColor = RGBColor(120, 120, 130);
/// Behind what the puzzle gave.
pub const GIVEN: RGBColor = RGBColor(226, 226, 232);
/// Blue and vermilion of Okabe and Ito's palette: apart for every kind of colour blindness.
pub const RIGHT: RGBColor = RGBColor(0, 96, 168);
pub const WRONG: RGBColor = RGBColor(200, 72, 0);
/// Behind a wrong cell.
pub const WRONG_PAPER: RGBColor = RGBColor(255, 221, 196);
