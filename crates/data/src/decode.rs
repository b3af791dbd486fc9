//! Image files to pixels, always at full size: the JPEG decoder has no inverse transform at a reduced scale.

use std::any::Any;
use std::fs::{self, File};
use std::io::{Cursor, Read as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ::image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use crate::{DataError, Image, Result};

/// Longest side that is decoded, in pixels; a header can claim any.
const MAX_SIDE: u32 = 32_768;
/// Most pixels of one image: Pillow refuses more as a decompression bomb (twice its `MAX_IMAGE_PIXELS`).
const MAX_PIXELS: u64 = 178_956_970;
/// Most bytes a decoder may allocate for one image.
const MAX_DECODED_BYTES: u64 = 1 << 30;
/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 1 << 28;

/// Decodes a JPEG, PNG, WebP, BMP or GIF file into RGB; what it is is read from its content, not its name.
///
/// - The orientation that a camera noted (EXIF) is applied, so that the image is upright. torchvision leaves it to the
///   caller (`PIL.ImageOps.exif_transpose`).
/// - Grey becomes three equal channels.
/// - Transparency is dropped, and the colour stored under it shows, as with Pillow's `convert("RGB")`.
/// - 16 bits a channel become 8, scaled by 255/65535 and rounded. Pillow clips 16-bit grey instead, which turns it white.
/// - CMYK, as Adobe's programs write it into JPEG, becomes RGB as Pillow computes it: without a colour profile.
/// - Of an animation the first frame is taken, on black where it does not cover the canvas.
///
/// # Errors
/// [`DataError::Io`] if the file is not there or cannot be read; [`DataError::Decode`] or
/// [`DataError::Malformed`] if it is no whole image of these kinds, or if it claims a side above 32,768 pixels, more than
/// 178,956,970 pixels or more than 1 GiB, which is found before memory is taken for them.
pub fn decode(path: &Path) -> Result<Image> {
    require_file(path)?;
    let bytes = read_bounded(path)?;
    let format = format_of(path, &bytes)?;
    if format == ImageFormat::Jpeg && !jpeg_is_whole(&bytes) {
        // The decoder would fill what is missing with grey and report nothing.
        return Err(DataError::malformed(path, "the JPEG data end before the image does"));
    }
    contained(path, || decode_bytes(path, &bytes, format))
}

fn decode_bytes(path: &Path, bytes: &[u8], format: ImageFormat) -> Result<Image> {
    let decode_error = |source| DataError::Decode { path: path.to_path_buf(), source };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits());
    let mut decoder = reader.into_decoder().map_err(decode_error)?;
    refuse_bomb(path, &decoder)?;
    let orientation = decoder.orientation().map_err(decode_error)?;
    let rgb = DynamicImage::from_decoder(decoder).map_err(decode_error)?.into_rgb8();
    let mut upright = DynamicImage::ImageRgb8(rgb);
    upright.apply_orientation(orientation);
    let rgb = upright.into_rgb8();
    let (width, height) = rgb.dimensions();
    Image::new(height as usize, width as usize, rgb.into_raw())
}

/// Decoders are other people's code: a panic in one is a file that cannot be read, and no more.
fn contained(path: &Path, decode: impl FnOnce() -> Result<Image>) -> Result<Image> {
    // Nothing that the closure could leave half changed outlives it.
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| {
        Err(DataError::malformed(path, format!("the decoder panicked: {}", panic_message(panic.as_ref()))))
    })
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it did not say why").to_string()
}

/// Refuses what would block or fail in an obscure way when it is read.
fn require_file(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(metadata) if metadata.is_dir() => Err(DataError::malformed(path, "it is a folder, not a file")),
        Ok(_) => Err(DataError::malformed(path, "it is a device or a pipe, not a file")),
        Err(_) if path.is_symlink() => Err(DataError::malformed(path, "it is a link to a file that cannot be reached")),
        Err(source) => Err(io_error(path, source)),
    }
}

fn io_error(path: &Path, source: std::io::Error) -> DataError {
    DataError::Io { path: path.to_path_buf(), source }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|source| io_error(path, source))?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|source| io_error(path, source))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(DataError::malformed(path, format!("more than {MAX_FILE_BYTES} bytes for one image")));
    }
    Ok(bytes)
}

/// The format by the first bytes; what people find instead of an image is named.
fn format_of(path: &Path, bytes: &[u8]) -> Result<ImageFormat> {
    const READ: [ImageFormat; 5] =
        [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif];
    let reason = match ::image::guess_format(bytes) {
        Ok(format) if READ.contains(&format) => return Ok(format),
        Ok(format) => format!("it is an image of the kind {format:?}; convert it to JPEG, PNG, WebP, BMP or GIF"),
        Err(_) if bytes.is_empty() => "the file is empty".to_string(),
        Err(_) if is_html(bytes) => "it is an HTML page, not an image; download the image itself".to_string(),
        Err(_) => "its content is no JPEG, PNG, WebP, BMP or GIF".to_string(),
    };
    Err(DataError::malformed(path, reason))
}

fn is_html(bytes: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).to_lowercase();
    let start = start.trim_start_matches('\u{feff}').trim_start();
    ["<!doctype html", "<html", "<head"].iter().any(|tag| start.starts_with(tag))
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    limits
}

/// Looks at what the header claims before anything of that size is allocated.
fn refuse_bomb(path: &Path, decoder: &impl ImageDecoder) -> Result<()> {
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MAX_PIXELS || decoder.total_bytes() > MAX_DECODED_BYTES {
        let reason = format!("it claims {height}x{width} pixels; at most {MAX_PIXELS} pixels and 1 GiB are decoded");
        return Err(DataError::malformed(path, reason));
    }
    if pixels == 0 {
        let source =
            ImageError::Limits(::image::error::LimitError::from_kind(::image::error::LimitErrorKind::DimensionError));
        return Err(DataError::Decode { path: path.to_path_buf(), source });
    }
    Ok(())
}

/// Whether an end-of-image marker follows the first scan (ITU T.81, annex B). A thumbnail in an earlier segment has a
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
            // It stands at the end of the file, or before a few bytes that some programs add.
            return bytes[at..].windows(2).rev().any(|pair| pair == END_OF_IMAGE);
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_decoder_is_an_error_of_its_file() {
        let path = Path::new("a/b.png");
        let error = contained(path, || panic!("index out of bounds")).unwrap_err().to_string();
        assert_eq!(error, "malformed file a/b.png: the decoder panicked: index out of bounds");
    }
}
