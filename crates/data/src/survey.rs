//! One pass over images before anything is learnt from them.

use rayon::prelude::*;

use crate::stats::PixelSums;
use crate::{BadSample, ChannelStats, Compose, DataError, Dataset, Result, rng};

/// What one pass over images found: which can be used, how large they are, their mean and standard deviation.
///
/// Everything in it is the same for any number of threads: sums are kept as integers, lists are in the order asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Survey {
    /// Positions of the usable images in the data set, in the order asked for.
    pub usable: Vec<usize>,
    /// Images that could not be read or transformed, in the order asked for. With `usable` these are all.
    pub bad: Vec<BadSample>,
    /// Least `[height, width]` of the usable images before the transforms, each side for itself.
    pub min_size: [usize; 2],
    /// Largest `[height, width]` of the usable images before the transforms, each side for itself.
    pub max_size: [usize; 2],
    /// Of the usable images after the transforms; `None` if there is none.
    pub stats: Option<ChannelStats>,
}

/// Reads the images at `indices`, in parallel on rayon's threads, applies fixed transforms and measures them.
///
/// With a [`CachedDataset`](crate::CachedDataset) this pass also fills the cache, so that the first epoch decodes
/// nothing anew.
///
/// # Errors
/// [`DataError::InvalidOption`] if one of the transforms is random.
///
/// ```
/// use taper_data::{Compose, Glyphs, survey};
///
/// let found = survey(&Glyphs::new(), &[0, 1, 2], &Compose::default())?;
/// assert_eq!((found.usable, found.max_size), (vec![0, 1, 2], [32, 32]));
/// # Ok::<(), taper_data::DataError>(())
/// ```
pub fn survey(dataset: &dyn Dataset, indices: &[usize], fixed: &Compose) -> Result<Survey> {
    fixed.validate()?;
    if fixed.0.iter().any(crate::Transform::is_random) {
        let reason = "images are measured after fixed transforms only".to_string();
        return Err(DataError::InvalidOption { option: "surveyed transforms", reason });
    }
    let measured = measure(dataset, indices, fixed);
    let bad = measured.bad.iter().map(|(position, error)| BadSample::new(dataset, indices[*position], error));
    let mut is_bad = vec![false; indices.len()];
    measured.bad.iter().for_each(|(position, _)| is_bad[*position] = true);
    let usable = indices.iter().zip(&is_bad).filter(|(_, is_bad)| !**is_bad).map(|(index, _)| *index).collect();
    Ok(Survey {
        usable,
        bad: bad.collect(),
        min_size: measured.sizes.map_or([0; 2], |(least, _)| least),
        max_size: measured.sizes.map_or([0; 2], |(_, most)| most),
        stats: measured.sums.stats(),
    })
}

/// What several images come to.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) sums: PixelSums,
    /// Least and largest `[height, width]`.
    sizes: Option<([usize; 2], [usize; 2])>,
    /// Positions in the list of indices, ascending, with their errors.
    pub(crate) bad: Vec<(usize, DataError)>,
}

/// Measures without judging: what cannot be read is in `bad`.
pub(crate) fn measure(dataset: &dyn Dataset, indices: &[usize], fixed: &Compose) -> Measured {
    let one = |mut measured: Measured, position: usize| {
        if let Err(error) = measured.add(dataset, indices[position], fixed) {
            measured.bad.push((position, error));
        }
        measured
    };
    // Small pieces, since one photo may take a hundred times as long as another; halves are put together in order.
    let pieces = (0..indices.len()).into_par_iter().with_max_len(8).fold(Measured::default, one);
    pieces.reduce(Measured::default, Measured::and)
}

impl Measured {
    fn add(&mut self, dataset: &dyn Dataset, index: usize, fixed: &Compose) -> Result<()> {
        let image = dataset.get(index)?.image;
        let size = image.size();
        // Fixed transforms draw nothing, so that any generator does.
        let image = fixed
            .apply(image, &mut rng::for_sample(0, 0, index))
            .map_err(|error| DataError::Sample { name: dataset.name(index), source: Box::new(error) })?;
        self.sums.add(&image);
        self.sizes = Some(self.sizes.map_or((size, size), |sizes| widened(sizes, (size, size))));
        Ok(())
    }

    /// Both, this one's images first.
    fn and(mut self, other: Self) -> Self {
        self.sums.join(&other.sums);
        self.sizes = match (self.sizes, other.sizes) {
            (Some(these), Some(those)) => Some(widened(these, those)),
            (these, those) => these.or(those),
        };
        self.bad.extend(other.bad);
        self
    }
}

fn widened(
    (least, most): ([usize; 2], [usize; 2]),
    (other_least, other_most): ([usize; 2], [usize; 2]),
) -> ([usize; 2], [usize; 2]) {
    let each = |of: fn(usize, usize) -> usize, a: [usize; 2], b: [usize; 2]| [of(a[0], b[0]), of(a[1], b[1])];
    (each(usize::min, least, other_least), each(usize::max, most, other_most))
}
