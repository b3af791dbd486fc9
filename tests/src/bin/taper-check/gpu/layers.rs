//! Every convolution of the networks at its real size, where cuDNN takes other engines than for small ones.

use anyhow::{Context as _, Result};
use candle_core::{DType, Device, Tensor, Var};
use taper_kernels::{ConvGeometry, Epilogue, backward_with, batch_norm_eval, conv2d};

use super::noise::Noise;
use super::report::{Check, Report};
use super::speed::Plans;
use crate::network::Model;
use crate::shapes::{ConvCase, convolutions};
use crate::timing::Size;

/// Images of a batch on the GPU; the CPU computes the first few.
const BATCH: usize = 128;
const ON_CPU: usize = 2;

/// What goes into a convolution, the same numbers for all; made and compared on the GPU, for there are many.
struct Layer {
    x: Tensor,
    w: Tensor,
    dy: Tensor,
    geometry: ConvGeometry,
    /// Whether its input is the image, whose gradient nobody asks for.
    is_first: bool,
}

impl Layer {
    /// Numbers that bf16 can hold.
    fn new(case: &ConvCase, images: usize, device: &Device) -> Result<Self> {
        let [height, width] = case.output();
        let random = |shape: [usize; 4]| {
            Tensor::randn(0f32, 1.0, &shape[..], device)?.to_dtype(DType::BF16)?.to_dtype(DType::F32)
        };
        Ok(Self {
            x: random([images, case.h, case.w, case.c_in])?,
            w: random([case.c_out, case.c_in, case.kernel, case.kernel])?,
            dy: random([images, height, width, case.c_out])?,
            geometry: case.geometry(),
            is_first: case.is_first(),
        })
    }

    /// The same for the first images alone.
    fn first(&self, images: usize) -> Result<Self> {
        let cut = |tensor: &Tensor| tensor.narrow(0, 0, images)?.contiguous();
        Ok(Self { x: cut(&self.x)?, w: self.w.clone(), dy: cut(&self.dy)?, ..*self })
    }

    /// The gradient of an input that the result is added to, with every unit behind the convolution active.
    fn added_gradient(&self, device: &Device, dtype: DType) -> Result<Tensor> {
        let place = |tensor: &Tensor, dtype| tensor.to_dtype(dtype)?.to_device(device);
        let (x, w) = (Var::from_tensor(&place(&self.x, dtype)?)?, place(&self.w, DType::F32)?);
        let channels = self.w.dim(0)?;
        let [zeros, ones] = [0f32, 1.0].map(|value| Tensor::full(value, channels, device));
        let (zeros, ones, offset) = (zeros?, ones?, Tensor::full(1e4f32, channels, device)?);
        let y = conv2d(x.as_tensor(), &w, None, &self.geometry)?;
        let epilogue = Epilogue::ReluScaleAdd { scale: 1.0, shortcut: x.as_tensor() };
        let sum = batch_norm_eval(&y, &ones, &offset, &zeros, &ones, 1e-5, epilogue)?;
        let store = backward_with(sum, place(&self.dy, dtype)?)?;
        store.get(&x).cloned().context("an input has no gradient")
    }

    /// Whether the result can be added to the input.
    fn has_shortcut(&self) -> bool {
        !self.is_first && self.x.dims() == self.dy.dims()
    }

    /// Result, gradient of the weights and, but for a first layer, gradient of the input.
    fn passes(&self, device: &Device, dtype: DType) -> Result<Vec<Tensor>> {
        let place = |tensor: &Tensor, dtype| tensor.to_dtype(dtype)?.to_device(device);
        let x = Var::from_tensor(&place(&self.x, dtype)?)?;
        let input = if self.is_first { x.as_detached_tensor() } else { x.as_tensor().clone() };
        let w = Var::from_tensor(&place(&self.w, DType::F32)?)?;
        let y = conv2d(&input, w.as_tensor(), None, &self.geometry)?;
        let result = y.detach();
        let store = backward_with(y, place(&self.dy, dtype)?)?;
        let gradient = |var: &Var| store.get(var).cloned().context("an input has no gradient");
        let mut passes = vec![result, gradient(&w)?];
        if !self.is_first {
            passes.push(gradient(&x)?);
        }
        if self.has_shortcut() {
            passes.push(self.added_gradient(device, dtype)?);
        }
        Ok(passes)
    }
}

/// Root mean square of the difference over that of the expected values; infinite where a value is none.
fn error(found: &Tensor, expected: &Tensor) -> Result<f64> {
    let size = |tensor: &Tensor| Ok::<_, anyhow::Error>(tensor.sqr()?.mean_all()?.to_scalar::<f32>()?);
    let expected = expected.to_dtype(DType::F32)?;
    let found = found.to_device(expected.device())?.to_dtype(DType::F32)?;
    let error = (f64::from(size(&(found - &expected)?)?) / f64::from(size(&expected)?)).sqrt();
    Ok(if error.is_nan() { f64::INFINITY } else { error })
}

/// f32 on the GPU against the CPU for a small batch; then, for a whole one, bf16 against f32 on the GPU, with the plans that
/// training would take.
pub(super) fn compare(device: &Device, size: Size, noise: &mut Noise, report: &mut Report) -> Result<()> {
    device.set_seed(noise.next())?;
    for model in [Model::BaseNet, Model::ResNet18, Model::ResNet50] {
        for case in convolutions(model) {
            let name = format!("{model} {}x{} {} to {}", case.h, case.w, case.c_in, case.c_out);
            let name = format!("{name} by {} stride {}", case.kernel, case.stride);
            let check = match errors(&case.sized(size), device, size) {
                Ok(errors) => Check::of(name, errors),
                Err(error) => Check::failed(name, &format!("{error:#}")),
            };
            report.add(check);
        }
    }
    Ok(())
}

fn errors(case: &ConvCase, device: &Device, size: Size) -> Result<Vec<(String, f64, f64)>> {
    const NAMES: [&str; 4] = ["result", "weight gradient", "input gradient", "added input gradient"];

    let layer = Layer::new(case, size.at_most(BATCH, 4), device)?;
    let mut errors = Vec::new();
    let mut add = |way: &str, found: &[Tensor], expected: &[Tensor], tolerance: f64| {
        for (name, (found, expected)) in NAMES.iter().zip(found.iter().zip(expected)) {
            errors.push((format!("{name}, {way}"), error(found, expected)?, tolerance));
        }
        Ok::<_, anyhow::Error>(())
    };
    let few = layer.first(ON_CPU)?;
    add("f32", &few.passes(device, DType::F32)?, &few.passes(&Device::Cpu, DType::F32)?, 3e-5)?;
    let expected = layer.passes(device, DType::F32)?;
    for (way, plans) in [("bf16", Plans::Heuristic), ("bf16, measured plan", Plans::Measured)] {
        plans.switch();
        let found = layer.passes(device, DType::BF16);
        Plans::Heuristic.switch();
        add(way, &found?, &expected, 4e-3)?;
    }
    Ok(errors)
}
