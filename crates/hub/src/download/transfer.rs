//! The bytes of one URL into one file: resumed, bounded, verified.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use ureq::Body;
use ureq::http::{HeaderMap, Response};

use super::digest::{Sum, Summed, verify};
use super::env::Patience;
use super::error::{FetchError, Result};
use super::http::{Ask, Failure, Http, number, refusal, text};
use super::progress::{Event, Progress};
use super::tries::Tries;

/// What is to be fetched, and what is known of it.
pub(crate) struct Wanted<'a> {
    pub(crate) url: &'a str,
    /// What the user knows it as.
    pub(crate) file: &'a str,
    /// Where the bytes are gathered; what lies there is gone on with.
    pub(crate) partial: &'a Path,
    pub(crate) size: Option<u64>,
    /// No more bytes than this are taken.
    pub(crate) most_bytes: u64,
    pub(crate) sums: &'a [Sum],
    /// The error for a status that is no success, where more can be said than the status.
    pub(crate) refused: &'a dyn Fn(u16, &HeaderMap) -> Option<FetchError>,
}

/// Fetches until the file is whole, and verifies it. Bytes that prove wrong are fetched once more from the start: they may
/// have been left over from another version.
pub(crate) fn fetch(http: &Http, patience: &Patience, wanted: &Wanted<'_>, progress: Progress<'_>) -> Result<Summed> {
    let mut is_second = false;
    loop {
        let checked = gather(http, patience, wanted, progress).and_then(|()| check(wanted));
        match checked {
            Ok(summed) => {
                progress(Event::Finished { file: wanted.file });
                return Ok(summed);
            }
            Err(error @ (FetchError::Digest { .. } | FetchError::Size { .. })) => {
                remove(wanted.partial)?;
                if is_second || matches!(error, FetchError::Size { .. }) {
                    return Err(error);
                }
                tracing::warn!("{error}; fetching it once more");
                is_second = true;
            }
            Err(error) => return Err(error),
        }
    }
}

fn check(wanted: &Wanted<'_>) -> Result<Summed> {
    let summed = verify(wanted.partial, wanted.url, wanted.sums)?;
    match wanted.size {
        Some(expected) if expected != summed.size => Err(size_error(wanted, expected, summed.size)),
        _ => Ok(summed),
    }
}

fn remove(path: &Path) -> Result<()> {
    std::fs::remove_file(path).map_err(|error| FetchError::io("remove", path, error))
}

/// Tries until the file is whole.
fn gather(http: &Http, patience: &Patience, wanted: &Wanted<'_>, progress: Progress<'_>) -> Result<()> {
    let mut tries = Tries::new(patience, wanted.url);
    let mut most = 0;
    loop {
        let Err(failure) = try_once(http, wanted, progress) else {
            return Ok(());
        };
        // Only more bytes than ever before are an achievement: a server may begin anew each time, and break off at the
        // same place.
        let len = std::fs::metadata(wanted.partial).map_or(0, |file| file.len());
        if len > most {
            most = len;
            tries.begin_anew();
        }
        tries.failed(failure, progress)?;
    }
}

fn try_once(http: &Http, wanted: &Wanted<'_>, progress: Progress<'_>) -> std::result::Result<(), Failure> {
    let file = OpenOptions::new().create(true).append(true).open(wanted.partial);
    let file = file.map_err(|error| write_error(wanted, error))?;
    let mut have = file.metadata().map_err(|error| write_error(wanted, error))?.len();
    if wanted.size == Some(have) {
        return Ok(());
    }
    if have > wanted.size.unwrap_or(wanted.most_bytes) {
        truncate(&file, wanted)?;
        have = 0;
    }
    let mut response = http.ask(Ask::Bytes { from: have }, wanted.url)?.last;
    if response.status() == 416 && have > 0 {
        if unsatisfied_total(response.headers()) == Some(have) {
            return Ok(());
        }
        truncate(&file, wanted)?;
        return Err(Failure::passing("the server has no bytes beyond those that are here; beginning anew"));
    }
    if let Some(failure) = refusal(&mut response, wanted.url, wanted.refused) {
        return Err(failure);
    }
    let start = start_of_body(&response, have)?;
    if start == 0 && have > 0 {
        truncate(&file, wanted)?;
    }
    receive(response, start, file, wanted, progress)
}

/// Where in the file the answer begins: at the place that was asked for, or at the start if the server ignores that.
fn start_of_body(response: &Response<Body>, have: u64) -> std::result::Result<u64, Failure> {
    match response.status().as_u16() {
        200 => Ok(0),
        206 if range_start(response.headers()) == Some(have) => Ok(have),
        206 => Err(Failure::passing("the server sends another part of the file than it was asked for")),
        status => Err(Failure::passing(format!("the server answers {status} without the file"))),
    }
}

fn receive(
    mut response: Response<Body>,
    start: u64,
    mut file: File,
    wanted: &Wanted<'_>,
    progress: Progress<'_>,
) -> std::result::Result<(), Failure> {
    let announced = number(response.headers(), "content-length").map(|rest| start.saturating_add(rest));
    let size = wanted.size.or(announced);
    let most = size.unwrap_or(wanted.most_bytes).min(wanted.most_bytes);
    if let Some(announced) = announced
        && announced > most
    {
        return Err(size_error(wanted, most, announced).into());
    }
    if let (Some(expected), Some(announced)) = (wanted.size, announced)
        && announced < expected
    {
        return Err(size_error(wanted, expected, announced).into());
    }
    progress(Event::Started { file: wanted.file, size, have: start });
    let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = start;
    loop {
        let len = body.read(&mut buffer).map_err(Failure::passing)?;
        if len == 0 {
            break;
        }
        bytes += len as u64;
        if bytes > most {
            return Err(size_error(wanted, most, bytes).into());
        }
        file.write_all(&buffer[..len]).map_err(|error| write_error(wanted, error))?;
        progress(Event::Received { bytes });
    }
    if size.is_some_and(|size| bytes < size) {
        return Err(Failure::passing(format!("the connection ended after {bytes} bytes")));
    }
    file.sync_all().map_err(|error| write_error(wanted, error).into())
}

fn truncate(file: &File, wanted: &Wanted<'_>) -> Result<()> {
    file.set_len(0).map_err(|error| write_error(wanted, error))
}

fn size_error(wanted: &Wanted<'_>, expected: u64, found: u64) -> FetchError {
    FetchError::Size { url: wanted.url.to_owned(), expected, found }
}

fn write_error(wanted: &Wanted<'_>, error: std::io::Error) -> FetchError {
    match FetchError::io("write", wanted.partial, error) {
        FetchError::NoRoom { path, source, .. } => FetchError::NoRoom { path, size: wanted.size, source },
        other => other,
    }
}

/// `bytes 5-9/10` begins at 5 (RFC 9110, section 14.4).
fn range_start(headers: &HeaderMap) -> Option<u64> {
    text(headers, "content-range")?.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// `bytes */10` of a 416 says that there are 10.
fn unsatisfied_total(headers: &HeaderMap) -> Option<u64> {
    text(headers, "content-range")?.strip_prefix("bytes */")?.parse().ok()
}
