use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, PushKernelArg};
use candle_core::{DType, Device, Result, Tensor};

use super::gpu::{Gpu, over, suffix};
use super::memory::address;
use crate::storage::{option_error, require, shape_error};

const OP: &str = "images_from_bytes";

/// Where an image is cut from its source, and whether it is mirrored afterwards. Whoever owns the randomness draws it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CropFlip {
    /// Column of the source at the left edge; negative in the padding, which is black.
    pub x: i32,
    /// Row of the source at the upper edge; negative in the padding.
    pub y: i32,
    /// 1 to mirror left and right, else 0.
    pub flip: i32,
    /// Fills the struct up to 16 bytes.
    pub unused: i32,
}

// SAFETY: four ints, as CUDA's `int4`.
unsafe impl DeviceRepr for CropFlip {}

/// Bytes of images on the device as what a network takes: cut, mirrored, normalised.
///
/// Each value is `byte · scale − offset` in f32, the same bits as on the CPU, then rounded to `dtype`.
///
/// # Shapes
/// `bytes` `[count, h, w, 3]` u8 on a GPU · `crops` one for each image, or none to take all as they are · `size` height
/// and width of the result · returns `[count, height, width, 3]`, f32 or bf16.
///
/// # Errors
/// Another shape or type; more or fewer crops than images; no crops although the sizes differ.
pub fn images_from_bytes(
    bytes: &Tensor,
    crops: &[CropFlip],
    size: [usize; 2],
    (scale, offset): ([f32; 3], [f32; 3]),
    dtype: DType,
) -> Result<Tensor> {
    require(OP, "bytes", bytes, DType::U8)?;
    let &[count, height, width, 3] = bytes.dims() else {
        return Err(shape_error(OP, "bytes", bytes, "[count, h, w, 3]".into()));
    };
    let fits = if crops.is_empty() { size == [height, width] } else { crops.len() == count };
    if !fits {
        let expected = format!("{count}, one for each image, or none where images keep their size");
        return Err(option_error(OP, "crops", crops.len(), expected));
    }
    if !matches!(bytes.device(), Device::Cuda(_)) || !matches!(dtype, DType::F32 | DType::BF16) {
        return Err(option_error(OP, "dtype", format!("{dtype:?}"), "F32 or BF16, of bytes on a GPU"));
    }
    let (gpu, bytes) = (Gpu::of(OP, "bytes", bytes)?, bytes.contiguous()?);
    let images = gpu.empty(dtype, (count, size[0], size[1], 3))?;
    let cuts = if crops.is_empty() { None } else { Some(gpu.stream.clone_htod(crops).w()?) };
    let (from, null) = (address(OP, "bytes", &bytes)?, 0u64);
    let sizes = [count, height, width, size[0], size[1], 3].map(|size| size as i32);
    let function = gpu.function("images", &format!("images_{}", suffix(dtype)))?;
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&from).arg(&null);
    match &cuts {
        Some(cuts) => call.arg(cuts),
        None => call.arg(&null),
    };
    call.arg(&images.address);
    for number in &sizes {
        call.arg(number);
    }
    for number in scale.iter().chain(&offset) {
        call.arg(number);
    }
    // SAFETY: the arguments are those of the kernel: source and result have the sizes that are passed, and there is a
    // crop for each image or none.
    unsafe { call.launch(over(count * size[0] * size[1])) }.w()?;
    Ok(images.into_tensor())
}
