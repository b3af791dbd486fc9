// What candle's kernels share: strided views, element types, and steps over a 1-D grid.
//
// These stand in for the kernels of the crate candle-kernels 0.11: the same names and arguments, written by what they
// are to compute. Sums are formed in f64, so they differ from a GPU's in the last places.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../kernels.hpp"
#include "../shim/cuda_bf16.h"

namespace candle_kernels {

using bf16 = __nv_bfloat16;

/// Element `index`, in row-major order of `dims`, of a tensor with these strides; both lie in `info`, which is null for
/// a dense tensor.
inline std::size_t strided(std::size_t index, std::size_t num_dims, const std::size_t *info, std::size_t tensor = 0) {
    if (info == nullptr) return index;
    const std::size_t *strides = info + num_dims * (1 + tensor);
    std::size_t offset = 0;
    for (std::size_t axis = num_dims; axis-- > 0; index /= info[axis]) offset += index % info[axis] * strides[axis];
    return offset;
}

/// Calls `visit` for each item of this thread.
template <typename Visit> void for_each(std::size_t items, Visit visit) {
    const std::size_t first = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    for (std::size_t item = first; item < items; item += static_cast<std::size_t>(gridDim.x) * blockDim.x) visit(item);
}

/// What a type is computed in, and how it gets there and back.
template <typename T> struct Arithmetic {
    using Wide = T;
    static T widen(T value) { return value; }
    static T narrow(T value) { return value; }
};
template <> struct Arithmetic<bf16> {
    using Wide = float;
    static float widen(bf16 value) { return __bfloat162float(value); }
    static bf16 narrow(float value) { return __float2bfloat16_rn(value); }
};

template <typename T> auto widen(T value) { return Arithmetic<T>::widen(value); }

template <typename To, typename From> To convert(From value) {
    return Arithmetic<To>::narrow(static_cast<typename Arithmetic<To>::Wide>(Arithmetic<From>::widen(value)));
}

/// Calls `each(type's value, type's name)` for the types that candle has on a GPU and that are simulated.
template <typename Each> void for_each_float(Each each) {
    each(float(), "f32");
    each(double(), "f64");
    each(bf16(), "bf16");
}
template <typename Each> void for_each_type(Each each) {
    for_each_float(each);
    each(std::uint8_t(), "u8");
    each(std::uint32_t(), "u32");
    each(std::int64_t(), "i64");
}
template <typename Each> void for_each_index(Each each) {
    each(std::uint8_t(), "u8");
    each(std::uint32_t(), "u32");
    each(std::int64_t(), "i64");
}

/// Enters a kernel of one of candle's modules.
template <typename... Arguments>
void enter(const char *module, const std::string &name, void (*function)(Arguments...)) {
    simulated::Register("candle/" + std::string(module), name, function);
}

} // namespace candle_kernels
