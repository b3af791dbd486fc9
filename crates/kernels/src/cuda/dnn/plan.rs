use std::iter::Zip;
use std::ops::RangeFrom;
use std::rc::Rc;
use std::vec::IntoIter;

use candle_core::Result;
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    self, cudnnBackendAttributeName_t as Attribute, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptorType_t as Kind, cudnnBackendHeurMode_t as Mode, cudnnHandle_t,
};

use super::descriptor::{Descriptor, check};
use super::problem::{Direction, Problem, W, X, Y};
use crate::error::KernelError;

/// What plans are made for: a device that is there, or one that is only described.
pub(super) enum Place<'a> {
    Handle(cudnnHandle_t),
    Described(&'a Descriptor),
}

/// An algorithm of cuDNN's for one convolution, ready to run.
#[derive(Debug)]
pub(super) struct Plan {
    plan: Descriptor,
    /// What the plan was made of; cuDNN's own front end keeps these alive too.
    _parts: (Rc<Vec<Descriptor>>, Descriptor),
    /// Bytes it needs beside its tensors.
    pub(super) workspace: usize,
    /// Which it is.
    pub(super) id: PlanId,
}

/// What tells the plans for a convolution apart, while the device and the version of cuDNN are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlanId {
    /// Number of the engine among cuDNN's for this operation.
    pub(super) engine: i64,
    /// Place among the configurations that the heuristics propose, whose second mode counts from a million: an engine has
    /// several.
    pub(super) place: usize,
}

/// Marks cuDNN puts on an engine, as numbers: a value that the enumeration lacks must not become one of it.
mod note {
    use super::sys::cudnnBackendNumericalNote_t as Note;

    /// It multiplies f32 as TF32.
    pub(super) const TENSOR_CORE: u32 = Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE as u32;
    /// It rounds its inputs.
    pub(super) const DOWN_CONVERT: u32 = Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS as u32;
    /// Two runs may differ.
    pub(super) const NONDETERMINISTIC: u32 = Note::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC as u32;
}

/// Which engines will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    /// f32 may be multiplied as TF32 (ten bits of mantissa).
    pub(super) tf32: bool,
}

impl Terms {
    fn accept(self, problem: &Problem, notes: &[u32]) -> bool {
        let is_f32 = problem.dtype == candle_core::DType::F32;
        let rounds = notes.contains(&note::TENSOR_CORE) || notes.contains(&note::DOWN_CONVERT);
        !notes.contains(&note::NONDETERMINISTIC) && (!is_f32 || self.tf32 || !rounds)
    }
}

/// What the heuristics are asked for, in this order, and the place of its first proposal: the second mode knows engines
/// that are slow but take everything.
const MODES: [(Mode, usize); 2] = [(Mode::CUDNN_HEUR_MODE_A, 0), (Mode::CUDNN_HEUR_MODE_FALLBACK, 1_000_000)];

/// The plans that will do for a convolution, best first as cuDNN's heuristics see it; each is made when it is asked for.
pub(super) struct Plans<'a> {
    place: &'a Place<'a>,
    problem: &'a Problem,
    terms: Terms,
    /// The operation, and last the graph of it.
    parts: Rc<Vec<Descriptor>>,
    /// The configurations that are left, each with its place.
    proposed: Zip<RangeFrom<usize>, IntoIter<Descriptor>>,
}

impl Iterator for Plans<'_> {
    type Item = Result<Plan>;

    fn next(&mut self) -> Option<Result<Plan>> {
        loop {
            let (place, configuration) = self.proposed.next()?;
            let (engine, notes) = match engine(&configuration) {
                Ok(found) => found,
                Err(error) => return Some(Err(error)),
            };
            // Some configurations turn out not to run on this device; the next one may.
            if self.terms.accept(self.problem, &notes)
                && let Ok((plan, workspace)) = finalise(self.place, &configuration)
            {
                let (_parts, id) = ((self.parts.clone(), configuration), PlanId { engine, place });
                return Some(Ok(Plan { plan, _parts, workspace, id }));
            }
        }
    }
}

/// Memory that a plan may work in if another will do with less, bytes. At 128 images the heuristics' first proposals for
/// ResNets want up to 98 MiB, but for the first layer in f32, 599.
pub(super) const MOST_WORKSPACE: usize = 128 << 20;

/// A convolution, and which engines may compute it.
pub(super) type Wanted<'a> = (&'a Problem, Direction, Terms);

impl Plan {
    /// The plan that cuDNN's heuristics put first among those that give the same bits every time and do with little
    /// memory.
    ///
    /// # Errors
    /// cuDNN's; a convolution that no such engine computes.
    pub(super) fn best(place: &Place<'_>, wanted: Wanted<'_>) -> Result<Self> {
        Self::choose(place, wanted, |plans| {
            let mut first = None;
            for plan in plans {
                let plan = plan?;
                if plan.workspace <= MOST_WORKSPACE {
                    return Ok(Some(plan));
                }
                first.get_or_insert(plan);
            }
            Ok(first)
        })
    }

    /// The plan with this name.
    ///
    /// # Errors
    /// cuDNN's; none has that name.
    pub(super) fn with_id(place: &Place<'_>, wanted: Wanted<'_>, id: PlanId) -> Result<Self> {
        let is_it = |plan: &Result<Self>| plan.as_ref().map_or(true, |plan| plan.id == id);
        Self::choose(place, wanted, |mut plans| plans.find(is_it).transpose())
    }

    /// The plan that `choose` takes, from those that give the same bits every time; it is shown one mode of the heuristics
    /// after the other.
    ///
    /// # Errors
    /// cuDNN's and the caller's; a convolution for which nothing was taken.
    pub(super) fn choose(
        place: &Place<'_>,
        (problem, direction, terms): Wanted<'_>,
        mut choose: impl FnMut(Plans<'_>) -> Result<Option<Self>>,
    ) -> Result<Self> {
        for (mode, first_place) in MODES {
            let mut parts = problem.operation(direction)?;
            let graph = graph(place, &parts)?;
            parts.push(graph);
            let proposed = (first_place..).zip(configurations(place, &parts, mode)?);
            if let Some(plan) = choose(Plans { place, problem, terms, parts: Rc::new(parts), proposed })? {
                return Ok(plan);
            }
        }
        let problem =
            format!("cuDNN has no engine that gives the same bits every time for {direction:?} of {problem:?}");
        Err(KernelError::Gpu { op: "conv2d", problem }.into())
    }

    /// # Safety
    /// The addresses are those of tensors of the problem's shapes on the handle's device, `workspace` has as many bytes
    /// as the plan needs, and all of it lives until the launch is queued.
    pub(super) unsafe fn run(&self, handle: cudnnHandle_t, [x, w, y]: [u64; 3], workspace: u64) -> Result<()> {
        let pack = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?
            .with_raw(Attribute::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, Type::CUDNN_TYPE_VOID_PTR, &[x, w, y])?
            .with(Attribute::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &[X, W, Y])?
            .with_raw(Attribute::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, Type::CUDNN_TYPE_VOID_PTR, &[workspace])?
            .finalised("take the addresses")?;
        // SAFETY: the caller vouches for the addresses; the descriptors live.
        check(unsafe { sys::cudnnBackendExecute(handle, self.plan.raw(), pack.raw()) }, "run a convolution")
    }
}

/// The operation, last of `parts`, as a graph of one.
fn graph(place: &Place<'_>, parts: &[Descriptor]) -> Result<Descriptor> {
    let mut graph = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?;
    if let Some(operation) = parts.last() {
        graph = graph.with_child(Attribute::CUDNN_ATTR_OPERATIONGRAPH_OPS, operation)?;
    }
    if let Place::Handle(handle) = place {
        graph = graph.with_raw(Attribute::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, Type::CUDNN_TYPE_HANDLE, &[*handle])?;
    }
    graph.finalised("take the operation")
}

/// What cuDNN's heuristics propose for the graph, last of `parts`; best first.
fn configurations(place: &Place<'_>, parts: &[Descriptor], mode: Mode) -> Result<Vec<Descriptor>> {
    const RESULTS: Attribute = Attribute::CUDNN_ATTR_ENGINEHEUR_RESULTS;

    let mut heuristics = Descriptor::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?;
    if let Some(graph) = parts.last() {
        heuristics = heuristics.with_child(Attribute::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph)?;
    }
    heuristics = heuristics.with_raw(Attribute::CUDNN_ATTR_ENGINEHEUR_MODE, Type::CUDNN_TYPE_HEUR_MODE, &[mode])?;
    if let Place::Described(device) = place {
        heuristics = heuristics.with_child(Attribute::CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, device)?;
    }
    // A mode that knows no engine says so by failing.
    let Ok(heuristics) = heuristics.finalised("ask the heuristics") else {
        return Ok(Vec::new());
    };
    let count = heuristics.count(RESULTS, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR)?;
    let made: Result<_> = (0..count).map(|_| Descriptor::new(Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)).collect();
    if count == 0 { Ok(Vec::new()) } else { heuristics.children(RESULTS, made?) }
}

/// Number of a configuration's engine, and the marks on it.
fn engine(configuration: &Descriptor) -> Result<(i64, Vec<u32>)> {
    /// More marks than there are.
    const MOST_NOTES: usize = 32;

    let made = vec![Descriptor::new(Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR)?];
    let engines = configuration.children(Attribute::CUDNN_ATTR_ENGINECFG_ENGINE, made)?;
    let Some(engine) = engines.first() else { candle_core::bail!("cuDNN shows no engine of a configuration") };
    let index = engine.get::<i64>(Attribute::CUDNN_ATTR_ENGINE_GLOBAL_INDEX, Type::CUDNN_TYPE_INT64, 1)?;
    let notes =
        engine.get::<u32>(Attribute::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, Type::CUDNN_TYPE_NUMERICAL_NOTE, MOST_NOTES)?;
    Ok((index.first().copied().unwrap_or(-1), notes))
}

fn finalise(place: &Place<'_>, configuration: &Descriptor) -> Result<(Descriptor, usize)> {
    let plan = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?
        .with_child(Attribute::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration)?;
    let plan = match place {
        Place::Handle(handle) => {
            plan.with_raw(Attribute::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, Type::CUDNN_TYPE_HANDLE, &[*handle])?
        }
        Place::Described(device) => plan.with_child(Attribute::CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, device)?,
    };
    let plan = plan.finalised("make a plan")?;
    let workspace = plan.get::<i64>(Attribute::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, Type::CUDNN_TYPE_INT64, 1)?;
    Ok((plan, workspace.first().map_or(0, |&bytes| bytes.max(0) as usize)))
}
