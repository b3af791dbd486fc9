//! Scaling, by `fast_image_resize`, whose filters are Pillow's.

use std::cell::RefCell;

use fast_image_resize::images::{CroppedImage, Image as Buffer, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::{DataError, Image, Interpolation, Result};

/// Longest side of a result; a wrong setting must not ask for all memory there is.
const MAX_SIDE: usize = 32_768;

thread_local! {
    /// Keeps its buffers from one image to the next.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// A rectangle of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// `[height, width]`.
    pub size: [usize; 2],
}

impl Region {
    /// All of an image of `size` `[height, width]`.
    pub(crate) fn whole(size: [usize; 2]) -> Self {
        Self { top: 0, left: 0, size }
    }
}

/// Scales a region to `size` `[height, width]`, as if it were an image of its own; the filter grows with the reduction,
/// so that nothing aliases.
pub(crate) fn resize(image: &Image, from: Region, size: [usize; 2], interpolation: Interpolation) -> Result<Image> {
    let [height, width] = image.size();
    let fail = |reason: String| DataError::Transform { operation: "resize", height, width, reason };
    let side = |length: usize| match u32::try_from(length) {
        Ok(side) if length > 0 && length <= MAX_SIDE => Ok(side),
        _ => Err(fail(format!("a side of {length} pixels is not within 1 to {MAX_SIDE}"))),
    };
    let place = |start: usize| u32::try_from(start).map_err(|_| fail(format!("it begins at {start}")));
    let (source_size, to) = ([side(height)?, side(width)?], [side(size[0])?, side(size[1])?]);
    let whole = ImageRef::new(source_size[1], source_size[0], image.pixels(), PixelType::U8x3)
        .map_err(|error| fail(error.to_string()))?;
    let (start, part) = ([place(from.top)?, place(from.left)?], [side(from.size[0])?, side(from.size[1])?]);
    let source = CroppedImage::new(&whole, start[1], start[0], part[1], part[0]);
    let source = source.map_err(|error| fail(error.to_string()))?;
    let filter = match interpolation {
        Interpolation::Bilinear => FilterType::Bilinear,
        Interpolation::Bicubic => FilterType::CatmullRom,
    };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    // Rows first, as Pillow does: the bytes between the two passes are rounded and clipped, so that the order shows. In
    // one call the crate would begin with the columns.
    let mut rows = Buffer::new(to[1], part[0], PixelType::U8x3);
    let mut target = Buffer::new(to[1], to[0], PixelType::U8x3);
    RESIZER
        .with_borrow_mut(|resizer| {
            resizer.resize(&source, &mut rows, &options)?;
            resizer.resize(&rows, &mut target, &options)
        })
        .map_err(|error| fail(error.to_string()))?;
    Image::new(size[0], size[1], target.into_vec())
}
