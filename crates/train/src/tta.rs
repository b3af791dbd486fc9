//! Answers averaged over changed copies of each image.

use candle_core::{D, DType, Result, Tensor};
use candle_nn::ModuleT;

/// By how many pixels copies are moved.
const SHIFT: usize = 2;

/// The copies of an image whose probabilities are averaged ("test-time augmentation").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// The image and its mirror image.
    Flip,
    /// Both, and both moved by two pixels up, down, left and right; edge pixels are repeated.
    FlipShift,
}

/// A model that answers with the mean probability over [`Copies`] of each image.
///
/// # Shapes
/// `[n, h, w, 3]` → logarithms of probabilities `[n, num_classes]`, of which softmax gives the mean probabilities back.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_nn::{ModuleT, func_t};
/// use taper_train::{Averaged, Copies};
///
/// // Knows left from right: the two logits are the two columns of a 1×2 image.
/// let model = func_t(|images, _| images.narrow(3, 0, 1)?.flatten_from(1));
/// let images = Tensor::new(&[[[[3f32], [0.0]]]], &Device::Cpu)?;
/// let averaged = Averaged { model: &model, copies: Copies::Flip }.forward_t(&images, false)?;
/// let [left, right] = averaged.to_vec2::<f32>()?[0][..] else { unreachable!() };
/// assert!((left - right).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub struct Averaged<'a> {
    /// The model for one image.
    pub model: &'a dyn ModuleT,
    /// What it is shown.
    pub copies: Copies,
}

impl ModuleT for Averaged<'_> {
    fn forward_t(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        let shifts: &[[usize; 2]] = match self.copies {
            Copies::Flip => &[[SHIFT, SHIFT]],
            Copies::FlipShift => &[[SHIFT, SHIFT], [0, SHIFT], [2 * SHIFT, SHIFT], [SHIFT, 0], [SHIFT, 2 * SHIFT]],
        };
        let mut sum: Option<Tensor> = None;
        for shift in shifts {
            let moved = moved(images, *shift)?;
            for copy in [mirrored(&moved)?, moved] {
                // Probabilities of bf16 would add up to numbers with steps of a sixteenth.
                let logits = self.model.forward_t(&copy, train)?.to_dtype(DType::F32)?;
                let probabilities = candle_nn::ops::softmax(&logits, D::Minus1)?;
                sum = Some(match sum {
                    Some(sum) => (sum + probabilities)?,
                    None => probabilities,
                });
            }
        }
        let Some(sum) = sum else { candle_core::bail!("no copies") };
        // The smallest f32: a probability that underflows must not become an infinite loss.
        (sum / (2 * shifts.len()) as f64)?.maximum(f64::from(f32::MIN_POSITIVE))?.log()
    }
}

/// The image cut out at this place after its edges were repeated outwards.
fn moved(images: &Tensor, [top, left]: [usize; 2]) -> Result<Tensor> {
    if [top, left] == [SHIFT, SHIFT] {
        return Ok(images.clone());
    }
    let (_, height, width, _) = images.dims4()?;
    let padded = images.pad_with_same(1, SHIFT, SHIFT)?.pad_with_same(2, SHIFT, SHIFT)?;
    padded.narrow(1, top, height)?.narrow(2, left, width)?.contiguous()
}

/// Left and right changed.
fn mirrored(images: &Tensor) -> Result<Tensor> {
    let width = images.dim(2)? as u32;
    let columns = Tensor::from_vec((0..width).rev().collect::<Vec<u32>>(), width as usize, images.device())?;
    images.index_select(&columns, 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use candle_nn::func_t;

    /// One channel of 3×3 pixels: 0 to 8.
    fn image() -> Tensor {
        Tensor::arange(0f32, 9.0, &Device::Cpu).unwrap().reshape((1, 3, 3, 1)).unwrap()
    }

    fn pixels(image: &Tensor) -> Vec<f32> {
        image.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn copies_are_mirrored_and_moved_with_their_edges_repeated() {
        assert_eq!(pixels(&mirrored(&image()).unwrap()), [2.0, 1.0, 0.0, 5.0, 4.0, 3.0, 8.0, 7.0, 6.0]);
        assert_eq!(pixels(&moved(&image(), [2, 2]).unwrap()), pixels(&image()));
        // Two pixels down: only the first row is left.
        assert_eq!(pixels(&moved(&image(), [0, 2]).unwrap()), [0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 0.0, 1.0, 2.0]);
        // Two pixels to the left.
        assert_eq!(pixels(&moved(&image(), [2, 4]).unwrap()), [2.0, 2.0, 2.0, 5.0, 5.0, 5.0, 8.0, 8.0, 8.0]);
    }

    #[test]
    fn probabilities_are_averaged_not_logits() {
        // Class 0 gets the first pixel, class 1 nothing: 0 in the image, 2 in its mirror image.
        let model = func_t(|images, _| {
            let first = images.narrow(1, 0, 1)?.narrow(2, 0, 1)?.flatten_from(1)?;
            Tensor::cat(&[&first, &first.zeros_like()?], 1)
        });
        let averaged = Averaged { model: &model, copies: Copies::Flip }.forward_t(&image(), false).unwrap();
        let expected = (0.5 + 1.0 / (1.0 + (-2f64).exp())) / 2.0;
        let found = f64::from(averaged.to_vec2::<f32>().unwrap()[0][0].exp());
        assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
    }

    /// As a GPU gives them.
    #[test]
    fn logits_of_half_the_size_are_averaged_in_f32() {
        let model = func_t(|images, _| {
            let first = images.narrow(1, 0, 1)?.narrow(2, 0, 1)?.flatten_from(1)?;
            Tensor::cat(&[&first, &(first.zeros_like()? - 4.5)?], 1)?.to_dtype(DType::BF16)
        });
        let averaged = Averaged { model: &model, copies: Copies::Flip }.forward_t(&image(), false).unwrap();
        let sigmoid = |logit: f64| 1.0 / (1.0 + (-logit).exp());
        let expected = (sigmoid(4.5) + sigmoid(6.5)) / 2.0;
        let found = f64::from(averaged.to_vec2::<f32>().unwrap()[0][0].exp());
        assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
    }

    #[test]
    fn ten_copies_are_shown_with_shifts() {
        let count = std::sync::atomic::AtomicUsize::new(0);
        let counter = std::sync::Arc::new(count);
        let seen = counter.clone();
        let model = func_t(move |images, _| {
            seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            images.flatten_from(1)
        });
        Averaged { model: &model, copies: Copies::FlipShift }.forward_t(&image(), false).unwrap();
        assert_eq!(counter.load(std::sync::atomic::Ordering::Relaxed), 10);
    }
}
