use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, PushKernelArg};
use candle_core::{DType, Result, Tensor};

use super::gpu::{Gpu, blocks, over, suffix};
use super::memory::address;
use crate::geometry::Padding;
use crate::graph::{Gradient, Operation, attach, wanted};
use crate::pool::PoolShape;

const MODULE: &str = "pool";
const MAX: &str = "max_pool2d";
const AVERAGE: &str = "avg_pool2d";
const GLOBAL: &str = "global_avg_pool";

/// Every size of a pooling; the kernels' struct of the same name.
#[repr(C)]
#[derive(Clone, Copy)]
struct Pool {
    images: i32,
    input: [i32; 2],
    channels: i32,
    output: [i32; 2],
    kernel: [i32; 2],
    stride: [i32; 2],
    padding: [i32; 2],
}

// SAFETY: the struct is laid out as the one in `cuda/pool.cu`: twelve ints.
unsafe impl DeviceRepr for Pool {}

impl Pool {
    fn of(shape: &PoolShape) -> Self {
        let pair = |values: [usize; 2]| values.map(|value| value as i32);
        let geometry = &shape.geometry;
        Self {
            images: shape.images as i32,
            input: pair(shape.input),
            channels: shape.channels as i32,
            output: pair(shape.output),
            kernel: pair(geometry.kernel),
            stride: pair(geometry.stride),
            padding: pair(geometry.padding),
        }
    }
}

/// Max pooling; where each maximum came from is kept as one byte, so that the way back reads no input.
pub(crate) fn max_pool2d(x: &Tensor, shape: &PoolShape) -> Result<Tensor> {
    let [kh, kw] = shape.geometry.kernel;
    if kh * kw > 256 {
        return Err(crate::storage::option_error(MAX, "kernel", kh * kw, "at most 256 positions on a GPU"));
    }
    let gpu = Gpu::of(MAX, "x", x)?;
    let x = x.contiguous()?;
    let (y, winner) = (gpu.empty(x.dtype(), shape.output_shape())?, gpu.empty(DType::U8, shape.output_shape())?);
    let (from, pool) = (address(MAX, "x", &x)?, Pool::of(shape));
    let function = gpu.function(MODULE, &format!("max_pool_{}", suffix(x.dtype())))?;
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&from).arg(&y.address).arg(&winner.address).arg(&pool);
    // SAFETY: the arguments are those of the kernel; input and outputs have the sizes in `pool`.
    unsafe { call.launch(over(shape.images * shape.output_len())) }.w()?;
    attach(MaxPool { shape: *shape, winner: winner.into_tensor() }, &[&x], y, shape.output_shape())
}

struct MaxPool {
    shape: PoolShape,
    winner: Tensor,
}

impl Operation for MaxPool {
    fn name(&self) -> &'static str {
        MAX
    }

    fn backward(&self, inputs: &[Tensor], _y: &Tensor, dy: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let x = &inputs[0];
        let dx = wanted(x, || {
            let gpu = Gpu::of(MAX, "x", x)?;
            let dx = gpu.empty(x.dtype(), x.shape())?;
            let (from, winner) = (address(MAX, "gradient", dy.tensor())?, address(MAX, "winner", &self.winner)?);
            let pool = Pool::of(&self.shape);
            let function = gpu.function(MODULE, &format!("max_pool_gradient_{}", suffix(x.dtype())))?;
            let mut call = gpu.stream.launch_builder(&function);
            call.arg(&from).arg(&winner).arg(&dx.address).arg(&pool);
            // SAFETY: the arguments are those of the kernel; all tensors have the sizes in `pool`.
            unsafe { call.launch(over(x.elem_count())) }.w()?;
            Ok(dx.into_tensor())
        })?;
        Ok(vec![dx])
    }
}

/// Average pooling.
pub(crate) fn avg_pool2d(x: &Tensor, shape: &PoolShape, padding: Padding) -> Result<Tensor> {
    let gpu = Gpu::of(AVERAGE, "x", x)?;
    let x = x.contiguous()?;
    let y = gpu.empty(x.dtype(), shape.output_shape())?;
    let op = AveragePool { shape: *shape, padding };
    let items = shape.images * shape.output_len();
    op.run(&gpu, &format!("avg_pool_{}", suffix(x.dtype())), [address(AVERAGE, "x", &x)?, y.address], items)?;
    attach(op, &[&x], y, shape.output_shape())
}

struct AveragePool {
    shape: PoolShape,
    padding: Padding,
}

impl AveragePool {
    fn run(&self, gpu: &Gpu, kernel: &str, [from, to]: [u64; 2], items: usize) -> Result<()> {
        let (pool, counted) = (Pool::of(&self.shape), i32::from(self.padding == Padding::Counted));
        let function = gpu.function(MODULE, kernel)?;
        let mut call = gpu.stream.launch_builder(&function);
        call.arg(&from).arg(&to).arg(&pool).arg(&counted);
        // SAFETY: the arguments are those of both kernels that come here; the tensors have the sizes in `pool`.
        unsafe { call.launch(over(items)) }.w()?;
        Ok(())
    }
}

impl Operation for AveragePool {
    fn name(&self) -> &'static str {
        AVERAGE
    }

    fn backward(&self, inputs: &[Tensor], _y: &Tensor, dy: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let x = &inputs[0];
        let dx = wanted(x, || {
            let gpu = Gpu::of(AVERAGE, "x", x)?;
            let dx = gpu.empty(x.dtype(), x.shape())?;
            let kernel = format!("avg_pool_gradient_{}", suffix(x.dtype()));
            self.run(&gpu, &kernel, [address(AVERAGE, "gradient", dy.tensor())?, dx.address], x.elem_count())?;
            Ok(dx.into_tensor())
        })?;
        Ok(vec![dx])
    }
}

/// The mean of each channel over the whole image.
pub(crate) fn global_avg_pool(x: &Tensor, [images, pixels, channels]: [usize; 3]) -> Result<Tensor> {
    let gpu = Gpu::of(GLOBAL, "x", x)?;
    let x = x.contiguous()?;
    let y = gpu.empty(x.dtype(), (images, channels))?;
    let from = address(GLOBAL, "x", &x)?;
    let sizes = [images, pixels, channels].map(|size| size as i32);
    let function = gpu.function(MODULE, &format!("global_avg_pool_{}", suffix(x.dtype())))?;
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&from).arg(&y.address).arg(&sizes[0]).arg(&sizes[1]).arg(&sizes[2]);
    // SAFETY: the arguments are those of the kernel; the tensors have the sizes that are passed.
    unsafe { call.launch(blocks([channels.div_ceil(32), images, 1], [32, 8])) }.w()?;
    attach(GlobalPool([images, pixels, channels]), &[&x], y, (images, channels))
}

struct GlobalPool([usize; 3]);

impl Operation for GlobalPool {
    fn name(&self) -> &'static str {
        GLOBAL
    }

    fn backward(&self, inputs: &[Tensor], _y: &Tensor, dy: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let x = &inputs[0];
        let dx = wanted(x, || {
            let gpu = Gpu::of(GLOBAL, "x", x)?;
            let dx = gpu.empty(x.dtype(), x.shape())?;
            let from = address(GLOBAL, "gradient", dy.tensor())?;
            let sizes = self.0.map(|size| size as i32);
            let function = gpu.function(MODULE, &format!("global_avg_pool_gradient_{}", suffix(x.dtype())))?;
            let mut call = gpu.stream.launch_builder(&function);
            call.arg(&from).arg(&dx.address).arg(&sizes[0]).arg(&sizes[1]).arg(&sizes[2]);
            // SAFETY: the arguments are those of the kernel; the tensors have the sizes that are passed.
            unsafe { call.launch(over(x.elem_count())) }.w()?;
            Ok(dx.into_tensor())
        })?;
        Ok(vec![dx])
    }
}
