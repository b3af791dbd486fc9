// Pooling: maximum, mean, and the mean of the whole image.
//
// x, dx `[images, height, width, channels]`, y, dy `[images, out_height, out_width, channels]`, T. A thread owns one
// element of what is written, or 8 neighbouring channels of it if the channels allow that; the grid is 1-D, of any
// size, blocks of 256. Gradients are gathered: an input looks at the windows over it, in the order of rows, so nothing
// needs atomics and the order of each sum is that of the windows.
#include "common.cuh"

/// Every size of one pooling; passed by value.
struct Pool {
    int images, height, width, channels, out_height, out_width, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
};

/// `value / divisor`, by a shift where the divisor is a power of two, as strides and channels mostly are: it is the same for
/// all threads, and a division is twenty instructions.
template <typename Unsigned> __device__ __forceinline__ Unsigned divide(Unsigned value, unsigned divisor) {
    return __popc(divisor) == 1 ? value >> (__ffs(static_cast<int>(divisor)) - 1) : value / divisor;
}

/// Whose element a thread owns: image, row, column, first channel.
struct Position {
    int image, row, column, channel;

    /// `Item` is unsigned: with 32 bits the divisions are several times as fast as with 64.
    template <int V, typename Item>
    __device__ __forceinline__ static Position of(Item item, int height, int width, int channels, Width<V>) {
        const unsigned groups = channels / V;
        const Item pixel = divide(item, groups), row = divide(pixel, static_cast<unsigned>(width));
        Position position;
        position.channel = static_cast<int>(item - pixel * groups) * V;
        position.column = static_cast<int>(pixel - row * width);
        position.image = static_cast<int>(divide(row, static_cast<unsigned>(height)));
        position.row = static_cast<int>(row - static_cast<Item>(position.image) * height);
        return position;
    }
};

/// Calls `visit(position, offset, width)` for `items` groups of `V` channels each.
template <int V, typename Item, typename Visit>
__device__ __forceinline__ void for_each_item(Item items, int height, int width, int channels, Visit visit) {
    const Item step = static_cast<Item>(grid_threads());
    for (Item item = static_cast<Item>(grid_thread()); item < items; item += step) {
        visit(Position::of(item, height, width, channels, Width<V>()), static_cast<long long>(item) * V, Width<V>());
    }
}

/// Calls `visit(position, offset, width)` for each group of channels of a `[images, height, width, channels]`.
template <typename Visit>
__device__ __forceinline__ void for_each_group(int images, int height, int width, int channels, bool wide,
                                               Visit visit) {
    const long long elements = static_cast<long long>(images) * height * width * channels;
    // So that the item after the last one fits in 32 bits, too.
    constexpr long long few = 1ll << 31;
    if (wide && channels % 8 == 0) {
        if (elements / 8 < few) {
            for_each_item<8>(static_cast<unsigned>(elements / 8), height, width, channels, visit);
        } else {
            for_each_item<8>(static_cast<unsigned long long>(elements / 8), height, width, channels, visit);
        }
    } else {
        for_each_item<1>(static_cast<unsigned long long>(elements), height, width, channels, visit);
    }
}

/// A range of positions along one axis.
struct Span {
    int begin, end;
};

/// Input positions under a window, without the padding.
__device__ __forceinline__ Span under(int window, int stride, int pad, int kernel, int length) {
    const int start = window * stride - pad;
    return {max(start, 0), min(start + kernel, length)};
}

/// Windows over an input position.
__device__ __forceinline__ Span over(int position, int stride, int pad, int kernel, int windows) {
    const int last = position + pad, first = last - kernel + 1;
    const auto steps = [&](int length) { return static_cast<int>(divide(static_cast<unsigned>(length), stride)); };
    return {first > 0 ? steps(first + stride - 1) : 0, min(steps(last) + 1, windows)};
}

__device__ __forceinline__ size_t pixel_offset(int image, int row, int column, int channel, int height, int width,
                                               int channels) {
    return ((static_cast<size_t>(image) * height + row) * width + column) * channels + channel;
}

template <int V> __device__ __forceinline__ void store_bytes(unsigned char *to, const int (&bytes)[V]) {
    if constexpr (V == 1) {
        *to = static_cast<unsigned char>(bytes[0]);
    } else {
        unsigned words[2] = {0, 0};
#pragma unroll
        for (int i = 0; i < V; i++) words[i / 4] |= static_cast<unsigned>(bytes[i]) << (i % 4 * 8);
        *reinterpret_cast<uint2 *>(to) = make_uint2(words[0], words[1]);
    }
}

template <int V> __device__ __forceinline__ void load_bytes(const unsigned char *from, int (&bytes)[V]) {
    if constexpr (V == 1) {
        bytes[0] = *from;
    } else {
        const uint2 packed = *reinterpret_cast<const uint2 *>(from);
        const unsigned words[2] = {packed.x, packed.y};
#pragma unroll
        for (int i = 0; i < V; i++) bytes[i] = static_cast<int>(words[i / 4] >> (i % 4 * 8) & 0xffu);
    }
}

/// The largest value under each window, and which of its kernel_h * kernel_w <= 256 places, in row order, holds it. The
/// first maximum wins; a NaN wins over numbers, the last one if there are several; padding never wins.
template <typename T>
__device__ __forceinline__ void max_pool(const T *__restrict__ x, T *__restrict__ y, unsigned char *__restrict__ winner,
                                         const Pool &p) {
    const auto visit = [&](Position at, long long output, auto width) {
        constexpr int V = decltype(width)::value;
        const Span rows = under(at.row, p.stride_h, p.pad_h, p.kernel_h, p.height);
        const Span columns = under(at.column, p.stride_w, p.pad_w, p.kernel_w, p.width);
        const int top = at.row * p.stride_h - p.pad_h, left = at.column * p.stride_w - p.pad_w;
        Values<V> best = zeros<V>();
        int place[V] = {};
        bool first = true;
        for (int row = rows.begin; row < rows.end; row++) {
            for (int column = columns.begin; column < columns.end; column++) {
                const size_t from = pixel_offset(at.image, row, column, at.channel, p.height, p.width, p.channels);
                const Values<V> values = load<V>(x + from);
                const int rank = (row - top) * p.kernel_w + column - left;
#pragma unroll
                for (int i = 0; i < V; i++) {
                    const bool wins = first || values.of[i] > best.of[i] || isnan(values.of[i]);
                    best.of[i] = wins ? values.of[i] : best.of[i];
                    place[i] = wins ? rank : place[i];
                }
                first = false;
            }
        }
        store<V>(y + output, best);
        store_bytes<V>(winner + output, place);
    };
    for_each_group(p.images, p.out_height, p.out_width, p.channels, aligned(x, y, winner), visit);
}

/// Adds up dy of the windows that an input won.
template <typename T>
__device__ __forceinline__ void max_pool_gradient(const T *__restrict__ dy, const unsigned char *__restrict__ winner,
                                                  T *__restrict__ dx, const Pool &p) {
    const auto visit = [&](Position at, long long input, auto width) {
        constexpr int V = decltype(width)::value;
        const Span rows = over(at.row, p.stride_h, p.pad_h, p.kernel_h, p.out_height);
        const Span columns = over(at.column, p.stride_w, p.pad_w, p.kernel_w, p.out_width);
        Values<V> sum = zeros<V>();
        // Mostly one or two windows along an axis: unrolled, the loops would only be longer.
#pragma unroll 1
        for (int row = rows.begin; row < rows.end; row++) {
#pragma unroll 1
            for (int column = columns.begin; column < columns.end; column++) {
                const size_t from =
                    pixel_offset(at.image, row, column, at.channel, p.out_height, p.out_width, p.channels);
                const int place_row = at.row + p.pad_h - row * p.stride_h;
                const int own = place_row * p.kernel_w + at.column + p.pad_w - column * p.stride_w;
                const Values<V> gradients = load<V>(dy + from);
                int places[V];
                load_bytes<V>(winner + from, places);
#pragma unroll
                for (int i = 0; i < V; i++) sum.of[i] += places[i] == own ? gradients.of[i] : 0.0f;
            }
        }
        store<V>(dx + input, sum);
    };
    for_each_group(p.images, p.height, p.width, p.channels, aligned(dy, dx, winner), visit);
}

/// One over what a window's sum is divided by: its places in the image, or with `count_padding` also those in the
/// padding (which ends pad behind the image, also under a window that hangs over it).
__device__ __forceinline__ float window_weight(const Pool &p, int row, int column, int count_padding) {
    int divisor;
    if (count_padding) {
        const int top = row * p.stride_h, left = column * p.stride_w;
        const int bottom = min(top + p.kernel_h, p.height + 2 * p.pad_h);
        const int right = min(left + p.kernel_w, p.width + 2 * p.pad_w);
        divisor = (bottom - top) * (right - left);
    } else {
        const Span rows = under(row, p.stride_h, p.pad_h, p.kernel_h, p.height);
        const Span columns = under(column, p.stride_w, p.pad_w, p.kernel_w, p.width);
        divisor = (rows.end - rows.begin) * (columns.end - columns.begin);
    }
    return 1.0f / static_cast<float>(divisor);
}

/// The mean under each window.
template <typename T>
__device__ __forceinline__ void avg_pool(const T *__restrict__ x, T *__restrict__ y, const Pool &p, int count_padding) {
    const auto visit = [&](Position at, long long output, auto width) {
        constexpr int V = decltype(width)::value;
        const Span rows = under(at.row, p.stride_h, p.pad_h, p.kernel_h, p.height);
        const Span columns = under(at.column, p.stride_w, p.pad_w, p.kernel_w, p.width);
        Values<V> sum = zeros<V>();
        for (int row = rows.begin; row < rows.end; row++) {
            for (int column = columns.begin; column < columns.end; column++) {
                const size_t from = pixel_offset(at.image, row, column, at.channel, p.height, p.width, p.channels);
                const Values<V> values = load<V>(x + from);
#pragma unroll
                for (int i = 0; i < V; i++) sum.of[i] += values.of[i];
            }
        }
        const float weight = window_weight(p, at.row, at.column, count_padding);
#pragma unroll
        for (int i = 0; i < V; i++) sum.of[i] *= weight;
        store<V>(y + output, sum);
    };
    for_each_group(p.images, p.out_height, p.out_width, p.channels, aligned(x, y), visit);
}

/// Adds up the share of each window over an input.
template <typename T>
__device__ __forceinline__ void avg_pool_gradient(const T *__restrict__ dy, T *__restrict__ dx, const Pool &p,
                                                  int count_padding) {
    const auto visit = [&](Position at, long long input, auto width) {
        constexpr int V = decltype(width)::value;
        const Span rows = over(at.row, p.stride_h, p.pad_h, p.kernel_h, p.out_height);
        const Span columns = over(at.column, p.stride_w, p.pad_w, p.kernel_w, p.out_width);
        Values<V> sum = zeros<V>();
        for (int row = rows.begin; row < rows.end; row++) {
            for (int column = columns.begin; column < columns.end; column++) {
                const size_t from =
                    pixel_offset(at.image, row, column, at.channel, p.out_height, p.out_width, p.channels);
                const Values<V> gradients = load<V>(dy + from);
                const float weight = window_weight(p, row, column, count_padding);
#pragma unroll
                for (int i = 0; i < V; i++) sum.of[i] = fmaf(weight, gradients.of[i], sum.of[i]);
            }
        }
        store<V>(dx + input, sum);
    };
    for_each_group(p.images, p.height, p.width, p.channels, aligned(dy, dx), visit);
}

/// Rows of threads that share the pixels of an image in `global_avg_pool`.
constexpr int pixel_rows = 8;

/// x `[images, pixels, channels]` -> y `[images, channels]`. grid (ceil(channels / 32), images), block (32, 8): a
/// thread takes every 8th pixel of its channel, and the eight sums are added in order.
template <typename T>
__device__ __forceinline__ void global_avg_pool(const T *__restrict__ x, T *__restrict__ y, int images, int pixels,
                                                int channels) {
    __shared__ float sums[pixel_rows][warp_threads];
    const int channel = blockIdx.x * warp_threads + threadIdx.x;
    for (int image = blockIdx.y; image < images; image += gridDim.y) {
        float sum = 0.0f;
        for (int pixel = threadIdx.y; channel < channels && pixel < pixels; pixel += pixel_rows) {
            sum += widen(x[(static_cast<size_t>(image) * pixels + pixel) * channels + channel]);
        }
        sums[threadIdx.y][threadIdx.x] = sum;
        __syncthreads();
        if (threadIdx.y == 0 && channel < channels) {
            for (int row = 1; row < pixel_rows; row++) sum += sums[row][threadIdx.x];
            y[static_cast<size_t>(image) * channels + channel] = narrow<T>(sum / static_cast<float>(pixels));
        }
        __syncthreads();
    }
}

/// dx = dy / pixels, for each pixel.
template <typename T>
__device__ __forceinline__ void global_avg_pool_gradient(const T *__restrict__ dy, T *__restrict__ dx, int images,
                                                         int pixels, int channels) {
    const auto visit = [&](Position at, long long input, auto width) {
        constexpr int V = decltype(width)::value;
        Values<V> gradients = load<V>(dy + static_cast<size_t>(at.image) * channels + at.channel);
#pragma unroll
        for (int i = 0; i < V; i++) gradients.of[i] /= static_cast<float>(pixels);
        store<V>(dx + input, gradients);
    };
    for_each_group(images, 1, pixels, channels, aligned(dy, dx), visit);
}

#define POOL(T, NAME)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(block_threads, 4)                                                     \
    max_pool_##NAME(const T *x, T *y, unsigned char *winner, Pool p) {                                                 \
        max_pool<T>(x, y, winner, p);                                                                                  \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(block_threads)                                                        \
    max_pool_gradient_##NAME(const T *dy, const unsigned char *winner, T *dx, Pool p) {                                \
        max_pool_gradient<T>(dy, winner, dx, p);                                                                       \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(block_threads)                                                        \
    avg_pool_##NAME(const T *x, T *y, Pool p, int count_padding) {                                                     \
        avg_pool<T>(x, y, p, count_padding);                                                                           \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(block_threads)                                                        \
    avg_pool_gradient_##NAME(const T *dy, T *dx, Pool p, int count_padding) {                                          \
        avg_pool_gradient<T>(dy, dx, p, count_padding);                                                                \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(warp_threads *pixel_rows)                                             \
    global_avg_pool_##NAME(const T *x, T *y, int images, int pixels, int channels) {                                   \
        global_avg_pool<T>(x, y, images, pixels, channels);                                                            \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(block_threads)                                                        \
    global_avg_pool_gradient_##NAME(const T *dy, T *dx, int images, int pixels, int channels) {                        \
        global_avg_pool_gradient<T>(dy, dx, images, pixels, channels);                                                 \
    }

POOL(float, f32)
POOL(bf16, bf16)
