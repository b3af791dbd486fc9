use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, PushKernelArg};
use candle_core::{DType, Device, Result, Tensor};

use super::gpu::{Gpu, over, suffix};
use super::memory::address;
use crate::storage::{option_error, require, shape_error};

const OP: &str = "images_from_bytes";

/// Which image is cut where, and whether it is mirrored afterwards. Whoever owns the randomness draws it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CropFlip {
    /// Column of the source at the left edge; negative in the padding, which is black.
    pub x: i32,
    /// Row of the source at the upper edge; negative in the padding.
    pub y: i32,
    /// 1 to mirror left and right, else 0.
    pub flip: i32,
    /// Which of the images is the source, from 0.
    pub image: i32,
}

// SAFETY: four ints, as CUDA's `int4`.
unsafe impl DeviceRepr for CropFlip {}

/// Bytes of images on the device as what a network takes: cut, mirrored, normalised.
///
/// Each value is `byte · scale − offset` in f32, the same bits as on the CPU, then rounded to `dtype`.
///
/// # Shapes
/// `bytes` `[count, h, w, 3]` u8 on a GPU · `crops` `[n]`, one for each result, or none to take all as they are · `size`
/// height and width of the result · returns `[n, height, width, 3]`, f32 or bf16.
///
/// # Errors
/// Another shape or type; an image that is not there; no crops although the sizes differ.
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
    if crops.is_empty() && size != [height, width] {
        return Err(option_error(OP, "crops", "empty", "one for each image, where these do not keep their size"));
    }
    if let Some(crop) = crops.iter().find(|crop| usize::try_from(crop.image).map_or(true, |image| image >= count)) {
        return Err(option_error(OP, "image", crop.image, format!("0 to {}", count.saturating_sub(1))));
    }
    let number = if crops.is_empty() { count } else { crops.len() };
    if !matches!(bytes.device(), Device::Cuda(_)) || !matches!(dtype, DType::F32 | DType::BF16) {
        return Err(option_error(OP, "dtype", format!("{dtype:?}"), "F32 or BF16, of bytes on a GPU"));
    }
    let (gpu, bytes) = (Gpu::of(OP, "bytes", bytes)?, bytes.contiguous()?);
    let images = gpu.empty(dtype, (number, size[0], size[1], 3))?;
    let cuts = if crops.is_empty() { None } else { Some(gpu.stream.clone_htod(crops).w()?) };
    let (from, null) = (address(OP, "bytes", &bytes)?, 0u64);
    let sizes = [number, height, width, size[0], size[1], 3].map(|size| size as i32);
    let function = gpu.function("images", &format!("images_{}", suffix(dtype)))?;
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&from);
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
    // crop for each result, of an image that is there, or none.
    unsafe { call.launch(over(number * size[0] * size[1])) }.w()?;
    Ok(images.into_tensor())
}
