// Between the layout of parameters and the one convolutions compute in, see `tile.cuh`.
#include "tile.cuh"

/// grid (ceil(c_padded / 64), k), block 256; both sides are accessed along lines.
template <typename T>
__device__ __forceinline__ void pack_weights(const float *__restrict__ w, T *__restrict__ packed, int k, int c,
                                             int c_padded, int taps) {
    __shared__ Tile tile;
    const int first_channel = blockIdx.x * tile_channels;
    for (int filter = blockIdx.y; filter < k; filter += gridDim.y) {
        const float *from = w + static_cast<size_t>(filter) * c * taps;
        T *to = packed + static_cast<size_t>(filter) * c_padded * taps;
        for (int first_tap = 0; first_tap < taps; first_tap += tile_taps) {
            const int num_taps = min(tile_taps, taps - first_tap);
            tile.by_taps(first_channel, first_tap, num_taps, [&](int channel, int tap, float &value) {
                value = channel < c ? from[static_cast<size_t>(channel) * taps + tap] : 0.0f;
            });
            __syncthreads();
            tile.by_channels(first_channel, first_tap, num_taps, [&](int channel, int tap, float &value) {
                if (channel < c_padded) to[static_cast<size_t>(tap) * c_padded + channel] = narrow<T>(value);
            });
            __syncthreads();
        }
    }
}

/// dw = packed, without the padding. grid and block as pack_weights.
template <typename T>
__device__ __forceinline__ void unpack_gradient(const T *__restrict__ packed, float *__restrict__ dw, int k, int c,
                                                int c_padded, int taps) {
    __shared__ Tile tile;
    const int first_channel = blockIdx.x * tile_channels;
    for (int filter = blockIdx.y; filter < k; filter += gridDim.y) {
        const T *from = packed + static_cast<size_t>(filter) * c_padded * taps;
        float *to = dw + static_cast<size_t>(filter) * c * taps;
        for (int first_tap = 0; first_tap < taps; first_tap += tile_taps) {
            const int num_taps = min(tile_taps, taps - first_tap);
            tile.by_channels(first_channel, first_tap, num_taps, [&](int channel, int tap, float &value) {
                if (channel < c) value = widen(from[static_cast<size_t>(tap) * c_padded + channel]);
            });
            __syncthreads();
            tile.by_taps(first_channel, first_tap, num_taps, [&](int channel, int tap, float &value) {
                if (channel < c) to[static_cast<size_t>(channel) * taps + tap] = value;
            });
            __syncthreads();
        }
    }
}

/// x `[rows, c]` -> y `[rows, c_padded]`, zeros behind. 1-D grid of any size; a thread writes 8 channels of a row, or
/// one where c_padded is no multiple of 8.
template <typename T>
__device__ __forceinline__ void pad_channels(const T *__restrict__ x, T *__restrict__ y, long long rows, int c,
                                             int c_padded) {
    const auto pad = [&](auto width) {
        constexpr int V = decltype(width)::value;
        const unsigned groups = c_padded / V;
        for (long long item = grid_thread(); item < rows * groups; item += grid_threads()) {
            const long long row = static_cast<long long>(static_cast<unsigned long long>(item) / groups);
            const int channel = static_cast<int>(item - row * groups) * V;
            Values<V> values;
#pragma unroll
            for (int i = 0; i < V; i++) values.of[i] = channel + i < c ? widen(x[row * c + channel + i]) : 0.0f;
            store<V>(y + row * c_padded + channel, values);
        }
    };
    if (c_padded % 8 == 0 && aligned(y)) {
        pad(Width<8>());
    } else {
        pad(Width<1>());
    }
}

#define WEIGHTS(T, NAME)                                                                                               \
    extern "C" __global__ void __launch_bounds__(block_threads)                                                        \
    pack_weights_##NAME(const float *w, T *packed, int k, int c, int c_padded, int taps) {                             \
        pack_weights<T>(w, packed, k, c, c_padded, taps);                                                              \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(block_threads)                                                        \
    unpack_gradient_##NAME(const T *packed, float *dw, int k, int c, int c_padded, int taps) {                         \
        unpack_gradient<T>(packed, dw, k, c, c_padded, taps);                                                          \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(block_threads)                                                        \
    pad_channels_##NAME(const T *x, T *y, long long rows, int c, int c_padded) {                                       \
        pad_channels<T>(x, y, rows, c, c_padded);                                                                      \
    }

WEIGHTS(float, f32)
WEIGHTS(bf16, bf16)
