//! Talk on stderr, results on stdout, a bar where there is a terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use taper_metrics::{EpochRecord, Kept, RecordSink, SinkError, StepRecord};
use taper_report::{EventSink, JsonlSink, LossScale, epoch_line};
use tracing_subscriber::EnvFilter;

/// Without a terminal a line of progress comes no more often than this.
pub(crate) const PLAIN_LINE_EVERY: Duration = Duration::from_secs(30);

/// Sends the crates' messages to stderr; `TAPER_LOG` sets the filter, else `-q` and `-v` do.
pub(crate) fn start_log(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, _) => "debug",
    };
    let filter = EnvFilter::try_from_env("TAPER_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let colours = std::io::stderr().is_terminal() && !is_set("NO_COLOR") || is_set("CLICOLOR_FORCE");
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .without_time()
        .init();
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty() && value != "0")
}

/// Whether talk is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Talk {
    /// Progress and remarks.
    Normal,
    /// Results only.
    Quiet,
}

impl Talk {
    pub(crate) fn new(quiet: bool) -> Self {
        if quiet { Self::Quiet } else { Self::Normal }
    }

    /// A remark for the person at the terminal.
    pub(crate) fn say(self, text: impl AsRef<str>) {
        if self == Self::Normal {
            eprintln!("{}", text.as_ref());
        }
    }
}

/// A bar for work that comes before training.
pub(crate) struct Counter(ProgressBar);

impl Counter {
    /// `what` comes before `n/total images`.
    pub(crate) fn new(what: &'static str, total: u64, talk: Talk) -> Self {
        let counter = Self::of("images", total, talk);
        counter.0.set_prefix(what);
        counter
    }

    /// `n/total things`.
    pub(crate) fn of(things: &'static str, total: u64, talk: Talk) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), target(talk));
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {prefix} {pos}/{len} {msg}, {eta} left") {
            bar.set_style(style);
        }
        bar.set_message(things);
        Self(bar)
    }

    pub(crate) fn set(&self, done: u64) {
        self.0.set_position(done);
    }

    /// Takes the bar off the screen.
    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// Bars are drawn where a person sees them.
fn target(talk: Talk) -> ProgressDrawTarget {
    match talk == Talk::Normal && std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    }
}

/// What the epoch lines need to know of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunShape {
    pub(crate) num_epochs: usize,
    pub(crate) num_steps: u64,
    pub(crate) batch_size: usize,
    pub(crate) loss: LossScale,
}

/// Records go to the run's files, and to the person.
pub(crate) struct TerminalSink {
    files: (JsonlSink, EventSink),
    bar: ProgressBar,
    talk: Talk,
    shape: RunShape,
    started_at_step: u64,
    started: Instant,
    last_line: Instant,
}

impl TerminalSink {
    pub(crate) fn new(files: (JsonlSink, EventSink), talk: Talk, shape: RunShape) -> Self {
        let bar = ProgressBar::with_draw_target(Some(shape.num_steps), target(talk));
        if let Ok(style) = ProgressStyle::with_template("{bar:30} step {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        let now = Instant::now();
        Self { files, bar, talk, shape, started_at_step: 0, started: now, last_line: now }
    }

    /// Takes the bar off the screen.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn time_left(&self, step: u64) -> String {
        let done = step.saturating_sub(self.started_at_step).max(1) as f64;
        let per_step = self.started.elapsed().as_secs_f64() / done;
        human_seconds(per_step * self.shape.num_steps.saturating_sub(step) as f64)
    }
}

impl RecordSink for TerminalSink {
    fn step(&mut self, record: &StepRecord) -> Result<(), SinkError> {
        let text = format!(
            "loss {:.3} top1 {:.3} {:.0} images/s, {} left",
            record.loss,
            record.top1,
            record.images_per_second,
            self.time_left(record.step)
        );
        self.bar.set_position(record.step);
        self.bar.set_message(text.clone());
        if self.bar.is_hidden() && self.last_line.elapsed() >= PLAIN_LINE_EVERY {
            self.talk.say(format!("step {}/{} {text}", record.step, self.shape.num_steps));
            self.last_line = Instant::now();
        }
        self.files.step(record)
    }

    fn epoch(&mut self, record: &EpochRecord) -> Result<(), SinkError> {
        let line = epoch_line(record, self.shape.num_epochs, self.shape.loss, self.shape.batch_size);
        self.bar.set_position(record.step);
        self.bar.suspend(|| println!("{line}"));
        self.last_line = Instant::now();
        self.files.epoch(record)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.files.flush()
    }

    fn rewind(&mut self, kept: Kept) -> Result<(), SinkError> {
        self.started_at_step = kept.steps;
        self.files.rewind(kept)
    }
}

/// A duration as a person says it.
pub(crate) fn human_seconds(seconds: f64) -> String {
    let seconds = if seconds.is_finite() { seconds.max(0.0).round() as u64 } else { 0 };
    match seconds {
        0..100 => format!("{seconds} s"),
        100..6000 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        6000..172_800 => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} days {:02} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_said() {
        let cases = [
            (0.4, "0 s"),
            (99.0, "99 s"),
            (125.0, "2 min 05 s"),
            (7260.0, "2 h 01 min"),
            (262_800.0, "3 days 01 h"),
            (f64::NAN, "0 s"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(human_seconds(seconds), expected);
        }
    }
}
