//! How many images a second are trained on, beside PyTorch where there is one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use candle_core::{DType, Device};
use clap::ValueEnum as _;
use serde_json::{Value, json};

use super::report::Report;
use crate::network::{Model, Workload};
use crate::own;
use crate::step::Step;
use crate::timing::{Size, median};

/// A network and its batch, which are timed in bf16.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimedNetwork {
    model: Model,
    batch: usize,
}

impl FromStr for TimedNetwork {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parsed = text.split_once(':').and_then(|(model, batch)| {
            Some(Self { model: Model::from_str(model, false).ok()?, batch: batch.parse().ok().filter(|&n| n > 0)? })
        });
        parsed.ok_or_else(|| "expected NETWORK:BATCH, such as basenet:256".to_owned())
    }
}

/// What is timed unless somebody asks for something else.
const DEFAULT: [TimedNetwork; 5] = [
    TimedNetwork { model: Model::BaseNet, batch: 128 },
    TimedNetwork { model: Model::BaseNet, batch: 256 },
    TimedNetwork { model: Model::BaseNet, batch: 512 },
    TimedNetwork { model: Model::ResNet18, batch: 32 },
    TimedNetwork { model: Model::ResNet50, batch: 128 },
];

/// PyTorch in eager mode, and compiled.
const PEERS: [&str; 2] = ["eager", "compile"];

/// What is timed, and how long.
pub(super) struct Pace<'a> {
    /// The networks; all where it is empty.
    pub(super) networks: &'a [TimedNetwork],
    /// Time that each takes before it is the next one's turn.
    pub(super) slice: Duration,
    /// Turns of each.
    pub(super) rounds: usize,
}

pub(super) fn run(
    device: &Device,
    size: Size,
    pace: &Pace<'_>,
    python: Option<&Path>,
    report: &mut Report,
) -> Result<()> {
    let pace = match size {
        Size::Full => pace,
        Size::Smoke => &Pace { slice: Duration::from_millis(1), rounds: 1, ..*pace },
    };
    let scripts = python.map(|_| Scripts::unpack()).transpose()?;
    let networks = if pace.networks.is_empty() { &DEFAULT } else { pace.networks };
    for &TimedNetwork { model, batch } in networks {
        let workload = Workload::new(model, 1.0, batch, size)?;
        taper_kernels::take_gpu_peak_bytes(device)?;
        let mut own = own::training(&workload, &workload.images()?.to_dtype(DType::BF16)?, device)?;
        // Plans are made and kernels loaded in the first steps.
        let mut peaks = Vec::new();
        for plans in Plans::BOTH {
            plans.switch();
            for _ in 0..size.at_most(3, 1) {
                own()?;
            }
            peaks.push(taper_kernels::take_gpu_peak_bytes(device)?);
        }
        let mut peers = Vec::new();
        if let (Some(python), Some(scripts)) = (python, &scripts) {
            for mode in PEERS {
                peers.push((mode, Peer::start(python, scripts, &workload, mode)?));
            }
            for (mode, peer) in &mut peers {
                peer.wait_until_warm(mode)?;
            }
        }
        let mut found = interleaved(&workload, &mut own, &mut peers, pace)?;
        found["peak_bytes"] = json!(peaks);
        report.add_step(found);
    }
    Ok(())
}

/// How convolutions find their algorithm.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plans {
    /// cuDNN guesses.
    Heuristic,
    /// All were tried.
    Measured,
}

impl Plans {
    const BOTH: [Self; 2] = [Self::Heuristic, Self::Measured];

    pub(super) fn switch(self) {
        taper_kernels::measure_plans(self == Self::Measured);
    }
}

/// Ours, with both ways to find plans, and the peers in turn; the median of each, and of the ratios of neighbours.
fn interleaved(workload: &Workload, own: &mut Step, peers: &mut [(&str, Peer)], pace: &Pace<'_>) -> Result<Value> {
    let slice = pace.slice;
    let (mut ours, mut measured, mut theirs) = (Vec::new(), Vec::new(), vec![Vec::new(); peers.len()]);
    for _ in 0..pace.rounds {
        for (plans, speeds) in Plans::BOTH.into_iter().zip([&mut ours, &mut measured]) {
            plans.switch();
            speeds.push(images_per_second(workload.batch, own, slice)?);
        }
        for ((_, peer), speeds) in peers.iter_mut().zip(&mut theirs) {
            speeds.push(peer.images_per_second(slice)?);
        }
    }
    let mut found = json!({
        "model": workload.model.to_string(),
        "batch": workload.batch,
        "dtype": "bf16",
        "images_per_second": median(&ours),
        "slices": ours,
    });
    let ratio = |ours: &[f64], theirs: &[f64]| {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(own, other)| own / other).collect();
        median(&ratios)
    };
    found["measured_plans"] = json!({
        "images_per_second": median(&measured), "slices": measured, "ratio_to_heuristic": ratio(&measured, &ours),
    });
    for ((mode, _), speeds) in peers.iter().zip(&theirs) {
        found[format!("torch_{mode}")] = json!({
            "images_per_second": median(speeds), "slices": speeds, "ratio": ratio(&ours, speeds),
            "ratio_with_measured_plans": ratio(&measured, speeds),
        });
    }
    Plans::Heuristic.switch();
    Ok(found)
}

fn images_per_second(batch: usize, step: &mut Step, slice: Duration) -> Result<f64> {
    let (started, mut steps) = (Instant::now(), 0);
    while steps == 0 || started.elapsed() < slice {
        step()?;
        steps += 1;
    }
    Ok((steps * batch) as f64 / started.elapsed().as_secs_f64())
}

/// The peer's files, unpacked: this program is carried alone.
struct Scripts(tempfile::TempDir);

impl Scripts {
    fn unpack() -> Result<Self> {
        let folder = tempfile::tempdir().context("no room for the peer's scripts")?;
        let files = [
            ("peer/torch_gpu_step.py", include_str!("../../../../../xtask/peer/torch_gpu_step.py")),
            ("golden/_basenet.py", include_str!("../../../../../xtask/golden/_basenet.py")),
        ];
        for (name, text) in files {
            let path = folder.path().join(name);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(path, text)?;
        }
        Ok(Self(folder))
    }
}

/// A process that makes the network ready by itself, and then trains for a while when it is told to.
struct Peer {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(python: &Path, scripts: &Scripts, workload: &Workload, mode: &str) -> Result<Self> {
        let mut command = Command::new(python);
        command.arg(scripts.0.path().join("peer/torch_gpu_step.py"));
        command.args(["--model", &workload.model.to_string(), "--batch", &workload.batch.to_string(), "--mode", mode]);
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = started.with_context(|| format!("{} does not start", python.display()))?;
        let (input, output) = (process.stdin.take().context("no input")?, process.stdout.take().context("no output")?);
        Ok(Self { process, input, output: BufReader::new(output) })
    }

    /// Until the network is compiled and has trained a little.
    fn wait_until_warm(&mut self, mode: &str) -> Result<()> {
        let said = self.line()?;
        anyhow::ensure!(said == "ready", "PyTorch in mode {mode} did not start; it says {said:?}");
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn images_per_second(&mut self, slice: Duration) -> Result<f64> {
        writeln!(self.input, "{}", slice.as_secs_f64())?;
        let said = self.line()?;
        said.parse().with_context(|| format!("PyTorch says {said:?} instead of a speed"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
