// A piece of one filter in shared memory, between the layout of parameters and the one convolutions compute in.
//
// A parameter is f32 `[k, c, taps]` (PyTorch's OIHW, taps = height * width); a convolution takes `[k, taps, c_padded]`,
// channels last and padded with zeros, to a multiple of 8 where the first layer has 3.
#pragma once

#include "common.cuh"

constexpr int tile_channels = 64;
constexpr int tile_taps = 32;

/// 64 channels by at most 32 taps. The pitch is odd, so that threads on neighbouring channels meet different banks as
/// those on neighbouring taps do.
struct Tile {
    float values[tile_channels][tile_taps + 1];

    /// Calls `visit(channel, tap, value)` with threads on neighbouring taps: the order of a parameter.
    template <typename Visit>
    __device__ __forceinline__ void by_taps(int first_channel, int first_tap, int num_taps, Visit visit) {
#pragma unroll 1 // two rounds for 3x3 windows; more at a time would spill registers
        for (int item = threadIdx.x; item < tile_channels * num_taps; item += block_threads) {
            const int channel = item / num_taps, tap = item % num_taps;
            visit(first_channel + channel, first_tap + tap, values[channel][tap]);
        }
    }

    /// The same with threads on neighbouring channels: the order of a convolution's weights.
    template <typename Visit>
    __device__ __forceinline__ void by_channels(int first_channel, int first_tap, int num_taps, Visit visit) {
#pragma unroll 1
        for (int item = threadIdx.x; item < tile_channels * num_taps; item += block_threads) {
            const int tap = item / tile_channels, channel = item % tile_channels;
            visit(first_channel + channel, first_tap + tap, values[channel][tap]);
        }
    }
};
