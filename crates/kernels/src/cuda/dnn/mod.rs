//! cuDNN through its graph interface: a convolution is described, an engine that gives the same bits every time is
//! chosen by cuDNN's heuristics, and the plan is kept for the next time.
//!
//! The interface is the one that is not deprecated; its wrappers elsewhere hide their handles.

mod descriptor;
mod measured;
mod plan;
mod problem;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cudnn::{result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use candle_core::{DType, Result};

use super::folded::as_folded;
use crate::conv::ConvShape;
use crate::error::KernelError;
use crate::geometry::ConvGeometry;
use crate::graph::is_without_history;
use descriptor::Descriptor;
use measured::Trial;
pub use measured::{MeasuredPlan, add_measured_plans, measure_plans, measured_plans};
use plan::{Place, Plan, Terms};
pub(super) use problem::{Direction, Problem};

/// Whether f32 products may round their inputs to TF32, see [`set_tf32`].
static TF32: AtomicBool = AtomicBool::new(false);

/// Lets convolutions of f32 on a GPU round their inputs to TF32 (ten bits of mantissa), several times faster; off unless
/// asked for. Matrix products do the same, candle's own among them.
pub fn set_tf32(on: bool) {
    TF32.store(on, Ordering::Relaxed);
    candle_core::cuda_backend::set_gemm_reduced_precision_f32(on);
}

pub(super) fn is_tf32() -> bool {
    TF32.load(Ordering::Relaxed)
}

/// cuDNN on one device: a handle, the plans made so far, and the memory they work in.
pub(super) struct Dnn {
    handle: sys::cudnnHandle_t,
    stream: Arc<CudaStream>,
    plans: HashMap<Key, Plan>,
    /// What no engine does.
    without_plan: HashSet<Key>,
    workspace: Workspace,
}

/// What a plan is for, and how it was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    problem: Problem,
    direction: Direction,
    tf32: bool,
    is_measured: bool,
}

// SAFETY: a handle may be used from any thread, one at a time; it lies behind a mutex. So do the plans, with the counted
// descriptors that some of them share.
unsafe impl Send for Dnn {}

impl Dnn {
    pub(super) fn new(stream: &Arc<CudaStream>) -> Result<Self> {
        stream.context().bind_to_thread().w()?;
        let refused = |error: result::CudnnError| -> candle_core::Error {
            KernelError::Gpu { op: "conv2d", problem: format!("cuDNN does not start: {error:?}") }.into()
        };
        let handle = result::create_handle().map_err(refused)?;
        // SAFETY: handle and stream are alive, and the stream stays so as long as the handle.
        unsafe { result::set_stream(handle, stream.cu_stream().cast()) }.map_err(refused)?;
        Ok(Self {
            handle,
            stream: stream.clone(),
            plans: HashMap::new(),
            without_plan: HashSet::new(),
            workspace: Workspace::new(stream),
        })
    }

    /// Queues a convolution. At the first of its kind in a training step all plans are tried, if that was asked for.
    ///
    /// # Safety
    /// The addresses are those of tensors of the problem's shapes on this device, and live until the launch is queued.
    pub(super) unsafe fn run(&mut self, problem: &Problem, direction: Direction, tensors: [u64; 3]) -> Result<()> {
        let is_measured = measured::is_on() && !is_without_history();
        let key = Key { problem: *problem, direction, tf32: is_tf32(), is_measured };
        if !self.plans.contains_key(&key) {
            // SAFETY: passed on from the caller.
            let plan = unsafe { self.plan(&key, tensors) }?;
            self.plans.insert(key, plan);
        }
        let Some(plan) = self.plans.get(&key) else { return Ok(()) };
        let workspace = self.workspace.at_least(plan.workspace)?;
        // SAFETY: passed on from the caller; the workspace is as large as the plan needs. That all plans share one is
        // sound because they run one after the other, in one stream.
        unsafe { plan.run(self.handle, tensors, workspace) }
    }

    /// Whether there is an engine for it that gives the same bits every time.
    pub(super) fn can_run(&mut self, problem: &Problem, direction: Direction) -> bool {
        let key = Key { problem: *problem, direction, tf32: is_tf32(), is_measured: false };
        if self.plans.contains_key(&key) || self.without_plan.contains(&key) {
            return self.plans.contains_key(&key);
        }
        let plan = Plan::best(&Place::Handle(self.handle), (&key.problem, key.direction, Terms { tf32: key.tf32 }));
        match plan {
            Ok(plan) => drop(self.plans.insert(key, plan)),
            Err(_) => drop(self.without_plan.insert(key)),
        }
        self.plans.contains_key(&key)
    }

    /// # Safety
    /// As for [`Self::run`].
    unsafe fn plan(&mut self, key: &Key, tensors: [u64; 3]) -> Result<Plan> {
        let (place, wanted) = (Place::Handle(self.handle), (&key.problem, key.direction, Terms { tf32: key.tf32 }));
        if !key.is_measured {
            return Plan::best(&place, wanted);
        }
        let device = self.stream.context().name().w()?;
        // SAFETY: it takes nothing and returns a number.
        let version = unsafe { sys::cudnnGetVersion() };
        let name = format!("{device}, cuDNN {version}, {}", key.problem.name(key.direction, key.tf32));
        if let Some(id) = measured::of_problem(&name)
            && let Ok(plan) = Plan::with_id(&place, wanted, id)
        {
            return Ok(plan);
        }
        // A trial writes its result several times over; onto a gradient that is waiting it must not.
        let spare = match key.direction {
            Direction::AddedInputGradient => match self.spare(&key.problem) {
                Ok(spare) => Some(spare),
                Err(_) => return Plan::best(&place, wanted),
            },
            _ => None,
        };
        let [x, w, y] = tensors;
        let x = spare.as_ref().map_or(x, |spare| spare.device_ptr(&self.stream).0);
        let tensors = [x, w, y];
        let mut trial = Trial { handle: self.handle, stream: &self.stream, workspace: &mut self.workspace, tensors };
        // SAFETY: passed on from the caller.
        let tried = Plan::choose(&place, wanted, |plans| unsafe { trial.choice(&name, plans) });
        // Where none could be tried, the heuristics' word stands, and its error.
        tried.or_else(|_| Plan::best(&place, wanted))
    }

    /// Memory of the size of the problem's input, zeros.
    fn spare(&self, problem: &Problem) -> Result<CudaSlice<u8>> {
        let bytes = problem.x_shape().iter().product::<usize>() * problem.dtype.size_in_bytes();
        self.stream.alloc_zeros::<u8>(bytes).w()
    }
}

/// Memory that plans work in.
struct Workspace {
    stream: Arc<CudaStream>,
    block: Option<CudaSlice<u8>>,
}

impl Workspace {
    fn new(stream: &Arc<CudaStream>) -> Self {
        Self { stream: stream.clone(), block: None }
    }

    /// Where at least so many bytes begin.
    fn at_least(&mut self, bytes: usize) -> Result<u64> {
        if bytes == 0 {
            return Ok(0);
        }
        if self.block.as_ref().is_none_or(|block| block.len() < bytes) {
            // The old block goes first: both at once may be more than there is room for.
            self.block = None;
            // SAFETY: what it holds is never read before cuDNN has written it.
            self.block = Some(unsafe { self.stream.alloc::<u8>(bytes) }.w()?);
        }
        Ok(self.block.as_ref().map_or(0, |block| block.device_ptr(&self.stream).0))
    }
}

impl Drop for Dnn {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once. What cuDNN says to it cannot be helped any more.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// A device that plans are made for without one being there.
#[derive(Debug)]
pub struct DescribedDevice(Descriptor);

impl DescribedDevice {
    /// From the properties that cuDNN 9.8 and later writes of a device as JSON.
    ///
    /// # Errors
    /// cuDNN's, with its version if that is too old for it.
    pub fn from_json(properties: &str) -> Result<Self> {
        use sys::{cudnnBackendAttributeName_t as Attribute, cudnnBackendDescriptorType_t as Kind};

        let mut text = properties.as_bytes().to_vec();
        text.push(0);
        Descriptor::new(Kind::CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR)?
            .with(Attribute::CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, &text)?
            .finalised("take the device's properties")
            .map(Self)
    }

    /// What cuDNN would run for the convolutions of a layer on that device: forward, gradient of the input, the same added
    /// to another one, gradient of the weights; of a first layer that steps by two, what stands for it where nobody asks for
    /// the input's gradient.
    ///
    /// # Errors
    /// cuDNN's; a pass for which no engine gives the same bits every time.
    pub fn plans(&self, layer: &LayerShape, dtype: DType) -> Result<[PlanReport; 4]> {
        let shape = layer.shape()?;
        let (plain, folded) = (Problem::new(&shape, dtype), Problem::new(&as_folded(&shape), dtype));
        let report = |direction| {
            let is_of_input = matches!(direction, Direction::InputGradient | Direction::AddedInputGradient);
            let problem = if is_of_input { plain } else { folded };
            let plan = Plan::best(&Place::Described(&self.0), (&problem, direction, Terms { tf32: true }))?;
            Ok::<_, candle_core::Error>(PlanReport { engine: plan.id.engine, workspace_bytes: plan.workspace })
        };
        Ok([
            report(Direction::Forward)?,
            report(Direction::InputGradient)?,
            report(Direction::AddedInputGradient)?,
            report(Direction::WeightGradient)?,
        ])
    }
}

/// Sizes of a convolution, without its tensors.
#[derive(Debug, Clone, Copy)]
pub struct LayerShape {
    /// Images of a batch.
    pub images: usize,
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Channels in and out.
    pub channels: [usize; 2],
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// Stride, padding, dilation, groups.
    pub geometry: ConvGeometry,
}

impl LayerShape {
    fn shape(&self) -> Result<ConvShape> {
        let Self { images, input: [height, width], channels: [c_in, c_out], kernel: [kh, kw], geometry } = *self;
        ConvShape::of_sizes(
            "conv2d",
            [images, height, width, c_in],
            [c_out, c_in / geometry.groups.max(1), kh, kw],
            &geometry,
        )
    }
}

/// A plan that cuDNN made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanReport {
    /// Number of the engine among cuDNN's for the operation.
    pub engine: i64,
    /// Memory it works in, bytes.
    pub workspace_bytes: usize,
}
