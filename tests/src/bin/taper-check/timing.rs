//! Sizes, medians and memory.

/// How much work a check does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// What was asked for.
    Full,
    /// As little as exercises every path.
    Smoke,
}

impl Size {
    /// `full`, or at most `smoke` in a smoke run.
    pub(crate) fn at_most(self, full: usize, smoke: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Smoke => full.min(smoke),
        }
    }
}

/// The middle value, or the mean of the two in the middle; NaN of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// The most memory this process has held, in bytes, where the system says.
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    peak_of_status(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// `VmHWM` of Linux's `/proc/PID/status`.
fn peak_of_status(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::{median, peak_of_status};

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(peak_of_status("VmPeak:\t 9 kB\nVmHWM:\t    12 kB\nVmRSS:\t 1 kB\n"), Some(12 * 1024));
        assert_eq!(peak_of_status("VmRSS:\t 1 kB\n"), None);
    }
}
