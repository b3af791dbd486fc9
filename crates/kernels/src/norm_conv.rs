//! A convolution of what batch norm and ReLU give, whose input is computed again in the backward pass instead of kept.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Result, Tensor};

use crate::batch_norm::{Epilogue, Running, batch_norm_train, cpu_norm_relu};
use crate::conv::{ConvShape, conv2d, cpu_convolution};
use crate::geometry::ConvGeometry;
use crate::graph::{Gradient, Operation, attach, wanted};
use crate::storage::require_f32;

const OP: &str = "norm_relu_conv2d";

static RECOMPUTES: AtomicBool = AtomicBool::new(false);

/// Lets [`norm_relu_conv2d`] keep nothing between its two parts; off unless asked for. Results are the same bits.
pub fn set_recompute(on: bool) {
    RECOMPUTES.store(on, Ordering::Relaxed);
}

/// `conv2d(relu(bn(x)), w)` by the statistics of this batch, as [`batch_norm_train`] and [`conv2d`] give it; with
/// [`set_recompute`], the convolution's input is not kept for the backward pass but computed again there, for one more
/// pass over memory.
///
/// # Shapes
/// `x` `[n, h, w, c_in]` · `gamma`, `beta` `[c_in]` · `w` `[c_out, c_in / groups, kh, kw]` · returns `[n, oh, ow, c_out]`, as
/// [`conv2d`] has them.
///
/// # Errors
/// Those of both.
pub fn norm_relu_conv2d(
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    running: Option<Running<'_>>,
    eps: f64,
    w: &Tensor,
    geometry: &ConvGeometry,
) -> Result<Tensor> {
    if !RECOMPUTES.load(Ordering::Relaxed) {
        let (features, _) = batch_norm_train(x, gamma, beta, running, eps, Epilogue::Relu)?;
        return conv2d(&features, w, None, geometry);
    }
    require_f32(OP, "w", w)?;
    let shape = ConvShape::new(OP, x, w, geometry)?;
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    let output = (shape.images, shape.output[0], shape.output[1], shape.c_out);
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let (norm, parameters, features) = crate::batch_norm::gpu_norm_relu(&x, gamma, beta, running, eps)?;
        let (conv, y) = crate::cuda::convolution(&features, &w, &shape)?;
        return attach(NormConv { norm, conv: conv.lean() }, &[&x, &parameters, &w], y, output);
    }
    let (norm, parameters, features) = cpu_norm_relu(&x, gamma, beta, running, eps)?;
    let (conv, y) = cpu_convolution(&features, &w, &shape)?;
    attach(NormConv { norm, conv }, &[&x, &parameters, &w], y, output)
}

/// A normalisation with ReLU, on inputs `x` and its parameters, that can be done again. Its backward pass does not read its
/// result.
pub(crate) trait Again: Operation {
    /// Its result, without history.
    fn again(&self, x: &Tensor, parameters: &Tensor) -> Result<Tensor>;
}

/// The two gradients of a convolution without bias.
pub(crate) trait Convolution: Send + Sync + 'static {
    /// That of the input.
    fn of_input(&self, w: &Tensor, dy: &Tensor) -> Result<Tensor>;

    /// That of the weights.
    fn of_weights(&self, x: &Tensor, w: &Tensor, dy: &Tensor) -> Result<Tensor>;
}

/// Inputs: `x`, the parameters of the normalisation as one tensor, the weights of the convolution.
struct NormConv<N, C> {
    norm: N,
    conv: C,
}

impl<N: Again, C: Convolution> Operation for NormConv<N, C> {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, inputs: &[Tensor], _y: &Tensor, gradient: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let (x, parameters, w, dy) = (&inputs[0], &inputs[1], &inputs[2], gradient.tensor());
        let dw = wanted(w, || self.conv.of_weights(&self.norm.again(x, parameters)?, w, dy))?;
        let mut gradients = match x.track_op() || parameters.track_op() {
            true => {
                let reaching = Gradient::from(self.conv.of_input(w, dy)?);
                // ReLU's gate follows from `x`, so the result is not needed; `x` has its shape.
                self.norm.backward(&inputs[..2], x, &reaching)?
            }
            false => vec![None, None],
        };
        gradients.push(dw);
        Ok(gradients)
    }
}
