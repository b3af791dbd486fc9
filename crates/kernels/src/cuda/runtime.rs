//! Opening a GPU, and saying plainly why it cannot be opened.

use candle_core::cuda_backend::cudarc::cudnn::sys as dnn;
use candle_core::cuda_backend::cudarc::driver::sys::{self, CUresult};
use candle_core::cuda_backend::cudarc::driver::{CudaContext, DriverError, result};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{Device, Result};

/// Why a GPU cannot be used; one line each, with what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// The driver finds no device, or is not installed.
    #[error("no NVIDIA GPU can be used ({problem}); check with nvidia-smi, or compute on the CPU")]
    NoDevice {
        /// The driver's word for it.
        problem: String,
    },
    /// There are fewer devices than the number asks for.
    #[error("there is no GPU {ordinal}: this machine has {count}, numbered from 0")]
    NoSuchDevice {
        /// The number asked for.
        ordinal: usize,
        /// Devices that the driver shows.
        count: usize,
    },
    /// The driver is older than the toolkit the kernels were compiled with.
    #[error(
        "the NVIDIA driver supports CUDA {}, this build needs {}; update the driver, or build with an older toolkit",
        version(*.found),
        version(*.needed)
    )]
    OldDriver {
        /// CUDA version of the driver, as `1000 · major + 10 · minor`.
        found: i32,
        /// CUDA version of the build.
        needed: i32,
    },
    /// The device is older than Ampere.
    #[error(
        "GPU {ordinal} ({name}) has compute capability {major}.{minor}, these kernels need 8.0 or later (Ampere: A100, \
         RTX 30); compute on the CPU"
    )]
    OldDevice {
        /// Number of the device.
        ordinal: usize,
        /// Its name.
        name: String,
        /// Major number of its compute capability.
        major: i32,
        /// Minor number of it.
        minor: i32,
    },
    /// cuDNN is older than the interface that is used.
    #[error("cuDNN {found} is loaded, {needed} or later is needed; put a newer libcudnn on the loader's path")]
    OldDnn {
        /// Version as cuDNN counts: `10000 · major + 100 · minor + patch`.
        found: usize,
        /// The oldest that will do.
        needed: usize,
    },
    /// Anything else the driver refuses.
    #[error("the NVIDIA driver refuses GPU {ordinal}: {problem}")]
    Driver {
        /// Number of the device.
        ordinal: usize,
        /// The driver's word for it.
        problem: String,
    },
}

fn version(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

/// CUDA version of the toolkit that compiled the kernels.
const NEEDED_CUDA: &str = env!("TAPER_CUDA_VERSION");

/// The oldest cuDNN with everything that is used: the graph interface as of 9.0.
const NEEDED_DNN: usize = 9_00_00;

/// The GPU with this number, made ready for training: one stream for everything, memory that stays with the process,
/// no events beside allocations.
///
/// Only the thread that opened a device should use it.
///
/// # Errors
/// A [`GpuError`], wrapped in candle's.
pub fn gpu_device(ordinal: usize) -> Result<Device> {
    let context = open(ordinal).map_err(|error| candle_core::Error::Wrapped(Box::new(error)))?;
    let refused = |error: DriverError| candle_core::Error::Wrapped(Box::new(refusal(ordinal, &error)));
    keep_pool(&context).map_err(refused)?;
    // An explicit stream: the default is another one on every thread.
    let device = CudaDevice::new_with_stream(ordinal)?;
    // SAFETY: one stream does all the work of this device, so nothing needs the events that track slices between
    // streams; and no slice has been made yet. candle has a context object of its own, so it has to be asked.
    unsafe { device.disable_event_tracking() };
    Ok(Device::Cuda(device))
}

/// What a GPU is, for reports.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuDescription {
    /// The device's name.
    pub name: String,
    /// Its compute capability.
    pub compute_capability: (i32, i32),
    /// Multiprocessors.
    pub multiprocessors: i32,
    /// Memory, bytes: free now, and in all.
    pub memory: (usize, usize),
    /// CUDA version that the driver supports, `1000 · major + 10 · minor`.
    pub driver_cuda: i32,
    /// cuDNN's version, `10000 · major + 100 · minor + patch`.
    pub cudnn: usize,
}

/// Describes the device that tensors on `device` live on.
///
/// # Errors
/// A device that is no GPU; what the driver refuses.
pub fn describe_gpu(device: &Device) -> Result<GpuDescription> {
    let Device::Cuda(device) = device else {
        candle_core::bail!("the device is no NVIDIA GPU");
    };
    let stream = device.cuda_stream();
    let (context, mut driver_cuda) = (stream.context(), 0);
    // SAFETY: `driver_cuda` outlives the call, which writes one integer.
    unsafe { sys::cuDriverGetVersion(&mut driver_cuda) }.result().w()?;
    let count = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
    Ok(GpuDescription {
        name: context.name().w()?,
        compute_capability: context.compute_capability().w()?,
        multiprocessors: context.attribute(count).w()?,
        memory: context.mem_get_info().w()?,
        driver_cuda,
        // SAFETY: it takes nothing and returns a number.
        cudnn: unsafe { dnn::cudnnGetVersion() },
    })
}

/// The most memory that was taken on the device at once since this was asked last, bytes: tensors and what cuDNN's plans
/// work in, not the libraries' own.
///
/// # Errors
/// A device that is no GPU; what the driver refuses.
pub fn take_gpu_peak_bytes(device: &Device) -> Result<u64> {
    let Device::Cuda(device) = device else {
        candle_core::bail!("the device is no NVIDIA GPU");
    };
    let context = device.cuda_stream().context().clone();
    context.bind_to_thread().w()?;
    let (mut peak, mut again) = (0u64, 0u64);
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
    // SAFETY: the context is current, its pool lives as long as the device, and the attribute is a u64; zero begins anew.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device()).w()?;
        sys::cuMemPoolGetAttribute(pool, attribute, std::ptr::from_mut(&mut peak).cast()).result().w()?;
        sys::cuMemPoolSetAttribute(pool, attribute, std::ptr::from_mut(&mut again).cast()).result().w()?;
    }
    Ok(peak)
}

fn open(ordinal: usize) -> std::result::Result<std::sync::Arc<CudaContext>, GpuError> {
    let none = |error: DriverError| GpuError::NoDevice { problem: word(&error) };
    result::init().map_err(none)?;
    let count = result::device::get_count().map_err(none)? as usize;
    if count == 0 {
        return Err(GpuError::NoDevice { problem: "the driver shows none".to_owned() });
    }
    if ordinal >= count {
        return Err(GpuError::NoSuchDevice { ordinal, count });
    }
    check_driver()?;
    let refused = |error: DriverError| refusal(ordinal, &error);
    let context = CudaContext::new(ordinal).map_err(refused)?;
    let (major, minor) = context.compute_capability().map_err(refused)?;
    if major < 8 {
        let name = context.name().map_err(refused)?;
        return Err(GpuError::OldDevice { ordinal, name, major, minor });
    }
    // SAFETY: it takes nothing and returns a number.
    let found = unsafe { dnn::cudnnGetVersion() };
    match found < NEEDED_DNN {
        true => Err(GpuError::OldDnn { found, needed: NEEDED_DNN }),
        false => Ok(context),
    }
}

fn check_driver() -> std::result::Result<(), GpuError> {
    let mut found = 0;
    // SAFETY: `found` outlives the call, which writes one integer.
    let asked = unsafe { sys::cuDriverGetVersion(&mut found) };
    asked.result().map_err(|error| GpuError::NoDevice { problem: word(&error) })?;
    let needed = NEEDED_CUDA.parse().unwrap_or(0);
    if found < needed { Err(GpuError::OldDriver { found, needed }) } else { Ok(()) }
}

fn refusal(ordinal: usize, error: &DriverError) -> GpuError {
    GpuError::Driver { ordinal, problem: word(error) }
}

/// The driver's own words; its error codes print as their names where it has none.
fn word(error: &DriverError) -> String {
    match error.0 {
        CUresult::CUDA_ERROR_STUB_LIBRARY => {
            "the library that was loaded is a stub for building, not a driver".to_owned()
        }
        code => match error.error_string() {
            Ok(text) => text.to_string_lossy().into_owned(),
            Err(_) => format!("{code:?}"),
        },
    }
}

/// Keeps freed memory with the process: by default each wait for the device gives it back to the system.
fn keep_pool(context: &CudaContext) -> std::result::Result<(), DriverError> {
    context.bind_to_thread()?;
    let mut all = u64::MAX;
    // SAFETY: the context is current, its pool lives as long as the device, and the attribute is read as a u64.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device())?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, std::ptr::from_mut(&mut all).cast()).result()
    }
}
