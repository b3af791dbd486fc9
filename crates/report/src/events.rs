//! TensorBoard's event files: records of length, checksum, one protocol buffer, checksum.
//!
//! The messages are the few fields of `tensorflow/core/util/event.proto` and `tensorflow/core/framework/summary.proto`
//! that a log of training needs.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crc::{CRC_32_ISCSI, Crc};
use prost::Message;
use taper_metrics::{EpochRecord, Kept, RecordSink, SinkError, StepRecord};

use crate::{Picture, ReportError};

/// One file for the whole of a run, however often it is resumed.
const FILE: &str = "events.out.tfevents.0000000000.taper";

/// The tag by which an epoch's record is told from a step's.
const EPOCH_OF_EPOCHS: &str = "epochs/epoch";

/// Appends records to a TensorBoard event file in a run directory: every number of `epochs.jsonl` as a scalar under
/// `epochs/`, those of `steps.jsonl` under `steps/`.
#[derive(Debug)]
pub struct EventSink {
    path: PathBuf,
    file: File,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(message, optional, tag = "9")]
    metadata: Option<Metadata>,
    #[prost(oneof = "Datum", tags = "2, 4, 8")]
    datum: Option<Datum>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Datum {
    #[prost(float, tag = "2")]
    SimpleValue(f32),
    #[prost(message, tag = "4")]
    Image(EncodedImage),
    #[prost(message, tag = "8")]
    Tensor(StringTensor),
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(message, optional, tag = "1")]
    plugin: Option<Plugin>,
}

#[derive(Clone, PartialEq, Message)]
struct Plugin {
    #[prost(string, tag = "1")]
    plugin_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct EncodedImage {
    #[prost(int32, tag = "1")]
    height: i32,
    #[prost(int32, tag = "2")]
    width: i32,
    #[prost(int32, tag = "3")]
    colorspace: i32,
    #[prost(bytes = "vec", tag = "4")]
    encoded: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct StringTensor {
    /// `DT_STRING` is 7.
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    string_val: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "2")]
    dim: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
struct Dim {
    #[prost(int64, tag = "1")]
    size: i64,
}

impl Event {
    /// Whether a run that is resumed there has made it.
    fn is_within(&self, kept: Kept) -> bool {
        let epoch = match &self.what {
            Some(What::Summary(summary)) => summary.value.iter().find(|value| value.tag == EPOCH_OF_EPOCHS),
            _ => None,
        };
        match epoch.map(|value| &value.datum) {
            // Exact for the first 2^24 epochs.
            Some(Some(Datum::SimpleValue(epoch))) => f64::from(*epoch) < kept.epochs as f64,
            _ => self.step <= i64::try_from(kept.steps).unwrap_or(i64::MAX),
        }
    }
}

impl EventSink {
    /// Opens (or creates) the event file of a run directory.
    ///
    /// # Errors
    /// A file that cannot be opened for appending.
    pub fn open(run_dir: &Path) -> Result<Self, ReportError> {
        let path = run_dir.join(FILE);
        let opened = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let file = opened.map_err(|source| ReportError::Io { action: "open", path: path.clone(), source })?;
        let mut sink = Self { path, file };
        if sink.len()? == 0 {
            sink.append(0, What::FileVersion("brain.Event:2".to_owned()))?;
        }
        Ok(sink)
    }

    /// Adds a text, shown as Markdown.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn text(&mut self, step: u64, tag: &str, text: &str) -> Result<(), ReportError> {
        let tensor = StringTensor {
            dtype: 7,
            shape: Some(Shape { dim: vec![Dim { size: 1 }] }),
            string_val: vec![text.as_bytes().to_vec()],
        };
        let metadata = Metadata { plugin: Some(Plugin { plugin_name: "text".to_owned() }) };
        // TensorBoard's own writer ends the tags of texts so.
        let tag = format!("{tag}/text_summary");
        let value = Value { tag, metadata: Some(metadata), datum: Some(Datum::Tensor(tensor)) };
        self.append(step, What::Summary(Summary { value: vec![value] }))
    }

    /// Adds a picture.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn image(&mut self, step: u64, tag: &str, picture: &Picture) -> Result<(), ReportError> {
        let [width, height] = picture.size().map(|side| i32::try_from(side).unwrap_or(i32::MAX));
        // Three channels: RGB.
        let image = EncodedImage { height, width, colorspace: 3, encoded: picture.png().to_vec() };
        let value = Value { tag: tag.to_owned(), metadata: None, datum: Some(Datum::Image(image)) };
        self.append(step, What::Summary(Summary { value: vec![value] }))
    }

    /// Whether nothing has been added yet.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn is_new(&mut self) -> Result<bool, ReportError> {
        Ok(self.bytes_while(|_| false)? == self.len()?)
    }

    fn scalars(&mut self, step: u64, folder: &str, record: &impl serde::Serialize) -> Result<(), ReportError> {
        let fields = serde_json::to_value(record)?;
        let value = |(name, number): (&String, &serde_json::Value)| {
            let tag = format!("{folder}/{name}");
            Some(Value { tag, metadata: None, datum: Some(Datum::SimpleValue(number.as_f64()? as f32)) })
        };
        let value = fields.as_object().into_iter().flatten().filter_map(value).collect();
        self.append(step, What::Summary(Summary { value }))
    }

    fn append(&mut self, step: u64, what: What) -> Result<(), ReportError> {
        let wall_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let data = Event { wall_time, step, what: Some(what) }.encode_to_vec();
        let length = (data.len() as u64).to_le_bytes();
        let record = [&length[..], &masked(&length).to_le_bytes(), &data, &masked(&data).to_le_bytes()].concat();
        let written = self.file.write_all(&record);
        written.map_err(|source| self.io("append to", source))
    }

    fn len(&self) -> Result<u64, ReportError> {
        let metadata = self.file.metadata();
        metadata.map(|metadata| metadata.len()).map_err(|source| self.io("look at", source))
    }

    /// Where the first event that is not kept begins. The file's version is always kept.
    fn bytes_while(&mut self, is_kept: impl Fn(&Event) -> bool) -> Result<u64, ReportError> {
        let mut bytes = Vec::new();
        let read = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.read_to_end(&mut bytes));
        read.map_err(|source| self.io("read", source))?;
        let mut keep = 0;
        while let Some(data) = record_at(&bytes[keep..]) {
            let wrong = || ReportError::Events { path: self.path.clone(), offset: keep as u64 };
            let event = Event::decode(data).map_err(|_| wrong())?;
            if !matches!(event.what, Some(What::FileVersion(_))) && !is_kept(&event) {
                break;
            }
            keep += data.len() + 16;
        }
        match keep {
            // Not even the version: another program's file.
            0 if !bytes.is_empty() => Err(ReportError::Events { path: self.path.clone(), offset: 0 }),
            keep => Ok(keep as u64),
        }
    }

    fn io(&self, action: &'static str, source: std::io::Error) -> ReportError {
        ReportError::Io { action, path: self.path.clone(), source }
    }
}

impl RecordSink for EventSink {
    fn step(&mut self, record: &StepRecord) -> Result<(), SinkError> {
        Ok(self.scalars(record.step, "steps", record)?)
    }

    fn epoch(&mut self, record: &EpochRecord) -> Result<(), SinkError> {
        Ok(self.scalars(record.step, "epochs", record)?)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        let synced = self.file.sync_data();
        Ok(synced.map_err(|source| self.io("sync", source))?)
    }

    /// Texts and pictures of the run's start have step 0 and stay.
    fn rewind(&mut self, kept: Kept) -> Result<(), SinkError> {
        let keep = self.bytes_while(|event| event.is_within(kept))?;
        let cut = self.file.set_len(keep).and_then(|()| self.file.sync_all());
        Ok(cut.map_err(|source| self.io("shorten", source))?)
    }
}

/// The data of the record at the start of `bytes`; `None` at the end, or where a crash tore a record.
fn record_at(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*checksum) != masked(length) {
        return None;
    }
    let (data, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let checksum = rest.first_chunk::<4>()?;
    (u32::from_le_bytes(*checksum) == masked(data)).then_some(data)
}

/// CRC-32C, turned and shifted as `tensorflow/core/lib/hash/crc32c.h` does it.
fn masked(bytes: &[u8]) -> u32 {
    Crc::<u32>::new(&CRC_32_ISCSI).checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{epoch_record, record};

    /// Step and tags of all events that hold a summary.
    fn events(folder: &Path) -> Vec<(i64, Vec<String>)> {
        let bytes = std::fs::read(folder.join(FILE)).unwrap();
        let (mut at, mut found) = (0, Vec::new());
        while let Some(data) = record_at(&bytes[at..]) {
            at += data.len() + 16;
            let event = Event::decode(data).unwrap();
            if let Some(What::Summary(summary)) = event.what {
                found.push((event.step, summary.value.into_iter().map(|value| value.tag).collect()));
            }
        }
        assert_eq!(at, bytes.len(), "something lies behind the last event");
        found
    }

    #[test]
    fn a_checksum_is_tensorflows() {
        // How every event file of TensorFlow starts: a record of 24 bytes, and the checksum of that length.
        assert_eq!(masked(&24u64.to_le_bytes()).to_le_bytes(), [0xa3, 0x7f, 0x4b, 0x22]);
    }

    #[test]
    fn rewind_leaves_no_gap_and_no_double_and_keeps_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = EventSink::open(folder.path()).unwrap();
        assert!(sink.is_new().unwrap());
        sink.text(0, "config", "a = 1").unwrap();
        assert!(!sink.is_new().unwrap());
        for (epoch, step) in [(0, 10), (1, 20), (2, 30)] {
            sink.step(&record(step)).unwrap();
            sink.epoch(&epoch_record(epoch, step)).unwrap();
        }
        drop(sink);
        let mut sink = EventSink::open(folder.path()).unwrap();
        sink.file.write_all(&[24, 0, 0]).unwrap();
        sink.rewind(Kept { steps: 20, epochs: 1 }).unwrap();
        sink.step(&record(30)).unwrap();
        sink.flush().unwrap();
        let found = events(folder.path());
        assert_eq!(found.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 10, 10, 20, 30]);
        assert_eq!(found[0].1, ["config/text_summary"]);
        assert!(found[1].1.contains(&"steps/grad_norm".to_owned()) && found[1].1.len() == 8, "{:?}", found[1].1);
    }

    #[test]
    fn a_foreign_file_is_named_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "hello").unwrap();
        let error =
            EventSink::open(folder.path()).unwrap().rewind(Kept { steps: 1, epochs: 0 }).unwrap_err().to_string();
        assert!(error.contains(FILE), "{error}");
        assert_eq!(std::fs::read(folder.path().join(FILE)).unwrap(), b"hello");
    }
}
