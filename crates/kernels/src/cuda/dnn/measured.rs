//! Plans that are chosen by trying what the heuristics propose, and what is known of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::Result;
use candle_core::cuda_backend::cudarc::cudnn::sys::cudnnHandle_t;
use candle_core::cuda_backend::cudarc::driver::CudaStream;
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;

use super::Workspace;
use super::plan::{MOST_WORKSPACE, Plan, PlanId, Plans};

/// The plan that was taken for a convolution after all were tried, see [`measure_plans`].
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredPlan {
    /// Device, version of cuDNN, convolution and pass, in words that are the same in every process.
    pub problem: String,
    /// Number of the engine among cuDNN's for it.
    pub engine: i64,
    /// Place of the engine's configuration among those that the heuristics propose.
    pub place: usize,
    /// Time it took, microseconds.
    pub microseconds: f64,
    /// Time that the first proposal of the heuristics took, microseconds.
    pub first_microseconds: f64,
}

#[derive(Debug)]
struct Known {
    is_on: bool,
    plans: BTreeMap<String, MeasuredPlan>,
}

static KNOWN: Mutex<Known> = Mutex::new(Known { is_on: false, plans: BTreeMap::new() });

fn known() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets training steps on a GPU try what cuDNN's heuristics propose for a convolution on its tensors when it comes up
/// first, and take the fastest if it needs less than 0.87 of the first proposal's time; off unless asked for, when the
/// first proposal is taken. Tried are plans that give the same bits every time and work in at most 128 MiB.
///
/// A trial waits for the device and takes some milliseconds. Which engine wins may differ between two runs, and with it
/// the last bits of results: whoever wants those again keeps [`measured_plans`]. What runs
/// [`without_history`](crate::without_history) tries nothing.
pub fn measure_plans(on: bool) {
    known().is_on = on;
}

pub(super) fn is_on() -> bool {
    known().is_on
}

/// What trials have found in this process, and what it was told by [`add_measured_plans`].
pub fn measured_plans() -> Vec<MeasuredPlan> {
    known().plans.values().cloned().collect()
}

/// Takes what trials have found in another process: on a device of the same kind, with the same version of cuDNN, such a
/// convolution is not tried again.
pub fn add_measured_plans(plans: impl IntoIterator<Item = MeasuredPlan>) {
    known().plans.extend(plans.into_iter().map(|plan| (plan.problem.clone(), plan)));
}

/// The plan that an earlier trial found for a problem.
pub(super) fn of_problem(problem: &str) -> Option<PlanId> {
    known().plans.get(problem).map(|plan| PlanId { engine: plan.engine, place: plan.place })
}

/// Where and on what plans are tried.
pub(super) struct Trial<'a> {
    pub(super) handle: cudnnHandle_t,
    pub(super) stream: &'a Arc<CudaStream>,
    pub(super) workspace: &'a mut Workspace,
    /// Addresses of tensors of the problem's shapes.
    pub(super) tensors: [u64; 3],
}

/// Share of the first proposal's time that another plan must stay below to take its place. Trials run on a cool card, and
/// training at the limit of its power, where a plan that is a tenth faster may be slower: on an H200, BaseNet at 256 images
/// made 0.987 times as many images a second with the fastest plans (`data/bench/2026-11-26-h200-first-light.json`).
const WORTH_IT: f64 = 0.87;

/// A plan and its time.
struct Timed {
    plan: Plan,
    microseconds: f64,
}

impl Trial<'_> {
    /// The plan to take, which is written down under the problem's name; nothing where none runs with little
    /// memory.
    ///
    /// # Safety
    /// As for [`Plan::run`], whose results are overwritten again and again.
    pub(super) unsafe fn choice(&mut self, problem: &str, plans: Plans<'_>) -> Result<Option<Plan>> {
        let (mut best, mut first): (Option<Timed>, Option<Timed>) = (None, None);
        for plan in plans {
            let plan = plan?;
            // SAFETY: passed on.
            let Some(microseconds) = (unsafe { self.microseconds(&plan) }) else { continue };
            let timed = Timed { plan, microseconds };
            match &best {
                _ if first.is_none() => first = Some(timed),
                Some(best) if best.microseconds <= microseconds => {}
                _ => best = Some(timed),
            }
        }
        let Some(first) = first else { return Ok(None) };
        let first_microseconds = first.microseconds;
        let best = best.filter(|best| best.microseconds < WORTH_IT * first_microseconds);
        let Timed { plan, microseconds } = best.unwrap_or(first);
        let PlanId { engine, place } = plan.id;
        let found = MeasuredPlan { problem: problem.to_owned(), engine, place, microseconds, first_microseconds };
        known().plans.insert(problem.to_owned(), found);
        Ok(Some(plan))
    }

    /// Time of a plan, the median of three runs; `None` for one that does not run here, or wants too much memory.
    ///
    /// # Safety
    /// As for [`Plan::run`].
    unsafe fn microseconds(&mut self, plan: &Plan) -> Option<f64> {
        const RUNS: usize = 3;

        if plan.workspace > MOST_WORKSPACE {
            return None;
        }
        let scratch = self.workspace.at_least(plan.workspace).ok()?;
        // The first run loads what the plan needs; some plans only then turn out not to run. Nobody waits for it: while it
        // runs the others are queued, so that the host's time is in none of theirs.
        // SAFETY: passed on; the working memory is as large as the plan needs.
        unsafe { plan.run(self.handle, self.tensors, scratch) }.ok()?;
        let mark = || self.stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).ok();
        let mut marks = vec![mark()?];
        for _ in 0..RUNS {
            // SAFETY: as above.
            unsafe { plan.run(self.handle, self.tensors, scratch) }.ok()?;
            marks.push(mark()?);
        }
        let times = marks.iter().zip(&marks[1..]).map(|(start, end)| start.elapsed_ms(end).ok());
        let mut milliseconds = times.collect::<Option<Vec<f32>>>()?;
        milliseconds.sort_by(f32::total_cmp);
        milliseconds.get(RUNS / 2).map(|&middle| f64::from(middle) * 1e3)
    }
}
