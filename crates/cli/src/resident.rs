//! Data sets that a GPU keeps from the first step to the last.

use anyhow::Result;
use taper_train::{Images, Source};

/// Training and validation images as the loop goes through them: on a GPU as bytes, if it has room for them, they are no
/// more than `cache_mib`, and all that is done to them can be done there.
///
/// # Errors
/// What the driver refuses.
#[cfg(feature = "cuda")]
pub(crate) fn sources([train, val]: [Images; 2], cache_mib: u64) -> Result<[Box<dyn Source>; 2]> {
    use taper_train::ResidentImages;

    if num_bytes(&train, cache_mib) == 0 {
        return Ok([Box::new(train), Box::new(val)]);
    }
    let Some(resident) = ResidentImages::new(train.clone())? else { return Ok([Box::new(train), Box::new(val)]) };
    let val: Box<dyn Source> = match resident.share(val.clone()) {
        Some(shared) => Box::new(shared),
        None => Box::new(val),
    };
    Ok([Box::new(resident), val])
}

/// Training and validation images as the loop goes through them.
///
/// # Errors
/// None in this build.
#[cfg(not(feature = "cuda"))]
pub(crate) fn sources([train, val]: [Images; 2], _: u64) -> Result<[Box<dyn Source>; 2]> {
    Ok([Box::new(train), Box::new(val)])
}

/// Bytes of the images' set on their device; 0 where it is not kept there.
#[cfg(feature = "cuda")]
pub(crate) fn num_bytes(images: &Images, cache_mib: u64) -> u64 {
    /// The part of the free memory that a set may take: activations need the most of it.
    const SHARE: u64 = 4;

    let free = crate::device::free_bytes(&images.input.device).ok().flatten().unwrap_or(0);
    let wanted = taper_train::ResidentImages::num_bytes(images).unwrap_or(0) as u64;
    let most = (free / SHARE).min(cache_mib.saturating_mul(1 << 20));
    if images.input.device.is_cuda() && wanted <= most { wanted } else { 0 }
}

/// Bytes of the images' set on their device; 0 where it is not kept there.
#[cfg(not(feature = "cuda"))]
pub(crate) fn num_bytes(_: &Images, _: u64) -> u64 {
    0
}
