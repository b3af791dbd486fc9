//! Layers: parameters with PyTorch's names and defaults around the ops of `taper-kernels`.

use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Result, Tensor};
use candle_nn::{Init, ModuleT, VarBuilder};
use taper_kernels::{ConvGeometry, Epilogue, Running};

/// A convolution. Most stand before a batch norm, which has a shift of its own, and have no bias.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Tensor,       // [c_out, c_in / groups, kh, kw]
    bias: Option<Tensor>, // [c_out]
    geometry: ConvGeometry,
}

impl Conv2d {
    /// Weights from `U(±1/√fan_in)`, PyTorch's default (`kaiming_uniform_` with a = √5).
    ///
    /// # Errors
    /// Channels that `groups` does not divide; a weight of another shape in `vb`.
    pub fn new(c_in: usize, c_out: usize, kernel: usize, geometry: ConvGeometry, vb: VarBuilder) -> Result<Self> {
        let fan_in = c_in / geometry.groups.max(1) * kernel * kernel;
        Self::with_init(c_in, c_out, kernel, geometry, uniform_by_fan_in(fan_in), vb)
    }

    /// As [`Conv2d::new`], with a bias from the same distribution.
    ///
    /// # Errors
    /// Those of [`Conv2d::new`].
    pub fn with_bias(c_in: usize, c_out: usize, kernel: usize, geometry: ConvGeometry, vb: VarBuilder) -> Result<Self> {
        let init = uniform_by_fan_in(c_in / geometry.groups.max(1) * kernel * kernel);
        let conv = Self::with_init(c_in, c_out, kernel, geometry, init, vb.clone())?;
        Ok(Self { bias: Some(vb.get_with_hints(c_out, "bias", init)?), ..conv })
    }

    /// As [`Conv2d::new`], with weights drawn from `init`.
    ///
    /// # Errors
    /// Those of [`Conv2d::new`].
    pub fn with_init(
        c_in: usize,
        c_out: usize,
        kernel: usize,
        geometry: ConvGeometry,
        init: Init,
        vb: VarBuilder,
    ) -> Result<Self> {
        let groups = geometry.groups;
        if groups == 0 || !c_in.is_multiple_of(groups) || !c_out.is_multiple_of(groups) {
            candle_core::bail!("a convolution {c_in} -> {c_out} cannot have {groups} groups; choose a common divisor");
        }
        let weight = vb.get_with_hints((c_out, c_in / groups, kernel, kernel), "weight", init)?;
        Ok(Self { weight, bias: None, geometry })
    }

    /// `[n, h, w, c_in]` → `[n, h', w', c_out]`.
    ///
    /// # Errors
    /// An input of another shape or type.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        taper_kernels::conv2d(images, &self.weight, self.bias.as_ref(), &self.geometry)
    }
}

/// A fully connected layer, `y = x·Wᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor, // [out, in]
    bias: Tensor,   // [out]
}

impl Linear {
    /// Weights and bias from `U(±1/√in)`, PyTorch's default.
    ///
    /// # Errors
    /// Tensors of another shape in `vb`.
    pub fn new(num_inputs: usize, num_outputs: usize, vb: VarBuilder) -> Result<Self> {
        Self::with_init(num_inputs, num_outputs, uniform_by_fan_in(num_inputs), vb)
    }

    /// As [`Linear::new`] with zeros: all classes are equally likely at first.
    ///
    /// # Errors
    /// Tensors of another shape in `vb`.
    pub fn with_zeros(num_inputs: usize, num_outputs: usize, vb: VarBuilder) -> Result<Self> {
        Self::with_init(num_inputs, num_outputs, Init::Const(0.0), vb)
    }

    fn with_init(num_inputs: usize, num_outputs: usize, init: Init, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            weight: vb.get_with_hints((num_outputs, num_inputs), "weight", init)?,
            bias: vb.get_with_hints(num_outputs, "bias", init)?,
        })
    }

    /// `[n, in]` → `[n, out]`.
    ///
    /// # Errors
    /// An input of another shape or type.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        taper_kernels::linear(features, &self.weight, Some(&self.bias))
    }
}

impl ModuleT for Linear {
    fn forward_t(&self, features: &Tensor, _: bool) -> Result<Tensor> {
        self.forward(features)
    }
}

/// `U(±1/√fan_in)`.
fn uniform_by_fan_in(fan_in: usize) -> Init {
    let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
    Init::Uniform { lo: -bound, up: bound }
}

/// Batch normalisation over all but the last dimension (Ioffe and Szegedy 2015), with what follows it in the same pass.
///
/// As PyTorch's: momentum 0.1, epsilon 1e-5, biased variance for normalising, unbiased for the running statistics.
/// Over parameters that are no variables (see [`seeded_frozen`](crate::seeded_frozen)) it is frozen: it normalises by its running statistics in training
/// too, and leaves them as they are.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: Tensor,
}

impl BatchNorm {
    const EPSILON: f64 = 1e-5;
    const MOMENTUM: f64 = 0.1;

    /// Scale 1, shift 0, running mean 0 and variance 1.
    ///
    /// # Errors
    /// Tensors of another shape in `vb`.
    pub fn new(num_channels: usize, vb: VarBuilder) -> Result<Self> {
        Self::with_scale(1.0, num_channels, vb)
    }

    /// As [`BatchNorm::new`] with scale 0: at first, what comes before it has no effect.
    ///
    /// # Errors
    /// Tensors of another shape in `vb`.
    pub fn with_zero_scale(num_channels: usize, vb: VarBuilder) -> Result<Self> {
        Self::with_scale(0.0, num_channels, vb)
    }

    fn with_scale(scale: f64, num_channels: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            weight: vb.get_with_hints(num_channels, "weight", Init::Const(scale))?,
            bias: vb.get_with_hints(num_channels, "bias", Init::Const(0.0))?,
            running_mean: vb.get_with_hints(num_channels, "running_mean", Init::Const(0.0))?,
            running_var: vb.get_with_hints(num_channels, "running_var", Init::Const(1.0))?,
            num_batches_tracked: vb.get_with_hints_dtype((), "num_batches_tracked", Init::Const(0.0), DType::I64)?,
        })
    }

    /// `[.., c]` → `[.., c]`. In training the batch's own statistics normalise, and the running ones follow them, unless
    /// the layer is frozen.
    ///
    /// # Errors
    /// An input of another shape or type; one value per channel in training.
    pub fn forward_t(&self, features: &Tensor, epilogue: Epilogue, train: bool) -> Result<Tensor> {
        if !train || self.is_frozen() {
            let (mean, variance) = (&self.running_mean, &self.running_var);
            return taper_kernels::batch_norm_eval(
                features,
                &self.weight,
                &self.bias,
                mean,
                variance,
                Self::EPSILON,
                epilogue,
            );
        }
        let (weight, bias, running) = (&self.weight, &self.bias, Some(self.running()));
        let (normalised, _) =
            taper_kernels::batch_norm_train(features, weight, bias, running, Self::EPSILON, epilogue)?;
        self.num_batches_tracked.inplace_op1(&Increment)?;
        Ok(normalised)
    }

    /// `conv(relu(bn(features)))`. In training, what lies between the two need not be kept, see
    /// [`taper_kernels::set_recompute`].
    ///
    /// # Errors
    /// As [`BatchNorm::forward_t`], and the convolution's.
    pub fn relu_conv(&self, features: &Tensor, conv: &Conv2d, train: bool) -> Result<Tensor> {
        if !train || self.is_frozen() || conv.bias.is_some() {
            return conv.forward(&self.forward_t(features, Epilogue::Relu, train)?);
        }
        let (parameters, running) = ([&self.weight, &self.bias], Some(self.running()));
        let y = taper_kernels::norm_relu_conv2d(
            features,
            parameters,
            running,
            Self::EPSILON,
            &conv.weight,
            &conv.geometry,
        )?;
        self.num_batches_tracked.inplace_op1(&Increment)?;
        Ok(y)
    }

    fn running(&self) -> Running<'_> {
        Running { mean: &self.running_mean, variance: &self.running_var, momentum: Self::MOMENTUM }
    }

    fn is_frozen(&self) -> bool {
        !self.weight.is_variable() && !self.bias.is_variable()
    }
}

/// Adds one to a counter.
struct Increment;

impl InplaceOp1 for Increment {
    fn name(&self) -> &'static str {
        "increment"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        match storage {
            CpuStorage::I64(values) => values.iter_mut().for_each(|value| *value += 1),
            _ => candle_core::bail!("num_batches_tracked is not i64"),
        }
        Ok(())
    }
}
