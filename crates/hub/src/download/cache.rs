//! The cache's layout on the disk: that of Python's `huggingface_hub` (its guide "Understand caching").
//!
//! ```text
//! models--owner--name/refs/main                       the commit that main was at
//! models--owner--name/blobs/<etag>                    the bytes
//! models--owner--name/snapshots/<commit>/<file>       a link to ../../blobs/<etag>
//! models--owner--name/.no_exist/<commit>/<file>       an empty file: the commit has no such file
//! .locks/models--owner--name/<etag>.lock
//! ```

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::error::{FetchError, Result};
use super::repository::{Repository, is_commit};

/// What the cache has of one repository.
#[derive(Debug)]
pub(crate) struct RepositoryCache {
    folder: PathBuf,
    locks: PathBuf,
}

/// A file that is in the cache.
#[derive(Debug)]
pub(crate) struct CachedFile {
    pub(crate) path: PathBuf,
    pub(crate) commit: String,
    /// Name of its blob; `None` where the cache has the file itself in place of a link.
    pub(crate) etag: Option<String>,
}

impl RepositoryCache {
    pub(crate) fn new(cache: &Path, repository: &Repository) -> Self {
        let name = repository.folder();
        Self { folder: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    /// The file as of a branch, tag or commit, as far as the cache knows.
    pub(crate) fn find(&self, revision: &str, file: &str) -> Result<Option<CachedFile>> {
        let Some(commit) = self.commit_of(revision)? else {
            return Ok(None);
        };
        let path = self.snapshot(&commit, file);
        if !path.is_file() {
            return Ok(None);
        }
        let blob = std::fs::read_link(&path).ok();
        let etag = blob.and_then(|blob| blob.file_name().and_then(|name| name.to_str().map(str::to_owned)));
        Ok(Some(CachedFile { path, commit, etag }))
    }

    fn commit_of(&self, revision: &str) -> Result<Option<String>> {
        if is_commit(revision) {
            return Ok(Some(revision.to_owned()));
        }
        let path = self.folder.join("refs").join(revision);
        match std::fs::read_to_string(&path) {
            // What is no commit must not become a path.
            Ok(commit) => Ok(Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FetchError::io("read", path, error)),
        }
    }

    /// Notes where a branch or tag is.
    pub(crate) fn remember(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) || self.commit_of(revision)?.as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        let write = |error| FetchError::io("write", &path, error);
        let folder = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder).map_err(write)?;
        let mut beside = tempfile::Builder::new().prefix(".ref").tempfile_in(folder).map_err(write)?;
        beside.write_all(commit.as_bytes()).map_err(write)?;
        allow_reading(beside.as_file()).map_err(write)?;
        beside.persist(&path).map_err(|error| write(error.error))?;
        Ok(())
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    pub(crate) fn lock(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }

    pub(crate) fn snapshot(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit).join(file)
    }

    /// Makes the file of a commit appear. The caller holds the lock of the blob.
    pub(crate) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<PathBuf> {
        let path = self.snapshot(commit, file);
        let up = "../".repeat(file.split('/').count() + 1);
        let target = format!("{up}blobs/{etag}");
        if std::fs::read_link(&path).is_ok_and(|there| there == Path::new(&target)) {
            return Ok(path);
        }
        let write = |error| FetchError::io("link", &path, error);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(write)?;
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(write(error)),
            _ => {}
        }
        symlink(Path::new(&target), &self.blob(etag), &path).map_err(write)?;
        Ok(path)
    }

    /// Whether a commit is known to have no such file.
    pub(crate) fn is_known_missing(&self, commit: &str, file: &str) -> bool {
        is_commit(commit) && self.no_exist(commit, file).is_file()
    }

    /// Notes that a commit has no such file.
    pub(crate) fn remember_missing(&self, commit: &str, file: &str) -> Result<()> {
        let path = self.no_exist(commit, file);
        let write = |error| FetchError::io("write", &path, error);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(write)?;
        }
        std::fs::write(&path, "").map_err(write)
    }

    fn no_exist(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit).join(file)
    }
}

#[cfg(unix)]
fn symlink(target: &Path, _: &Path, at: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, at)
}

#[cfg(not(unix))]
fn symlink(_: &Path, blob: &Path, at: &Path) -> std::io::Result<()> {
    // As Python does where links need a privilege.
    std::fs::copy(blob, at).map(drop)
}

/// A temporary file is its owner's alone; a cache may be shared.
#[cfg(unix)]
fn allow_reading(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn allow_reading(_: &std::fs::File) -> std::io::Result<()> {
    Ok(())
}
