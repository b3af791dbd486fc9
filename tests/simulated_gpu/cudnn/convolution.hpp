// A convolution of two spatial axes: its sizes, and the three passes by plain loops.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace simulated::dnn {

/// cudnnDataType_t.
enum DataType : int { f32 = 0, bf16 = 9 };

struct TensorShape {
    int type = f32;
    /// Images, channels, height, width; for weights, filters take the place of images.
    std::array<std::int64_t, 4> dimensions{}, strides{};
    std::int64_t name = 0, alignment = 1;

    std::size_t element_bytes() const { return type == f32 ? 4 : 2; }
    /// From the first to the last element.
    std::size_t bytes() const;
};

enum class Pass { forward, input_gradient, weight_gradient };

struct Convolution {
    Pass pass = Pass::forward;
    TensorShape x, w, y;
    std::array<std::int64_t, 2> stride{}, pre_padding{}, post_padding{}, dilation{};
    float alpha = 1.0f, beta = 0.0f;

    std::int64_t groups() const { return x.dimensions[1] / w.dimensions[1]; }

    /// Why the sizes do not belong together; empty if they do.
    std::string inconsistency() const;

    /// Computes in f32: the tensor that the pass writes becomes alpha * result + beta * what it was.
    void run(void *x_data, void *w_data, void *y_data) const;

    /// All numbers in a row, and back.
    std::vector<std::int64_t> numbers() const;
    static Convolution from_numbers(const std::vector<std::int64_t> &numbers);
};

} // namespace simulated::dnn
