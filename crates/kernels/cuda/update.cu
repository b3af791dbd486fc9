// Optimizer steps over all parameters in one launch each.
//
// A table in device memory names the tensors, another the blocks: block i of the grid works on chunk `blocks[i].chunk`,
// 4096 elements, of tensor `blocks[i].tensor`, with 256 threads. Accesses take 16 bytes where everything of a tensor
// begins on 16 bytes; half of a pair, as the gradient of a batch norm's beta, may not. Everything is f32 and dense.
// Rules are those of PyTorch.
#include "common.cuh"

/// One tensor and what belongs to it; pointers that a rule does not name may be null.
struct Tensor {
    float *param;
    const float *grad;
    float *first;
    float *second;
    long long len;
    float lr, weight_decay;
};
static_assert(sizeof(Tensor) == 48, "the host writes this table");

struct Block {
    int tensor, chunk;
};

constexpr int chunk_elements = 4096;

/// How past gradients enter a step of SGD.
enum Momentum { none, heavy, nesterov };

/// Calls `visit(offset, width)` over the elements of one chunk: four at a time, the tensor's last ones singly.
template <typename Visit>
__device__ __forceinline__ void for_each_in_chunk(int chunk, const Tensor &tensor, Visit visit) {
    const long long begin = static_cast<long long>(chunk) * chunk_elements;
    const int count = static_cast<int>(min(tensor.len - begin, static_cast<long long>(chunk_elements)));
    const int whole = aligned(tensor.param, tensor.grad, tensor.first, tensor.second) ? count / 4 * 4 : 0;
    for (int at = threadIdx.x * 4; at < whole; at += block_threads * 4) visit(begin + at, Width<4>());
    for (int at = whole + threadIdx.x; at < count; at += block_threads) visit(begin + at, Width<1>());
}

/// g = grad * grad_scale + weight_decay * param; buffer = momentum * buffer + g (kept in `first`); the step goes along g
/// (none), the buffer (heavy; Polyak 1964) or g + momentum * buffer (nesterov; Sutskever et al. 2013).
extern "C" __global__ void __launch_bounds__(block_threads)
sgd_multi(const Tensor *__restrict__ tensors, const Block *__restrict__ blocks, float momentum, int kind,
          float grad_scale) {
    const Block block = blocks[blockIdx.x];
    const Tensor tensor = tensors[block.tensor];
    for_each_in_chunk(block.chunk, tensor, [&](long long at, auto width) {
        constexpr int V = decltype(width)::value;
        Values<V> param = load<V>(tensor.param + at), step = load<V>(tensor.grad + at);
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
        store<V>(tensor.param + at, param);
    });
}

/// AdamW (Loshchilov and Hutter 2019). `beta1_rest` = 1 - beta1, `correction1` = 1 - beta1^t,
/// `root_correction2` = sqrt(1 - beta2^t), taken in f64 by the host.
extern "C" __global__ void __launch_bounds__(block_threads)
adamw_multi(const Tensor *__restrict__ tensors, const Block *__restrict__ blocks, float beta1_rest, float beta2,
            float beta2_rest, float eps, float correction1, float root_correction2, float grad_scale) {
    const Block block = blocks[blockIdx.x];
    const Tensor tensor = tensors[block.tensor];
    // In f64: 1 - lr * weight_decay lies so near 1 that the product must not be rounded before.
    const double decay = static_cast<double>(tensor.lr) * static_cast<double>(tensor.weight_decay);
    const float shrink = static_cast<float>(1.0 - decay), size = tensor.lr / correction1;
    for_each_in_chunk(block.chunk, tensor, [&](long long at, auto width) {
        constexpr int V = decltype(width)::value;
        Values<V> param = load<V>(tensor.param + at), first = load<V>(tensor.first + at);
        Values<V> second = load<V>(tensor.second + at);
        const Values<V> grad = load<V>(tensor.grad + at);
#pragma unroll
        for (int i = 0; i < V; i++) {
            const float g = grad.of[i] * grad_scale;
            first.of[i] = fmaf(beta1_rest, g - first.of[i], first.of[i]);
            second.of[i] = fmaf(beta2, second.of[i], beta2_rest * g * g);
            const float direction = first.of[i] / (sqrtf(second.of[i]) / root_correction2 + eps);
            param.of[i] = fmaf(-size, direction, shrink * param.of[i]);
        }
        store<V>(tensor.param + at, param);
        store<V>(tensor.first + at, first);
        store<V>(tensor.second + at, second);
    });
}

/// average = keep * average + rest * parameter, with the average as `param` and the parameter as `grad`.
extern "C" __global__ void __launch_bounds__(block_threads)
ema_multi(const Tensor *__restrict__ tensors, const Block *__restrict__ blocks, float keep, float rest) {
    const Block block = blocks[blockIdx.x];
    const Tensor tensor = tensors[block.tensor];
    for_each_in_chunk(block.chunk, tensor, [&](long long at, auto width) {
        constexpr int V = decltype(width)::value;
        Values<V> average = load<V>(tensor.param + at);
        const Values<V> parameter = load<V>(tensor.grad + at);
#pragma unroll
        for (int i = 0; i < V; i++) average.of[i] = fmaf(keep, average.of[i], rest * parameter.of[i]);
        store<V>(tensor.param + at, average);
    });
}

/// Sum of the squares of `grad` over each block's chunk, in f64: parts `[blocks]`.
extern "C" __global__ void __launch_bounds__(block_threads)
squares_multi(const Tensor *__restrict__ tensors, const Block *__restrict__ blocks, double *__restrict__ parts) {
    const Block block = blocks[blockIdx.x];
    const Tensor tensor = tensors[block.tensor];
    double sum = 0.0;
    for_each_in_chunk(block.chunk, tensor, [&](long long at, auto width) {
        constexpr int V = decltype(width)::value;
        const Values<V> grad = load<V>(tensor.grad + at);
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
