// Optimizer steps over all parameters in one launch each.
//
// A table in device memory names the tensors, another the blocks: block i of the grid works on piece `blocks[i].piece`
// of tensor `blocks[i].tensor`, with 256 threads. Parameters and what a rule remembers are f32 and dense. Rules are those
// of PyTorch.
#include "tile.cuh"

/// How a gradient lies: as its parameter, in f32 or bfloat16, or as a convolution makes it, `[k, taps, c_padded]`.
enum GradientKind { gradient_f32, gradient_bf16, gradient_packed };

/// One tensor and what belongs to it; pointers that a rule does not name may be null.
///
/// `shadow`, if any, is the bfloat16 copy that convolutions take: `[k, taps, c_padded]` of a parameter `[k, c, taps]`.
/// Where shadow or gradient are packed, a piece is 64 channels of a filter; else it is 4096 elements.
struct Tensor {
    float *param;
    const void *grad;
    float *first;
    float *second;
    bf16 *shadow;
    long long len;
    float lr, weight_decay;
    int channels, channels_padded, taps;
    int gradient;
};
static_assert(sizeof(Tensor) == 72, "the host writes this table");

struct Block {
    int tensor, piece;
};

constexpr int chunk_elements = 4096;

/// Taps of the windows that move in wide tiles: those of 3x3 are nearly all.
constexpr int wide_tile_taps = 9;

/// How past gradients enter a step of SGD.
enum Momentum { none, heavy, nesterov };

/// Calls `visit(offset, width)` over the elements of one piece of 4096: four at a time where everything of the tensor
/// begins on 16 bytes (half of a pair, as the gradient of a batch norm's beta, may not), the others singly.
template <typename Visit>
__device__ __forceinline__ void for_each_in_chunk(int chunk, const Tensor &tensor, Visit visit) {
    const long long begin = static_cast<long long>(chunk) * chunk_elements;
    const int count = static_cast<int>(min(tensor.len - begin, static_cast<long long>(chunk_elements)));
    const auto *grad = static_cast<const char *>(tensor.grad);
    const int whole = aligned(tensor.param, grad, tensor.first, tensor.second, tensor.shadow) ? count / 4 * 4 : 0;
    for (int at = threadIdx.x * 4; at < whole; at += block_threads * 4) visit(begin + at, Width<4>());
    for (int at = whole + threadIdx.x; at < count; at += block_threads) visit(begin + at, Width<1>());
}

template <int V> __device__ __forceinline__ Values<V> load_gradient(const Tensor &tensor, long long at) {
    return tensor.gradient == gradient_f32 ? load<V>(static_cast<const float *>(tensor.grad) + at)
                                           : load<V>(static_cast<const bf16 *>(tensor.grad) + at);
}

/// Moves the elements of a piece that lies as the parameter does. `rule(at, param, grad)` changes `param`.
template <typename Rule> __device__ __forceinline__ void move_chunk(const Tensor &tensor, int chunk, Rule rule) {
    for_each_in_chunk(chunk, tensor, [&](long long at, auto width) {
        constexpr int V = decltype(width)::value;
        Values<V> param = load<V>(tensor.param + at);
        rule(at, param, load_gradient<V>(tensor, at));
        store<V>(tensor.param + at, param);
        if (tensor.shadow != nullptr) store<V>(tensor.shadow + at, param);
    });
}

/// Moves 64 channels of a filter whose gradient or shadow is packed: through shared memory, so that both sides are
/// accessed along lines.
template <typename Rule> __device__ __forceinline__ void move_tile(const Tensor &tensor, int piece, Rule rule) {
    __shared__ Tile tile;
    const int groups = (tensor.channels_padded + tile_channels - 1) / tile_channels;
    const int filter = piece / groups, first_channel = piece % groups * tile_channels;
    const size_t own = static_cast<size_t>(filter) * tensor.channels * tensor.taps;
    const size_t packed = static_cast<size_t>(filter) * tensor.channels_padded * tensor.taps;
    const bool is_packed = tensor.gradient == gradient_packed;
    for (int first_tap = 0; first_tap < tensor.taps; first_tap += tile_taps) {
        const int num_taps = min(tile_taps, tensor.taps - first_tap);
        if (is_packed) {
            tile.by_channels(first_channel, first_tap, num_taps, [&](int channel, int tap, float &value) {
                if (channel >= tensor.channels) return;
                const size_t at = packed + static_cast<size_t>(tap) * tensor.channels_padded + channel;
                value = widen(static_cast<const bf16 *>(tensor.grad)[at]);
            });
            __syncthreads();
        }
        tile.by_taps(first_channel, first_tap, num_taps, [&](int channel, int tap, float &value) {
            if (channel >= tensor.channels) {
                value = 0.0f;
                return;
            }
            const size_t at = own + static_cast<size_t>(channel) * tensor.taps + tap;
            const Values<1> grad = is_packed ? Values<1>{{value}} : load_gradient<1>(tensor, at);
            Values<1> param = load<1>(tensor.param + at);
            rule(static_cast<long long>(at), param, grad);
            store<1>(tensor.param + at, param);
            value = param.of[0];
        });
        __syncthreads();
        if (tensor.shadow == nullptr) continue;
        tile.by_channels(first_channel, first_tap, num_taps, [&](int channel, int tap, float &value) {
            if (channel >= tensor.channels_padded) return;
            tensor.shadow[packed + static_cast<size_t>(tap) * tensor.channels_padded + channel] = narrow<bf16>(value);
        });
        __syncthreads();
    }
}

/// Eight channels of one filter at a time may be taken where both orders have the same channels, on 16 bytes.
__device__ __forceinline__ bool takes_wide_tiles(const Tensor &tensor) {
    const auto *grad = static_cast<const char *>(tensor.grad);
    return tensor.gradient == gradient_packed && tensor.shadow != nullptr && tensor.taps <= wide_tile_taps &&
           tensor.channels == tensor.channels_padded && tensor.channels % 8 == 0 &&
           aligned(tensor.param, grad, tensor.first, tensor.second, tensor.shadow);
}

/// As move_tile, with 16 bytes an access: what a parameter has in 64 channels of a filter is one stretch of memory.
template <typename Rule> __device__ __forceinline__ void move_wide_tile(const Tensor &tensor, int piece, Rule rule) {
    alignas(16) __shared__ float values[tile_channels * wide_tile_taps];
    const int taps = tensor.taps, groups = (tensor.channels + tile_channels - 1) / tile_channels;
    const int filter = piece / groups, first_channel = piece % groups * tile_channels;
    const int num_channels = min(tile_channels, tensor.channels - first_channel), eights = num_channels / 8;
    const size_t start = static_cast<size_t>(filter) * tensor.channels * taps;
    const size_t own = start + static_cast<size_t>(first_channel) * taps;
    const auto packed = [&](int tap, int eight) {
        return start + static_cast<size_t>(tap) * tensor.channels + first_channel + eight * 8;
    };
    for (int item = threadIdx.x; item < taps * eights; item += block_threads) {
        const int tap = item / eights, eight = item % eights;
        const Values<8> grads = load<8>(static_cast<const bf16 *>(tensor.grad) + packed(tap, eight));
#pragma unroll
        for (int i = 0; i < 8; i++) values[(eight * 8 + i) * taps + tap] = grads.of[i];
    }
    __syncthreads();
    for (int at = threadIdx.x * 4; at < num_channels * taps; at += block_threads * 4) {
        Values<4> param = load<4>(tensor.param + own + at);
        rule(static_cast<long long>(own + at), param, load<4>(values + at));
        store<4>(tensor.param + own + at, param);
        store<4>(values + at, param);
    }
    __syncthreads();
    for (int item = threadIdx.x; item < taps * eights; item += block_threads) {
        const int tap = item / eights, eight = item % eights;
        Values<8> moved;
#pragma unroll
        for (int i = 0; i < 8; i++) moved.of[i] = values[(eight * 8 + i) * taps + tap];
        store<8>(tensor.shadow + packed(tap, eight), moved);
    }
}

/// Moves one piece of one tensor.
template <typename Rule>
__device__ __forceinline__ void move(const Tensor &tensor, int piece, Rule rule) {
    if (tensor.taps > 0 && takes_wide_tiles(tensor)) {
        move_wide_tile(tensor, piece, rule);
    } else if (tensor.taps > 0) {
        move_tile(tensor, piece, rule);
    } else {
        move_chunk(tensor, piece, rule);
    }
}

/// `scale` = what gradients whose squares add up to `squares` are multiplied by, on one thread: `factor`, and less where
/// their norm would be above `max_norm` (Pascanu et al. 2013), as PyTorch's `clip_grad_norm_`. NaN clips nothing.
extern "C" __global__ void __launch_bounds__(block_threads)
clip_scale(const double *__restrict__ squares, double factor, double max_norm, float *__restrict__ scale) {
    if (threadIdx.x != 0) return;
    const double clip = max_norm / (fabs(factor) * sqrt(*squares) + 1e-6);
    *scale = static_cast<float>(clip < 1.0 ? factor * clip : factor);
}

/// g = grad * grad_scale + weight_decay * param; buffer = momentum * buffer + g (kept in `first`); the step goes along g
/// (none), the buffer (heavy; Polyak 1964) or g + momentum * buffer (nesterov; Sutskever et al. 2013). `clipped`, where it
/// is not null, holds what clip_scale gave and stands for grad_scale.
extern "C" __global__ void __launch_bounds__(block_threads)
sgd_multi(const Tensor *__restrict__ tensors, const Block *__restrict__ blocks, float momentum, int kind,
          float grad_scale, const float *__restrict__ clipped) {
    if (clipped != nullptr) grad_scale = *clipped;
    const Block block = blocks[blockIdx.x];
    const Tensor tensor = tensors[block.tensor];
    move(tensor, block.piece, [&](long long at, auto &param, auto step) {
        constexpr int V = sizeof(step) / sizeof(float);
#pragma unroll
        for (int i = 0; i < V; i++) step.of[i] = fmaf(tensor.weight_decay, param.of[i], step.of[i] * grad_scale);
        if (kind != Momentum::none) {
            Values<V> buffer = load<V>(tensor.first + at);
#pragma unroll
            for (int i = 0; i < V; i++) {
                buffer.of[i] = fmaf(momentum, buffer.of[i], step.of[i]);
                step.of[i] = kind == Momentum::nesterov ? fmaf(momentum, buffer.of[i], step.of[i]) : buffer.of[i];
            }
            store<V>(tensor.first + at, buffer);
        }
#pragma unroll
        for (int i = 0; i < V; i++) param.of[i] = fmaf(-tensor.lr, step.of[i], param.of[i]);
    });
}

/// AdamW (Loshchilov and Hutter 2019). `beta1_rest` = 1 - beta1, `correction1` = 1 - beta1^t,
/// `root_correction2` = sqrt(1 - beta2^t), taken in f64 by the host. `clipped` as for SGD.
extern "C" __global__ void __launch_bounds__(block_threads, 4) // or ptxas spills for sm_80
adamw_multi(const Tensor *__restrict__ tensors, const Block *__restrict__ blocks, float beta1_rest, float beta2,
            float beta2_rest, float eps, float correction1, float root_correction2, float grad_scale,
            const float *__restrict__ clipped) {
    if (clipped != nullptr) grad_scale = *clipped;
    const Block block = blocks[blockIdx.x];
    const Tensor tensor = tensors[block.tensor];
    // In f64: 1 - lr * weight_decay lies so near 1 that the product must not be rounded before.
    const double decay = static_cast<double>(tensor.lr) * static_cast<double>(tensor.weight_decay);
    const float shrink = static_cast<float>(1.0 - decay), size = tensor.lr / correction1;
    move(tensor, block.piece, [&](long long at, auto &param, const auto &grad) {
        constexpr int V = sizeof(grad) / sizeof(float);
        Values<V> first = load<V>(tensor.first + at), second = load<V>(tensor.second + at);
#pragma unroll
        for (int i = 0; i < V; i++) {
            const float g = grad.of[i] * grad_scale;
            first.of[i] = fmaf(beta1_rest, g - first.of[i], first.of[i]);
            second.of[i] = fmaf(beta2, second.of[i], beta2_rest * g * g);
            const float direction = first.of[i] / (sqrtf(second.of[i]) / root_correction2 + eps);
            param.of[i] = fmaf(-size, direction, shrink * param.of[i]);
        }
        store<V>(tensor.first + at, first);
        store<V>(tensor.second + at, second);
    });
}

/// average = keep * average + rest * parameter, with the average as `param` and the parameter as `grad`.
extern "C" __global__ void __launch_bounds__(block_threads)
ema_multi(const Tensor *__restrict__ tensors, const Block *__restrict__ blocks, float keep, float rest) {
    const Block block = blocks[blockIdx.x];
    const Tensor tensor = tensors[block.tensor];
    move(tensor, block.piece, [&](long long, auto &average, const auto &parameter) {
        constexpr int V = sizeof(parameter) / sizeof(float);
#pragma unroll
        for (int i = 0; i < V; i++) average.of[i] = fmaf(keep, average.of[i], rest * parameter.of[i]);
    });
}

/// Sum of the squares of `grad`, which is dense in whatever order, over each block's 4096 elements, in f64: parts
/// `[blocks]`.
extern "C" __global__ void __launch_bounds__(block_threads)
squares_multi(const Tensor *__restrict__ tensors, const Block *__restrict__ blocks, double *__restrict__ parts) {
    const Block block = blocks[blockIdx.x];
    const Tensor tensor = tensors[block.tensor];
    double sum = 0.0;
    for_each_in_chunk(block.piece, tensor, [&](long long at, auto width) {
        constexpr int V = decltype(width)::value;
        const Values<V> grad = load_gradient<V>(tensor, at);
#pragma unroll
        for (int i = 0; i < V; i++) sum += static_cast<double>(grad.of[i]) * static_cast<double>(grad.of[i]);
    });
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

/// Adds the parts up. One block of 256: a thread takes every 256th.
extern "C" __global__ void __launch_bounds__(block_threads)
squares_finish(const double *__restrict__ parts, int n, double *__restrict__ sum) {
    double total = 0.0;
    for (int at = threadIdx.x; at < n; at += block_threads) total += parts[at];
    total = block_sum(total);
    if (threadIdx.x == 0) *sum = total;
}
