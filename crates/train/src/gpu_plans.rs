//! What trials on a GPU have found for convolutions: a checkpoint keeps it, so that a run goes on with the same bits.

use serde::{Deserialize, Serialize};

/// The plan for one pass of a convolution, as `taper_kernels::measure_plans` finds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuPlan {
    /// Device, version of cuDNN and convolution, in words.
    pub problem: String,
    /// Number of the engine among cuDNN's.
    pub engine: i64,
    /// Place of the engine's configuration among those that cuDNN's heuristics propose.
    pub place: usize,
    /// Time it took, microseconds.
    pub microseconds: f64,
    /// Time that the heuristics' first proposal took, microseconds.
    pub first_microseconds: f64,
}

/// All that this process knows; `None` in a build that computes on no GPU.
#[cfg(feature = "cuda")]
pub(crate) fn known() -> Option<Vec<GpuPlan>> {
    let own = |plan: taper_kernels::MeasuredPlan| GpuPlan {
        problem: plan.problem,
        engine: plan.engine,
        place: plan.place,
        microseconds: plan.microseconds,
        first_microseconds: plan.first_microseconds,
    };
    Some(taper_kernels::measured_plans().into_iter().map(own).collect())
}

/// This build computes on no GPU.
#[cfg(not(feature = "cuda"))]
pub(crate) fn known() -> Option<Vec<GpuPlan>> {
    None
}

/// Makes the process know what another one has found, for runs on a GPU to come.
#[cfg(feature = "cuda")]
pub fn add_gpu_plans(plans: &[GpuPlan]) {
    taper_kernels::add_measured_plans(plans.iter().map(|plan| taper_kernels::MeasuredPlan {
        problem: plan.problem.clone(),
        engine: plan.engine,
        place: plan.place,
        microseconds: plan.microseconds,
        first_microseconds: plan.first_microseconds,
    }));
}

/// This build computes on no GPU.
#[cfg(not(feature = "cuda"))]
pub fn add_gpu_plans(_: &[GpuPlan]) {}
