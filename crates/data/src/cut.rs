//! Epochs without pixels, for whoever has the images elsewhere: which one, cut where, mirrored or not.

use crate::resize::Region;
use crate::rng::{self, Rng};
use crate::{Compose, DataError, Loader, Op, Order, PadMode, Result, Transform};

/// How an image comes out of one of a data set: pixel `[row, column]` is `[top + row, left + column]` of its source, or
/// black where that lies outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The image's index in its data set.
    pub index: usize,
    /// Row of the source at the upper edge; negative above it.
    pub top: i32,
    /// Column of the source at the left edge; negative before it.
    pub left: i32,
    /// Whether the result is mirrored left to right.
    pub is_mirrored: bool,
}

/// A [`Batch`](crate::Batch) without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutBatch {
    /// One for each image, `[n]`.
    pub cuts: Vec<Cut>,
    /// Class indices, `[n]`.
    pub labels: Vec<u32>,
    /// Rows and columns of each image.
    pub size: [usize; 2],
}

impl Loader {
    /// The size of all images that come out of a source of `size` `[height, width]`, if the transforms do no more than
    /// cut and mirror left to right, whatever they draw.
    pub fn cut_size(&self, size: [usize; 2]) -> Option<[usize; 2]> {
        let mut windows = vec![Window::whole(size)];
        for transform in &self.transform.0 {
            let found: Option<Vec<_>> = windows
                .iter()
                .map(|window| extremes(transform, window.size)?.iter().map(|op| window.then(op)).collect())
                .collect();
            windows = found?.into_iter().flat_map(|windows: Vec<Window>| windows).collect();
        }
        windows.first().map(|window| window.size)
    }

    /// The batches of an epoch from `first_batch` on, as [`epoch_from`](Self::epoch_from) would yield them, for images
    /// that all have `size` `[height, width]`. They are drawn when they are asked for.
    ///
    /// # Errors
    /// Settings that `epoch_from` refuses. In place of a batch: transforms that do more than [`cut_size`](Self::cut_size)
    /// allows.
    pub fn cuts_from(
        &self,
        size: [usize; 2],
        order: Order,
        first_batch: usize,
    ) -> Result<impl Iterator<Item = Result<CutBatch>>> {
        self.validate()?;
        let (loader, positions) = (self.clone(), self.positions(order));
        let batch = move |batch_index: usize| {
            let start = batch_index * loader.batch_size;
            let positions = &positions[start..(start + loader.batch_size).min(positions.len())];
            let mut batch = CutBatch { cuts: Vec::with_capacity(positions.len()), labels: Vec::new(), size };
            for &position in positions {
                let index = loader.indices[position];
                let window = draw(&loader.transform, size, &mut rng::for_sample(loader.seed, order.epoch(), index))?;
                batch.size = window.size;
                batch.cuts.push(window.cut(index));
                batch.labels.push(loader.dataset.label(index));
            }
            Ok(batch)
        };
        let num_batches = self.num_batches();
        Ok((first_batch.min(num_batches)..num_batches).map(batch))
    }
}

/// The window that a row of transforms draws on an image of `size`.
fn draw(transform: &Compose, size: [usize; 2], rng: &mut Rng) -> Result<Window> {
    let ops = transform.draw(size, rng);
    ops.iter().try_fold(Window::whole(size), |window, op| window.then(op)).ok_or_else(|| {
        let reason = format!("{ops:?} is more than a cut");
        DataError::Transform { operation: "cut", height: size[0], width: size[1], reason }
    })
}

/// Draws of a transform such that if each of them is a cut, every other draw is one, too. `None` for a transform that
/// may do more.
fn extremes(transform: &Transform, size: [usize; 2]) -> Option<Vec<Op>> {
    match *transform {
        Transform::RandomCrop { size: crop, padding, mode } => {
            let free = |axis: usize| (size[axis] + 2 * padding).checked_sub(crop[axis]);
            let at = |[top, left]: [usize; 2]| Op::Crop { top, left, size: crop, padding, mode };
            Some(vec![at([0, 0]), at([free(0)?, free(1)?])])
        }
        Transform::HorizontalFlip { .. } => Some(vec![Op::Keep, Op::FlipHorizontal]),
        // They draw nothing.
        Transform::Resize { .. } | Transform::ResizeExact { .. } | Transform::CenterCrop { .. } => {
            Some(vec![transform.draw(size, &mut rng::for_sample(0, 0, 0))])
        }
        Transform::VerticalFlip { .. } | Transform::RandomResizedCrop { .. } | Transform::ColorJitter { .. } => None,
    }
}

/// What a result shows of its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    top: i32,
    left: i32,
    size: [usize; 2],
    is_mirrored: bool,
    /// Whether it is all of the source: only then what lies beyond its edges lies beyond the source's.
    is_whole: bool,
}

impl Window {
    fn whole(size: [usize; 2]) -> Self {
        Self { top: 0, left: 0, size, is_mirrored: false, is_whole: true }
    }

    fn cut(&self, index: usize) -> Cut {
        Cut { index, top: self.top, left: self.left, is_mirrored: self.is_mirrored }
    }

    /// What is left of it after a change; `None` for what is no cut.
    fn then(self, op: &Op) -> Option<Self> {
        match *op {
            Op::Keep => Some(self),
            Op::FlipHorizontal => Some(Self { is_mirrored: !self.is_mirrored, ..self }),
            Op::Crop { top, left, size, padding, mode } => self.crop([top, left], size, padding, mode),
            Op::Resize { size, .. } if size == self.size => Some(self),
            Op::ResizedCrop { region, size, .. } if region == Region::whole(size) && size == self.size => Some(self),
            Op::FlipVertical | Op::Resize { .. } | Op::ResizedCrop { .. } | Op::AdjustColor { .. } => None,
        }
    }

    fn crop(self, start: [usize; 2], size: [usize; 2], padding: usize, mode: PadMode) -> Option<Self> {
        let number = |value: usize| i32::try_from(value).ok();
        let padding = number(padding)?;
        let [top, left] = [number(start[0])? - padding, number(start[1])? - padding];
        let ([height, width], [own_height, own_width]) =
            ([number(size[0])?, number(size[1])?], [number(self.size[0])?, number(self.size[1])?]);
        let is_within = top >= 0 && left >= 0 && top + height <= own_height && left + width <= own_width;
        let fits = top + height <= own_height + padding && left + width <= own_width + padding;
        let is_black_around = fits && self.is_whole && mode == PadMode::Zero;
        if !is_within && !is_black_around {
            return None;
        }
        // Mirrored, the first column of the result is the last one of the source's.
        let left = if self.is_mirrored { own_width - left - width } else { left };
        let is_whole = self.is_whole && size == self.size && [top, left] == [0, 0];
        Some(Self { top: self.top + top, left: self.left + left, size, is_whole, ..self })
    }
}
