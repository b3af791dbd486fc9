// Random numbers: of the right distributions, not those of the library.
#include <cstddef>
#include <random>

#include "../memory.hpp"
#include "../statistics.hpp"
#include "../unsupported.hpp"

#define CURAND extern "C" __attribute__((visibility("default"))) int

namespace {

enum Status { success = 0, not_initialized = 101, length_not_multiple = 105, not_supported = 999 };

struct Generator {
    std::mt19937_64 engine;
};

template <typename T, typename Draw> int fill(void *generator, T *out, std::size_t len, Draw draw) {
    if (generator == nullptr) return not_initialized;
    simulated::require_device_memory(out, len * sizeof(T), "random numbers");
    auto &engine = static_cast<Generator *>(generator)->engine;
    for (std::size_t i = 0; i < len; i++) out[i] = static_cast<T>(draw(engine));
    simulated::count_launch("curand_generate");
    return success;
}

/// 0 is excluded and 1 included, as in the library.
double unit(std::mt19937_64 &engine) { return (static_cast<double>(engine() >> 40) + 1.0) / 16777216.0; }

template <typename T> int fill_normal(void *generator, T *out, std::size_t len, double mean, double deviation) {
    // Pairs are made, and the library does not make half of one.
    if (len % 2 != 0) return length_not_multiple;
    std::normal_distribution<double> normal(mean, deviation);
    return fill(generator, out, len, normal);
}

} // namespace

CURAND curandCreateGenerator(void **generator, int) {
    *generator = new Generator;
    return success;
}

CURAND curandDestroyGenerator(void *generator) {
    delete static_cast<Generator *>(generator);
    return success;
}

CURAND curandSetPseudoRandomGeneratorSeed(void *generator, unsigned long long seed) {
    static_cast<Generator *>(generator)->engine.seed(seed);
    return success;
}

CURAND curandSetStream(void *, void *) { return success; }
CURAND curandSetGeneratorOffset(void *, unsigned long long) { return success; }

CURAND curandGenerateUniform(void *generator, float *out, std::size_t len) { return fill(generator, out, len, unit); }

CURAND curandGenerateUniformDouble(void *generator, double *out, std::size_t len) {
    return fill(generator, out, len, unit);
}

CURAND curandGenerateNormal(void *generator, float *out, std::size_t len, float mean, float deviation) {
    return fill_normal(generator, out, len, mean, deviation);
}

CURAND curandGenerateNormalDouble(void *generator, double *out, std::size_t len, double mean, double deviation) {
    return fill_normal(generator, out, len, mean, deviation);
}

UNSUPPORTED(curandGenerate, not_supported)
UNSUPPORTED(curandGenerateLogNormal, not_supported)
UNSUPPORTED(curandGenerateLogNormalDouble, not_supported)
UNSUPPORTED(curandGenerateLongLong, not_supported)
UNSUPPORTED(curandGeneratePoisson, not_supported)
