//! Files of a hub, into the cache that Python's `huggingface_hub` uses too. The only code that talks to a network.
//!
//! [`HubEnv`] says which hub, which cache and how patiently; [`fetch_file`] gives a file of a [`Repository`] as
//! [`Fetched`]: its path and a [`FileRecord`] of what it is. A file gets its final name after its size and its checksum
//! are found right, and not before: the checksum is the ETag, which is the SHA-256 of a file in large-file storage and
//! the SHA-1 of the git blob otherwise. Where a server gives an ETag of another form, the size alone is checked and the
//! record says so ([`Verified::Size`]); without any ETag, or with neither sum nor size, nothing is fetched.
//!
//! ```no_run
//! use taper_hub::download::{HubEnv, Repository, fetch_file};
//!
//! let env = HubEnv::from_variables(|name| std::env::var_os(name))?;
//! let weights = Repository::parse("timm/resnet18.tv_in1k")?;
//! let fetched = fetch_file(&env, &weights, "model.safetensors", &mut |_| {})?;
//! println!("{} {}", fetched.path.display(), fetched.record.sha256);
//! # Ok::<(), taper_hub::download::FetchError>(())
//! ```
//!
//! Read [`catalog`](crate::catalog) next: names of weights.

mod bundle;
mod cache;
mod digest;
mod env;
mod error;
mod http;
mod hub;
mod lock;
mod progress;
mod repository;
mod transfer;
mod tries;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use bundle::{FetchedWeights, fetch_weights};
pub use digest::{Sum, Verified};
pub use env::{DEFAULT_ENDPOINT, HubEnv, Network, Patience, Token};
pub use error::{Cause, FetchError, Result, Trouble};
pub use progress::{Event, Progress};
pub use repository::{DEFAULT_REVISION, Repository};

pub(crate) use digest::{Summed, verify};
pub(crate) use http::Http;
pub(crate) use lock::Lock;
pub(crate) use transfer::{Wanted, fetch as transfer};

use cache::{CachedFile, RepositoryCache};
use hub::{Announced, Hub};

/// No file of weights is larger; a server that gives no size is stopped there.
const MOST_BYTES: u64 = 64 << 30;

/// A file of a hub on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Where it is.
    pub path: PathBuf,
    /// Whether bytes came over the network just now.
    pub source: Source,
    /// What it is.
    pub record: FileRecord,
}

/// Where the bytes of a file came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The network, just now.
    Network,
    /// The cache.
    Cache,
}

/// What a run writes down of a file that it used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// `owner/name`.
    pub repository: String,
    /// The commit.
    pub revision: String,
    /// Path in the repository.
    pub file: String,
    /// Bytes.
    pub size: u64,
    /// In hexadecimal.
    pub sha256: String,
    /// What the server gave, without quotes; `None` where a cache without links does not tell.
    pub etag: Option<String>,
    /// What it was held against.
    pub verified: Verified,
}

/// Gives a file of a repository: from the cache if it is there and as the hub has it, else from the hub.
///
/// A commit never changes, so that a cached file of one is used without asking. For a branch or tag the hub is asked; if
/// it does not answer, what the cache has is used and a warning logged. A cached file whose bytes are not those of its
/// ETag is fetched again.
///
/// # Errors
/// A name that cannot be, no such repository, revision or file, no access, no network, wrong bytes, a full disk.
pub fn fetch_file(env: &HubEnv, repository: &Repository, file: &str, progress: Progress<'_>) -> Result<Fetched> {
    repository::check_file_name(file)?;
    let cache = RepositoryCache::new(&env.cache, repository);
    let cached = cache.find(repository.revision(), file)?;
    if cache.is_known_missing(repository.revision(), file) && cached.is_none() {
        return Err(missing_file(repository, file));
    }
    if env.network == Network::Offline {
        let wanted = format!("{file} of {repository}");
        let cached = cached.ok_or_else(|| FetchError::Offline { wanted, cache: env.cache.clone() })?;
        return use_cached(repository, file, cached);
    }
    if repository.is_at_commit()
        && let Some(cached) = cached
    {
        match use_cached(repository, file, cached) {
            Err(error @ FetchError::Digest { .. }) => tracing::warn!("{error}; fetching it again"),
            done => return done,
        }
        return ask_and_fetch(env, repository, file, &cache, None, progress);
    }
    ask_and_fetch(env, repository, file, &cache, cached, progress)
}

fn missing_file(repository: &Repository, file: &str) -> FetchError {
    FetchError::MissingFile {
        repository: repository.name().to_owned(),
        revision: repository.revision().to_owned(),
        file: file.to_owned(),
    }
}

/// `fallback` is what the cache has, for the case that the hub does not answer.
fn ask_and_fetch(
    env: &HubEnv,
    repository: &Repository,
    file: &str,
    cache: &RepositoryCache,
    fallback: Option<CachedFile>,
    progress: Progress<'_>,
) -> Result<Fetched> {
    let hub = Hub::new(env, repository, file);
    // Whoever can go on without the hub does not wait for it long.
    let attempts = if fallback.is_some() { 1 } else { env.patience.attempts };
    match (hub.announced(attempts, progress), fallback) {
        (Ok(announced), _) => fetch_announced(&hub, &announced, cache, progress),
        (Err(error), Some(cached)) if error.trouble() == Trouble::Network => {
            tracing::warn!("{error}; using {file} of {repository} as cached, commit {}", cached.commit);
            use_cached(repository, file, cached)
        }
        (Err(error @ FetchError::MissingFile { .. }), _) if repository.is_at_commit() => {
            cache.remember_missing(repository.revision(), file)?;
            Err(error)
        }
        (Err(error), _) => Err(error),
    }
}

fn use_cached(repository: &Repository, file: &str, cached: CachedFile) -> Result<Fetched> {
    let sum = cached.etag.as_deref().and_then(Sum::of_etag);
    let summed = verify(&cached.path, &cached.path.display().to_string(), sum.as_slice())?;
    let verified = sum.map_or(Verified::Nothing, |sum| sum.verified());
    let record = FileRecord {
        repository: repository.name().to_owned(),
        revision: cached.commit,
        file: file.to_owned(),
        size: summed.size,
        sha256: summed.sha256,
        etag: cached.etag,
        verified,
    };
    Ok(Fetched { path: cached.path, source: Source::Cache, record })
}

fn fetch_announced(
    hub: &Hub<'_>,
    announced: &Announced,
    cache: &RepositoryCache,
    progress: Progress<'_>,
) -> Result<Fetched> {
    let _lock = Lock::acquire(&cache.lock(&announced.etag), progress)?;
    let blob = cache.blob(&announced.etag);
    let (source, summed) = match whole_blob(&blob, announced)? {
        Some(summed) => (Source::Cache, summed),
        None => (Source::Network, fetch_blob(hub, announced, &blob, progress)?),
    };
    let (repository, file) = (hub.repository(), hub.file());
    let path = cache.link(&announced.commit, file, &announced.etag)?;
    cache.remember(repository.revision(), &announced.commit)?;
    let record = FileRecord {
        repository: repository.name().to_owned(),
        revision: announced.commit.clone(),
        file: file.to_owned(),
        size: summed.size,
        sha256: summed.sha256,
        etag: Some(announced.etag.clone()),
        verified: announced.sum.as_ref().map_or(Verified::Size, Sum::verified),
    };
    Ok(Fetched { path, source, record })
}

/// The blob if it is there and right; a damaged one is removed.
fn whole_blob(blob: &std::path::Path, announced: &Announced) -> Result<Option<Summed>> {
    if !blob.is_file() {
        return Ok(None);
    }
    match verify(blob, &blob.display().to_string(), announced.sum.as_slice()) {
        Ok(summed) if announced.size.is_none_or(|size| size == summed.size) => return Ok(Some(summed)),
        Ok(summed) => tracing::warn!("{} has {} bytes; fetching it again", blob.display(), summed.size),
        Err(error @ FetchError::Digest { .. }) => tracing::warn!("{error}; fetching it again"),
        Err(error) => return Err(error),
    }
    std::fs::remove_file(blob).map_err(|error| FetchError::io("remove", blob, error))?;
    Ok(None)
}

fn fetch_blob(hub: &Hub<'_>, announced: &Announced, blob: &std::path::Path, progress: Progress<'_>) -> Result<Summed> {
    if let Some(folder) = blob.parent() {
        std::fs::create_dir_all(folder).map_err(|error| FetchError::io("make", folder, error))?;
    }
    let partial = blob.with_file_name(format!("{}.incomplete", announced.etag));
    let summed = hub.transfer(announced, &partial, progress)?;
    std::fs::rename(&partial, blob).map_err(|error| FetchError::io("rename", &partial, error))?;
    Ok(summed)
}
