//! `--device`, `--dtype` and `train.cpu_path`: what this build can compute on.

use anyhow::Result;
use candle_core::Device;
use taper_kernels::CpuPath;

use crate::exit::usage;

/// The device that `cpu`, `cuda`, `cuda:N` or `auto` means.
pub(crate) fn parse(name: &str) -> Result<Device> {
    match name.split_once(':').unwrap_or((name, "0")) {
        ("cpu" | "auto", "0") if !name.contains(':') => Ok(Device::Cpu),
        ("cuda", ordinal) if ordinal.parse::<usize>().is_ok() => {
            Err(usage(format!("--device {name}: this build computes on the CPU only; use --device cpu or auto")))
        }
        _ => Err(usage(format!("--device {name}: no such device; use cpu, cuda, cuda:N or auto"))),
    }
}

/// How the device is called in a run's provenance.
pub(crate) fn name(device: &Device) -> &'static str {
    match device {
        Device::Cpu => "cpu",
        Device::Cuda(_) => "cuda",
        Device::Metal(_) => "metal",
    }
}

/// The type of activations. f32 is the only one so far.
pub(crate) fn check_dtype(name: &str) -> Result<()> {
    match name {
        "f32" => Ok(()),
        "bf16" => Err(usage("train.dtype = \"bf16\": this build computes in f32 only; use f32")),
        _ => Err(usage(format!("train.dtype = {name:?}: no such type; use f32"))),
    }
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

/// Makes the kernels of this process take the path that a configuration names.
pub(crate) fn use_cpu_path(name: &str) -> Result<()> {
    taper_kernels::set_cpu_path(cpu_path(name)?).map_err(|error| usage(error.to_string()))
}
