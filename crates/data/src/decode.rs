//! Image files to pixels.

use std::fs::File;
use std::io::{Cursor, Read as _};
use std::path::Path;

use ::image::{ImageFormat, ImageReader, Limits};

use crate::{DataError, Image, Result};

/// Longest side that is decoded, in pixels; a header can claim any.
const MAX_SIDE: u32 = 32_768;
/// Most bytes a decoder may allocate for one image.
const MAX_DECODED_BYTES: u64 = 1 << 30;
/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 1 << 28;

/// Decodes a PNG, JPEG, BMP, GIF (first frame) or WebP file into RGB; what it is is read from its content, not its name.
///
/// Grey becomes three equal channels, transparency is dropped and 16 bits become 8. An orientation noted in the file is
/// not applied, as torchvision does not either.
///
/// # Errors
/// [`DataError::Missing`] or [`DataError::Io`] if the file cannot be read; [`DataError::Decode`] or
/// [`DataError::Malformed`] if it is no whole image of these kinds, or larger than 32,768 pixels or 1 GiB.
pub fn decode(path: &Path) -> Result<Image> {
    let bytes = read_bounded(path)?;
    let decode_error = |source| DataError::Decode { path: path.to_path_buf(), source };
    let mut reader = ImageReader::new(Cursor::new(&bytes))
        .with_guessed_format()
        .map_err(|source| decode_error(::image::ImageError::IoError(source)))?;
    if reader.format() == Some(ImageFormat::Jpeg) && !jpeg_is_whole(&bytes) {
        // The decoder would fill what is missing with grey and report nothing.
        return Err(DataError::malformed(path, "the JPEG data end before the image does"));
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    let image = reader.decode().map_err(decode_error)?.into_rgb8();
    let (width, height) = image.dimensions();
    Image::new(height as usize, width as usize, image.into_raw())
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let io_error = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => DataError::Missing { path: path.to_path_buf() },
        _ => DataError::Io { path: path.to_path_buf(), source },
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io_error)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io_error)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(DataError::malformed(path, format!("more than {MAX_FILE_BYTES} bytes for one image")));
    }
    Ok(bytes)
}

/// Whether the end-of-image marker follows the first scan (ITU T.81, annex B). A thumbnail in an earlier segment has a
/// marker of its own, so segments are skipped by their length first.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = bytes.get(at..at + 4) {
        if marker == 0xff {
            at += 1; // Any number of fill bytes may precede a marker.
            continue;
        }
        if marker == START_OF_SCAN {
            return bytes[at..].windows(2).any(|pair| pair == END_OF_IMAGE);
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
    }
    false
}
