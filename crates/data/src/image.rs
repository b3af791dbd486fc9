//! An image, and an image with its label.

use crate::{DataError, Result};

/// An RGB image of bytes, rows from the top, `[height, width, 3]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    height: usize,
    width: usize,
    pixels: Vec<u8>,
}

impl Image {
    /// Wraps `pixels`, `[height, width, 3]`, without a copy.
    ///
    /// # Errors
    /// [`DataError::ImageShape`] if the number of bytes is not `height * width * 3`, or a side is zero.
    ///
    /// ```
    /// let image = taper_data::Image::new(1, 2, vec![255, 0, 0, 0, 0, 255])?;
    /// assert_eq!(image.pixel(0, 1), [0, 0, 255]);
    /// # Ok::<(), taper_data::DataError>(())
    /// ```
    pub fn new(height: usize, width: usize, pixels: Vec<u8>) -> Result<Self> {
        let expected = height.saturating_mul(width).saturating_mul(3);
        if expected == 0 || pixels.len() != expected {
            let found = pixels.len();
            return Err(DataError::ImageShape { height, width, expected, found });
        }
        Ok(Self { height, width, pixels })
    }

    /// Number of rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// `[height, width]`.
    pub fn size(&self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// All bytes, `[height, width, 3]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The bytes, `[height, width, 3]`, without a copy.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    /// Red, green and blue at one place.
    ///
    /// # Panics
    /// If the place is outside of the image, as indexing a slice does.
    pub fn pixel(&self, row: usize, column: usize) -> [u8; 3] {
        assert!(column < self.width, "column {column} of an image {} wide", self.width);
        let at = (row * self.width + column) * 3;
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }

    /// One row, `[width, 3]`; the caller has checked that it is there.
    pub(crate) fn row(&self, row: usize) -> &[u8] {
        &self.pixels[row * self.width * 3..][..self.width * 3]
    }
}

/// An image with the index of its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The image.
    pub image: Image,
    /// Index into [`Dataset::classes`](crate::Dataset::classes).
    pub label: u32,
}
