use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::graph::{Gradient, Operation, attach, wanted};
use crate::reduce::Lanes;
use crate::storage::{require_float, tensor, view};

const OP: &str = "relu";

/// `max(x, 0)` element by element; the gradient at 0 is 0, as in PyTorch. NaN passes through.
///
/// # Errors
/// Another element type than f32, or bf16 on a GPU; a device without kernels.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    require_float(OP, "x", x)?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return crate::cuda::relu(x);
    }
    let x = x.contiguous()?;
    let clamp = |&value: &f32| if value < 0.0 { 0.0 } else { value };
    let y: Vec<f32> = view(OP, "x", &x)?.par_iter().with_min_len(Lanes::new(1).chunk()).map(clamp).collect();
    attach(Relu, &[&x], y, x.shape())
}

struct Relu;

impl Operation for Relu {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, inputs: &[Tensor], y: &Tensor, dy: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let dx = wanted(&inputs[0], || {
            let (y, dy) = (view(OP, "y", y)?, dy.view(OP)?);
            let pass = |(&y, &dy): (&f32, &f32)| if y > 0.0 { dy } else { 0.0 };
            let dx = y.par_iter().zip(&*dy).with_min_len(Lanes::new(1).chunk()).map(pass).collect();
            tensor(dx, inputs[0].shape())
        })?;
        Ok(vec![dx])
    }
}
