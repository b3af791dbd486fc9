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

/// How a convolution by steps of two becomes one by single steps: the four pixels of each square of two by two lie side by
/// side as channels `(2 * row + column) * c + channel`, of which there are c_folded, zeros behind. A window begins `odd`
/// places into its first square, and the folded images begin `before` pixels ahead of the image.
struct Fold {
    int height, width, c, folded_height, folded_width, c_folded, kernel_h, kernel_w, folded_h, folded_w;
    int odd_h, odd_w, before_h, before_w;
};

/// x `[images, height, width, c]` -> y `[images, folded_height, folded_width, c_folded]`, zeros where there is no image.
/// 1-D grid of any size; a thread writes 8 channels; c_folded is a multiple of 8, y lies on 16 bytes.
template <typename T>
__device__ __forceinline__ void fold_images(const T *__restrict__ x, T *__restrict__ y, int images, const Fold &f) {
    const unsigned groups = f.c_folded / 8;
    const long long items = static_cast<long long>(images) * f.folded_height * f.folded_width * groups;
    for (long long item = grid_thread(); item < items; item += grid_threads()) {
        const unsigned long long pixel = static_cast<unsigned long long>(item) / groups;
        const int first = static_cast<int>(item - static_cast<long long>(pixel) * groups) * 8;
        const int column = static_cast<int>(pixel % f.folded_width);
        const unsigned long long line = pixel / f.folded_width;
        const int row = static_cast<int>(line % f.folded_height), image = static_cast<int>(line / f.folded_height);
        Values<8> values = zeros<8>();
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int place = (first + i) / f.c, channel = (first + i) - place * f.c;
            const int h = 2 * row + place / 2 - f.before_h, w = 2 * column + place % 2 - f.before_w;
            if (place >= 4 || h < 0 || h >= f.height || w < 0 || w >= f.width) continue;
            values.of[i] = widen(x[((static_cast<size_t>(image) * f.height + h) * f.width + w) * f.c + channel]);
        }
        store<8>(y + item * 8, values);
    }
}

/// w `[k, c, kernel_h, kernel_w]` -> folded `[k, c_folded, folded_h, folded_w]`, zeros where there is no weight. 1-D grid.
extern "C" __global__ void __launch_bounds__(block_threads)
fold_weights(const float *__restrict__ w, float *__restrict__ folded, int k, Fold f) {
    const int taps = f.folded_h * f.folded_w, len = k * f.c_folded * taps;
    for (int item = static_cast<int>(grid_thread()); item < len; item += static_cast<int>(grid_threads())) {
        const int tap = item % taps, at = item / taps % f.c_folded, filter = item / taps / f.c_folded;
        const int place = at / f.c, channel = at % f.c;
        const int h = 2 * (tap / f.folded_w) + place / 2 - f.odd_h, v = 2 * (tap % f.folded_w) + place % 2 - f.odd_w;
        const bool has = place < 4 && h >= 0 && h < f.kernel_h && v >= 0 && v < f.kernel_w;
        folded[item] = has ? w[((filter * f.c + channel) * f.kernel_h + h) * f.kernel_w + v] : 0.0f;
    }
}

/// The gradient of w from that of the folded weights. 1-D grid.
extern "C" __global__ void __launch_bounds__(block_threads)
unfold_gradient(const float *__restrict__ folded, float *__restrict__ dw, int k, Fold f) {
    const int taps = f.kernel_h * f.kernel_w, len = k * f.c * taps;
    for (int item = static_cast<int>(grid_thread()); item < len; item += static_cast<int>(grid_threads())) {
        const int h = item % taps / f.kernel_w + f.odd_h, v = item % f.kernel_w + f.odd_w;
        const int channel = item / taps % f.c, filter = item / taps / f.c;
        const int at = (h % 2 * 2 + v % 2) * f.c + channel;
        dw[item] = folded[((filter * f.c_folded + at) * f.folded_h + h / 2) * f.folded_w + v / 2];
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
    extern "C" __global__ void __launch_bounds__(block_threads, 4)                                                     \
    fold_images_##NAME(const T *x, T *y, int images, Fold fold) {                                                      \
        fold_images<T>(x, y, images, fold);                                                                            \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(block_threads)                                                        \
    pad_channels_##NAME(const T *x, T *y, long long rows, int c, int c_padded) {                                       \
        pad_channels<T>(x, y, rows, c, c_padded);                                                                      \
    }

WEIGHTS(float, f32)
WEIGHTS(bf16, bf16)
