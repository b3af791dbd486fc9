//! Logs after a crash: what is kept is whole, and is kept again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taper_metrics::{Kept, RecordSink};

mod scratch;

fuzz_target!(|bytes: &[u8]| {
    let path = scratch::file("steps.jsonl", bytes);
    let folder = path.parent().unwrap();
    let Ok(mut sink) = taper_report::JsonlSink::open(folder) else { return };
    let kept_of_run = Kept { steps: 10, epochs: 1 };
    if sink.rewind(kept_of_run).is_err() {
        return;
    }
    let kept = std::fs::read(&path).unwrap();
    assert!(bytes.starts_with(&kept) && (kept.is_empty() || kept.ends_with(b"\n")));
    sink.rewind(kept_of_run).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), kept);
});
