//! What a download tells while it goes on.

use std::path::Path;
use std::time::Duration;

/// One piece of news. A library prints nothing: whoever calls it may.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Bytes begin to come. After a broken connection this comes again.
    Started {
        /// The file.
        file: &'a str,
        /// Its size in bytes, if the server says it.
        size: Option<u64>,
        /// Bytes that are there from before; 0 if the server begins anew.
        have: u64,
    },
    /// This many bytes of the file are there now.
    Received {
        /// Bytes, those from before included.
        bytes: u64,
    },
    /// The file is whole, and its sums are right.
    Finished {
        /// The file.
        file: &'a str,
    },
    /// Something failed and is tried again after a pause.
    Pausing {
        /// What failed.
        reason: &'a str,
        /// How long the pause is.
        pause: Duration,
    },
    /// Another process fetches the same file; this one waits for it.
    Waiting {
        /// The lock that it holds.
        lock: &'a Path,
    },
    /// An archive is unpacked.
    Unpacking {
        /// The archive.
        archive: &'a Path,
    },
}

/// Takes the news.
pub type Progress<'a> = &'a mut dyn FnMut(Event<'_>);
