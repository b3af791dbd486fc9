use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::reduce::Lanes;
use crate::storage::{require_f32, slice, tensor, view};

const OP: &str = "relu";

/// `max(x, 0)` element by element; the gradient at 0 is 0, as in PyTorch. NaN passes through.
///
/// # Errors
/// Another element type than f32, or another device than the CPU.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    require_f32(OP, "x", x)?;
    x.contiguous()?.apply_op1(Relu)
}

struct Relu;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(OP, "x", x, layout)?;
        let clamp = |&value: &f32| if value < 0.0 { 0.0 } else { value };
        let y = x.par_iter().with_min_len(Lanes::new(1).chunk()).map(clamp).collect();
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        if !x.track_op() {
            return Ok(None);
        }
        let dy = dy.contiguous()?;
        let (y, dy) = (view(OP, "y", y)?, view(OP, "gradient", &dy)?);
        let pass = |(&y, &dy): (&f32, &f32)| if y > 0.0 { dy } else { 0.0 };
        let dx = y.par_iter().zip(&*dy).with_min_len(Lanes::new(1).chunk()).map(pass).collect();
        Ok(Some(tensor(dx, x.shape())?))
    }
}
