// What the kernels share: element types, wide accesses, and the layout of a block over channels.
//
// Activations are channels-last, `[rows, channels]` with rows = images * height * width. An element is a float or a
// bfloat16; arithmetic is f32 unless a kernel says f64. No kernel uses float atomics: the order of every sum follows
// from the shapes alone, so a run can be repeated bit for bit.
#pragma once

#include <cuda_bf16.h>

using bf16 = __nv_bfloat16;

/// Threads of a block, where a kernel does not say otherwise.
constexpr int block_threads = 256;
constexpr int warp_threads = 32;
constexpr int block_warps = block_threads / warp_threads;

/// Neighbouring elements that one thread owns.
template <int V> struct Values {
    float of[V];
};

/// A width as a type, so that a lambda can take it.
template <int V> struct Width {
    static constexpr int value = V;
};

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(bf16 value) { return __bfloat162float(value); }

template <typename T> __device__ __forceinline__ T narrow(float value);
template <> __device__ __forceinline__ float narrow<float>(float value) { return value; }
template <> __device__ __forceinline__ bf16 narrow<bf16>(float value) { return __float2bfloat16_rn(value); }

/// Two bfloat16 in memory order: the first lies in the low half.
__device__ __forceinline__ unsigned narrow_pair(float first, float second) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
    return *reinterpret_cast<const unsigned *>(&pair);
}

/// `V` neighbours: 1, or 4 or 8 of which the first lies on a boundary of 16 bytes (4 bfloat16: of 8).
template <int V> __device__ __forceinline__ Values<V> load(const float *from) {
    Values<V> values;
    if constexpr (V == 1) {
        values.of[0] = *from;
    } else {
#pragma unroll
        for (int i = 0; i < V; i += 4) {
            const float4 quad = *reinterpret_cast<const float4 *>(from + i);
            values.of[i] = quad.x;
            values.of[i + 1] = quad.y;
            values.of[i + 2] = quad.z;
            values.of[i + 3] = quad.w;
        }
    }
    return values;
}

/// `V` neighbours, wherever the first lies.
template <int V> __device__ __forceinline__ Values<V> load_each(const float *from) {
    Values<V> values;
#pragma unroll
    for (int i = 0; i < V; i++) values.of[i] = from[i];
    return values;
}

template <int V> __device__ __forceinline__ Values<V> load(const bf16 *from) {
    Values<V> values;
    if constexpr (V == 1) {
        values.of[0] = widen(*from);
    } else {
        static_assert(V == 4 || V == 8, "four bfloat16 are eight bytes, eight are sixteen");
        unsigned pairs[V / 2];
        if constexpr (V == 8) {
            const uint4 packed = *reinterpret_cast<const uint4 *>(from);
            pairs[0] = packed.x, pairs[1] = packed.y, pairs[2] = packed.z, pairs[3] = packed.w;
        } else {
            const uint2 packed = *reinterpret_cast<const uint2 *>(from);
            pairs[0] = packed.x, pairs[1] = packed.y;
        }
#pragma unroll
        for (int i = 0; i < V / 2; i++) {
            // A bfloat16 is the upper half of a float.
            values.of[2 * i] = __uint_as_float(pairs[i] << 16);
            values.of[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
        }
    }
    return values;
}

template <int V> __device__ __forceinline__ void store(float *to, const Values<V> &values) {
    if constexpr (V == 1) {
        *to = values.of[0];
    } else {
#pragma unroll
        for (int i = 0; i < V; i += 4) {
            const float *of = values.of + i;
            *reinterpret_cast<float4 *>(to + i) = make_float4(of[0], of[1], of[2], of[3]);
        }
    }
}

template <int V> __device__ __forceinline__ void store(bf16 *to, const Values<V> &values) {
    if constexpr (V == 1) {
        *to = narrow<bf16>(values.of[0]);
    } else {
        static_assert(V == 4 || V == 8, "four bfloat16 are eight bytes, eight are sixteen");
        const float *of = values.of;
        const unsigned first = narrow_pair(of[0], of[1]), second = narrow_pair(of[2], of[3]);
        if constexpr (V == 8) {
            *reinterpret_cast<uint4 *>(to) = make_uint4(first, second, narrow_pair(of[4], of[5]), narrow_pair(of[6], of[7]));
        } else {
            *reinterpret_cast<uint2 *>(to) = make_uint2(first, second);
        }
    }
}

template <int V> __device__ __forceinline__ Values<V> zeros() {
    Values<V> values;
#pragma unroll
    for (int i = 0; i < V; i++) values.of[i] = 0.0f;
    return values;
}

/// Written so that NaN passes, as in PyTorch.
__device__ __forceinline__ float relu(float value) { return value < 0.0f ? 0.0f : value; }

/// The gradient through a ReLU: nothing at 0.
__device__ __forceinline__ float gate(float decider, float gradient) { return decider > 0.0f ? gradient : 0.0f; }

/// Whether all these addresses allow 16-byte accesses. The same for all threads, so a branch on it is free.
template <typename... Pointers> __device__ __forceinline__ bool aligned(const Pointers *...pointers) {
    return ((reinterpret_cast<unsigned long long>(pointers) | ...) & 15) == 0;
}

/// First item of this thread in a loop of `grid_threads()` steps over a 1-D grid of any size.
__device__ __forceinline__ long long grid_thread() {
    return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ long long grid_threads() { return static_cast<long long>(gridDim.x) * blockDim.x; }

/// Calls `body(Width<U>(), row)` for U rows at a time, `step` apart, up to `end`, then with Width<1> for those that are
/// left: no branch lies between the loads of one call, so they are all under way before the first is waited for.
template <int U, typename Body> __device__ __forceinline__ void for_rows(int row, int end, int step, Body body) {
    for (; row < end - (U - 1) * step; row += U * step) body(Width<U>(), row);
    for (; row < end; row += step) body(Width<1>(), row);
}

/// Sum over a warp, in every lane, in the order of a butterfly.
__device__ __forceinline__ float warp_sum(float value) {
    for (int distance = warp_threads / 2; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    }
    return value;
}

/// Sum of one value of each of the block's 256 threads, valid in thread 0: halves are folded onto each other.
__device__ __forceinline__ double block_sum(double value) {
    __shared__ double values[block_threads];
    const int thread = threadIdx.x;
    values[thread] = value;
    __syncthreads();
    for (int half = block_threads / 2; half > 0; half /= 2) {
        if (thread < half) values[thread] += values[thread + half];
        __syncthreads();
    }
    return values[0];
}
