//! Scaling, by `fast_image_resize`, whose filters are Pillow's.

use fast_image_resize::images::Image as Buffer;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::{DataError, Image, Interpolation, Result};

/// Longest side of a result; a wrong setting must not ask for all memory there is.
const MAX_SIDE: usize = 32_768;

/// Scales to `size` `[height, width]`; the filter grows with the reduction, so that nothing aliases.
pub(crate) fn resize(image: Image, size: [usize; 2], interpolation: Interpolation) -> Result<Image> {
    let [height, width] = image.size();
    let fail = |reason: String| DataError::Transform { operation: "resize", height, width, reason };
    let side = |length: usize| match u32::try_from(length) {
        Ok(side) if length > 0 && length <= MAX_SIDE => Ok(side),
        _ => Err(fail(format!("a side of {length} pixels is not within 1 to {MAX_SIDE}"))),
    };
    let from = [side(height)?, side(width)?];
    let to = [side(size[0])?, side(size[1])?];
    let source = Buffer::from_vec_u8(from[1], from[0], image.into_pixels(), PixelType::U8x3)
        .map_err(|error| fail(error.to_string()))?;
    let mut target = Buffer::new(to[1], to[0], PixelType::U8x3);
    let filter = match interpolation {
        Interpolation::Bilinear => FilterType::Bilinear,
        Interpolation::Bicubic => FilterType::CatmullRom,
    };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    Resizer::new().resize(&source, &mut target, &options).map_err(|error| fail(error.to_string()))?;
    Image::new(size[0], size[1], target.into_vec())
}
