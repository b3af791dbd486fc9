// Matrix products, column-major as in BLAS: f32 and bfloat16 with f32 accumulation in the order of k, and f64.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "../memory.hpp"
#include "../shim/cuda_bf16.h"
#include "../statistics.hpp"
#include "../unsupported.hpp"

#define CUBLAS extern "C" __attribute__((visibility("default"))) int

namespace {

enum Status { success = 0, not_initialized = 1, invalid_value = 7, not_supported = 15 };
enum Type { f32 = 0, f64 = 1, bf16 = 14 };

/// cublasComputeType_t: products are summed in f32, or rounded to TF32 or bfloat16 before (which is not simulated).
enum Compute {
    compute_f32 = 68,
    compute_f32_pedantic = 69,
    compute_f64 = 70,
    compute_fast_bf16 = 75,
    compute_tf32 = 77,
};

struct Handle {
    int pointer_mode = 0;
};

struct Matrix {
    const void *data;
    int type;
    int leading, transposed;
    long long stride;
};

std::size_t size_of(int type) { return type == f64 ? 8 : type == f32 ? 4 : 2; }

bool is_known(int type) { return type == f32 || type == f64 || type == bf16; }

double element(const void *data, int type, std::size_t at) {
    if (type == f64) return static_cast<const double *>(data)[at];
    if (type == f32) return static_cast<const float *>(data)[at];
    return __bfloat162float(static_cast<const __nv_bfloat16 *>(data)[at]);
}

void set_element(void *data, int type, std::size_t at, double value) {
    if (type == f64) static_cast<double *>(data)[at] = value;
    if (type == f32) static_cast<float *>(data)[at] = static_cast<float>(value);
    if (type == bf16) static_cast<__nv_bfloat16 *>(data)[at] = __float2bfloat16_rn(static_cast<float>(value));
}

/// Rows by columns of `matrix` as it stands in memory, from the sizes of what it is in the product.
bool fits(const Matrix &matrix, int rows, int columns) {
    const int stored_rows = matrix.transposed ? columns : rows, stored_columns = matrix.transposed ? rows : columns;
    if (!is_known(matrix.type) || matrix.leading < std::max(1, stored_rows)) return false;
    const std::size_t len = stored_columns == 0 || stored_rows == 0
                                ? 0
                                : static_cast<std::size_t>(matrix.leading) * (stored_columns - 1) + stored_rows;
    simulated::require_device_memory(matrix.data, len * size_of(matrix.type), "a matrix of cuBLAS");
    return true;
}

/// A dense copy, columns one after the other.
template <typename Sum> std::vector<Sum> dense(const Matrix &matrix, int rows, int columns) {
    std::vector<Sum> values;
    values.reserve(static_cast<std::size_t>(rows) * columns);
    for (int column = 0; column < columns; column++) {
        for (int row = 0; row < rows; row++) {
            const std::size_t at = matrix.transposed ? column + static_cast<std::size_t>(row) * matrix.leading
                                                     : row + static_cast<std::size_t>(column) * matrix.leading;
            values.push_back(static_cast<Sum>(element(matrix.data, matrix.type, at)));
        }
    }
    return values;
}

template <typename Sum>
void multiply(int m, int n, int k, double alpha, const Matrix &a, const Matrix &b, double beta, const Matrix &c) {
    const std::vector<Sum> left = dense<Sum>(a, m, k), right = dense<Sum>(b, k, n);
    void *result = const_cast<void *>(c.data);
    std::vector<Sum> column(m);
    for (int j = 0; j < n; j++) {
        std::fill(column.begin(), column.end(), Sum(0));
        for (int p = 0; p < k; p++) {
            const Sum factor = right[p + static_cast<std::size_t>(j) * k];
            const Sum *from = left.data() + static_cast<std::size_t>(p) * m;
            for (int i = 0; i < m; i++) column[i] += from[i] * factor;
        }
        for (int i = 0; i < m; i++) {
            const std::size_t at = i + static_cast<std::size_t>(j) * c.leading;
            // With beta = 0 the result is not read: it may be NaN.
            const double old = beta == 0.0 ? 0.0 : beta * element(result, c.type, at);
            set_element(result, c.type, at, alpha * static_cast<double>(column[i]) + old);
        }
    }
}

Matrix moved(Matrix matrix, long long items) {
    const long long bytes = matrix.stride * items * static_cast<long long>(size_of(matrix.type));
    matrix.data = static_cast<const char *>(matrix.data) + bytes;
    return matrix;
}

int products(const void *handle, int m, int n, int k, const void *alpha, const void *beta, int factor_type, Matrix a,
             Matrix b, Matrix c, int count) {
    if (handle == nullptr) return not_initialized;
    if (m < 0 || n < 0 || k < 0 || count < 0 || a.transposed > 2 || b.transposed > 2) return invalid_value;
    for (int item = 0; item < count; item++) {
        const Matrix left = moved(a, item), right = moved(b, item), result = moved(c, item);
        if (!fits(left, m, k) || !fits(right, k, n) || !fits(result, m, n)) return invalid_value;
        const double scale = element(alpha, factor_type, 0), keep = element(beta, factor_type, 0);
        if (simulated::is_idle()) {
            continue;
        } else if (factor_type == f64) {
            multiply<double>(m, n, k, scale, left, right, keep, result);
        } else {
            multiply<float>(m, n, k, scale, left, right, keep, result);
        }
        simulated::check_guards(result.data, "a product of cuBLAS");
    }
    simulated::count_launch("cublas_gemm");
    return success;
}

/// The type of alpha and beta, or -1 for an arithmetic that is not simulated.
int factor_type(int compute) {
    switch (compute) {
    case compute_f32:
    case compute_f32_pedantic:
    case compute_fast_bf16:
    case compute_tf32:
        return f32;
    case compute_f64:
        return f64;
    default:
        return -1;
    }
}

} // namespace

CUBLAS cublasCreate_v2(void **handle) {
    *handle = new Handle;
    return success;
}

CUBLAS cublasDestroy_v2(void *handle) {
    delete static_cast<Handle *>(handle);
    return success;
}

CUBLAS cublasSetStream_v2(void *, void *) { return success; }
CUBLAS cublasSetWorkspace_v2(void *, void *, std::size_t) { return success; }
CUBLAS cublasSetMathMode(void *, int) { return success; }

CUBLAS cublasGetPointerMode_v2(void *handle, int *mode) {
    *mode = static_cast<Handle *>(handle)->pointer_mode;
    return success;
}

CUBLAS cublasSetPointerMode_v2(void *handle, int mode) {
    static_cast<Handle *>(handle)->pointer_mode = mode;
    return mode == 0 ? success : not_supported; // alpha and beta in the host's memory
}

CUBLAS cublasGemmStridedBatchedEx(void *handle, int transpose_a, int transpose_b, int m, int n, int k,
                                  const void *alpha, const void *a, int type_a, int leading_a, long long stride_a,
                                  const void *b, int type_b, int leading_b, long long stride_b, const void *beta,
                                  void *c, int type_c, int leading_c, long long stride_c, int count, int compute,
                                  int) {
    const int factors = factor_type(compute);
    // As the library's table of supported types: both factors alike, and f32 or the factors' type out.
    if (factors < 0 || type_a != type_b || (type_c != type_a && type_c != f32)) return not_supported;
    return products(handle, m, n, k, alpha, beta, factors, {a, type_a, leading_a, transpose_a, stride_a},
                    {b, type_b, leading_b, transpose_b, stride_b}, {c, type_c, leading_c, 0, stride_c}, count);
}

CUBLAS cublasGemmEx(void *handle, int transpose_a, int transpose_b, int m, int n, int k, const void *alpha,
                    const void *a, int type_a, int leading_a, const void *b, int type_b, int leading_b,
                    const void *beta, void *c, int type_c, int leading_c, int compute, int algorithm) {
    return cublasGemmStridedBatchedEx(handle, transpose_a, transpose_b, m, n, k, alpha, a, type_a, leading_a, 0, b,
                                      type_b, leading_b, 0, beta, c, type_c, leading_c, 0, 1, compute, algorithm);
}

CUBLAS cublasSgemmStridedBatched(void *handle, int transpose_a, int transpose_b, int m, int n, int k,
                                 const float *alpha, const float *a, int leading_a, long long stride_a, const float *b,
                                 int leading_b, long long stride_b, const float *beta, float *c, int leading_c,
                                 long long stride_c, int count) {
    return cublasGemmStridedBatchedEx(handle, transpose_a, transpose_b, m, n, k, alpha, a, f32, leading_a, stride_a, b,
                                      f32, leading_b, stride_b, beta, c, f32, leading_c, stride_c, count, compute_f32,
                                      -1);
}

CUBLAS cublasSgemm_v2(void *handle, int transpose_a, int transpose_b, int m, int n, int k, const float *alpha,
                      const float *a, int leading_a, const float *b, int leading_b, const float *beta, float *c,
                      int leading_c) {
    return cublasSgemmStridedBatched(handle, transpose_a, transpose_b, m, n, k, alpha, a, leading_a, 0, b, leading_b, 0,
                                     beta, c, leading_c, 0, 1);
}

CUBLAS cublasDgemmStridedBatched(void *handle, int transpose_a, int transpose_b, int m, int n, int k,
                                 const double *alpha, const double *a, int leading_a, long long stride_a,
                                 const double *b, int leading_b, long long stride_b, const double *beta, double *c,
                                 int leading_c, long long stride_c, int count) {
    return cublasGemmStridedBatchedEx(handle, transpose_a, transpose_b, m, n, k, alpha, a, f64, leading_a, stride_a, b,
                                      f64, leading_b, stride_b, beta, c, f64, leading_c, stride_c, count, compute_f64,
                                      -1);
}

UNSUPPORTED(cublasDasum_v2, not_supported)
UNSUPPORTED(cublasDgemm_v2, not_supported)
UNSUPPORTED(cublasDgemv_v2, not_supported)
UNSUPPORTED(cublasGemmGroupedBatchedEx, not_supported)
UNSUPPORTED(cublasSasum_v2, not_supported)
UNSUPPORTED(cublasSgemv_v2, not_supported)
