//! What a run needs in memory, the host's or the GPU's, estimated before its first step and held against what there is.

use std::path::Path;

use anyhow::Result;
use taper_data::{Covers, Part};
use taper_optim::OptimizerConfig;
use taper_train::Source;

use crate::config::MemoryLimit;
use crate::device;
use crate::exit::no_memory;
use crate::job::Job;
use crate::resident;

// Estimate and peak resident size of one step (`train --dry-run`), MiB, on two threads with AMX: ResNet-18 batch 8 449 and
// 439, batch 32 972 and 1035; ResNet-50 batch 4 770 and 729; BaseNet of three blocks at width 0.125 batch 64 141 and 124,
// batch 256 436 and 421, at width 1 batch 8 262 and 277, batch 24 454 and 443; the whole BaseNet batch 8 1248 and 1217,
// batch 16 1800 and 1777.

const F32: u64 = 4;
const MIB: u64 = 1 << 20;
/// The program itself, its threads' stacks and buffers of the kernels, on two threads.
const PROGRAM_BYTES: u64 = 27 * MIB;
/// What convolutions work in on a GPU: plans that want more are passed over.
const GPU_WORKSPACE_BYTES: u64 = 128 * MIB;
/// Copies of the largest layer's weights that a step takes: in the order of the kernels (Winograd's 36 products stand for
/// nine weights, in f32 or in three bytes), and where its gradient is put together. Seven come nearest to what was
/// measured.
const COPIES_AT_WORK: u64 = 7;
/// Copies of the weights while a checkpoint is put together: the values, the file's parts, the file.
const COPIES_TO_SAVE: u64 = 3;

/// Bytes that a run needs, by what needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    weights: u64,
    /// Gradients, what the optimizer remembers, averaged weights.
    optimizer: u64,
    activations: u64,
    /// What a checkpoint takes beyond the activations, whose place its copies have.
    saving: u64,
    program: u64,
    loader: u64,
}

impl Need {
    /// What a run needs at its batch size.
    pub(crate) fn of(job: &Job<'_>) -> Result<Self> {
        Self::at(job, job.config.train.batch_size as u64)
    }

    fn at(job: &Job<'_>, batch_size: u64) -> Result<Self> {
        let config = job.config;
        let cost = config.model.cost(job.prepared.data.dataset.classes().len());
        let (all, trained) = (cost.num_parameters as u64 * F32, job.parameters()?.num_values() as u64 * F32);
        let state_copies = match config.optim {
            OptimizerConfig::Sgd(_) => 1,
            _ => 2,
        };
        let gradient_copies = 1 + u64::from(config.train.accumulate > 1);
        let state = trained * (state_copies + u64::from(config.train.ema_decay.is_some()));
        let optimizer = trained * gradient_copies + state;
        // A frozen backbone goes forward only, and keeps nothing.
        let values = match (job.caches_features(), config.train.recompute) {
            (true, _) => cost.forward_values,
            (false, true) => cost.recomputing_values,
            (false, false) => cost.training_values,
        };
        let value_bytes = job.dtype().size_in_bytes() as u64;
        let activations = batch_size.saturating_mul(values as u64 * value_bytes);
        if !job.device().is_cpu() {
            // Checkpoints are on the host. A step keeps the weights in the order of the convolutions.
            let program = GPU_WORKSPACE_BYTES + cost.num_parameters as u64 * value_bytes;
            let loader = match job.caches_features() {
                true => 0,
                false => resident::num_bytes(&job.images(Part::Train), config.data.cache_mib),
            };
            return Ok(Self { weights: all, optimizer, activations, saving: 0, program, loader });
        }
        Ok(Self {
            weights: all,
            optimizer,
            activations,
            // The batch is gone when a checkpoint is put together.
            saving: (COPIES_TO_SAVE * all.max(state)).saturating_sub(activations),
            program: PROGRAM_BYTES + COPIES_AT_WORK * cost.largest_weights as u64 * F32,
            loader: loader_bytes(job, batch_size),
        })
    }

    fn total(&self) -> u64 {
        [self.weights, self.optimizer, self.activations, self.saving, self.program, self.loader]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes / MIB;
        write!(
            f,
            "{} MiB (weights {}, optimizer {}, activations {}, checkpoint {}, program {}, images {})",
            mib(self.total()),
            mib(self.weights),
            mib(self.optimizer),
            mib(self.activations),
            mib(self.saving),
            mib(self.program),
            mib(self.loader)
        )
    }
}

/// Images in memory: the set or its cache, batches made ahead, and the batch that is trained on.
fn loader_bytes(job: &Job<'_>, batch_size: u64) -> u64 {
    let data = &job.prepared.data;
    let [height, width] = job.config.model.input_size();
    let pixels = (height * width * 3) as u64;
    let num_images = data.dataset.len() as u64;
    let set = match data.provenance.covers {
        Covers::Listing => num_images.saturating_mul(pixels).min(job.config.data.cache_mib.saturating_mul(MIB)),
        // They lie in memory at their own size.
        Covers::Contents => data.dataset.get(0).map_or(0, |sample| sample.image.pixels().len() as u64 * num_images),
        Covers::Generator => 0,
    };
    let ahead = if job.config.data.workers == 0 { 1 } else { job.config.data.prefetch as u64 + 1 };
    let num_train = job.images(Part::Train).num_images() as u64;
    let ahead_images = ahead.saturating_mul(batch_size).min(num_train.saturating_add(batch_size));
    set.saturating_add(pixels.saturating_mul(ahead_images)).saturating_add(pixels.saturating_mul(F32 * batch_size))
}

/// Refuses a run that would be killed for its memory, before it begins.
///
/// # Errors
/// Exit 5 with what it needs, what there is, and the batch size that fits.
pub(crate) fn require_room(job: &Job<'_>) -> Result<()> {
    let room = match job.config.train.memory_limit.parse()? {
        MemoryLimit::Off => None,
        MemoryLimit::Auto if job.device().is_cpu() => room(),
        MemoryLimit::Auto => device::free_bytes(job.device())?,
        MemoryLimit::Bytes(bytes) => Some(bytes),
    };
    let Some(room) = room else { return Ok(()) };
    let need = Need::of(job)?;
    if need.total() <= room {
        return Ok(());
    }
    let batch_size = job.config.train.batch_size as u64;
    // At least two images, for batch norm; the need grows with the size.
    let (mut fits, mut too_large) = (1, batch_size);
    while too_large - fits > 1 {
        let middle = fits + (too_large - fits) / 2;
        if Need::at(job, middle)?.total() <= room { fits = middle } else { too_large = middle }
    }
    let remedy = match fits {
        0 | 1 if job.device().is_cpu() => {
            "no batch size fits; use a smaller model, or set data.cache_mib lower".to_owned()
        }
        0 | 1 => "no batch size fits; use a smaller model, --dtype bf16, or data.cache_mib = 0".to_owned(),
        fits => format!("train.batch_size = {fits} fits"),
    };
    let place = if job.device().is_cpu() { "" } else { " on the GPU" };
    Err(no_memory(format!(
        "train.batch_size = {batch_size}: not enough memory{place}: the run needs about {need}, {} MiB are there; {remedy}; \
         train.memory_limit = \"off\" tries it all the same",
        room / MIB
    )))
}

/// Bytes that this process may have in all: what it holds, and what is left of the tightest limit. `None` where the
/// system does not say.
fn room() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let held = kibibytes(&status, "VmRSS:")?;
    let reserved = kibibytes(&status, "VmSize:")?;
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let free = kibibytes(&meminfo, "MemAvailable:")?;
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    // Threads and the allocator reserve addresses that they never use.
    let by_limit = address_space(&limits).map(|limit| limit.saturating_sub(reserved) / 4 * 3);
    let left = [Some(free), by_limit, cgroup_left()].into_iter().flatten().min()?;
    Some(held.saturating_add(left))
}

/// A line of `/proc`, in bytes.
fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The soft limit that `ulimit -v` sets.
fn address_space(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What the process's control group (version 2) leaves it: containers and schedulers set it.
fn cgroup_left() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let folder = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
    folder
        .ancestors()
        .take_while(|folder| folder.starts_with("/sys/fs/cgroup"))
        .filter_map(|folder| {
            let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
            let max = read("memory.max")?.trim().parse::<u64>().ok()?;
            let current = read("memory.current")?.trim().parse::<u64>().ok()?;
            // Pages of files that nobody has used lately are given back when memory is short.
            let stat = read("memory.stat").unwrap_or_default();
            let idle = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse::<u64>().ok());
            Some(max.saturating_sub(current.saturating_sub(idle.unwrap_or_default())))
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        assert_eq!(kibibytes("VmHWM:\t  10 kB\nVmRSS:\t   2048 kB\n", "VmRSS:"), Some(2 << 20));
        assert_eq!(kibibytes("VmRSS:\t18446744073709551615 kB\n", "VmRSS:"), None);
        let limits = "Limit  Soft  Hard  Units\nMax address space         1048576    unlimited   bytes\n";
        assert_eq!(address_space(limits), Some(1 << 20));
        assert_eq!(address_space("Max address space         unlimited  unlimited bytes\n"), None);
    }
}
