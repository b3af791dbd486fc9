//! What a data set is, and the one that lies in memory.

use std::path::Path;

use crate::{DataError, Image, Result, Sample};

/// A list of labelled images that any thread may read.
///
/// One data set holds the images of all its official parts in one index space; a [`Split`](crate::Split) says which
/// index belongs to which part.
pub trait Dataset: Send + Sync + std::fmt::Debug {
    /// Number of images, of all parts together.
    fn len(&self) -> usize;

    /// Whether there is no image at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Class names in index order.
    fn classes(&self) -> &[String];

    /// Class index of an image, known without decoding it.
    ///
    /// # Panics
    /// May panic if `index` is not below [`len`](Self::len).
    fn label(&self, index: usize) -> u32;

    /// What identifies an image for good: `train/00123`, or its path relative to the root with `/` between.
    ///
    /// # Panics
    /// May panic if `index` is not below [`len`](Self::len).
    fn name(&self, index: usize) -> String;

    /// Reads and decodes one image.
    ///
    /// # Errors
    /// The file cannot be read or decoded, or `index` is not below [`len`](Self::len).
    fn get(&self, index: usize) -> Result<Sample>;

    /// The file that an image is read from, if it has one of its own.
    fn file(&self, _: usize) -> Option<&Path> {
        None
    }

    /// All images in index order, where they lie in memory one after the other and have one size.
    fn array(&self) -> Option<ImageArray<'_>> {
        None
    }

    /// The labels of all images in index order.
    fn labels(&self) -> Vec<u32> {
        (0..self.len()).map(|index| self.label(index)).collect()
    }
}

/// The bytes of a data set whose images have one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageArray<'a> {
    /// `[height, width]` of each image.
    pub size: [usize; 2],
    /// `[len, height, width, 3]`.
    pub pixels: &'a [u8],
}

/// Images of one size that lie in memory as one array.
#[derive(Debug, Clone)]
pub struct ArrayDataset {
    size: [usize; 2],
    pixels: Vec<u8>,
    labels: Vec<u32>,
    names: Vec<String>,
    classes: Vec<String>,
}

impl ArrayDataset {
    /// Wraps images of `[height, width]`, laid out `[labels.len(), height, width, 3]`.
    ///
    /// # Errors
    /// [`DataError::InvalidOption`] if the lengths do not fit each other or a label is not the index of a class.
    ///
    /// ```
    /// use taper_data::{ArrayDataset, Dataset};
    ///
    /// let classes = vec!["dark".to_string(), "light".to_string()];
    /// let names = vec!["a".to_string(), "b".to_string()];
    /// let pixels = [[0; 12], [255; 12]].concat();
    /// let set = ArrayDataset::new([2, 2], pixels, vec![0, 1], names, classes)?;
    /// assert_eq!(set.get(1)?.image.pixel(0, 0), [255; 3]);
    /// # Ok::<(), taper_data::DataError>(())
    /// ```
    pub fn new(
        size: [usize; 2],
        pixels: Vec<u8>,
        labels: Vec<u32>,
        names: Vec<String>,
        classes: Vec<String>,
    ) -> Result<Self> {
        let expected = size[0].saturating_mul(size[1]).saturating_mul(3).saturating_mul(labels.len());
        if pixels.len() != expected || names.len() != labels.len() || size.contains(&0) {
            let reason = format!(
                "{} labels of {}x{} images need {expected} bytes and as many names, found {} bytes and {} names",
                labels.len(),
                size[0],
                size[1],
                pixels.len(),
                names.len()
            );
            return Err(DataError::InvalidOption { option: "array data set", reason });
        }
        if let Some(label) = labels.iter().find(|label| **label as usize >= classes.len()) {
            let reason = format!("label {label} of {} classes", classes.len());
            return Err(DataError::InvalidOption { option: "array data set", reason });
        }
        Ok(Self { size, pixels, labels, names, classes })
    }
}

impl Dataset for ArrayDataset {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    fn name(&self, index: usize) -> String {
        self.names[index].clone()
    }

    fn array(&self) -> Option<ImageArray<'_>> {
        Some(ImageArray { size: self.size, pixels: &self.pixels })
    }

    fn get(&self, index: usize) -> Result<Sample> {
        let len = self.len();
        if index >= len {
            return Err(DataError::IndexOutOfRange { index, len });
        }
        let [height, width] = self.size;
        let bytes = height * width * 3;
        let pixels = self.pixels[index * bytes..][..bytes].to_vec();
        Ok(Sample { image: Image::new(height, width, pixels)?, label: self.labels[index] })
    }
}
