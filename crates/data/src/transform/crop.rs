//! Crops, flips, and the sizes around them.

use super::PadMode;
use crate::{DataError, Image, Result};

/// `[height, width]` with the shorter side at `side`, the longer one truncated but never zero.
pub(super) fn scaled(size: [usize; 2], side: usize) -> [usize; 2] {
    let short = size[0].min(size[1]).max(1);
    size.map(|length| if length == short { side } else { side * length / short })
}

/// Where a crop in the middle begins: half of what is left over, a half pixel rounded to even as Python rounds.
pub(super) fn centred(length: usize, crop: usize) -> usize {
    let free = length.saturating_sub(crop);
    let half = free / 2;
    if free % 2 == 1 { half + half % 2 } else { half }
}

pub(super) fn flip_horizontal(image: &Image) -> Result<Image> {
    let mut pixels = vec![0; image.pixels().len()];
    let width = image.width() * 3;
    for (target, row) in pixels.chunks_exact_mut(width).zip(image.pixels().chunks_exact(width)) {
        let (target, row) = (target.as_chunks_mut::<3>().0, row.as_chunks::<3>().0);
        target.iter_mut().zip(row.iter().rev()).for_each(|(target, pixel)| *target = *pixel);
    }
    Image::new(image.height(), image.width(), pixels)
}

pub(super) fn flip_vertical(image: &Image) -> Result<Image> {
    let pixels = image.pixels().chunks_exact(image.width() * 3).rev().flatten().copied().collect();
    Image::new(image.height(), image.width(), pixels)
}

pub(super) fn crop(image: &Image, start: [usize; 2], size: [usize; 2], padding: usize, mode: PadMode) -> Result<Image> {
    check_crop(image, start, size, padding, mode)?;
    // Columns of the result that lie in the image are copied in one go, those around them one by one.
    let before = padding.saturating_sub(start[1]).min(size[1]);
    let end = (padding + image.width()).saturating_sub(start[1]).clamp(before, size[1]);
    let first = start[1] + before - padding.min(start[1] + before);
    let mut pixels = vec![0; size[0] * size[1] * 3];
    for (row, target) in pixels.chunks_exact_mut(size[1] * 3).enumerate() {
        let Some(row) = source(start[0] + row, padding, image.height(), mode) else { continue };
        let row = image.row(row);
        target[before * 3..end * 3].copy_from_slice(&row[first * 3..][..(end - before) * 3]);
        for column in (0..before).chain(end..size[1]) {
            if let Some(place) = source(start[1] + column, padding, image.width(), mode) {
                target[column * 3..][..3].copy_from_slice(&row[place * 3..][..3]);
            }
        }
    }
    Image::new(size[0], size[1], pixels)
}

/// Which row or column of the image lies at `place` of the padded one; `None` is padding that is black.
fn source(place: usize, padding: usize, length: usize, mode: PadMode) -> Option<usize> {
    match mode {
        _ if place >= padding && place < padding + length => Some(place - padding),
        PadMode::Zero => None,
        PadMode::Reflect if place < padding => Some(padding - place),
        PadMode::Reflect => Some(2 * (length - 1) - (place - padding)),
    }
}

fn check_crop(image: &Image, start: [usize; 2], size: [usize; 2], padding: usize, mode: PadMode) -> Result<()> {
    let [height, width] = image.size();
    let fail = |reason: String| Err(DataError::Transform { operation: "crop", height, width, reason });
    let padded = image.size().map(|length| length + 2 * padding);
    if size.contains(&0) || start[0] + size[0] > padded[0] || start[1] + size[1] > padded[1] {
        let [crop_height, crop_width] = size;
        return fail(format!("{crop_height}x{crop_width} does not fit with a padding of {padding}"));
    }
    if mode == PadMode::Reflect && padding >= height.min(width) {
        return fail(format!("a reflection of {padding} pixels needs longer sides than that"));
    }
    Ok(())
}
