//! A few rows of one image, copied between zeros.

use crate::conv::window::Window;

/// Channels from which pixels get a gap, so that neighbouring ones do not fall on the same sets of the cache.
const WIDE: usize = 128;

/// Images that windows read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) values: &'a [f32],
    /// Rows and columns of an image.
    pub(super) size: [usize; 2],
    /// Channels of all groups.
    pub(super) channels: usize,
}

/// The part of an image's padded plane that a number of rows of outputs reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// Input row and column of the first pixel, for the first row of outputs.
    pub(super) origin: [isize; 2],
    /// Rows and columns.
    pub(super) size: [usize; 2],
    /// Elements between pixels.
    pub(super) pixel: usize,
    /// Elements between rows.
    pub(super) pitch: usize,
}

impl Frame {
    /// The frame that holds what all `windows` read for `rows` rows of outputs.
    pub(super) fn new(windows: &[Window], rows: usize, channels: usize) -> Self {
        let bounds = |reaches: &mut dyn Iterator<Item = (isize, isize)>| {
            reaches.reduce(|all, one| (all.0.min(one.0), all.1.max(one.1))).unwrap_or((0, 0))
        };
        let vertical = bounds(&mut windows.iter().filter_map(|window| window.rows.reach(rows)));
        let horizontal = bounds(&mut windows.iter().filter_map(|window| window.columns.reach(window.columns.count)));
        let size = [vertical, horizontal].map(|(start, end)| (end - start) as usize);
        let pixel = if channels >= WIDE { channels.next_multiple_of(16) + 16 } else { channels };
        Self { origin: [vertical.0, horizontal.0], size, pixel, pitch: size[1] * pixel }
    }

    pub(super) fn len(&self) -> usize {
        self.size[0] * self.pitch
    }

    /// Where a tap reads for the first output, in elements.
    pub(super) fn offset(&self, row: isize, column: isize) -> usize {
        (row - self.origin[0]) as usize * self.pitch + (column - self.origin[1]) as usize * self.pixel
    }

    /// Copies the rows whose first output stands at input row `position` of an image.
    pub(super) fn fill(&self, source: Source<'_>, image: usize, position: usize, frame: &mut [f32]) {
        let [height, width] = source.size;
        let pixels = &source.values[image * height * width * source.channels..][..height * width * source.channels];
        let first = position as isize + self.origin[0];
        for (row, target) in frame.chunks_exact_mut(self.pitch.max(1)).enumerate().take(self.size[0]) {
            let row = first + row as isize;
            if row < 0 || row >= height as isize {
                target.fill(0.0);
                continue;
            }
            self.fill_row(&pixels[row as usize * width * source.channels..][..width * source.channels], source, target);
        }
    }

    fn fill_row(&self, row: &[f32], source: Source<'_>, target: &mut [f32]) {
        let (channels, width) = (source.channels, source.size[1] as isize);
        let start = self.origin[1].clamp(0, width);
        let end = (self.origin[1] + self.size[1] as isize).clamp(start, width);
        // A frame may lie beside the image, on either side.
        let before = (start - self.origin[1]).clamp(0, self.size[1] as isize) as usize * self.pixel;
        let row = &row[start as usize * channels..end as usize * channels];
        let (before, rest) = target.split_at_mut(before);
        let (inside, after) = rest.split_at_mut((end - start) as usize * self.pixel);
        before.fill(0.0);
        after.fill(0.0);
        if self.pixel == channels {
            inside.copy_from_slice(row);
        } else {
            let pixels = inside.chunks_exact_mut(self.pixel).zip(row.chunks_exact(channels));
            pixels.for_each(|(target, pixel)| target[..channels].copy_from_slice(pixel));
        }
    }
}
