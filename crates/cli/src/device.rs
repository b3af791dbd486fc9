//! `--device`, `--dtype` and `train.cpu_path`: what this build can compute on.

use anyhow::Result;
use candle_core::{DType, Device};
use serde::Serialize;
use taper_kernels::CpuPath;

use crate::config::GpuPlans;
use crate::exit::usage;

/// The device that `cpu`, `cuda`, `cuda:N` or `auto` means; `auto` is the first GPU where there is one.
pub(crate) fn parse(name: &str) -> Result<Device> {
    match (name, name.strip_prefix("cuda:").map(str::parse::<usize>)) {
        ("cpu", _) => Ok(Device::Cpu),
        ("auto", _) => Ok(first_gpu()),
        ("cuda", _) => gpu(name, 0),
        (_, Some(Ok(ordinal))) => gpu(name, ordinal),
        _ => Err(usage(format!("--device {name}: no such device; use cpu, cuda, cuda:N or auto"))),
    }
}

#[cfg(feature = "cuda")]
fn gpu(name: &str, ordinal: usize) -> Result<Device> {
    taper_kernels::gpu_device(ordinal).map_err(|error| usage(format!("--device {name}: {error}")))
}

#[cfg(not(feature = "cuda"))]
fn gpu(name: &str, _: usize) -> Result<Device> {
    Err(usage(format!(
        "--device {name}: this build computes on the CPU only; use --device cpu or auto, or build with --features cuda"
    )))
}

#[cfg(feature = "cuda")]
fn first_gpu() -> Device {
    taper_kernels::gpu_device(0).unwrap_or_else(|error| {
        tracing::warn!("{error}; computing on the CPU");
        Device::Cpu
    })
}

#[cfg(not(feature = "cuda"))]
fn first_gpu() -> Device {
    Device::Cpu
}

/// What a run's provenance says of a GPU: with the same one and the same libraries come the same bits.
#[derive(Debug, Serialize)]
pub(crate) struct GpuProvenance {
    name: String,
    compute_capability: (i32, i32),
    /// CUDA version of the driver, `1000 · major + 10 · minor`.
    driver_cuda: i32,
    /// `10000 · major + 100 · minor + patch`.
    cudnn: usize,
}

#[cfg(feature = "cuda")]
pub(crate) fn gpu_provenance(device: &Device) -> Result<Option<GpuProvenance>> {
    if device.is_cpu() {
        return Ok(None);
    }
    let gpu = taper_kernels::describe_gpu(device)?;
    let (compute_capability, driver_cuda, cudnn) = (gpu.compute_capability, gpu.driver_cuda, gpu.cudnn);
    Ok(Some(GpuProvenance { name: gpu.name, compute_capability, driver_cuda, cudnn }))
}

/// This build computes on no GPU.
#[cfg(not(feature = "cuda"))]
pub(crate) fn gpu_provenance(_: &Device) -> Result<Option<GpuProvenance>> {
    Ok(None)
}

/// Memory that a GPU has free, bytes.
#[cfg(feature = "cuda")]
pub(crate) fn free_bytes(device: &Device) -> Result<Option<u64>> {
    Ok(Some(taper_kernels::describe_gpu(device)?.memory.0 as u64))
}

/// Memory that a GPU has free; this build computes on none.
#[cfg(not(feature = "cuda"))]
pub(crate) fn free_bytes(_: &Device) -> Result<Option<u64>> {
    Ok(None)
}

/// How the device is called in a run's provenance.
pub(crate) fn name(device: &Device) -> &'static str {
    match device {
        Device::Cpu => "cpu",
        Device::Cuda(_) => "cuda",
        Device::Metal(_) => "metal",
    }
}

/// Whether there is such a type of activations, on some device; `option` is where it was asked for.
pub(crate) fn check_dtype(option: &str, name: &str) -> Result<DType> {
    match name {
        "f32" | "tf32" => Ok(DType::F32),
        "bf16" => Ok(DType::BF16),
        _ => Err(usage(format!("{option} {name:?}: no such type; use f32, or bf16 or tf32 on a GPU"))),
    }
}

/// The type of activations, if the device computes in it; from here on, products of f32 round their factors if `name` is
/// `tf32`.
pub(crate) fn dtype(option: &str, name: &str, device: &Device) -> Result<DType> {
    let dtype = check_dtype(option, name)?;
    if device.is_cpu() && name != "f32" {
        let hint = match name {
            "bf16" => {
                "; on a processor with AMX, --set train.cpu_path=amx-bf16 rounds the factors of convolutions alone"
            }
            _ => "",
        };
        return Err(usage(format!("{option} {name:?}: the CPU computes in f32; use f32, or --device cuda{hint}")));
    }
    #[cfg(feature = "cuda")]
    taper_kernels::set_tf32(name == "tf32");
    Ok(dtype)
}

/// As [`dtype`], of an option that may have been left out.
pub(crate) fn wished_dtype(name: Option<&str>, device: &Device) -> Result<Option<DType>> {
    name.map(|name| dtype("--dtype", name, device)).transpose()
}

/// The instructions that `auto` or a path's name means.
pub(crate) fn cpu_path(name: &str) -> Result<CpuPath> {
    if name == "auto" {
        return Ok(CpuPath::best());
    }
    let path =
        name.parse::<CpuPath>().map_err(|error| usage(format!("train.cpu_path = {name:?}: {error}, or auto")))?;
    match path.is_available() {
        true => Ok(path),
        false => Err(usage(format!(
            "train.cpu_path = {name:?}: this processor lacks the instructions; use auto, which is {} here",
            CpuPath::best()
        ))),
    }
}

/// How the convolutions of this process find their algorithm on a GPU.
#[cfg(feature = "cuda")]
pub(crate) fn use_plans(plans: GpuPlans) {
    taper_kernels::measure_plans(plans == GpuPlans::Measured);
}

/// This build computes on no GPU.
#[cfg(not(feature = "cuda"))]
pub(crate) fn use_plans(_: GpuPlans) {}

/// Makes the kernels of this process take the path that a configuration names.
pub(crate) fn use_cpu_path(name: &str) -> Result<()> {
    taper_kernels::set_cpu_path(cpu_path(name)?).map_err(|error| usage(error.to_string()))
}
