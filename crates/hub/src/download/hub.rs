//! What a hub says of a file before it sends it.

use std::path::Path;

use ureq::http::HeaderMap;

use super::MOST_BYTES;
use super::digest::{Sum, Summed};
use super::env::{HubEnv, Patience};
use super::error::{FetchError, Result};
use super::http::{Answers, Ask, Failure, Http, number, refusal, text};
use super::progress::Progress;
use super::repository::{Repository, is_commit};
use super::transfer::{self, Wanted};
use super::tries::Tries;

/// A hub, asked for one file.
pub(crate) struct Hub<'a> {
    http: Http,
    env: &'a HubEnv,
    repository: &'a Repository,
    file: &'a str,
}

/// What the file will be.
#[derive(Debug)]
pub(crate) struct Announced {
    pub(crate) commit: String,
    /// Without quotes; fit for a file name.
    pub(crate) etag: String,
    /// What the ETag says of the bytes, if it is of a known form.
    pub(crate) sum: Option<Sum>,
    pub(crate) size: Option<u64>,
}

impl<'a> Hub<'a> {
    pub(crate) fn new(env: &'a HubEnv, repository: &'a Repository, file: &'a str) -> Self {
        Self { http: Http::new(env), env, repository, file }
    }

    pub(crate) fn repository(&self) -> &Repository {
        self.repository
    }

    pub(crate) fn file(&self) -> &str {
        self.file
    }

    /// Asks what the file is.
    pub(crate) fn announced(&self, attempts: u32, progress: Progress<'_>) -> Result<Announced> {
        let url = self.url(self.repository.revision());
        let patience = Patience { attempts, ..self.env.patience.clone() };
        let mut tries = Tries::new(&patience, &url);
        loop {
            match self.ask_headers(&url) {
                Ok(announced) => return Ok(announced),
                Err(failure) => tries.failed(failure, progress)?,
            }
        }
    }

    /// Fetches the file as of the announced commit, so that a branch that moves meanwhile does no harm.
    pub(crate) fn transfer(&self, announced: &Announced, partial: &Path, progress: Progress<'_>) -> Result<Summed> {
        let url = self.url(&announced.commit);
        let wanted = Wanted {
            url: &url,
            file: self.file,
            partial,
            size: announced.size,
            most_bytes: MOST_BYTES,
            sums: announced.sum.as_slice(),
            refused: &|status, headers| self.refused(&url, status, headers),
        };
        transfer::fetch(&self.http, &self.env.patience, &wanted, progress)
    }

    fn url(&self, revision: &str) -> String {
        self.repository.url(&self.env.endpoint, revision, self.file)
    }

    fn ask_headers(&self, url: &str) -> std::result::Result<Announced, Failure> {
        let mut answers = self.http.ask(Ask::Headers, url)?;
        if let Some(failure) = refusal(&mut answers.last, url, |status, headers| self.refused(url, status, headers)) {
            return Err(failure);
        }
        Ok(announced(url, &answers)?)
    }

    /// Which part is missing, or why there is no access. The headers are those that `hf_raise_for_status` of Python's
    /// `huggingface_hub` reads.
    fn refused(&self, url: &str, status: u16, headers: &HeaderMap) -> Option<FetchError> {
        let repository = self.repository.name().to_owned();
        let revision = self.repository.revision().to_owned();
        let denied = |reason: String| Some(FetchError::Denied { url: url.to_owned(), status, reason });
        match (text(headers, "x-error-code"), status) {
            (Some("EntryNotFound"), _) => {
                Some(FetchError::MissingFile { repository, revision, file: self.file.to_owned() })
            }
            (Some("RevisionNotFound"), _) => Some(FetchError::MissingRevision { repository, revision }),
            (Some("GatedRepo"), _) => denied(format!(
                "the repository is gated; accept its conditions at {}/{repository} and set HF_TOKEN",
                self.env.endpoint
            )),
            (_, 401) if text(headers, "x-error-message") == Some("Invalid credentials in Authorization header") => {
                denied("the hub does not know this token; check HF_TOKEN, HF_TOKEN_PATH or HF_HOME/token".to_owned())
            }
            // A hub tells nobody without access that a private repository exists.
            (Some("RepoNotFound"), _) | (_, 401) => Some(FetchError::MissingRepository {
                nearest: crate::catalog::nearest(&repository),
                repository,
                endpoint: self.env.endpoint.clone(),
            }),
            _ => None,
        }
    }
}

/// Reads the headers of all answers: the one that redirects to a store speaks of the file with `X-Linked-*`, and the
/// store's own ETag is another.
fn announced(url: &str, answers: &Answers) -> Result<Announced> {
    let not_a_hub = |reason: &str| FetchError::NotAHub { url: url.to_owned(), reason: reason.to_owned() };
    let first = |name: &str| answers.headers.iter().find_map(|headers| text(headers, name));
    let is_redirect = answers.last.status().is_redirection();
    let last = answers.last.headers();
    let commit = first("x-repo-commit").ok_or_else(|| not_a_hub("no X-Repo-Commit header"))?;
    if !is_commit(commit) {
        return Err(not_a_hub("X-Repo-Commit is no commit"));
    }
    let etag = first("x-linked-etag").or_else(|| if is_redirect { None } else { text(last, "etag") });
    let etag = etag.ok_or_else(|| not_a_hub("no ETag header, so the file cannot be told from another"))?;
    let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    if !is_file_name(etag) {
        return Err(not_a_hub("the ETag cannot be the name of a file"));
    }
    let linked_size = answers.headers.iter().find_map(|headers| number(headers, "x-linked-size"));
    let size = linked_size.or_else(|| if is_redirect { None } else { number(last, "content-length") });
    let sum = Sum::of_etag(etag);
    if sum.is_none() && size.is_none() {
        return Err(not_a_hub("neither a checksum nor a size, so the file cannot be verified"));
    }
    Ok(Announced { commit: commit.to_owned(), etag: etag.to_owned(), sum, size })
}

fn is_file_name(etag: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=128).contains(&etag.len()) && etag.bytes().all(allowed) && !etag.starts_with('.')
}
