// What the tests of the kernels share: buffers, launches, comparisons, random numbers.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../block.hpp"
#include "../kernels.hpp"
#include "../memory.hpp"
#include "../shim/cuda_bf16.h"

namespace test {

using bf16 = __nv_bfloat16;

inline float widen(float value) { return value; }
inline float widen(bf16 value) { return __bfloat162float(value); }
template <typename T> T narrow(double value);
template <> inline float narrow<float>(double value) { return static_cast<float>(value); }
template <> inline bf16 narrow<bf16>(double value) { return __float2bfloat16_rn(static_cast<float>(value)); }

template <typename T> const char *suffix();
template <> inline const char *suffix<float>() { return "f32"; }
template <> inline const char *suffix<bf16>() { return "bf16"; }

/// Half the distance of neighbouring numbers of a type, relative: what rounding a result may cost.
template <typename T> double rounding();
template <> inline double rounding<float>() { return 6e-8; }
template <> inline double rounding<bf16>() { return 3.91e-3; }

/// Device memory that holds a vector. Fresh elements are NaN.
template <typename T> class Buffer {
  public:
    explicit Buffer(std::size_t len) : len(len), data(static_cast<T *>(simulated::allocate(len * sizeof(T)))) {}
    explicit Buffer(const std::vector<T> &values) : Buffer(values.size()) {
        std::memcpy(static_cast<void *>(data), values.data(), len * sizeof(T));
    }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    ~Buffer() { simulated::release(data); }

    T *get() const { return data; }
    operator T *() const { return data; }
    std::vector<T> host() const { return {data, data + len}; }
    std::vector<unsigned char> bytes() const {
        const auto *first = reinterpret_cast<const unsigned char *>(data);
        return {first, first + len * sizeof(T)};
    }

  private:
    std::size_t len;
    T *data;
};

/// Launches a kernel by its name, as the driver does.
template <typename... Arguments>
void launch(const std::string &name, Dimensions grid, Dimensions block, Arguments... arguments) {
    const simulated::Kernel *kernel = simulated::find_kernel("", name);
    if (kernel == nullptr) simulated::fail("there is no kernel %s", name.c_str());
    if (kernel->is_address.size() != sizeof...(Arguments)) simulated::fail("%s takes other arguments", name.c_str());
    void *pointers[] = {static_cast<void *>(&arguments)...};
    simulated::launch(*kernel, grid, block, pointers);
}

/// Notes the worst error of a quantity; `report` prints them, counts what holds exactly, and says whether all are within
/// their bounds.
void check(const std::string &quantity, double error, double bound);

/// Notes whether something holds that has no error.
void require(const std::string &what, bool holds);

bool report();

/// Runs `outputs` in several orders of threads and notes whether its bytes are always the same; returns those of the
/// order by index. Wrong results of one order alone are races.
std::vector<unsigned char> same_in_any_order(const std::string &what,
                                             const std::function<std::vector<unsigned char>()> &outputs);

/// Standard normal numbers, the same in each run.
class Random {
  public:
    explicit Random(unsigned seed) : engine(seed) {}
    double normal() { return distribution(engine); }
    unsigned below(unsigned bound) { return static_cast<unsigned>(engine() % bound); }
    template <typename T> std::vector<T> vector(std::size_t len, double mean = 0.0, double spread = 1.0) {
        std::vector<T> values;
        for (std::size_t i = 0; i < len; i++) values.push_back(narrow<T>(mean + spread * normal()));
        return values;
    }

  private:
    std::mt19937_64 engine;
    std::normal_distribution<double> distribution;
};

inline unsigned ceil_div(std::size_t a, std::size_t b) { return static_cast<unsigned>((a + b - 1) / b); }

/// The error of `found` relative to `expected`, or to `floor` where that is larger. NaN is equal to NaN.
inline double error_of(double found, double expected, double floor) {
    if (std::isnan(expected) || std::isinf(expected)) {
        const bool equal = std::isnan(expected) ? std::isnan(found) : found == expected;
        return equal ? 0.0 : INFINITY;
    }
    const double error = std::fabs(found - expected) / std::max(std::fabs(expected), floor);
    return std::isnan(error) ? INFINITY : error;
}

/// The worst error of a vector.
template <typename T>
double worst_error(const std::vector<T> &found, const std::vector<double> &expected, double floor) {
    double worst = found.size() == expected.size() ? 0.0 : INFINITY;
    for (std::size_t i = 0; i < expected.size() && i < found.size(); i++) {
        worst = std::max(worst, error_of(widen(found[i]), expected[i], floor));
    }
    return worst;
}

void batch_norm();
void pool();
void elementwise();
void weights();
void loss();
void update();
void images();
void device();
void libraries();
void convolution();

} // namespace test
