//! `taper fetch`: weights and data over the network, verified. Also what other commands show while they fetch.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use taper_hub::archives::{DataSet, fetch_data};
use taper_hub::catalog::WeightsName;
use taper_hub::download::{Event, Fetched, FetchedWeights, HubEnv, Source, Verified, fetch_weights};

use crate::args::{Fetch, FetchArgs};
use crate::exit::Ended;
use crate::terminal::{PLAIN_LINE_EVERY, Talk};

/// Runs the command.
pub(crate) fn run(args: &FetchArgs, talk: Talk) -> Result<Ended> {
    match &args.what {
        Fetch::Weights { name } => {
            let fetched = weights(name, talk)?;
            println!("{}", fetched.weights.path.display());
        }
        Fetch::Data { name, output } => data(name, output, talk)?,
    }
    Ok(Ended::Done)
}

/// Fetches weights by name, or finds them in the cache, and says what they are.
pub(crate) fn weights(name: &str, talk: Talk) -> Result<FetchedWeights> {
    let name = WeightsName::parse(name)?;
    let env = HubEnv::from_variables(|variable| std::env::var_os(variable))?;
    if let Some(known) = name.known {
        let classes = known.num_classes.map_or("no head".to_owned(), |count| format!("{count} classes"));
        talk.say(format!("{}: {}, {classes}, {}", name.repository, known.architecture, known.licence));
        if let Some(published) = known.top1 {
            let (top1, size) = (100.0 * published.top1, published.image_size);
            talk.say(format!("published ImageNet top-1 {top1:.2} % at {size} pixels ({})", published.source));
        }
    }
    let mut show = FetchBar::new(talk);
    let fetched = fetch_weights(&env, &name, &mut |event| show.event(&event))?;
    show.finish();
    talk.say(described(&fetched.weights));
    Ok(fetched)
}

fn described(fetched: &Fetched) -> String {
    let record = &fetched.record;
    let source = if fetched.source == Source::Cache { "cached" } else { "fetched" };
    let verified = match record.verified {
        Verified::Sha256 | Verified::GitBlob | Verified::Md5 => "verified by checksum",
        Verified::Size => "verified by size alone: the server gives no checksum",
        _ => "not verified: the cache does not say what it should be",
    };
    format!(
        "{} {source}, commit {}, {} bytes, sha256 {}, {verified}",
        record.file, record.revision, record.size, record.sha256
    )
}

fn data(name: &str, output: &Path, talk: Talk) -> Result<()> {
    let set = DataSet::named(name)?;
    let env = HubEnv::from_variables(|variable| std::env::var_os(variable))?;
    talk.say(format!("{name}: {}", set.terms));
    let mut show = FetchBar::new(talk);
    let fetched = fetch_data(&env, set, output, &mut |event| show.event(&event))?;
    show.finish();
    for archive in &fetched.archives {
        talk.say(format!("{} from {}, {} bytes, sha256 {}", archive.file, archive.url, archive.size, archive.sha256));
    }
    println!("{}", fetched.path.display());
    Ok(())
}

/// A bar on a terminal; elsewhere a line now and then.
struct FetchBar {
    bar: ProgressBar,
    talk: Talk,
    file: String,
    last_line: Instant,
}

impl FetchBar {
    fn new(talk: Talk) -> Self {
        let is_shown = talk == Talk::Normal && std::io::stderr().is_terminal();
        let target = if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
            bar.set_style(style);
        }
        Self { bar, talk, file: String::new(), last_line: Instant::now() }
    }

    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Started { file, size, have } => self.start(file, *size, *have),
            Event::Received { bytes } => self.advance(*bytes),
            Event::Pausing { reason, pause } => {
                self.say(&format!("{reason}; trying again in {:.0} s", pause.as_secs_f64()));
            }
            Event::Waiting { lock } => {
                self.say(&format!("another process fetches the same; waiting for {}", lock.display()));
            }
            Event::Unpacking { archive } => self.say(&format!("unpacking {}", archive.display())),
            _ => {}
        }
    }

    fn start(&mut self, file: &str, size: Option<u64>, have: u64) {
        file.clone_into(&mut self.file);
        self.bar.set_message(self.file.clone());
        if let Some(size) = size {
            self.bar.set_length(size);
        }
        self.bar.set_position(have);
        // The speed is that of the bytes that come now.
        self.bar.reset_eta();
        if have > 0 {
            self.say(&format!("{file}: going on after {} MB", have / 1_000_000));
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.bar.set_position(bytes);
        if self.bar.is_hidden() && self.last_line.elapsed() >= PLAIN_LINE_EVERY {
            let total = self.bar.length().map_or_else(String::new, |total| format!(" of {}", total / 1_000_000));
            self.talk.say(format!("{}: {}{total} MB", self.file, bytes / 1_000_000));
            self.last_line = Instant::now();
        }
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| self.talk.say(text));
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
