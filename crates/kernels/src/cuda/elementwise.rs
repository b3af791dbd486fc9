use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
use candle_core::{DType, Result, Tensor};

use super::gpu::{Gpu, blocks, over, suffix};
use super::memory::{Fresh, address};
use crate::graph::{Gradient, Operation, attach, wanted};

const MODULE: &str = "elementwise";
const ADD: &str = "add_gradient";
const RELU: &str = "relu";
const FLATTEN: &str = "flatten_chw";

/// Rows that one block of the column sums takes at least.
const SUM_ROWS: usize = 256;

/// A tensor like another one, of one value.
pub(crate) fn fill(like: &Tensor, value: f32) -> Result<Tensor> {
    let gpu = Gpu::of("fill", "like", like)?;
    let (fresh, len) = (gpu.empty(like.dtype(), like.shape())?, like.elem_count());
    let function = gpu.function(MODULE, &format!("fill_{}", suffix(like.dtype())))?;
    let count = len as i64;
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&fresh.address).arg(&value).arg(&count);
    // SAFETY: the arguments are those of the kernel, which writes `len` elements of a block of that length.
    unsafe { call.launch(over(len)) }.w()?;
    Ok(fresh.into_tensor())
}

/// The sum of two gradients.
pub(crate) fn plus(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(ADD, "sum", left)?;
    let fresh = gpu.empty(left.dtype(), left.shape())?;
    add(&gpu, left, right, fresh.address)?;
    Ok(fresh.into_tensor())
}

/// Adds a gradient to one whose memory is nobody else's.
pub(crate) fn plus_assign(sum: &Tensor, term: &Tensor) -> Result<()> {
    let gpu = Gpu::of(ADD, "sum", sum)?;
    add(&gpu, sum, term, address(ADD, "sum", sum)?)
}

fn add(gpu: &Gpu, left: &Tensor, right: &Tensor, sum: u64) -> Result<()> {
    let (a, b) = (address(ADD, "sum", left)?, address(ADD, "term", right)?);
    let function = gpu.function(MODULE, &format!("add_{}", suffix(left.dtype())))?;
    let len = left.elem_count();
    let count = len as i64;
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&a).arg(&b).arg(&sum).arg(&count);
    // SAFETY: the arguments are those of the kernel; all three tensors have `len` elements of one type, and it allows the
    // sum to lie where a term does.
    unsafe { call.launch(over(len)) }.w()?;
    Ok(())
}

/// ReLU of a contiguous tensor.
pub(crate) fn relu(x: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(RELU, "x", x)?;
    let x = x.contiguous()?;
    let y = gpu.empty(x.dtype(), x.shape())?;
    let function = gpu.function(MODULE, &format!("relu_{}", suffix(x.dtype())))?;
    let (from, len) = (address(RELU, "x", &x)?, x.elem_count());
    let count = len as i64;
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&from).arg(&y.address).arg(&count);
    // SAFETY: the arguments are those of the kernel; input and output have `len` elements of one type.
    unsafe { call.launch(over(len)) }.w()?;
    attach(Relu, &[&x], y, x.shape())
}

struct Relu;

impl Operation for Relu {
    fn name(&self) -> &'static str {
        RELU
    }

    fn backward(&self, inputs: &[Tensor], y: &Tensor, dy: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let dx = wanted(&inputs[0], || {
            let gpu = Gpu::of(RELU, "y", y)?;
            let dx = gpu.empty(y.dtype(), y.shape())?;
            let (gate, from) = (address(RELU, "y", y)?, address(RELU, "gradient", dy.tensor())?);
            let function = gpu.function(MODULE, &format!("relu_gradient_{}", suffix(y.dtype())))?;
            let count = y.elem_count() as i64;
            let mut call = gpu.stream.launch_builder(&function);
            call.arg(&gate).arg(&from).arg(&dx.address).arg(&count);
            // SAFETY: the arguments are those of the kernel; all three tensors have `count` elements of one type.
            unsafe { call.launch(over(y.elem_count())) }.w()?;
            Ok(dx.into_tensor())
        })?;
        Ok(vec![dx])
    }
}

/// `[n, h, w, c]` to `[n, c · h · w]`, in that order.
pub(crate) fn flatten_chw(x: &Tensor, [images, pixels, channels]: [usize; 3]) -> Result<Tensor> {
    let gpu = Gpu::of(FLATTEN, "x", x)?;
    let x = x.contiguous()?;
    let y = transpose_images(&gpu, &x, [images, pixels, channels], (images, pixels * channels))?;
    attach(Flatten([images, pixels, channels]), &[&x], y, (images, pixels * channels))
}

struct Flatten([usize; 3]);

impl Operation for Flatten {
    fn name(&self) -> &'static str {
        FLATTEN
    }

    fn backward(&self, inputs: &[Tensor], _y: &Tensor, dy: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let (x, [images, pixels, channels]) = (&inputs[0], self.0);
        let dx = wanted(x, || {
            let gpu = Gpu::of(FLATTEN, "x", x)?;
            Ok(transpose_images(&gpu, dy.tensor(), [images, channels, pixels], x.shape())?.into_tensor())
        })?;
        Ok(vec![dx])
    }
}

/// Transposes each `[rows, columns]` matrix of a batch.
fn transpose_images(
    gpu: &Gpu,
    x: &Tensor,
    [images, rows, columns]: [usize; 3],
    shape: impl Into<candle_core::Shape>,
) -> Result<Fresh> {
    /// Side of a tile.
    const TILE: usize = 32;

    let y = gpu.empty(x.dtype(), shape)?;
    let from = address(FLATTEN, "x", x)?;
    let function = gpu.function(MODULE, &format!("transpose_images_{}", suffix(x.dtype())))?;
    let sizes = [images, rows, columns].map(|size| size as i32);
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&from).arg(&y.address).arg(&sizes[0]).arg(&sizes[1]).arg(&sizes[2]);
    // SAFETY: the arguments are those of the kernel; both sides have `images · rows · columns` elements of one type.
    unsafe { call.launch(blocks([columns.div_ceil(TILE), rows.div_ceil(TILE), images], [32, 8])) }.w()?;
    Ok(y)
}

/// Sum of each column of `[rows, columns]` in f32, all leading axes taken as rows.
pub(crate) fn column_sums(op: &'static str, values: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(op, "gradient", values)?;
    let columns = values.dims().last().copied().unwrap_or(1);
    let rows = values.elem_count() / columns.max(1);
    // As many parts as fill the device; which follows from the shape, so that sums have one order.
    let rows_per_split = rows.div_ceil(64).max(SUM_ROWS);
    let splits = rows.div_ceil(rows_per_split).max(1);
    let (parts, sums) = (gpu.empty(DType::F32, (splits, columns))?, gpu.empty(DType::F32, columns)?);
    let from = address(op, "gradient", values)?;
    let function = gpu.function(MODULE, &format!("column_sums_{}", suffix(values.dtype())))?;
    let sizes = [rows, columns, rows_per_split, splits].map(|size| size as i32);
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&from).arg(&parts.address).arg(&sizes[0]).arg(&sizes[1]).arg(&sizes[2]);
    // SAFETY: the arguments are those of the kernel; `parts` has room for `splits · columns` sums.
    unsafe { call.launch(blocks([columns.div_ceil(32), splits, 1], [32, 8])) }.w()?;
    let function = gpu.function(MODULE, "column_sums_finish")?;
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&parts.address).arg(&sizes[3]).arg(&sizes[1]).arg(&sums.address);
    // SAFETY: as above; `sums` has room for `columns`.
    unsafe { call.launch(over(columns)) }.w()?;
    Ok(sums.into_tensor())
}

/// Adds one value per column to each row, in place.
pub(super) fn add_bias(gpu: &Gpu, y: u64, bias: &Tensor, dtype: DType, [rows, columns]: [usize; 2]) -> Result<()> {
    let bias = address("add_bias", "bias", bias)?;
    let function = gpu.function(MODULE, &format!("add_bias_{}", suffix(dtype)))?;
    let (rows_arg, columns_arg) = (rows as i64, columns as i32);
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&y).arg(&bias).arg(&rows_arg).arg(&columns_arg);
    // SAFETY: the arguments are those of the kernel; callers pass the start of `rows · columns` elements, which nobody
    // else reads yet, and a bias of `columns`.
    unsafe { call.launch(over(rows * columns)) }.w()?;
    Ok(())
}

/// f32 to bf16 or back.
pub(super) fn cast(gpu: &Gpu, x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    let y = gpu.empty(dtype, x.shape())?;
    let from = address("cast", "x", x)?;
    let function = gpu.function(MODULE, &format!("cast_{}_{}", suffix(x.dtype()), suffix(dtype)))?;
    let count = x.elem_count() as i64;
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&from).arg(&y.address).arg(&count);
    // SAFETY: the arguments are those of the kernel; input and output have `count` elements of the types in its name.
    unsafe { call.launch(over(x.elem_count())) }.w()?;
    Ok(y.into_tensor())
}
