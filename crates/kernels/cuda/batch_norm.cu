// Batch normalisation with what follows it in the same pass over memory.
//
// x, shortcut, y, dy, dx: `[rows, channels]`, T. Statistics and parameters: `[channels]`, f32.
//
//   forward   bn_moments -> bn_moments_finish -> bn_apply
//   backward  bn_sums -> bn_sums_finish -> bn_gradient
//
// A block is 256 threads = rows x lanes; a lane owns V neighbouring channels and a warp holds 32 / lanes rows, so that
// a warp reads whole lines however few channels there are. grid.y runs over groups of lanes. Where a sum is formed,
// grid.x is the number of splits; each split is `rows_per_split` rows (the last one fewer, none empty). A thread adds
// up its rows in order, a warp its threads by a butterfly, the block its warps in order, and the finishing kernel the
// splits. For _v8 the channels are a multiple of 8 and activations lie on 16 bytes; there are at most 2^30 rows.
//
// Nothing normalised is kept for the backward pass: it is computed again from x by the same expression, so the gate of
// the ReLU is the forward pass's to the last bit. Outputs may lie on inputs: an element is read before it is written.
#include "common.cuh"

/// What a batch norm knows about its channels; passed by value.
struct Norm {
    const float *mean, *variance, *gamma, *beta;
    float eps, scale;
    int rows, channels, lanes_log2;
};

/// What follows the normalisation.
enum class Kind {
    identity,  // bn(x)
    relu,      // relu(bn(x))
    scale_add, // scale * relu(bn(x)) + shortcut: BaseNet's residual
    add_relu,  // relu(bn(x) + shortcut): ResNet's residual
};

/// Where a thread stands in a block of rows x lanes.
template <int V> struct Place {
    int rows, row, lane, channel;

    __device__ __forceinline__ explicit Place(int lanes_log2)
        : rows(block_threads >> lanes_log2), row(static_cast<int>(threadIdx.x) >> lanes_log2),
          lane(static_cast<int>(threadIdx.x) & ((1 << lanes_log2) - 1)),
          channel(((static_cast<int>(blockIdx.y) << lanes_log2) + lane) * V) {}
};

/// Rows a thread reads before it works on any: enough to hide memory's latency, few enough to stay in registers.
template <typename T, int V, int tensors>
constexpr int unrolled = (tensors == 1 ? 4 : 2) / (sizeof(T) * V > 16 ? 2 : 1);

__device__ __forceinline__ float inverse_std(float variance, float eps) { return 1.0f / sqrtf(variance + eps); }

/// The normalisation of a thread's channels. The mean is subtracted first: folded into the offset it would cost digits
/// where the mean is large beside the spread.
template <int V> struct Affine {
    float mean[V], slope[V], beta[V];

    __device__ __forceinline__ Affine(const Norm &norm, int channel) {
#pragma unroll
        for (int i = 0; i < V; i++) {
            mean[i] = norm.mean[channel + i];
            slope[i] = norm.gamma[channel + i] * inverse_std(norm.variance[channel + i], norm.eps);
            beta[i] = norm.beta[channel + i];
        }
    }

    __device__ __forceinline__ float operator()(float x, int i) const { return fmaf(x - mean[i], slope[i], beta[i]); }
};

/// Sums `V` values a thread over the rows of the block; every thread gets the sums of its lane.
template <int V> __device__ __forceinline__ void sum_over_rows(Values<V> &values, int lanes_log2, int lane) {
    __shared__ float partial[block_warps][warp_threads][V];
    const int lanes = 1 << lanes_log2, warp = threadIdx.x / warp_threads, in_warp = threadIdx.x % warp_threads;
#pragma unroll
    for (int i = 0; i < V; i++) {
        for (int distance = warp_threads / 2; distance >= lanes; distance /= 2) {
            values.of[i] += __shfl_xor_sync(0xffffffffu, values.of[i], distance);
        }
    }
    __syncthreads(); // the sums of an earlier call have been read
    if (in_warp < lanes) {
#pragma unroll
        for (int i = 0; i < V; i++) partial[warp][lane][i] = values.of[i];
    }
    __syncthreads();
    values = zeros<V>();
    for (int w = 0; w < block_warps; w++) {
#pragma unroll
        for (int i = 0; i < V; i++) values.of[i] += partial[w][lane][i];
    }
}

/// Sum of 32 x 32 values over threadIdx.y, for each threadIdx.x, in order; every thread gets it.
__device__ __forceinline__ double sum_over_y(double value) {
    __shared__ double values[warp_threads][warp_threads + 1];
    __syncthreads();
    values[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    double sum = 0.0;
    for (int y = 0; y < warp_threads; y++) sum += values[y][threadIdx.x];
    return sum;
}

/// Mean and sum of squared deviations (M2) of each channel over one split.
///
/// A thread sums about the first value it sees, the block about the first row of its split: with a mean far from zero
/// the digits of the spread survive. Threads are merged by Chan et al. 1983.
template <typename T, int V>
__device__ __forceinline__ void moments(const T *__restrict__ x, float2 *__restrict__ parts, int rows, int channels,
                                        int lanes_log2, int rows_per_split) {
    constexpr int U = unrolled<T, V, 1>;
    const Place<V> place(lanes_log2);
    const bool owns = place.channel < channels;
    const int begin = blockIdx.x * rows_per_split, end = min(rows, begin + rows_per_split);
    const int first_row = begin + place.row;
    Values<V> reference = zeros<V>(), first = zeros<V>(), sum = zeros<V>(), squares = zeros<V>();
    int num_rows = 0;
    if (owns && first_row < end) {
        const T *column = x + place.channel;
        const size_t pitch = channels;
        num_rows = (end - first_row + place.rows - 1) / place.rows;
        reference = load<V>(column + begin * pitch);
        first = load<V>(column + first_row * pitch);
        for (int row = first_row; row < end; row += U * place.rows) {
            Values<V> values[U];
#pragma unroll
            for (int u = 0; u < U; u++) {
                const int at = row + u * place.rows;
                if (at < end) values[u] = load<V>(column + at * pitch);
            }
#pragma unroll
            for (int u = 0; u < U; u++) {
                if (row + u * place.rows >= end) continue;
#pragma unroll
                for (int i = 0; i < V; i++) {
                    const float shifted = values[u].of[i] - first.of[i];
                    sum.of[i] += shifted;
                    squares.of[i] = fmaf(shifted, shifted, squares.of[i]);
                }
            }
        }
    }
    const float count = num_rows, inverse = num_rows > 0 ? 1.0f / count : 0.0f;
    Values<V> mean, m2;
#pragma unroll
    for (int i = 0; i < V; i++) mean.of[i] = fmaf(first.of[i] - reference.of[i], count, sum.of[i]);
    sum_over_rows<V>(mean, lanes_log2, place.lane);
#pragma unroll
    for (int i = 0; i < V; i++) {
        mean.of[i] /= static_cast<float>(end - begin);
        const float from_mean = fmaf(sum.of[i], inverse, first.of[i] - reference.of[i]) - mean.of[i];
        const float own = squares.of[i] - sum.of[i] * sum.of[i] * inverse;
        m2.of[i] = fmaf(from_mean * from_mean, count, relu(own));
    }
    sum_over_rows<V>(m2, lanes_log2, place.lane);
    if (owns && place.row == 0) {
        float2 *part = parts + static_cast<size_t>(blockIdx.x) * channels + place.channel;
#pragma unroll
        for (int i = 0; i < V; i++) part[i] = make_float2(reference.of[i] + mean.of[i], m2.of[i]);
    }
}

/// Merges the splits in f64. grid ceil(channels / 32), block (32, 32): threadIdx.x is a channel, threadIdx.y takes
/// every 32nd split. parts `[splits, channels]` (mean, M2) -> mean, variance (biased) `[channels]`.
///
/// Running statistics, null where there are none, follow: `running = (1 - momentum) * running + momentum * batch`, with
/// the unbiased variance, as PyTorch keeps it.
extern "C" __global__ void __launch_bounds__(1024)
bn_moments_finish(const float2 *__restrict__ parts, int splits, int rows_per_split, int rows, int channels,
                  float *__restrict__ mean, float *__restrict__ variance, float *__restrict__ running_mean,
                  float *__restrict__ running_variance, float momentum) {
    const int channel = blockIdx.x * warp_threads + threadIdx.x;
    const bool owns = channel < channels;
    double total = 0.0;
    for (int split = threadIdx.y; owns && split < splits; split += warp_threads) {
        const double count = min(rows_per_split, rows - split * rows_per_split);
        total += count * static_cast<double>(parts[static_cast<size_t>(split) * channels + channel].x);
    }
    const double centre = sum_over_y(total) / rows;
    total = 0.0;
    for (int split = threadIdx.y; owns && split < splits; split += warp_threads) {
        const double count = min(rows_per_split, rows - split * rows_per_split);
        const float2 part = parts[static_cast<size_t>(split) * channels + channel];
        const double from_mean = static_cast<double>(part.x) - centre;
        total += static_cast<double>(part.y) + count * from_mean * from_mean;
    }
    total = sum_over_y(total);
    if (!owns || threadIdx.y != 0) return;
    mean[channel] = static_cast<float>(centre);
    variance[channel] = static_cast<float>(total / rows);
    if (running_mean == nullptr) return;
    const float keep = 1.0f - momentum, unbiased = static_cast<float>(total / (rows - 1));
    running_mean[channel] = keep * running_mean[channel] + momentum * static_cast<float>(centre);
    running_variance[channel] = keep * running_variance[channel] + momentum * unbiased;
}

template <Kind kind> __device__ __forceinline__ float finish(float normalised, float shortcut, float scale) {
    if constexpr (kind == Kind::relu) return relu(normalised);
    if constexpr (kind == Kind::scale_add) return fmaf(scale, relu(normalised), shortcut);
    if constexpr (kind == Kind::add_relu) return relu(normalised + shortcut);
    return normalised;
}

/// y = what `kind` says. Any number of blocks in grid.x. Rows are walked backwards: right after bn_moments the last
/// ones are what the cache still holds.
template <typename T, int V, Kind kind>
__device__ __forceinline__ void apply(const T *x, const T *shortcut, T *y, const Norm &norm) {
    constexpr bool adds = kind == Kind::scale_add || kind == Kind::add_relu;
    constexpr int U = unrolled<T, V, (adds ? 2 : 1)>;
    const Place<V> place(norm.lanes_log2);
    if (place.channel >= norm.channels) return;
    const Affine<V> affine(norm, place.channel);
    const int step = gridDim.x * place.rows, last = norm.rows - 1;
    const auto offset = [&](int row) { return static_cast<size_t>(last - row) * norm.channels + place.channel; };
    for (int row = blockIdx.x * place.rows + place.row; row < norm.rows; row += U * step) {
        Values<V> values[U], others[U];
#pragma unroll
        for (int u = 0; u < U; u++) {
            if (row + u * step >= norm.rows) continue;
            values[u] = load<V>(x + offset(row + u * step));
            if constexpr (adds) others[u] = load<V>(shortcut + offset(row + u * step));
        }
#pragma unroll
        for (int u = 0; u < U; u++) {
            if (row + u * step >= norm.rows) continue;
#pragma unroll
            for (int i = 0; i < V; i++) {
                const float other = adds ? others[u].of[i] : 0.0f;
                values[u].of[i] = finish<kind>(affine(values[u].of[i], i), other, norm.scale);
            }
            store<V>(y + offset(row + u * step), values[u]);
        }
    }
}

/// The gradient at the normalised value, from that at the output.
template <Kind kind> __device__ __forceinline__ float through(float normalised, float y, float dy, float scale) {
    if constexpr (kind == Kind::relu) return gate(normalised, dy);
    if constexpr (kind == Kind::scale_add) return gate(normalised, scale * dy);
    if constexpr (kind == Kind::add_relu) return gate(y, dy);
    return dy;
}

/// Sums of g and of g * (x - mean) of each channel over one split, g being the gradient at the normalised value.
template <typename T, int V, Kind kind>
__device__ __forceinline__ void sums(const T *__restrict__ x, const T *__restrict__ y, const T *__restrict__ dy,
                                     const Norm &norm, float2 *__restrict__ parts, int rows_per_split) {
    constexpr int U = unrolled<T, V, 2>;
    const Place<V> place(norm.lanes_log2);
    const bool owns = place.channel < norm.channels;
    const int begin = blockIdx.x * rows_per_split, end = min(norm.rows, begin + rows_per_split);
    Values<V> sum = zeros<V>(), product = zeros<V>();
    if (owns) {
        const Affine<V> affine(norm, place.channel);
        for (int row = begin + place.row; row < end; row += U * place.rows) {
            Values<V> inputs[U], outputs[U], gradients[U];
#pragma unroll
            for (int u = 0; u < U; u++) {
                if (row + u * place.rows >= end) continue;
                const size_t offset = static_cast<size_t>(row + u * place.rows) * norm.channels + place.channel;
                inputs[u] = load<V>(x + offset);
                gradients[u] = load<V>(dy + offset);
                if constexpr (kind == Kind::add_relu) outputs[u] = load<V>(y + offset);
            }
#pragma unroll
            for (int u = 0; u < U; u++) {
                if (row + u * place.rows >= end) continue;
#pragma unroll
                for (int i = 0; i < V; i++) {
                    const float input = inputs[u].of[i], output = kind == Kind::add_relu ? outputs[u].of[i] : 0.0f;
                    const float g = through<kind>(affine(input, i), output, gradients[u].of[i], norm.scale);
                    sum.of[i] += g;
                    product.of[i] = fmaf(g, input - affine.mean[i], product.of[i]);
                }
            }
        }
    }
    sum_over_rows<V>(sum, norm.lanes_log2, place.lane);
    sum_over_rows<V>(product, norm.lanes_log2, place.lane);
    if (owns && place.row == 0) {
        float2 *part = parts + static_cast<size_t>(blockIdx.x) * norm.channels + place.channel;
#pragma unroll
        for (int i = 0; i < V; i++) part[i] = make_float2(sum.of[i], product.of[i]);
    }
}

/// Adds the splits in f64; grid and block as bn_moments_finish. dparameters `[2, channels]`: dgamma, dbeta.
extern "C" __global__ void __launch_bounds__(1024)
bn_sums_finish(const float2 *__restrict__ parts, int splits, int channels, const float *__restrict__ variance,
               float eps, float *__restrict__ dparameters) {
    const int channel = blockIdx.x * warp_threads + threadIdx.x;
    const bool owns = channel < channels;
    double sum = 0.0, product = 0.0;
    for (int split = threadIdx.y; owns && split < splits; split += warp_threads) {
        const float2 part = parts[static_cast<size_t>(split) * channels + channel];
        sum += static_cast<double>(part.x);
        product += static_cast<double>(part.y);
    }
    sum = sum_over_y(sum);
    product = sum_over_y(product);
    if (owns && threadIdx.y == 0) {
        dparameters[channel] = static_cast<float>(product) * inverse_std(variance[channel], eps);
        dparameters[channels + channel] = static_cast<float>(sum);
    }
}

/// dx = slope * (g - dbeta / n - (x - mean) * dgamma / (n * std)); without dparameters (null) the statistics are
/// constants and dx = slope * g. dshortcut (null: not wanted) is dy where y > 0, for add_relu alone: elsewhere the
/// shortcut's gradient is dy itself. Any number of blocks in grid.x; rows backwards, as bn_apply.
template <typename T, int V, Kind kind>
__device__ __forceinline__ void gradient(const T *x, const T *y, const T *dy, const Norm &norm,
                                         const float *dparameters, T *dx, T *dshortcut) {
    constexpr int U = unrolled<T, V, 2>;
    const Place<V> place(norm.lanes_log2);
    if (place.channel >= norm.channels) return;
    const Affine<V> affine(norm, place.channel);
    float shift[V], tilt[V];
    const float share = 1.0f / static_cast<float>(norm.rows);
#pragma unroll
    for (int i = 0; i < V; i++) {
        const int channel = place.channel + i;
        const bool moves = dparameters != nullptr;
        const float inverse = inverse_std(norm.variance[channel], norm.eps);
        shift[i] = moves ? dparameters[norm.channels + channel] * share : 0.0f;
        tilt[i] = moves ? dparameters[channel] * inverse * share : 0.0f;
    }
    const int step = gridDim.x * place.rows, last = norm.rows - 1;
    const auto offset = [&](int row) { return static_cast<size_t>(last - row) * norm.channels + place.channel; };
    for (int row = blockIdx.x * place.rows + place.row; row < norm.rows; row += U * step) {
        Values<V> inputs[U], outputs[U], gradients[U];
#pragma unroll
        for (int u = 0; u < U; u++) {
            if (row + u * step >= norm.rows) continue;
            inputs[u] = load<V>(x + offset(row + u * step));
            gradients[u] = load<V>(dy + offset(row + u * step));
            if constexpr (kind == Kind::add_relu) outputs[u] = load<V>(y + offset(row + u * step));
        }
#pragma unroll
        for (int u = 0; u < U; u++) {
            if (row + u * step >= norm.rows) continue;
            Values<V> through_shortcut;
#pragma unroll
            for (int i = 0; i < V; i++) {
                const float input = inputs[u].of[i], output = kind == Kind::add_relu ? outputs[u].of[i] : 0.0f;
                const float g = through<kind>(affine(input, i), output, gradients[u].of[i], norm.scale);
                through_shortcut.of[i] = g;
                gradients[u].of[i] = affine.slope[i] * (g - shift[i] - (input - affine.mean[i]) * tilt[i]);
            }
            store<V>(dx + offset(row + u * step), gradients[u]);
            if constexpr (kind == Kind::add_relu) {
                if (dshortcut != nullptr) store<V>(dshortcut + offset(row + u * step), through_shortcut);
            }
        }
    }
}

// Two blocks a multiprocessor at least: at most 128 registers a thread.
#define BATCH_NORM_KIND(T, NAME, V, KIND)                                                                              \
    extern "C" __global__ void __launch_bounds__(block_threads, 2)                                                     \
    bn_apply_##NAME##_v##V##_##KIND(const T *x, const T *shortcut, T *y, Norm norm) {                                  \
        apply<T, V, Kind::KIND>(x, shortcut, y, norm);                                                                 \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(block_threads, 2)                                                     \
    bn_sums_##NAME##_v##V##_##KIND(const T *x, const T *y, const T *dy, Norm norm, float2 *parts, int rows_per_split) {\
        sums<T, V, Kind::KIND>(x, y, dy, norm, parts, rows_per_split);                                                 \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(block_threads, 2)                                                     \
    bn_gradient_##NAME##_v##V##_##KIND(const T *x, const T *y, const T *dy, Norm norm, const float *dparameters,       \
                                       T *dx, T *dshortcut) {                                                          \
        gradient<T, V, Kind::KIND>(x, y, dy, norm, dparameters, dx, dshortcut);                                        \
    }

#define BATCH_NORM(T, NAME, V)                                                                                         \
    extern "C" __global__ void __launch_bounds__(block_threads, 2)                                                     \
    bn_moments_##NAME##_v##V(const T *x, float2 *parts, int rows, int channels, int lanes_log2, int rows_per_split) {  \
        moments<T, V>(x, parts, rows, channels, lanes_log2, rows_per_split);                                           \
    }                                                                                                                  \
    BATCH_NORM_KIND(T, NAME, V, identity)                                                                              \
    BATCH_NORM_KIND(T, NAME, V, relu)                                                                                  \
    BATCH_NORM_KIND(T, NAME, V, scale_add)                                                                             \
    BATCH_NORM_KIND(T, NAME, V, add_relu)

BATCH_NORM(float, f32, 8)
BATCH_NORM(float, f32, 1)
BATCH_NORM(bf16, bf16, 8)
BATCH_NORM(bf16, bf16, 1)
