// Cross-entropy, from logits to one number, and back.
//
// logits, dlogits `[rows, classes]`, T; either labels `[rows]` or targets `[rows, classes]` f32, the other is null.
// With labels the target of a row is 1 - smoothing on its label plus smoothing / classes everywhere (Szegedy et al.
// 2016, §7). A warp works on one row: a lane takes every 32nd class, and the lanes are merged by a butterfly. Blocks of
// 128 are four rows, on a 1-D grid of any size.
#include "common.cuh"

constexpr int row_warps = 4;

/// What a row is compared with.
struct Targets {
    const unsigned *labels;
    const float *targets;
    float smoothing;
    int classes;

    /// A label that names no class cannot be refused here without waiting for the device; its row becomes NaN.
    __device__ __forceinline__ bool valid(int row) const {
        return labels == nullptr || labels[row] < static_cast<unsigned>(classes);
    }

    __device__ __forceinline__ float of(int row, int at) const {
        if (labels == nullptr) return targets[static_cast<size_t>(row) * classes + at];
        const float hit = labels[row] == static_cast<unsigned>(at) ? 1.0f - smoothing : 0.0f;
        return hit + smoothing / static_cast<float>(classes);
    }
};

/// `log(sum(exp(logit)))` as largest + log_sum, kept apart: the difference to a logit keeps its digits.
struct Normaliser {
    float largest, log_sum, inverse_sum;
};

template <typename T> __device__ __forceinline__ Normaliser normaliser(const T *logits, int classes, int lane) {
    Normaliser result;
    result.largest = -INFINITY;
    for (int at = lane; at < classes; at += warp_threads) result.largest = fmaxf(result.largest, widen(logits[at]));
    for (int distance = warp_threads / 2; distance > 0; distance /= 2) {
        result.largest = fmaxf(result.largest, __shfl_xor_sync(0xffffffffu, result.largest, distance));
    }
    float sum = 0.0f;
    for (int at = lane; at < classes; at += warp_threads) sum += expf(widen(logits[at]) - result.largest);
    sum = warp_sum(sum);
    result.log_sum = logf(sum);
    result.inverse_sum = 1.0f / sum;
    return result;
}

/// First row of this thread's warp, and how many rows the grid takes at once.
__device__ __forceinline__ int warp_row() { return blockIdx.x * row_warps + threadIdx.x / warp_threads; }
__device__ __forceinline__ int grid_rows() { return gridDim.x * row_warps; }

/// Cross-entropy of each row, in nats: row_losses `[rows]`. A class whose target is 0 takes no part: 0 * infinity would
/// be NaN.
template <typename T>
__device__ __forceinline__ void cross_entropy(const T *__restrict__ logits, const Targets &targets,
                                              float *__restrict__ row_losses, int rows) {
    const int lane = threadIdx.x % warp_threads, classes = targets.classes;
    for (int row = warp_row(); row < rows; row += grid_rows()) {
        const T *row_logits = logits + static_cast<size_t>(row) * classes;
        const Normaliser norm = normaliser(row_logits, classes, lane);
        float loss = 0.0f;
        for (int at = lane; at < classes; at += warp_threads) {
            const float target = targets.of(row, at);
            if (target != 0.0f) loss += target * (norm.largest - widen(row_logits[at]) + norm.log_sum);
        }
        loss = warp_sum(loss);
        if (lane == 0) row_losses[row] = targets.valid(row) ? loss : NAN;
    }
}

/// dlogits = upstream / rows * (softmax * (sum of the row's targets) - target); upstream is one number on the device.
template <typename T>
__device__ __forceinline__ void cross_entropy_gradient(const T *__restrict__ logits, const Targets &targets,
                                                       const float *__restrict__ upstream, T *__restrict__ dlogits,
                                                       int rows) {
    const int lane = threadIdx.x % warp_threads, classes = targets.classes;
    const float scale = *upstream / static_cast<float>(rows);
    for (int row = warp_row(); row < rows; row += grid_rows()) {
        const size_t start = static_cast<size_t>(row) * classes;
        const Normaliser norm = normaliser(logits + start, classes, lane);
        float mass = 1.0f;
        if (targets.labels == nullptr) {
            mass = 0.0f;
            for (int at = lane; at < classes; at += warp_threads) mass += targets.of(row, at);
            mass = warp_sum(mass);
        }
        const float row_scale = targets.valid(row) ? scale : NAN;
        for (int at = lane; at < classes; at += warp_threads) {
            const float probability = expf(widen(logits[start + at]) - norm.largest) * norm.inverse_sum;
            dlogits[start + at] = narrow<T>(row_scale * (probability * mass - targets.of(row, at)));
        }
    }
}

/// Mean of `n` values, added up in f64. One block of 256: a thread takes every 256th value.
extern "C" __global__ void __launch_bounds__(block_threads)
mean_f32(const float *__restrict__ values, float *__restrict__ out, int n) {
    double sum = 0.0;
    for (int at = threadIdx.x; at < n; at += block_threads) sum += static_cast<double>(values[at]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) *out = static_cast<float>(sum / n);
}

#define LOSS(T, NAME)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(row_warps *warp_threads)                                              \
    cross_entropy_##NAME(const T *logits, const unsigned *labels, const float *targets, float smoothing,               \
                         float *row_losses, int rows, int classes) {                                                   \
        cross_entropy<T>(logits, {labels, targets, smoothing, classes}, row_losses, rows);                             \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(row_warps *warp_threads)                                              \
    cross_entropy_gradient_##NAME(const T *logits, const unsigned *labels, const float *targets, float smoothing,      \
                                  const float *upstream, T *dlogits, int rows, int classes) {                          \
        cross_entropy_gradient<T>(logits, {labels, targets, smoothing, classes}, upstream, dlogits, rows);             \
    }

LOSS(float, f32)
LOSS(bf16, bf16)
