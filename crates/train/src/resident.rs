//! Images that lie on a GPU from the first step to the last.

use candle_core::Tensor;
use taper_data::{Cut, Order};
use taper_kernels::{CropFlip, images_from_bytes};

use crate::{Batches, Images, InputBatch, Source, TrainError};

/// As [`Images`], with the bytes of the whole data set on the GPU: what is cut and mirrored is drawn here, and done there.
#[derive(Clone, Debug)]
pub struct ResidentImages {
    images: Images,
    /// `[len, h, w, 3]` bytes.
    bytes: Tensor,
    size: [usize; 2],
}

impl ResidentImages {
    /// Bytes that `images` would take on the GPU; nothing where their pixels do not lie in memory as one array, or more
    /// is done to them than to cut and to mirror.
    pub fn num_bytes(images: &Images) -> Option<usize> {
        let array = images.loader.dataset.array()?;
        images.loader.cut_size(array.size).map(|_| array.pixels.len())
    }

    /// Copies the data set to the GPU; nothing where [`Self::num_bytes`] is.
    ///
    /// # Errors
    /// candle's, when the device is out of memory.
    pub fn new(images: Images) -> Result<Option<Self>, TrainError> {
        let loader = &images.loader;
        let Some(array) = loader.dataset.array().filter(|array| loader.cut_size(array.size).is_some()) else {
            return Ok(None);
        };
        let (len, [height, width]) = (loader.dataset.len(), array.size);
        let bytes = Tensor::from_slice(array.pixels, (len, height, width, 3), &images.input.device)?;
        let size = array.size;
        Ok(Some(Self { images, bytes, size }))
    }

    /// Other images of the same data set, without another copy; nothing where they are of another one, or more is done to
    /// them.
    pub fn share(&self, images: Images) -> Option<Self> {
        let (own, other) = (&self.images.loader.dataset, &images.loader.dataset);
        let fits = std::sync::Arc::ptr_eq(own, other) && images.loader.cut_size(self.size).is_some();
        fits.then(|| Self { images, bytes: self.bytes.clone(), size: self.size })
    }
}

impl Source for ResidentImages {
    fn num_classes(&self) -> usize {
        self.images.num_classes()
    }

    fn num_images(&self) -> usize {
        self.images.num_images()
    }

    fn batch_size(&self) -> usize {
        self.images.batch_size()
    }

    fn num_batches(&self) -> usize {
        self.images.num_batches()
    }

    fn image_name(&self, index: usize) -> String {
        self.images.image_name(index)
    }

    fn epoch_from(&self, order: Order, first_batch: usize) -> Batches<'_> {
        let batches = match self.images.loader.cuts_from(self.size, order, first_batch) {
            Ok(batches) => batches,
            Err(error) => return Box::new(std::iter::once(Err(error.into()))),
        };
        let (input, scale) = (&self.images.input, self.images.input.stats.scale_and_offset());
        Box::new(batches.map(move |batch| {
            let batch = batch?;
            let crops = batch.cuts.iter().map(crop).collect::<Result<Vec<_>, _>>()?;
            let inputs = images_from_bytes(&self.bytes, &crops, batch.size, scale, input.dtype)?;
            let indices = batch.cuts.iter().map(|cut| cut.index).collect();
            Ok(InputBatch { inputs, labels: batch.labels, indices, bad: Vec::new() })
        }))
    }
}

fn crop(cut: &Cut) -> Result<CropFlip, TrainError> {
    let image = i32::try_from(cut.index).map_err(candle_core::Error::wrap)?;
    Ok(CropFlip { x: cut.left, y: cut.top, flip: i32::from(cut.is_mirrored), image })
}
