//! Draws the built-in set as one picture: a row per shape, two images of each class.
//!
//! `cargo run --release --package taper-data --example glyph_sheet -- sheet.png`

use std::error::Error;

use image::RgbImage;
use taper_data::{Dataset, Glyphs};

const SIDE: u32 = 32;
const GAP: u32 = 2;
const IMAGES_PER_CLASS: usize = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("give the file to write, for example sheet.png")?;
    let glyphs = Glyphs::new();
    let columns = 10 * IMAGES_PER_CLASS as u32;
    let mut sheet = RgbImage::new(columns * (SIDE + GAP), 10 * (SIDE + GAP));
    for label in 0..glyphs.classes().len() {
        for nth in 0..IMAGES_PER_CLASS {
            let image = glyphs.get(nth * glyphs.classes().len() + label)?.image;
            let tile = RgbImage::from_raw(SIDE, SIDE, image.into_pixels()).ok_or("an image is not 32x32")?;
            let column = (label % 10) * IMAGES_PER_CLASS + nth;
            let (x, y) = (column as u32 * (SIDE + GAP), (label / 10) as u32 * (SIDE + GAP));
            image::imageops::replace(&mut sheet, &tile, i64::from(x), i64::from(y));
        }
    }
    sheet.save(path)?;
    Ok(())
}
