//! SIGINT and SIGTERM. Before the first batch they end the process at once, since nothing would be lost; from then on the
//! first one asks for an end between two batches, which for training has a checkpoint, and a second SIGINT ends the
//! process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::exit::Ended;

/// The signal that stopped a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT, usually Ctrl-C.
    Interrupt,
    /// SIGTERM, as schedulers send it.
    Terminate,
}

impl Signal {
    /// 130 as shells have it; 75 (`EX_TEMPFAIL` of sysexits) asks a scheduler to queue the same command again.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 75,
        }
    }
}

/// Watches for signals from its making on.
#[derive(Debug)]
pub(crate) struct Interrupt {
    seen: Arc<AtomicUsize>,
    /// Whether SIGINT ends the process at once.
    int_ends: Arc<AtomicBool>,
    /// Whether SIGTERM does.
    term_ends: Arc<AtomicBool>,
}

impl Interrupt {
    pub(crate) fn watch() -> std::io::Result<Self> {
        let seen = Arc::new(AtomicUsize::new(0));
        let (int_ends, term_ends) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
        for (signal, code, ends) in [(SIGINT, Signal::Interrupt, &int_ends), (SIGTERM, Signal::Terminate, &term_ends)] {
            signal_hook::flag::register_conditional_shutdown(signal, i32::from(code.exit_code()), ends.clone())?;
            signal_hook::flag::register_usize(signal, seen.clone(), signal as usize)?;
        }
        // After the shutdown above: the first SIGINT among the batches finds it unarmed and arms it.
        signal_hook::flag::register(SIGINT, int_ends.clone())?;
        Ok(Self { seen, int_ends, term_ends })
    }

    /// From now on a signal asks for an end between two batches.
    pub(crate) fn batches_begin(&self) {
        self.int_ends.store(false, Ordering::Relaxed);
        self.term_ends.store(false, Ordering::Relaxed);
    }

    /// What a command without checkpoints ends with when a signal has stopped it.
    pub(crate) fn stopped_without_result(&self) -> Ended {
        tracing::warn!("stopped by a signal; nothing was written");
        Ended::Stopped(self.seen().unwrap_or(Signal::Terminate))
    }

    /// The last signal that came.
    pub(crate) fn seen(&self) -> Option<Signal> {
        match self.seen.load(Ordering::Relaxed) as i32 {
            SIGINT => Some(Signal::Interrupt),
            SIGTERM => Some(Signal::Terminate),
            _ => None,
        }
    }
}
