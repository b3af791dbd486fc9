//! Downloads against real servers on loopback that misbehave on demand.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod archives;
mod cache;
mod failures;
mod loopback;
mod resumed;

use std::time::Duration;

use taper_hub::download::{
    Event, FetchError, Fetched, HubEnv, Network, Patience, Repository, Result, Token, fetch_file,
};

use loopback::Loopback;

/// Servers, a cache of its own, and the repository `o/n` with a large file `w.bin` and a small one `config.json`.
struct Setting {
    server: Loopback,
    folder: tempfile::TempDir,
    env: HubEnv,
}

const CONFIG: &[u8] = b"{\"architecture\": \"resnet18\"}";

/// Bytes that no server could make up.
fn weights() -> Vec<u8> {
    (0..200_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

impl Setting {
    fn new() -> Self {
        let server = Loopback::start();
        server.add_large("o/n/w.bin", &weights());
        server.add_small("o/n/config.json", CONFIG);
        let folder = tempfile::tempdir().unwrap();
        let env = HubEnv {
            cache: folder.path().join("hub"),
            endpoint: server.hub.clone(),
            token: Some(Token::new("hf_secret", "HF_TOKEN").unwrap()),
            network: Network::Online,
            patience: Patience {
                connect: Duration::from_secs(5),
                read: Duration::from_secs(10),
                attempts: 3,
                first_pause: Duration::from_millis(1),
                longest_pause: Duration::from_secs(20),
            },
        };
        Self { server, folder, env }
    }

    fn fetch(&self, repository: &str, file: &str) -> Result<Fetched> {
        fetch_file(&self.env, &Repository::parse(repository)?, file, &mut |_| {})
    }

    fn weights(&self) -> Result<Fetched> {
        self.fetch("o/n", "w.bin")
    }

    /// Fetches and notes the pauses.
    fn weights_with_pauses(&self) -> (Result<Fetched>, Vec<Duration>) {
        let mut pauses = Vec::new();
        let repository = Repository::parse("o/n").unwrap();
        let fetched = fetch_file(&self.env, &repository, "w.bin", &mut |event| {
            if let Event::Pausing { pause, .. } = event {
                pauses.push(pause);
            }
        });
        (fetched, pauses)
    }

    fn blob(&self, etag: &str) -> std::path::PathBuf {
        self.env.cache.join("models--o--n/blobs").join(etag)
    }
}

/// The fetched file has the bytes of `w.bin`.
#[track_caller]
fn assert_whole(fetched: Result<Fetched>) -> Fetched {
    let fetched = fetched.unwrap();
    assert!(std::fs::read(&fetched.path).unwrap() == weights(), "{}", fetched.path.display());
    fetched
}

/// An error and its causes in one line.
fn whole_text(error: &FetchError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
