// Element by element, sums of columns, and the transposition between layouts.
//
// The elementwise kernels take a 1-D grid of any size, blocks of 256, and counts of 64 bits; 16-byte accesses where the
// addresses allow them, else one element at a time. An output may lie exactly on an input.
#include "common.cuh"

/// Calls `visit(offset, width)` over `n` elements: eight at a time if `wide`, the last ones singly.
template <typename Visit> __device__ __forceinline__ void for_each(long long n, bool wide, Visit visit) {
    const long long groups = wide ? n / 8 : 0;
    for (long long group = grid_thread(); group < groups; group += grid_threads()) visit(group * 8, Width<8>());
    for (long long at = groups * 8 + grid_thread(); at < n; at += grid_threads()) visit(at, Width<1>());
}

template <typename T> __device__ __forceinline__ void relu_forward(const T *x, T *y, long long n) {
    for_each(n, aligned(x, y), [&](long long at, auto width) {
        constexpr int V = decltype(width)::value;
        Values<V> values = load<V>(x + at);
#pragma unroll
        for (int i = 0; i < V; i++) values.of[i] = relu(values.of[i]);
        store<V>(y + at, values);
    });
}

template <typename T> __device__ __forceinline__ void relu_gradient(const T *y, const T *dy, T *dx, long long n) {
    for_each(n, aligned(y, dy, dx), [&](long long at, auto width) {
        constexpr int V = decltype(width)::value;
        const Values<V> outputs = load<V>(y + at);
        Values<V> gradients = load<V>(dy + at);
#pragma unroll
        for (int i = 0; i < V; i++) gradients.of[i] = gate(outputs.of[i], gradients.of[i]);
        store<V>(dx + at, gradients);
    });
}

template <typename T> __device__ __forceinline__ void add(const T *a, const T *b, T *out, long long n) {
    for_each(n, aligned(a, b, out), [&](long long at, auto width) {
        constexpr int V = decltype(width)::value;
        Values<V> sum = load<V>(a + at);
        const Values<V> other = load<V>(b + at);
#pragma unroll
        for (int i = 0; i < V; i++) sum.of[i] += other.of[i];
        store<V>(out + at, sum);
    });
}

template <typename T> __device__ __forceinline__ void fill(T *out, float value, long long n) {
    for_each(n, aligned(out), [&](long long at, auto width) {
        constexpr int V = decltype(width)::value;
        Values<V> values;
#pragma unroll
        for (int i = 0; i < V; i++) values.of[i] = value;
        store<V>(out + at, values);
    });
}

template <typename From, typename To> __device__ __forceinline__ void cast(const From *x, To *y, long long n) {
    for_each(n, aligned(x, y), [&](long long at, auto width) {
        constexpr int V = decltype(width)::value;
        store<V>(y + at, load<V>(x + at));
    });
}

extern "C" __global__ void __launch_bounds__(block_threads) cast_f32_bf16(const float *x, bf16 *y, long long n) {
    cast(x, y, n);
}
extern "C" __global__ void __launch_bounds__(block_threads) cast_bf16_f32(const bf16 *x, float *y, long long n) {
    cast(x, y, n);
}

/// y `[rows, columns]` += bias `[columns]`.
template <typename T>
__device__ __forceinline__ void add_bias(T *y, const float *__restrict__ bias, long long rows, int columns) {
    const bool wide = columns % 8 == 0 && aligned(y);
    for_each(rows * columns, wide, [&](long long at, auto width) {
        constexpr int V = decltype(width)::value;
        const int column = static_cast<int>(static_cast<unsigned long long>(at) % static_cast<unsigned>(columns));
        Values<V> values = load<V>(y + at);
#pragma unroll
        for (int i = 0; i < V; i++) values.of[i] += bias[column + i];
        store<V>(y + at, values);
    });
}

constexpr int tile = 32;
constexpr int tile_rows = 8;

/// x `[images, rows, columns]` -> y `[images, columns, rows]`: channels-first from channels-last and back.
/// grid (ceil(columns / 32), ceil(rows / 32), images), block (32, 8); both sides are read and written along lines.
template <typename T>
__device__ __forceinline__ void transpose_images(const T *__restrict__ x, T *__restrict__ y, int images, int rows,
                                                 int columns) {
    __shared__ T values[tile][tile + 1];
    const int first_row = blockIdx.y * tile, first_column = blockIdx.x * tile;
    const int tx = threadIdx.x, ty = threadIdx.y;
    for (int image = blockIdx.z; image < images; image += gridDim.z) {
        const size_t start = static_cast<size_t>(image) * rows * columns;
        for (int i = ty; i < tile; i += tile_rows) {
            const int row = first_row + i, column = first_column + tx;
            if (row < rows && column < columns) values[i][tx] = x[start + static_cast<size_t>(row) * columns + column];
        }
        __syncthreads();
        for (int i = ty; i < tile; i += tile_rows) {
            const int row = first_row + tx, column = first_column + i;
            if (row < rows && column < columns) y[start + static_cast<size_t>(column) * rows + row] = values[tx][i];
        }
        __syncthreads();
    }
}

/// Sums of the columns of x `[rows, columns]` over one split of `rows_per_split` rows: parts `[splits, columns]`.
/// grid (ceil(columns / 32), splits), block (32, 8): a thread takes every 8th row; the eight sums are added in order.
template <typename T>
__device__ __forceinline__ void column_sums(const T *__restrict__ x, float *__restrict__ parts, int rows, int columns,
                                            int rows_per_split) {
    __shared__ float sums[tile_rows][tile];
    const int column = blockIdx.x * tile + threadIdx.x;
    const int begin = blockIdx.y * rows_per_split, end = min(rows, begin + rows_per_split);
    float sum = 0.0f;
    for (int row = begin + threadIdx.y; column < columns && row < end; row += tile_rows) {
        sum += widen(x[static_cast<size_t>(row) * columns + column]);
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < columns) {
        for (int row = 1; row < tile_rows; row++) sum += sums[row][threadIdx.x];
        parts[static_cast<size_t>(blockIdx.y) * columns + column] = sum;
    }
}

/// Adds the splits in order: sums `[columns]`. 1-D grid, a thread a column.
extern "C" __global__ void __launch_bounds__(block_threads)
column_sums_finish(const float *__restrict__ parts, int splits, int columns, float *__restrict__ sums) {
    for (long long column = grid_thread(); column < columns; column += grid_threads()) {
        float sum = 0.0f;
        for (int split = 0; split < splits; split++) sum += parts[static_cast<size_t>(split) * columns + column];
        sums[column] = sum;
    }
}

#define ELEMENTWISE(T, NAME)                                                                                           \
    extern "C" __global__ void __launch_bounds__(block_threads) relu_##NAME(const T *x, T *y, long long n) {           \
        relu_forward<T>(x, y, n);                                                                                      \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(block_threads)                                                        \
    relu_gradient_##NAME(const T *y, const T *dy, T *dx, long long n) {                                                \
        relu_gradient<T>(y, dy, dx, n);                                                                                \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(block_threads)                                                        \
    add_##NAME(const T *a, const T *b, T *out, long long n) {                                                          \
        add<T>(a, b, out, n);                                                                                          \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(block_threads) fill_##NAME(T *out, float value, long long n) {        \
        fill<T>(out, value, n);                                                                                        \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(block_threads)                                                        \
    add_bias_##NAME(T *y, const float *bias, long long rows, int columns) {                                            \
        add_bias<T>(y, bias, rows, columns);                                                                           \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(tile *tile_rows)                                                      \
    transpose_images_##NAME(const T *x, T *y, int images, int rows, int columns) {                                     \
        transpose_images<T>(x, y, images, rows, columns);                                                              \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(tile *tile_rows)                                                      \
    column_sums_##NAME(const T *x, float *parts, int rows, int columns, int rows_per_split) {                          \
        column_sums<T>(x, parts, rows, columns, rows_per_split);                                                       \
    }

ELEMENTWISE(float, f32)
ELEMENTWISE(bf16, bf16)
