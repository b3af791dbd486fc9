// Tests of the libraries through the functions that programs call: driver, cuBLAS, cuRAND, and candle's kernels.
#include "harness.hpp"

extern "C" {
int cuInit(unsigned flags);
int cuDeviceGet(int *device, int ordinal);
int cuDevicePrimaryCtxRetain(void **context, int device);
int cuCtxSetCurrent(void *context);
int cuMemAlloc_v2(unsigned long long *address, std::size_t bytes);
int cuMemFree_v2(unsigned long long address);
int cuModuleLoadData(void **module, const void *image);
int cuModuleUnload(void *module);
int cuModuleGetFunction(const void **function, void *module, const char *name);
int cuLaunchKernel(const void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared, void *stream, void **arguments, void **extra);
int cublasCreate_v2(void **handle);
int cublasDestroy_v2(void *handle);
int cublasGemmEx(void *handle, int transpose_a, int transpose_b, int m, int n, int k, const void *alpha, const void *a,
                 int type_a, int leading_a, const void *b, int type_b, int leading_b, const void *beta, void *c,
                 int type_c, int leading_c, int compute, int algorithm);
int curandCreateGenerator(void **generator, int type);
int curandDestroyGenerator(void *generator);
int curandGenerateNormal(void *generator, float *out, std::size_t len, float mean, float deviation);
}

namespace test {
namespace {

constexpr int invalid_value = 1, out_of_memory = 2, invalid_device = 101, invalid_context = 201, not_found = 500;

void driver() {
    int device = 0;
    void *context = nullptr;
    unsigned long long address = 0;
    require("driver: starts", cuInit(0) == 0 && cuDeviceGet(&device, 0) == 0);
    require("driver: there is one device", cuDeviceGet(&device, 1) == invalid_device);
    require("driver: nothing without a context", cuMemAlloc_v2(&address, 4) == invalid_context);
    require("driver: a context", cuDevicePrimaryCtxRetain(&context, 0) == 0 && cuCtxSetCurrent(context) == 0);
    require("driver: memory", cuMemAlloc_v2(&address, 4) == 0 && cuMemFree_v2(address) == 0);
    require("driver: no empty blocks", cuMemAlloc_v2(&address, 0) == invalid_value);
    require("driver: memory ends", cuMemAlloc_v2(&address, simulated::total_bytes() + 1) == out_of_memory);
}

/// A function of a module as the stand-in compiler writes it.
const void *function(const std::string &module, const char *name) {
    void *loaded = nullptr;
    const void *found = nullptr;
    const std::string image = module.empty() ? module : "simulated module " + module + "\n";
    const int status = cuModuleLoadData(&loaded, image.c_str()) + cuModuleGetFunction(&found, loaded, name);
    cuModuleUnload(loaded);
    return status == 0 ? found : nullptr;
}

/// Some of candle's kernels are called as ours are.
void modules() {
    const void *ours = function("elementwise", "fill_f32"), *candles = function("fill", "fill_f32");
    require("driver: modules keep names apart", ours != nullptr && candles != nullptr && ours != candles);
    require("driver: a module without a name is ours first", function("", "fill_f32") == ours);
    require("driver: a module lacks what is not in it", function("pool", "fill_f32") == nullptr);
    void *module = nullptr;
    const void *found = nullptr;
    cuModuleLoadData(&module, "// PTX of a real compiler");
    require("driver: text is candle's", cuModuleGetFunction(&found, module, "fill_f32") == 0 && found == candles);
    require("driver: an unknown name", cuModuleGetFunction(&found, module, "no_such_kernel") == not_found);
    cuModuleUnload(module);
    const Buffer<float> out(70);
    float *address = out.get(), value = 2.5f;
    std::size_t count = 70;
    void *arguments[] = {&address, &value, &count};
    require("driver: a launch", cuLaunchKernel(candles, 2, 1, 1, 32, 1, 1, 0, nullptr, arguments, nullptr) == 0 &&
                                    out.host() == std::vector<float>(70, 2.5f));
    require("driver: no empty grids",
            cuLaunchKernel(candles, 0, 1, 1, 32, 1, 1, 0, nullptr, arguments, nullptr) == invalid_value);
}

/// Views with strides and the reductions over them, as candle passes them.
void candle() {
    Random random(51);
    const std::vector<float> x = random.vector<float>(3 * 5);
    const Buffer<float> in(x), copy(15), sums(5);
    // The transpose of a 3 x 5 matrix: dims, then strides.
    const Buffer<std::size_t> info(std::vector<std::size_t>{5, 3, 1, 5});
    const std::size_t numel = 15, num_dims = 2, per_output = 3;
    launch("ucopy_f32", {1, 1, 1}, {32, 1, 1}, numel, num_dims, info.get(), in.get(), copy.get());
    launch("fast_sum_f32", {5, 1, 1}, {4, 1, 1}, numel, per_output, num_dims, info.get(), in.get(), sums.get());
    std::vector<double> transposed, expected(5, 0.0);
    for (int column = 0; column < 5; column++) {
        for (int row = 0; row < 3; row++) {
            transposed.push_back(x[row * 5 + column]);
            expected[column] += x[row * 5 + column];
        }
    }
    check("candle: a strided copy", worst_error(copy.host(), transposed, 1.0), 0.0);
    check("candle: a strided sum", worst_error(sums.host(), expected, 1.0), 1e-7);
}

/// Row-major a (m x k, maybe transposed) by b (k x n), as bindings ask a column-major library for it.
template <typename T> void product(int m, int n, int k, int transpose) {
    Random random(52);
    const std::vector<T> a = random.vector<T>(m * k), b = random.vector<T>(k * n), c = random.vector<T>(m * n);
    const float alpha = 0.5f, beta = 2.0f;
    const int type = sizeof(T) == 4 ? 0 : 14, compute_f32 = 68;
    std::vector<double> expected;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double sum = 0.0;
            for (int p = 0; p < k; p++) {
                sum += static_cast<double>(widen(a[transpose ? p * m + i : i * k + p])) * widen(b[p * n + j]);
            }
            expected.push_back(alpha * sum + beta * widen(c[i * n + j]));
        }
    const Buffer<T> left(a), right(b), out(c);
    void *handle = nullptr;
    cublasCreate_v2(&handle);
    const int status = cublasGemmEx(handle, 0, transpose, n, m, k, &alpha, right.get(), type, n, left.get(), type,
                                    transpose ? m : k, &beta, out.get(), type, n, compute_f32, -1);
    cublasDestroy_v2(handle);
    require("cublas: succeeds", status == 0);
    check(std::string("cublas: product, ") + suffix<T>(), worst_error(out.host(), expected, 1.0), rounding<T>() + 1e-6);
}

void random_numbers() {
    const Buffer<float> out(100000);
    void *generator = nullptr;
    curandCreateGenerator(&generator, 0);
    require("curand: succeeds", curandGenerateNormal(generator, out, 100000, 3.0f, 2.0f) == 0);
    require("curand: no odd number of normal values", curandGenerateNormal(generator, out, 3, 0.0f, 1.0f) != 0);
    curandDestroyGenerator(generator);
    double mean = 0.0, square = 0.0;
    for (float value : out.host()) {
        mean += value / 1e5;
        square += (value - 3.0) * (value - 3.0) / 1e5;
    }
    check("curand: mean and deviation", std::max(std::fabs(mean - 3.0), std::fabs(std::sqrt(square) - 2.0)), 0.05);
}

} // namespace

void libraries() {
    driver();
    modules();
    candle();
    product<float>(5, 7, 11, 0);
    product<float>(5, 7, 11, 1);
    product<bf16>(4, 3, 20, 0);
    product<bf16>(4, 3, 20, 1);
    random_numbers();
}

} // namespace test
