//! Pictures in a page: pixels to PNG to a data URI.

use std::io::Cursor;

use data_encoding::BASE64;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::imageops::FilterType as Scaling;
use image::{DynamicImage, RgbImage};

use crate::ReportError;

/// A picture as PNG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    png: Vec<u8>,
    width: u32,
    height: u32,
}

impl Picture {
    /// Longest side; larger pictures are scaled down to it.
    const MOST_PIXELS: u32 = 160;

    /// From pixels `[height, width, 3]`, scaled down where a side is longer than 160 pixels.
    ///
    /// # Errors
    /// [`ReportError::Pixels`] if there are not as many pixels as the size says.
    pub fn new(height: usize, width: usize, pixels: Vec<u8>) -> Result<Self, ReportError> {
        let image = rgb_image(height, width, pixels)?;
        let longest = image.width().max(image.height());
        if longest <= Self::MOST_PIXELS {
            return Self::encode(&image);
        }
        let scale = |side: u32| (side * Self::MOST_PIXELS / longest).max(1);
        let (width, height) = (scale(image.width()), scale(image.height()));
        Self::encode(&image::imageops::resize(&image, width, height, Scaling::Triangle))
    }

    /// As [`Picture::new`], with a map of heat over it: `heat` `[heat_height, heat_width]`, 0 to 1, cold to hot.
    ///
    /// # Errors
    /// [`ReportError::Pixels`] if there are not as many pixels or values as the sizes say.
    pub fn with_heat(
        height: usize,
        width: usize,
        mut pixels: Vec<u8>,
        heat: &[f32],
        heat_size: [usize; 2],
    ) -> Result<Self, ReportError> {
        if heat.len() != heat_size[0] * heat_size[1] || heat.is_empty() || pixels.len() != height * width * 3 {
            return Err(ReportError::Pixels { height, width, found: pixels.len() });
        }
        for (index, pixel) in pixels.chunks_exact_mut(3).enumerate() {
            let warmth = bilinear(heat, heat_size, [index / width, index % width], [height, width]);
            for (value, hue) in pixel.iter_mut().zip(colour_of(warmth)) {
                *value = (0.45 * f32::from(*value) + 0.55 * hue).round() as u8;
            }
        }
        Self::new(height, width, pixels)
    }

    fn encode(image: &RgbImage) -> Result<Self, ReportError> {
        let mut png = Cursor::new(Vec::new());
        let encoder = PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::Adaptive);
        DynamicImage::ImageRgb8(image.clone()).write_with_encoder(encoder).map_err(ReportError::Picture)?;
        Ok(Self { png: png.into_inner(), width: image.width(), height: image.height() })
    }

    /// The PNG file.
    pub fn png(&self) -> &[u8] {
        &self.png
    }

    /// Width and height in pixels.
    pub fn size(&self) -> [u32; 2] {
        [self.width, self.height]
    }

    /// The picture as an address that needs no file.
    pub(crate) fn uri(&self) -> String {
        format!("data:image/png;base64,{}", BASE64.encode(&self.png))
    }
}

fn rgb_image(height: usize, width: usize, pixels: Vec<u8>) -> Result<RgbImage, ReportError> {
    let found = pixels.len();
    let sides = u32::try_from(width).ok().zip(u32::try_from(height).ok()).filter(|(w, h)| *w > 0 && *h > 0);
    let image = sides.and_then(|(width, height)| RgbImage::from_raw(width, height, pixels));
    image.ok_or(ReportError::Pixels { height, width, found })
}

/// The value of a coarse map at the middle of a pixel.
fn bilinear(heat: &[f32], [rows, columns]: [usize; 2], [row, column]: [usize; 2], [height, width]: [usize; 2]) -> f32 {
    let along = |at: usize, pixels: usize, cells: usize| {
        let place = (at as f32 + 0.5) / pixels as f32 * cells as f32 - 0.5;
        let place = place.clamp(0.0, cells as f32 - 1.0);
        let first = place as usize;
        (first, (first + 1).min(cells - 1), place - first as f32)
    };
    let (top, bottom, down) = along(row, height, rows);
    let (left, right, across) = along(column, width, columns);
    let at = |row: usize, column: usize| heat[row * columns + column];
    let upper = at(top, left) * (1.0 - across) + at(top, right) * across;
    let lower = at(bottom, left) * (1.0 - across) + at(bottom, right) * across;
    upper * (1.0 - down) + lower * down
}

/// Blue over green and yellow to red.
fn colour_of(warmth: f32) -> [f32; 3] {
    let bump = |centre: f32| (1.5 - (4.0 * (warmth.clamp(0.0, 1.0) - centre)).abs()).clamp(0.0, 1.0) * 255.0;
    [bump(0.75), bump(0.5), bump(0.25)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_come_back_and_large_pictures_are_scaled() {
        let pixels: Vec<u8> = (0..12).collect();
        let picture = Picture::new(2, 2, pixels.clone()).unwrap();
        assert_eq!(image::load_from_memory(picture.png()).unwrap().to_rgb8().into_raw(), pixels);
        assert!(picture.uri().starts_with("data:image/png;base64,iVBORw0KGgo"));
        assert_eq!(Picture::new(100, 400, vec![9; 120_000]).unwrap().size(), [160, 40]);
        for (height, width) in [(0, 2), (3, 2)] {
            assert!(matches!(Picture::new(height, width, pixels.clone()), Err(ReportError::Pixels { found: 12, .. })));
        }
    }

    #[test]
    fn heat_is_red_where_it_is_hot() {
        let picture = Picture::with_heat(2, 4, vec![0; 24], &[0.0, 1.0], [1, 2]).unwrap();
        let image = image::load_from_memory(picture.png()).unwrap().to_rgb8();
        let (cold, hot) = (image.get_pixel(0, 0), image.get_pixel(3, 1));
        assert!(cold[2] > cold[0] && hot[0] > hot[2], "{cold:?} {hot:?}");
        assert!(Picture::with_heat(2, 4, vec![0; 24], &[0.0], [1, 2]).is_err());
    }
}
