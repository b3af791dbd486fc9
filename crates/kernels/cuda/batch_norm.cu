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
constexpr int unrolled = (tensors == 3 ? 2 : 4) / (sizeof(T) * V > 16 ? 2 : 1);

/// The hardware's guess with one step of Newton's method: as good as a square root and a division, without their branches,
/// which cost more than the few rows a thread has in a small layer.
__device__ __forceinline__ float inverse_std(float variance, float eps) {
    const float square = variance + eps, guess = rsqrtf(square);
    const float better = guess * fmaf(-0.5f * square * guess, guess, 1.5f);
    return isnan(better) ? guess : better; // 0 of infinity, infinity of 0
}

/// The normalisation of a thread's channels. The mean is subtracted first: folded into the offset it would cost digits
/// where the mean is large beside the spread.
template <int V> struct Affine {
    Values<V> mean, inverse, slope, beta;

    __device__ __forceinline__ Affine(const Norm &norm, int channel) {
        const bool wide = aligned(norm.mean, norm.variance, norm.gamma, norm.beta);
        const auto read = [&](const float *from) { return wide ? load<V>(from + channel) : load_each<V>(from + channel); };
        mean = read(norm.mean), inverse = read(norm.variance), slope = read(norm.gamma), beta = read(norm.beta);
#pragma unroll
        for (int i = 0; i < V; i++) {
            inverse.of[i] = inverse_std(inverse.of[i], norm.eps);
            slope.of[i] *= inverse.of[i];
        }
    }

    __device__ __forceinline__ float operator()(float x, int i) const {
        return fmaf(x - mean.of[i], slope.of[i], beta.of[i]);
    }
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

/// The kernels that merge splits: blocks of 8 channels (x) by 64 threads (y), which take every 64th split each.
constexpr int merged_channels = 8, merging_threads = 64;

/// Sums of both numbers over threadIdx.y, for each threadIdx.x, valid where threadIdx.y is 0: halves are folded onto each
/// other.
__device__ __forceinline__ double2 sum_over_y(double2 value) {
    __shared__ double2 values[merging_threads][merged_channels];
    const int y = threadIdx.y;
    double2 *own = &values[y][threadIdx.x];
    *own = value;
    __syncthreads();
    for (int half = merging_threads / 2; half > 0; half /= 2) {
        if (y < half) {
            const double2 other = values[y + half][threadIdx.x];
            own->x += other.x;
            own->y += other.y;
        }
        __syncthreads();
    }
    return *own;
}

/// Calls `visit(split, part)` for the splits of a channel that are this thread's, in order, four of them read at a time.
template <typename Visit>
__device__ __forceinline__ void for_each_part(const float2 *__restrict__ parts, int splits, int channels, int channel,
                                              Visit visit) {
    for_rows<4>(threadIdx.y, channel < channels ? splits : 0, merging_threads, [&](auto count, int split) {
        constexpr int N = decltype(count)::value;
        float2 part[N];
#pragma unroll
        for (int u = 0; u < N; u++) {
            part[u] = parts[static_cast<size_t>(split + u * merging_threads) * channels + channel];
        }
#pragma unroll
        for (int u = 0; u < N; u++) visit(split + u * merging_threads, part[u]);
    });
}

/// Mean and sum of squared deviations (M2) of each channel over one split.
///
/// Sums are formed about the first row of the split: with a mean far from zero the digits of the spread survive. Threads
/// are merged by Chan et al. 1983.
template <typename T, int V>
__device__ __forceinline__ void moments(const T *__restrict__ x, float2 *__restrict__ parts, int rows, int channels,
                                        int lanes_log2, int rows_per_split) {
    constexpr int U = unrolled<T, V, 1>;
    const Place<V> place(lanes_log2);
    const bool owns = place.channel < channels;
    const int begin = blockIdx.x * rows_per_split, end = min(rows, begin + rows_per_split);
    const int first_row = begin + place.row;
    const size_t pitch = channels, stride = place.rows * pitch;
    Values<V> reference = zeros<V>(), sum = zeros<V>(), squares = zeros<V>();
    if (owns) {
        const T *column = x + place.channel;
        reference = load<V>(column + begin * pitch);
        for_rows<U>(first_row, end, place.rows, [&](auto count, int row) {
            constexpr int N = decltype(count)::value;
            Values<V> values[N];
#pragma unroll
            for (int u = 0; u < N; u++) values[u] = load<V>(column + row * pitch + u * stride);
#pragma unroll
            for (int u = 0; u < N; u++) {
#pragma unroll
                for (int i = 0; i < V; i++) {
                    const float shifted = values[u].of[i] - reference.of[i];
                    sum.of[i] += shifted;
                    squares.of[i] = fmaf(shifted, shifted, squares.of[i]);
                }
            }
        });
    }
    const int num_rows = owns && first_row < end ? (end - first_row + place.rows - 1) / place.rows : 0;
    const float count = num_rows, inverse = num_rows > 0 ? 1.0f / count : 0.0f;
    const float share = 1.0f / static_cast<float>(end - begin);
    Values<V> mean = sum, m2;
    sum_over_rows<V>(mean, lanes_log2, place.lane);
#pragma unroll
    for (int i = 0; i < V; i++) {
        mean.of[i] *= share;
        const float from_mean = fmaf(sum.of[i], inverse, -mean.of[i]);
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

/// Merges the splits in f64, about the mean of the first one. grid ceil(channels / 8), block (8, 64). parts
/// `[splits, channels]` (mean, M2) -> mean, variance (biased) `[channels]`.
///
/// Running statistics, null where there are none, follow: `running = (1 - momentum) * running + momentum * batch`, with
/// the unbiased variance, as PyTorch keeps it.
extern "C" __global__ void __launch_bounds__(merged_channels *merging_threads)
bn_moments_finish(const float2 *__restrict__ parts, int splits, int rows_per_split, int rows, int channels,
                  float *__restrict__ mean, float *__restrict__ variance, float *__restrict__ running_mean,
                  float *__restrict__ running_variance, float momentum) {
    const int channel = blockIdx.x * merged_channels + threadIdx.x;
    const bool owns = channel < channels;
    const double centre = owns ? parts[channel].x : 0.0f;
    double2 total = make_double2(0.0, 0.0); // of deviations from the centre, and of their squares
    for_each_part(parts, splits, channels, channel, [&](int split, float2 part) {
        const double own_rows = min(rows_per_split, rows - split * rows_per_split);
        const double from_centre = static_cast<double>(part.x) - centre;
        total.x += own_rows * from_centre;
        total.y += static_cast<double>(part.y) + own_rows * from_centre * from_centre;
    });
    total = sum_over_y(total);
    if (!owns || threadIdx.y != 0) return;
    const double shift = total.x / rows, sum = total.y - shift * total.x, squares = sum < 0.0 ? 0.0 : sum;
    const float batch_mean = static_cast<float>(centre + shift);
    mean[channel] = batch_mean;
    variance[channel] = static_cast<float>(squares / rows);
    if (running_mean == nullptr) return;
    const float keep = 1.0f - momentum, unbiased = static_cast<float>(squares / (rows - 1));
    running_mean[channel] = keep * running_mean[channel] + momentum * batch_mean;
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
    for_rows<U>(blockIdx.x * place.rows + place.row, norm.rows, step, [&](auto count, int row) {
        constexpr int N = decltype(count)::value;
        Values<V> values[N], others[N];
#pragma unroll
        for (int u = 0; u < N; u++) {
            values[u] = load<V>(x + offset(row + u * step));
            if constexpr (adds) others[u] = load<V>(shortcut + offset(row + u * step));
        }
#pragma unroll
        for (int u = 0; u < N; u++) {
#pragma unroll
            for (int i = 0; i < V; i++) {
                const float other = adds ? others[u].of[i] : 0.0f;
                values[u].of[i] = finish<kind>(affine(values[u].of[i], i), other, norm.scale);
            }
            store<V>(y + offset(row + u * step), values[u]);
        }
    });
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
    constexpr int U = unrolled<T, V, (kind == Kind::add_relu ? 3 : 2)>;
    const Place<V> place(norm.lanes_log2);
    const bool owns = place.channel < norm.channels;
    const int begin = blockIdx.x * rows_per_split, end = min(norm.rows, begin + rows_per_split);
    Values<V> sum = zeros<V>(), product = zeros<V>();
    if (owns) {
        const Affine<V> affine(norm, place.channel);
        for_rows<U>(begin + place.row, end, place.rows, [&](auto count, int row) {
            constexpr int N = decltype(count)::value;
            Values<V> inputs[N], outputs[N], gradients[N];
#pragma unroll
            for (int u = 0; u < N; u++) {
                const size_t offset = static_cast<size_t>(row + u * place.rows) * norm.channels + place.channel;
                inputs[u] = load<V>(x + offset);
                gradients[u] = load<V>(dy + offset);
                if constexpr (kind == Kind::add_relu) outputs[u] = load<V>(y + offset);
            }
#pragma unroll
            for (int u = 0; u < N; u++) {
#pragma unroll
                for (int i = 0; i < V; i++) {
                    const float input = inputs[u].of[i], output = kind == Kind::add_relu ? outputs[u].of[i] : 0.0f;
                    const float g = through<kind>(affine(input, i), output, gradients[u].of[i], norm.scale);
                    sum.of[i] += g;
                    product.of[i] = fmaf(g, input - affine.mean.of[i], product.of[i]);
                }
            }
        });
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
extern "C" __global__ void __launch_bounds__(merged_channels *merging_threads)
bn_sums_finish(const float2 *__restrict__ parts, int splits, int channels, const float *__restrict__ variance,
               float eps, float *__restrict__ dparameters) {
    const int channel = blockIdx.x * merged_channels + threadIdx.x;
    const bool owns = channel < channels;
    double2 total = make_double2(0.0, 0.0);
    for_each_part(parts, splits, channels, channel, [&](int, float2 part) {
        total.x += static_cast<double>(part.x);
        total.y += static_cast<double>(part.y);
    });
    total = sum_over_y(total);
    if (owns && threadIdx.y == 0) {
        dparameters[channel] = static_cast<float>(total.y) * inverse_std(variance[channel], eps);
        dparameters[channels + channel] = static_cast<float>(total.x);
    }
}

/// dx = slope * (g - dbeta / n - (x - mean) * dgamma / (n * std)); without dparameters (null) the statistics are
/// constants and dx = slope * g. dshortcut (null: not wanted) is dy where y > 0, for add_relu alone: elsewhere the
/// shortcut's gradient is dy itself. Any number of blocks in grid.x; rows backwards, as bn_apply.
template <typename T, int V, Kind kind>
__device__ __forceinline__ void gradient(const T *x, const T *y, const T *dy, const Norm &norm,
                                         const float *dparameters, T *dx, T *dshortcut) {
    constexpr int U = unrolled<T, V, (kind == Kind::add_relu ? 3 : 2)>;
    const Place<V> place(norm.lanes_log2);
    if (place.channel >= norm.channels) return;
    const Affine<V> affine(norm, place.channel);
    // dx = slope * g + tilt * (x - mean) + shift.
    Values<V> tilt = zeros<V>(), shift = zeros<V>();
    if (dparameters != nullptr) {
        const float share = 1.0f / static_cast<float>(norm.rows);
        const float *dgamma = dparameters + place.channel, *dbeta = dgamma + norm.channels;
#pragma unroll
        for (int i = 0; i < V; i++) {
            tilt.of[i] = -affine.slope.of[i] * dgamma[i] * affine.inverse.of[i] * share;
            shift.of[i] = -affine.slope.of[i] * dbeta[i] * share;
        }
    }
    const int step = gridDim.x * place.rows, last = norm.rows - 1;
    const auto offset = [&](int row) { return static_cast<size_t>(last - row) * norm.channels + place.channel; };
    for_rows<U>(blockIdx.x * place.rows + place.row, norm.rows, step, [&](auto count, int row) {
        constexpr int N = decltype(count)::value;
        Values<V> inputs[N], outputs[N], gradients[N];
#pragma unroll
        for (int u = 0; u < N; u++) {
            inputs[u] = load<V>(x + offset(row + u * step));
            gradients[u] = load<V>(dy + offset(row + u * step));
            if constexpr (kind == Kind::add_relu) outputs[u] = load<V>(y + offset(row + u * step));
        }
#pragma unroll
        for (int u = 0; u < N; u++) {
            Values<V> through_shortcut;
#pragma unroll
            for (int i = 0; i < V; i++) {
                const float input = inputs[u].of[i], output = kind == Kind::add_relu ? outputs[u].of[i] : 0.0f;
                const float g = through<kind>(affine(input, i), output, gradients[u].of[i], norm.scale);
                through_shortcut.of[i] = g;
                const float own = fmaf(tilt.of[i], input - affine.mean.of[i], shift.of[i]);
                gradients[u].of[i] = fmaf(affine.slope.of[i], g, own);
            }
            store<V>(dx + offset(row + u * step), gradients[u]);
            if constexpr (kind == Kind::add_relu) {
                if (dshortcut != nullptr) store<V>(dshortcut + offset(row + u * step), through_shortcut);
            }
        }
    });
}

// Blocks a multiprocessor has at least: four allow 64 registers a thread, three 80, two 128.
#define BATCH_NORM_KIND(T, NAME, V, KIND)                                                                              \
    extern "C" __global__ void __launch_bounds__(block_threads, 3)                                                     \
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
    extern "C" __global__ void __launch_bounds__(block_threads, 4)                                                     \
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
