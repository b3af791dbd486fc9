//! Where in an image an answer comes from.

use candle_core::{D, Tensor, Var};

use crate::TrainError;

/// A map of how much each place of an image speaks for a class, 0 to 1 (Selvaraju et al. 2017, "Grad-CAM").
#[derive(Clone, Debug, PartialEq)]
pub struct GradCam {
    /// Rows and columns of the map: those of the feature map.
    pub size: [usize; 2],
    /// Row by row; the largest is 1, unless nothing speaks for the class.
    pub values: Vec<f32>,
}

/// Maps of a batch, each for one class.
///
/// `rest` is what the network does behind the feature map, in evaluation mode.
///
/// # Shapes
/// `map` `[n, h, w, c]` · `rest`: `[n, h, w, c]` → logits `[n, classes]` · `classes`: n indices.
///
/// # Errors
/// A map of another shape, a class that there is not, or what `rest` fails with.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use taper_train::grad_cam;
///
/// // Two channels; the logit of class 0 is the sum of the first one.
/// let map = Tensor::new(&[[[[2f32, 9.0], [1.0, 9.0]]]], &Device::Cpu)?;
/// let rest = |map: &Tensor| map.narrow(3, 0, 1)?.sum((1, 2));
/// assert_eq!(grad_cam(&map, rest, &[0])?[0].values, [1.0, 0.5]);
/// # Ok::<(), taper_train::TrainError>(())
/// ```
pub fn grad_cam(
    map: &Tensor,
    rest: impl Fn(&Tensor) -> candle_core::Result<Tensor>,
    classes: &[usize],
) -> Result<Vec<GradCam>, TrainError> {
    let (_, height, width, _) = map.dims4()?;
    let map = Var::from_tensor(&map.detach())?;
    let logits = rest(map.as_tensor())?;
    let indices: Vec<u32> = classes.iter().map(|class| *class as u32).collect();
    let indices = Tensor::from_vec(indices, (classes.len(), 1), logits.device())?;
    // Images do not depend on each other in evaluation, so one sum gives each its own gradient.
    let gradients = logits.gather(&indices, D::Minus1)?.sum_all()?.backward()?;
    let Some(gradient) = gradients.get(map.as_tensor()) else {
        return Err(candle_core::Error::Msg("the logits do not depend on the feature map".into()).into());
    };
    let importance = gradient.mean_keepdim((1, 2))?; // [n, 1, 1, c]
    let maps = map.as_tensor().detach().broadcast_mul(&importance)?.sum(D::Minus1)?.relu()?; // [n, h, w]
    let maps = maps.flatten_from(1)?.to_vec2::<f32>()?;
    Ok(maps.into_iter().map(|values| GradCam { size: [height, width], values: scaled(values) }).collect())
}

/// So that the largest is 1.
fn scaled(mut values: Vec<f32>) -> Vec<f32> {
    let largest = values.iter().copied().fold(0.0, f32::max);
    if largest > 0.0 {
        values.iter_mut().for_each(|value| *value /= largest);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// Two images of 2×2 places and two channels; class k is the mean of channel k, class 2 the opposite of channel 0.
    fn rest(map: &Tensor) -> candle_core::Result<Tensor> {
        let means = map.mean((1, 2))?;
        Tensor::cat(&[means.clone(), means.narrow(1, 0, 1)?.neg()?], 1)
    }

    #[test]
    fn each_image_has_the_map_of_its_own_class() {
        let values: Vec<f32> = vec![4.0, 0.0, 2.0, 1.0, 0.0, 3.0, 1.0, 6.0, 1.0, 5.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0];
        let map = Tensor::from_vec(values, (2, 2, 2, 2), &Device::Cpu).unwrap();
        let cams = grad_cam(&map, rest, &[0, 1]).unwrap();
        assert_eq!(cams[0], GradCam { size: [2, 2], values: vec![1.0, 0.5, 0.0, 0.25] });
        assert_eq!(cams[1].values, [1.0, 0.2, 0.2, 0.0]);
        // Nothing of an image speaks for a class whose logit only falls.
        assert_eq!(grad_cam(&map, rest, &[2, 2]).unwrap()[0].values, [0.0; 4]);
        assert!(grad_cam(&map, rest, &[0, 3]).is_err());
    }

    #[test]
    fn the_ops_of_the_kernels_have_gradients_for_it() {
        let values: Vec<f32> = (0..2 * 4 * 4 * 3).map(|index| (index * 37 % 11) as f32).collect();
        let map = Tensor::from_vec(values, (2, 4, 4, 3), &Device::Cpu).unwrap();
        let weight = Tensor::new(&[[1f32, 0.0, -1.0], [0.5, 1.0, 0.0]], &Device::Cpu).unwrap();
        let pooled = |map: &Tensor| taper_kernels::linear(&taper_kernels::global_avg_pool(map)?, &weight, None);
        for cam in grad_cam(&map, pooled, &[0, 1]).unwrap() {
            assert!(cam.values.contains(&1.0) && cam.values.iter().all(|value| (0.0..=1.0).contains(value)));
        }
    }
}
