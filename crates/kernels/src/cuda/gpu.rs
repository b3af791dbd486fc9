use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaModule, CudaStream, LaunchConfig};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaDevice, DeviceId, WrapErr};
use candle_core::{DType, Device, Result, Tensor};

use super::dnn::Dnn;
use crate::error::KernelError;

/// The compiled kernels by file of `cuda/`.
const MODULES: [(&str, &[u8]); 7] = [
    ("batch_norm", include_bytes!(concat!(env!("OUT_DIR"), "/batch_norm.fatbin"))),
    ("elementwise", include_bytes!(concat!(env!("OUT_DIR"), "/elementwise.fatbin"))),
    ("images", include_bytes!(concat!(env!("OUT_DIR"), "/images.fatbin"))),
    ("loss", include_bytes!(concat!(env!("OUT_DIR"), "/loss.fatbin"))),
    ("pool", include_bytes!(concat!(env!("OUT_DIR"), "/pool.fatbin"))),
    ("update", include_bytes!(concat!(env!("OUT_DIR"), "/update.fatbin"))),
    ("weights", include_bytes!(concat!(env!("OUT_DIR"), "/weights.fatbin"))),
];

/// What one device needs beside candle. Made at the first op on it, kept until the process ends.
pub(super) struct Gpu {
    pub(super) device: CudaDevice,
    pub(super) stream: Arc<CudaStream>,
    loaded: Mutex<Loaded>,
    dnn: Mutex<Option<Dnn>>,
}

#[derive(Default)]
struct Loaded {
    modules: HashMap<&'static str, Arc<CudaModule>>,
    functions: HashMap<String, CudaFunction>,
}

impl Gpu {
    /// The device that a tensor lives on.
    pub(super) fn of(op: &'static str, argument: &'static str, tensor: &Tensor) -> Result<Arc<Self>> {
        static GPUS: LazyLock<Mutex<HashMap<DeviceId, Arc<Gpu>>>> = LazyLock::new(Mutex::default);

        let Device::Cuda(device) = tensor.device() else {
            return Err(KernelError::DifferentDevice { op, argument }.into());
        };
        let gpu = || {
            Arc::new(Self {
                device: device.clone(),
                stream: device.cuda_stream(),
                loaded: Mutex::default(),
                dnn: Mutex::default(),
            })
        };
        Ok(lock(&GPUS).entry(device.id()).or_insert_with(gpu).clone())
    }

    /// A kernel of one of the files in `cuda/`, loaded at its first use.
    pub(super) fn function(&self, module: &'static str, name: &str) -> Result<CudaFunction> {
        let mut loaded = lock(&self.loaded);
        if let Some(function) = loaded.functions.get(name) {
            return Ok(function.clone());
        }
        let module = match loaded.modules.get(module) {
            Some(module) => module.clone(),
            None => {
                let Some((_, code)) = MODULES.iter().find(|(own, _)| *own == module) else {
                    candle_core::bail!("there is no file of kernels named {module}");
                };
                let new = self.stream.context().load_module(Ptx::from_binary(code.to_vec())).w()?;
                loaded.modules.insert(module, new.clone());
                new
            }
        };
        let function = module.load_function(name).w()?;
        loaded.functions.insert(name.to_owned(), function.clone());
        Ok(function)
    }

    /// Does something with cuDNN, whose handle is one thread's at a time.
    pub(super) fn with_dnn<R>(&self, work: impl FnOnce(&mut Dnn) -> Result<R>) -> Result<R> {
        let mut dnn = lock(&self.dnn);
        match &mut *dnn {
            Some(dnn) => work(dnn),
            empty @ None => work(empty.insert(Dnn::new(&self.stream)?)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads of a block of the kernels that go through memory in one dimension.
const BLOCK: u32 = 256;

/// A launch of blocks that step through `items` together.
pub(super) fn over(items: usize) -> LaunchConfig {
    /// Enough blocks to fill every multiprocessor several times over; beyond that a block takes more items.
    const MOST_BLOCKS: usize = 4096;

    let blocks = items.div_ceil(BLOCK as usize).clamp(1, MOST_BLOCKS) as u32;
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (BLOCK, 1, 1), shared_mem_bytes: 0 }
}

/// A launch of a grid of blocks.
pub(super) fn blocks(grid: [usize; 3], block: [u32; 2]) -> LaunchConfig {
    let [x, y, z] = grid.map(|blocks| blocks.max(1) as u32);
    LaunchConfig { grid_dim: (x, y, z), block_dim: (block[0], block[1], 1), shared_mem_bytes: 0 }
}

/// What the names of kernels call an element type.
pub(super) fn suffix(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "bf16",
        _ => "f32",
    }
}
