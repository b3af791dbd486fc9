//! Errors as exit codes and one message.

use std::io::ErrorKind;
use std::process::ExitCode;

use taper_data::DataError;
use taper_hub::download::{FetchError, Trouble};
use taper_hub::weights::WeightsError;
use taper_models::ModelError;
use taper_optim::OptimError;
use taper_train::TrainError;

/// How a command that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All is done.
    Done,
    /// A signal stopped it. A run has a checkpoint to go on from; other commands have written nothing.
    Stopped(crate::interrupt::Signal),
}

/// What the user typed or wrote into a configuration cannot be.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

/// Data or weights cannot be used.
#[derive(Debug)]
pub(crate) struct InputError(pub(crate) String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Display for InputError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}
impl std::error::Error for InputError {}

/// An error that exits 2.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    UsageError(message.into()).into()
}

/// What a command needs is not there: memory.
#[derive(Debug)]
pub(crate) struct NoRoomError(pub(crate) String);

impl std::fmt::Display for NoRoomError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoRoomError {}

/// An error that exits 5.
pub(crate) fn no_memory(message: impl Into<String>) -> anyhow::Error {
    NoRoomError(message.into()).into()
}

/// An error that exits 3.
pub(crate) fn bad_input(message: impl Into<String>) -> anyhow::Error {
    InputError(message.into()).into()
}

const UNEXPECTED: u8 = 1;
const USAGE: u8 = 2;
const INPUT: u8 = 3;
const DIVERGED: u8 = 4;
const NO_ROOM: u8 = 5;
const NETWORK: u8 = 6;

/// Keeps panics off the terminal: those of decoders are contained and named with their file, any other is told by
/// [`of_panic`].
pub(crate) fn quieten_panics() {
    std::panic::set_hook(Box::new(|panic| tracing::debug!("{panic}")));
}

/// A panic that nothing contained: a defect of this program.
pub(crate) fn of_panic(panic: &(dyn std::any::Any + Send)) -> anyhow::Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    anyhow::anyhow!("a defect of this program ({text}); with TAPER_LOG=debug it says where, please report it")
}

/// Prints what failed and gives the exit code.
pub(crate) fn code_of(done: anyhow::Result<Ended>) -> ExitCode {
    match done {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Stopped(signal)) => ExitCode::from(signal.exit_code()),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", message(&error));
            ExitCode::from(classify(&error))
        }
    }
}

/// All causes in one line, each said once.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        let cause = cause.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(": ");
        if !text.contains(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    text
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::BrokenPipe))
}

/// The first cause that has a code of its own decides; a full disk beats them all.
fn classify(error: &anyhow::Error) -> u8 {
    let full = |io: &std::io::Error| {
        matches!(io.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::OutOfMemory)
    };
    if error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(full)) {
        return NO_ROOM;
    }
    error.chain().find_map(code_of_cause).unwrap_or(UNEXPECTED)
}

fn code_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    let own =
        [(cause.is::<UsageError>(), USAGE), (cause.is::<InputError>(), INPUT), (cause.is::<NoRoomError>(), NO_ROOM)];
    if let Some((_, code)) = own.into_iter().find(|(is_it, _)| *is_it) {
        return Some(code);
    }
    if let Some(error) = cause.downcast_ref::<DataError>() {
        return Some(code_of_data(error));
    }
    if let Some(error) = cause.downcast_ref::<WeightsError>() {
        return code_of_weights(error);
    }
    if let Some(ModelError::Config { .. } | ModelError::UnknownFreeze { .. } | ModelError::UnknownLayer { .. }) =
        cause.downcast_ref()
    {
        return Some(USAGE);
    }
    if let Some(error) = cause.downcast_ref::<OptimError>() {
        return code_of_optim(error);
    }
    if let Some(error) = cause.downcast_ref::<FetchError>() {
        return code_of_fetch(error);
    }
    if let Some(error) = cause.downcast_ref::<candle_core::Error>() {
        return code_of_candle(error);
    }
    match cause.downcast_ref::<TrainError>()? {
        TrainError::Candle(error) => code_of_candle(error),
        TrainError::Config { .. }
        | TrainError::NoFullBatch { .. }
        | TrainError::ClassWeights { .. }
        | TrainError::EmptyClass { .. }
        | TrainError::RandomFeatures { .. } => Some(USAGE),
        TrainError::Diverged { .. } => Some(DIVERGED),
        TrainError::Misfit { .. } | TrainError::Malformed { .. } => Some(INPUT),
        TrainError::Data(error) => Some(code_of_data(error)),
        TrainError::Optim(error) => code_of_optim(error),
        TrainError::Io { action: "read", .. } => Some(INPUT),
        _ => None,
    }
}

fn code_of_candle(error: &candle_core::Error) -> Option<u8> {
    taper_kernels::is_out_of_device_memory(error).then_some(NO_ROOM)
}

fn code_of_data(error: &DataError) -> u8 {
    if matches!(error, DataError::InvalidOption { .. }) { USAGE } else { INPUT }
}

fn code_of_optim(error: &OptimError) -> Option<u8> {
    match error {
        OptimError::Config { .. } | OptimError::NoSuchGroup { .. } => Some(USAGE),
        OptimError::State { .. } => Some(INPUT),
        OptimError::Candle(error) => code_of_candle(error),
        _ => None,
    }
}

fn code_of_weights(error: &WeightsError) -> Option<u8> {
    match error {
        WeightsError::NoCounterpart { .. } => Some(USAGE),
        WeightsError::Candle(_) => None,
        _ => Some(INPUT),
    }
}

fn code_of_fetch(error: &FetchError) -> Option<u8> {
    match error.trouble() {
        Trouble::Usage => Some(USAGE),
        Trouble::Network => Some(NETWORK),
        Trouble::BadData => Some(INPUT),
        Trouble::NoRoom => Some(NO_ROOM),
        Trouble::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full_gpu() -> candle_core::Error {
        let full = taper_kernels::KernelError::DeviceMemory { wanted_mib: 3, free_mib: 2, total_mib: 8 };
        candle_core::Error::Cuda(Box::new(full))
    }

    #[test]
    fn codes_by_cause() {
        let io = |kind: ErrorKind| TrainError::Io { action: "write", path: "f".into(), source: kind.into() };
        let cases: Vec<(anyhow::Error, u8)> = vec![
            (usage("x"), USAGE),
            (bad_input("x"), INPUT),
            (anyhow::anyhow!("x"), UNEXPECTED),
            (DataError::Missing { path: "x".into() }.into(), INPUT),
            (TrainError::from(DataError::Missing { path: "x".into() }).into(), INPUT),
            (anyhow::Error::from(DataError::InvalidOption { option: "o", reason: "r".into() }).context("c"), USAGE),
            (WeightsError::Malformed { path: "x".into(), reason: "r".into() }.into(), INPUT),
            (WeightsError::NoCounterpart { format: "timm", reason: "r".into() }.into(), USAGE),
            (io(ErrorKind::StorageFull).into(), NO_ROOM),
            (io(ErrorKind::PermissionDenied).into(), UNEXPECTED),
            (FetchError::MissingRevision { repository: "o/n".into(), revision: "r".into() }.into(), USAGE),
            (FetchError::Busy { url: "u".into(), status: 429, seconds: 900 }.into(), NETWORK),
            (FetchError::Size { url: "u".into(), expected: 2, found: 1 }.into(), INPUT),
            (
                FetchError::NoRoom { path: "p".into(), size: None, source: ErrorKind::StorageFull.into() }.into(),
                NO_ROOM,
            ),
            (no_memory("x"), NO_ROOM),
            (TrainError::from(full_gpu()).into(), NO_ROOM),
            (full_gpu().into(), NO_ROOM),
        ];
        for (error, code) in cases {
            assert_eq!(classify(&error), code, "{error:?}");
        }
    }

    #[test]
    fn message_says_each_cause_once() {
        let error = anyhow::anyhow!("inner\n  detail").context("outer").context("outer");
        assert_eq!(message(&error), "outer: inner: detail");
    }
}
