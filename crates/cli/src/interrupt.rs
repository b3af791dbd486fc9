//! SIGINT and SIGTERM: the first asks for a checkpoint, a second SIGINT ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

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
}

impl Interrupt {
    pub(crate) fn watch() -> std::io::Result<Self> {
        let seen = Arc::new(AtomicUsize::new(0));
        let armed = Arc::new(AtomicBool::new(false));
        // In this order: the first SIGINT finds the exit unarmed and arms it.
        signal_hook::flag::register_conditional_shutdown(
            SIGINT,
            i32::from(Signal::Interrupt.exit_code()),
            armed.clone(),
        )?;
        signal_hook::flag::register(SIGINT, armed)?;
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register_usize(signal, seen.clone(), signal as usize)?;
        }
        Ok(Self { seen })
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
