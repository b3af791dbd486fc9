//! From the start of `taper train` to its first step.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::programs::Programs;
use super::statistics::Spread;
use super::table::Table;
use super::{Section, Settings};

/// What `taper-train` writes to its log when the batches of a step are there and its forward pass is next.
const STEP_BEGINS: &str = "step begins";
/// The filter that lets it through.
const LOG_FILTER: &str = "taper_train=trace";

/// Starts the default run, on built-in data, `rounds` times after one that does not count: it brings the files into
/// memory.
pub(super) fn measure(programs: &Programs, settings: &Settings) -> Result<Section> {
    println!("== startup: {} rounds", settings.rounds);
    let mut seconds = Vec::new();
    for round in 0..=settings.rounds.get() {
        let took = seconds_to_first_step(programs, settings.threads.get())?;
        if round > 0 {
            seconds.push(took);
        }
    }
    let title = format!("Process start until the first step begins, {} threads", settings.threads);
    let mut table = Table::new(title, &["measure", "ms", "must", "goal"]);
    let milliseconds: Vec<_> = seconds.iter().map(|seconds| seconds * 1e3).collect();
    let shown = Spread::of(&milliseconds).map_or_else(String::new, |spread| spread.show(0));
    table.push(["taper train, built-in data", &shown, "200", "40"]);
    Ok(Section { tables: vec![table], figures: json!({ "seconds": seconds }), num_failed: 0 })
}

fn seconds_to_first_step(programs: &Programs, threads: usize) -> Result<f64> {
    let folder = programs.scratch("startup")?;
    let mut command = programs.taper(threads);
    command.args(["train", "-q", "--set", "train.max_steps=1", "--output"]).arg(folder.join("run"));
    command.env("TAPER_LOG", LOG_FILTER).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let seconds = wait_for_line(&mut child, started);
    // The rest of the run, mostly its evaluation, is of no interest.
    child.kill().and_then(|()| child.wait()).context("cannot end taper")?;
    std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    seconds
}

fn wait_for_line(child: &mut Child, started: Instant) -> Result<f64> {
    let stderr = child.stderr.take().context("taper has no standard error")?;
    let mut said = Vec::new();
    for line in BufReader::new(stderr).lines() {
        let line = line.context("cannot read what taper says")?;
        if line.contains(STEP_BEGINS) {
            return Ok(started.elapsed().as_secs_f64());
        }
        said.push(line);
    }
    bail!("taper ended before its first step: {}", said.join(" "))
}

#[cfg(test)]
mod tests {
    use super::wait_for_line;
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    fn child(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).stderr(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn the_line_is_found_among_others() {
        let mut child = child("echo other >&2; echo 'TRACE taper_train::fit: step begins step=0' >&2");
        assert!(wait_for_line(&mut child, Instant::now()).unwrap() >= 0.0);
        child.wait().unwrap();
    }

    #[test]
    fn an_early_end_says_what_was_said() {
        let mut child = child("echo 'error: no such option' >&2; exit 2");
        let error = wait_for_line(&mut child, Instant::now()).unwrap_err();
        assert!(error.to_string().contains("no such option"));
        child.wait().unwrap();
    }
}
