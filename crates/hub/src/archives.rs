//! Data sets by name: fetched from their publishers, verified, unpacked.
//!
//! [`DATA_SETS`] is the table; [`fetch_data`] makes the folder of one. It appears under its name when all of it is there.
//!
//! ```
//! use taper_hub::archives::DataSet;
//!
//! let cifar = DataSet::named("cifar-100")?;
//! assert_eq!(cifar.folder, "cifar-100-binary");
//! assert!(DataSet::named("cifar100").unwrap_err().to_string().contains("cifar-100"));
//! # Ok::<(), taper_hub::download::FetchError>(())
//! ```

mod table;
mod unpack;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use table::{Archive, DATA_SETS, DataSet, PublishedSum};

use crate::download::{
    Event, FetchError, Http, HubEnv, Lock, Network, Progress, Result, Source, Sum, Summed, Trouble, Wanted, transfer,
    verify,
};
use unpack::Unpacker;

/// Written into the folder of a data set last, so that one without it is not whole.
const RECORD: &str = ".fetched.json";

/// A data set on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedData {
    /// The folder to train from.
    pub path: PathBuf,
    /// Whether it was fetched just now.
    pub source: Source,
    /// The archives that it came from.
    pub archives: Vec<ArchiveRecord>,
}

/// What is written down of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveRecord {
    /// Its file name.
    pub file: String,
    /// Where it came from.
    pub url: String,
    /// Bytes.
    pub size: u64,
    /// In hexadecimal.
    pub sha256: String,
}

/// Unpacks a `.tar.gz` into a folder that exists, at most so many bytes and files.
///
/// # Errors
/// An archive that is damaged or larger, or that holds links, devices or paths that lead out; then a part may be unpacked.
pub fn unpack(archive: &Path, folder: &Path, most_bytes: u64, most_files: u64) -> Result<()> {
    Unpacker::new(folder, None, most_bytes, most_files).unpack(archive)
}

/// Makes the folder of a data set below `output`, or finds it there.
///
/// Archives are gathered in a hidden folder beside it, from which an interrupted download goes on, and removed at the
/// end. They are held against their published checksums before anything is unpacked.
///
/// # Errors
/// No network, wrong bytes, an archive that holds what is not unpacked (links, paths that lead out, more bytes than the
/// set has), a full disk, or a folder of that name that was not made here.
pub fn fetch_data(env: &HubEnv, set: &DataSet<'_>, output: &Path, progress: Progress<'_>) -> Result<FetchedData> {
    let path = output.join(set.folder);
    if let Some(archives) = archives_of(&path, set)? {
        return Ok(FetchedData { path, source: Source::Cache, archives });
    }
    if env.network == Network::Offline {
        return Err(FetchError::Offline { wanted: format!("data set {}", set.name), cache: output.to_owned() });
    }
    let _lock = Lock::acquire(&output.join(format!(".{}.lock", set.folder)), progress)?;
    // Another process may have made it meanwhile.
    if let Some(archives) = archives_of(&path, set)? {
        return Ok(FetchedData { path, source: Source::Cache, archives });
    }
    let work = output.join(format!(".{}.incomplete", set.folder));
    make_folder(&work)?;
    let http = Http::new(env);
    let mut archives = Vec::new();
    for archive in set.archives {
        archives.push(fetch_archive(&http, env, archive, &work, progress)?);
    }
    let unpacked = unpack_all(set, &work, progress)?;
    write_record(&unpacked.join(RECORD), &archives)?;
    std::fs::rename(&unpacked, &path).map_err(|error| FetchError::io("rename", &unpacked, error))?;
    remove_folder(&work)?;
    Ok(FetchedData { path, source: Source::Network, archives })
}

/// The record of a folder that is there; `None` if nothing is.
fn archives_of(path: &Path, set: &DataSet<'_>) -> Result<Option<Vec<ArchiveRecord>>> {
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    let occupied = || FetchError::Occupied { path: path.to_owned() };
    let text = std::fs::read(path.join(RECORD)).map_err(|_| occupied())?;
    let archives: Vec<ArchiveRecord> = serde_json::from_slice(&text).map_err(|_| occupied())?;
    let is_same = archives.len() == set.archives.len()
        && archives.iter().zip(set.archives).all(|(found, archive)| found.file == archive.file);
    if is_same { Ok(Some(archives)) } else { Err(occupied()) }
}

fn write_record(path: &Path, archives: &[ArchiveRecord]) -> Result<()> {
    let write = |error| FetchError::io("write", path, error);
    let text = serde_json::to_vec_pretty(archives).map_err(|error| write(error.into()))?;
    std::fs::write(path, text).map_err(write)
}

fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|error| FetchError::io("make", path, error))
}

fn remove_folder(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(FetchError::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// Fetches an archive from the first of its addresses that has it, unless it lies there from an earlier try.
fn fetch_archive(
    http: &Http,
    env: &HubEnv,
    archive: &Archive<'_>,
    work: &Path,
    progress: Progress<'_>,
) -> Result<ArchiveRecord> {
    let sums: Vec<Sum> = archive.sums.iter().map(PublishedSum::sum).collect();
    let whole = work.join(archive.file);
    if whole.is_file()
        && let Some(url) = archive.urls.first()
        && let Ok(summed) = verify(&whole, archive.file, &sums)
    {
        return Ok(record(archive, url, summed));
    }
    let partial = work.join(format!("{}.incomplete", archive.file));
    let mut last_error = FetchError::InvalidName { name: archive.file.to_owned(), reason: "it has no address" };
    for url in archive.urls {
        let wanted = Wanted {
            url,
            file: archive.file,
            partial: &partial,
            size: archive.size,
            most_bytes: archive.most_bytes(),
            sums: &sums,
            refused: &|_, _| None,
        };
        match transfer(http, &env.patience, &wanted, progress) {
            Ok(summed) => {
                std::fs::rename(&partial, &whole).map_err(|error| FetchError::io("rename", &partial, error))?;
                return Ok(record(archive, url, summed));
            }
            Err(error) if matches!(error.trouble(), Trouble::Network | Trouble::BadData) => last_error = error,
            Err(error) => return Err(error),
        }
        tracing::warn!("{last_error}");
    }
    Err(last_error)
}

fn record(archive: &Archive<'_>, url: &str, summed: Summed) -> ArchiveRecord {
    ArchiveRecord { file: archive.file.to_owned(), url: url.to_owned(), size: summed.size, sha256: summed.sha256 }
}

/// Unpacks all archives of a set into one folder, anew if an earlier try was interrupted.
fn unpack_all(set: &DataSet<'_>, work: &Path, progress: Progress<'_>) -> Result<PathBuf> {
    let unpacked = work.join("unpacked");
    remove_folder(&unpacked)?;
    make_folder(&unpacked)?;
    let mut unpacker = Unpacker::new(&unpacked, set.top, set.most_bytes, set.most_files);
    for archive in set.archives {
        let path = work.join(archive.file);
        progress(Event::Unpacking { archive: &path });
        unpacker.unpack(&path)?;
    }
    Ok(unpacked)
}
