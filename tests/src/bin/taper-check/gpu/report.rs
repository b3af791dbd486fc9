use serde_json::{Value, json};
use taper_kernels::{GpuDescription, MeasuredPlan};

/// One thing that was checked.
pub(super) struct Check {
    name: String,
    /// Part, error and tolerance; the worst of them counts.
    errors: Vec<(String, f64, f64)>,
    problem: Option<String>,
}

impl Check {
    /// From the error and the tolerance of each part.
    pub(super) fn of(name: String, errors: Vec<(String, f64, f64)>) -> Self {
        Self { name, errors, problem: None }
    }

    /// Of something that could not even be compared.
    pub(super) fn failed(name: String, problem: &str) -> Self {
        Self { name, errors: Vec::new(), problem: Some(problem.to_owned()) }
    }

    fn passed(&self) -> bool {
        self.problem.is_none() && self.errors.iter().all(|(_, error, tolerance)| error <= tolerance)
    }

    /// The part that is closest to its tolerance, or furthest beyond it.
    fn worst(&self) -> Option<&(String, f64, f64)> {
        self.errors.iter().max_by(|left, right| (left.1 / left.2).total_cmp(&(right.1 / right.2)))
    }

    fn line(&self) -> String {
        let verdict = if self.passed() { "ok  " } else { "FAIL" };
        match (&self.problem, self.worst()) {
            (Some(problem), _) => format!("{verdict} {:44} {problem}", self.name),
            (None, Some((part, error, tolerance))) => {
                format!("{verdict} {:44} {part}: {error:.1e} (at most {tolerance:.0e})", self.name)
            }
            (None, None) => format!("{verdict} {:44}", self.name),
        }
    }

    fn to_json(&self) -> Value {
        let part =
            |(part, error, tolerance): &(String, f64, f64)| json!({"part": part, "error": error, "most": tolerance});
        json!({
            "name": self.name,
            "passed": self.passed(),
            "problem": self.problem,
            "errors": self.errors.iter().map(part).collect::<Vec<_>>(),
        })
    }
}

fn plan_to_json(plan: &MeasuredPlan) -> Value {
    json!({
        "problem": plan.problem,
        "engine": plan.engine,
        "place": plan.place,
        "microseconds": plan.microseconds,
        "first_microseconds": plan.first_microseconds,
    })
}

/// Everything that was found.
pub(super) struct Report {
    gpu: GpuDescription,
    seed: u64,
    checks: Vec<Check>,
    steps: Vec<Value>,
}

impl Report {
    pub(super) fn new(gpu: GpuDescription, seed: u64) -> Self {
        let (major, minor) = gpu.compute_capability;
        println!(
            "{}, compute capability {major}.{minor}, {} multiprocessors, {} of {} MiB free, CUDA {}, cuDNN {}, seed {seed}",
            gpu.name,
            gpu.multiprocessors,
            gpu.memory.0 >> 20,
            gpu.memory.1 >> 20,
            gpu.driver_cuda,
            gpu.cudnn,
        );
        Self { gpu, seed, checks: Vec::new(), steps: Vec::new() }
    }

    /// Adds a check and says how it went, so that nothing is lost where a later one ends the program.
    pub(super) fn add(&mut self, check: Check) {
        println!("{}", check.line());
        self.checks.push(check);
    }

    /// Adds a line of the table of steps.
    pub(super) fn add_step(&mut self, step: Value) {
        println!("{step}");
        self.steps.push(step);
    }

    pub(super) fn num_checks(&self) -> usize {
        self.checks.len()
    }

    pub(super) fn num_failed(&self) -> usize {
        self.checks.iter().filter(|check| !check.passed()).count()
    }

    pub(super) fn print_sum(&self) {
        println!("{} checks, {} failed", self.num_checks(), self.num_failed());
    }

    pub(super) fn to_json(&self) -> Value {
        let gpu = &self.gpu;
        json!({
            "gpu": {
                "name": gpu.name,
                "compute_capability": [gpu.compute_capability.0, gpu.compute_capability.1],
                "multiprocessors": gpu.multiprocessors,
                "free_bytes": gpu.memory.0,
                "total_bytes": gpu.memory.1,
                "driver_cuda": gpu.driver_cuda,
                "cudnn": gpu.cudnn,
            },
            "seed": self.seed,
            "checks": self.checks.iter().map(Check::to_json).collect::<Vec<_>>(),
            "steps": self.steps,
            "measured_plans": taper_kernels::measured_plans().iter().map(plan_to_json).collect::<Vec<_>>(),
        })
    }
}
