//! Why something could not be fetched.

use std::io;
use std::path::PathBuf;

/// What a function that fetches returns.
pub type Result<T> = std::result::Result<T, FetchError>;

/// A cause of another crate, kept for the chain of causes.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a file or data set could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The name is neither in the table nor of the form `owner/name`.
    #[error("no {kind} named {name}{}", did_you_mean(nearest))]
    UnknownName {
        /// What was looked for: `weights` or `data`.
        kind: &'static str,
        /// The name as it was given.
        name: String,
        /// The most alike names of the table, the best first.
        nearest: Vec<String>,
    },
    /// The name cannot be that of a repository, revision or file.
    #[error("{name:?} cannot be fetched: {reason}")]
    InvalidName {
        /// The name as it was given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An environment variable, or the file it names, has a value that cannot be used.
    #[error("{variable} cannot be used: {reason}")]
    InvalidVariable {
        /// The variable.
        variable: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// The network is switched off and the file is not in the cache.
    #[error("{wanted} is not in {}, and HF_HUB_OFFLINE forbids fetching it; unset that, or fetch it beforehand", cache.display())]
    Offline {
        /// What was asked for.
        wanted: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// The hub knows no such repository, or does not show it to this token.
    #[error(
        "no repository {repository} at {endpoint}{}; check the name, or set HF_TOKEN if it is private",
        did_you_mean(nearest)
    )]
    MissingRepository {
        /// `owner/name`.
        repository: String,
        /// The hub that was asked.
        endpoint: String,
        /// The most alike names of the catalog, the best first.
        nearest: Vec<String>,
    },
    /// The repository has no such branch, tag or commit.
    #[error("repository {repository} has no revision {revision}; give a branch, a tag or a commit after the @")]
    MissingRevision {
        /// `owner/name`.
        repository: String,
        /// The revision as it was given.
        revision: String,
    },
    /// The repository has no such file in this revision.
    #[error("repository {repository} has no file {file} in revision {revision}")]
    MissingFile {
        /// `owner/name`.
        repository: String,
        /// The revision as it was given.
        revision: String,
        /// The file, or the files that were tried.
        file: String,
    },
    /// The server refuses this user.
    #[error("{url} is refused (HTTP {status}): {reason}")]
    Denied {
        /// What was asked for.
        url: String,
        /// 401 or 403.
        status: u16,
        /// What the server says, and what to do.
        reason: String,
    },
    /// The server answers with a status that is no success.
    #[error("{url} answers with HTTP {status}{}", after_colon(reason))]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// What the server says; may be empty.
        reason: String,
    },
    /// A web page came where a file should: a sign-in page of a network, or an error page that says 200.
    #[error(
        "{url} sends a web page instead of the file{}; a proxy or the sign-in page of a network may stand between",
        begins(start)
    )]
    WebPage {
        /// What was asked for.
        url: String,
        /// The first characters of the page; empty if only headers came.
        start: String,
    },
    /// The answer lacks what a hub of this kind always sends.
    #[error("{url} does not answer as a hub does: {reason}; check HF_ENDPOINT")]
    NotAHub {
        /// What was asked for.
        url: String,
        /// What is missing or wrong.
        reason: String,
    },
    /// The server leads elsewhere in a way that is not followed.
    #[error("{url} redirects to {location:?}, which is not followed: {reason}")]
    Redirect {
        /// What was asked for.
        url: String,
        /// Where it leads.
        location: String,
        /// Why that is not followed.
        reason: &'static str,
    },
    /// No answer, or not to its end.
    #[error("cannot fetch {url} (tried {attempts} times); check the network, then run the command again")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// How often it was tried since bytes last came.
        attempts: u32,
        /// What happened the last time.
        #[source]
        source: Cause,
    },
    /// The server wants a longer pause than is worth waiting for.
    #[error("{url} is busy (HTTP {status}) and asks to come back in {seconds} s; run the command again then")]
    Busy {
        /// What was asked for.
        url: String,
        /// 429 or 503, mostly.
        status: u16,
        /// The pause it asks for.
        seconds: u64,
    },
    /// The file has another size than it should.
    #[error("{url} has {found} bytes where {expected} are expected; nothing was kept")]
    Size {
        /// What was asked for.
        url: String,
        /// The size it should have.
        expected: u64,
        /// The size it has, or would have.
        found: u64,
    },
    /// The bytes are not the ones that were announced or published.
    #[error("{name} has the {algorithm} {found} where {expected} is expected; nothing was kept")]
    Digest {
        /// The URL, or the file in the cache.
        name: String,
        /// Which sum differs.
        algorithm: &'static str,
        /// The sum it should have, in hexadecimal.
        expected: String,
        /// The sum it has.
        found: String,
    },
    /// An archive is damaged, or holds what is not unpacked.
    #[error("archive {} is not unpacked: {reason}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong, and with which entry.
        reason: String,
    },
    /// Something that was not fetched lies where the result should.
    #[error("{} exists and was not made by this command; remove it or give another --output", path.display())]
    Occupied {
        /// The folder that is in the way.
        path: PathBuf,
    },
    /// The disk, or the user's share of it, is full.
    #[error("no room to write {}{}; free some, or set HF_HUB_CACHE or --output to another disk", path.display(), of_size(*size))]
    NoRoom {
        /// The file that was being written.
        path: PathBuf,
        /// How large it will be, if that is known.
        size: Option<u64>,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system refuses a file operation.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: `read`, `write` and so on.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What kind of trouble an error is; a program turns it into an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A name, option or variable that the user can put right.
    Usage,
    /// Network or server.
    Network,
    /// Bytes that are not what they should be.
    BadData,
    /// No room on the disk.
    NoRoom,
    /// Anything else, such as a folder that cannot be written.
    Other,
}

impl FetchError {
    /// What kind of trouble it is.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::UnknownName { .. }
            | Self::InvalidName { .. }
            | Self::InvalidVariable { .. }
            | Self::MissingRepository { .. }
            | Self::MissingRevision { .. }
            | Self::MissingFile { .. }
            | Self::Occupied { .. } => Trouble::Usage,
            Self::Offline { .. }
            | Self::Denied { .. }
            | Self::Status { .. }
            | Self::WebPage { .. }
            | Self::NotAHub { .. }
            | Self::Redirect { .. }
            | Self::Unreachable { .. }
            | Self::Busy { .. } => Trouble::Network,
            Self::Size { .. } | Self::Digest { .. } | Self::Archive { .. } => Trouble::BadData,
            Self::NoRoom { .. } => Trouble::NoRoom,
            Self::Io { .. } => Trouble::Other,
        }
    }

    /// A failed file operation; a full disk is told apart from all others.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoRoom { path, size: None, source },
            _ => Self::Io { action, path, source },
        }
    }
}

fn did_you_mean(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!(", did you mean {}?", nearest.join(", ")) }
}

fn begins(start: &str) -> String {
    if start.is_empty() { String::new() } else { format!(" (it begins {start:?})") }
}

fn after_colon(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

fn of_size(size: Option<u64>) -> String {
    size.map_or_else(String::new, |size| format!(" ({} MB)", size.div_ceil(1_000_000)))
}
