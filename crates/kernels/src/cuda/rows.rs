use candle_core::DType;
use candle_core::cuda_backend::cudarc::driver::LaunchConfig;

use super::gpu::{blocks, suffix};

/// How the kernels of batch normalisation cut `[rows, channels]`: a block is 256 threads, lanes side by side times rows,
/// and a lane owns as many channels as one access of 16 bytes or two hold, where they divide evenly.
///
/// All of it follows from the shape, never from the device, so that sums have one order everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) rows: usize,
    pub(super) channels: usize,
    /// Channels of a lane.
    vector: usize,
    pub(super) lanes_log2: u32,
    /// Blocks side by side that cover the channels.
    groups: usize,
    pub(super) rows_per_split: usize,
}

/// Threads of a block.
const THREADS: usize = 256;

/// Blocks to aim for: four for each of the 132 multiprocessors of an H100 or H200, half as many where a thread of them had
/// less than 32 rows, because it has to add up at the end.
const BLOCKS: usize = 4 * 132;

/// Rows that a thread reads at a time at most.
const UNROLLED: usize = 4;

impl Rows {
    pub(super) fn new(rows: usize, channels: usize) -> Self {
        let vector = if channels.is_multiple_of(8) { 8 } else { 1 };
        let columns = channels.div_ceil(vector).max(1);
        let lanes_log2 = columns.next_power_of_two().trailing_zeros().min(5);
        let groups = columns.div_ceil(1 << lanes_log2);
        let block_rows = THREADS >> lanes_log2;
        let blocks = (groups * rows / (32 * block_rows)).clamp(BLOCKS / 2, BLOCKS);
        let rows_per_split = rows.div_ceil((blocks / groups).max(1)).next_multiple_of(UNROLLED * block_rows).max(1);
        Self { rows, channels, vector, lanes_log2, groups, rows_per_split }
    }

    /// Parts that the rows are cut into, none of them empty.
    pub(super) fn splits(&self) -> usize {
        self.rows.div_ceil(self.rows_per_split).max(1)
    }

    /// A block for each part.
    pub(super) fn split_launch(&self) -> LaunchConfig {
        blocks([self.splits(), self.groups, 1], [THREADS as u32, 1])
    }

    /// Blocks that step through all rows, about as many of them for each thread as it reads at a time, or a multiple.
    pub(super) fn stepping_launch(&self) -> LaunchConfig {
        let steps = self.rows.div_ceil(THREADS >> self.lanes_log2);
        let most = (2 * BLOCKS / self.groups).max(1);
        let rows_of_thread = steps.div_ceil(most).next_multiple_of(UNROLLED).max(1);
        blocks([steps.div_ceil(rows_of_thread), self.groups, 1], [THREADS as u32, 1])
    }

    /// The kernels that merge parts: 8 channels a block, 64 threads each.
    pub(super) fn merging_launch(&self) -> LaunchConfig {
        blocks([self.channels.div_ceil(8), 1, 1], [8, 64])
    }

    /// Name of a kernel for these rows: `bn_moments_bf16_v8`.
    pub(super) fn name(&self, stem: &str, dtype: DType) -> String {
        format!("{stem}_{}_v{}", suffix(dtype), self.vector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_and_channel_has_a_thread() {
        for rows in [0, 1, 2, 7, 100, 1024, 131_072] {
            for channels in [1, 3, 8, 24, 100, 512, 2048] {
                let cut = Rows::new(rows, channels);
                let covered = cut.groups * (cut.vector << cut.lanes_log2);
                assert!(covered >= channels && cut.vector << cut.lanes_log2 <= 256, "{cut:?}");
                assert!(cut.splits() * cut.rows_per_split >= rows, "{cut:?}");
                assert!((cut.splits() - 1) * cut.rows_per_split < rows.max(1), "an empty part: {cut:?}");
                let (blocks, groups, _) = cut.stepping_launch().grid_dim;
                assert!(groups as usize == cut.groups && blocks as usize * cut.groups <= 2 * BLOCKS, "{cut:?}");
            }
        }
    }
}
