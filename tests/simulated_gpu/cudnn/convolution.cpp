#include "convolution.hpp"

#include <cstring>

#include "../shim/cuda_bf16.h"

namespace simulated::dnn {
namespace {

/// Calls `visit(index in dense channels-last order, offset in memory)` for every element of a tensor.
template <typename Visit> void for_each(const TensorShape &shape, Visit visit) {
    const auto &d = shape.dimensions, &s = shape.strides;
    std::size_t index = 0;
    for (std::int64_t n = 0; n < d[0]; n++)
        for (std::int64_t h = 0; h < d[2]; h++)
            for (std::int64_t w = 0; w < d[3]; w++)
                for (std::int64_t c = 0; c < d[1]; c++) visit(index++, n * s[0] + c * s[1] + h * s[2] + w * s[3]);
}

std::size_t count(const TensorShape &shape) {
    const auto &d = shape.dimensions;
    return static_cast<std::size_t>(d[0] * d[1] * d[2] * d[3]);
}

/// A tensor as f32, channels last, whatever its strides.
std::vector<float> read(const TensorShape &shape, const void *data) {
    std::vector<float> values(count(shape));
    for_each(shape, [&](std::size_t index, std::int64_t at) {
        values[index] = shape.type == f32 ? static_cast<const float *>(data)[at]
                                          : __bfloat162float(static_cast<const __nv_bfloat16 *>(data)[at]);
    });
    return values;
}

void write(const TensorShape &shape, const std::vector<float> &values, float alpha, float beta, void *data) {
    // With beta = 0 the result is not read: it may be NaN.
    const std::vector<float> old = beta == 0.0f ? std::vector<float>(values.size(), 0.0f) : read(shape, data);
    for_each(shape, [&](std::size_t index, std::int64_t at) {
        const float value = alpha * values[index] + beta * old[index];
        if (shape.type == f32) {
            static_cast<float *>(data)[at] = value;
        } else {
            static_cast<__nv_bfloat16 *>(data)[at] = __float2bfloat16_rn(value);
        }
    });
}

/// Calls `visit(pixel of x, pixel of y, tap)` for every place of the window that lies in an image.
template <typename Visit> void for_each_tap(const Convolution &conv, Visit visit) {
    const auto &x = conv.x.dimensions, &w = conv.w.dimensions, &y = conv.y.dimensions;
    for (std::int64_t n = 0; n < y[0]; n++)
        for (std::int64_t oy = 0; oy < y[2]; oy++)
            for (std::int64_t ox = 0; ox < y[3]; ox++)
                for (std::int64_t ky = 0; ky < w[2]; ky++)
                    for (std::int64_t kx = 0; kx < w[3]; kx++) {
                        const std::int64_t row = oy * conv.stride[0] - conv.pre_padding[0] + ky * conv.dilation[0];
                        const std::int64_t column = ox * conv.stride[1] - conv.pre_padding[1] + kx * conv.dilation[1];
                        if (row < 0 || row >= x[2] || column < 0 || column >= x[3]) continue;
                        visit((n * x[2] + row) * x[3] + column, (n * y[2] + oy) * y[3] + ox, ky * w[3] + kx);
                    }
}

/// `to += factor * from`, the only loop that takes time: written so that compilers use wide registers for it.
void add_scaled(float *__restrict__ to, const float *__restrict__ from, float factor, std::int64_t len) {
    for (std::int64_t i = 0; i < len; i++) to[i] += factor * from[i];
}

/// ys += xs * ws, filters side by side: weights are taken as [group, tap, channel, filter].
void forward(const Convolution &conv, const std::vector<float> &xs, const std::vector<float> &ws,
             std::vector<float> &ys) {
    const std::int64_t c_in = conv.x.dimensions[1], c_out = conv.y.dimensions[1], per_group = conv.w.dimensions[1];
    const std::int64_t taps = conv.w.dimensions[2] * conv.w.dimensions[3], filters = c_out / conv.groups();
    std::vector<float> turned(ws.size());
    for (std::int64_t k = 0; k < c_out; k++)
        for (std::int64_t tap = 0; tap < taps; tap++)
            for (std::int64_t c = 0; c < per_group; c++) {
                turned[((k / filters * taps + tap) * per_group + c) * filters + k % filters] =
                    ws[(k * taps + tap) * per_group + c];
            }
    for_each_tap(conv, [&](std::int64_t x_pixel, std::int64_t y_pixel, std::int64_t tap) {
        for (std::int64_t c = 0; c < c_in; c++) {
            const std::int64_t group = c / per_group;
            const float *weights = &turned[((group * taps + tap) * per_group + c % per_group) * filters];
            add_scaled(&ys[y_pixel * c_out + group * filters], weights, xs[x_pixel * c_in + c], filters);
        }
    });
}

/// xs += ys * ws, or ws += ys * xs: channels side by side.
void gradient(const Convolution &conv, std::vector<float> &xs, std::vector<float> &ws, const std::vector<float> &ys) {
    const std::int64_t c_in = conv.x.dimensions[1], c_out = conv.y.dimensions[1], per_group = conv.w.dimensions[1];
    const std::int64_t taps = conv.w.dimensions[2] * conv.w.dimensions[3], filters = c_out / conv.groups();
    for_each_tap(conv, [&](std::int64_t x_pixel, std::int64_t y_pixel, std::int64_t tap) {
        for (std::int64_t filter = 0; filter < c_out; filter++) {
            float *channels = &xs[x_pixel * c_in + filter / filters * per_group];
            float *weights = &ws[(filter * taps + tap) * per_group];
            const bool is_input = conv.pass == Pass::input_gradient;
            add_scaled(is_input ? channels : weights, is_input ? weights : channels, ys[y_pixel * c_out + filter],
                       per_group);
        }
    });
}

} // namespace

std::size_t TensorShape::bytes() const {
    std::int64_t last = 0;
    for (int axis = 0; axis < 4; axis++) last += (dimensions[axis] - 1) * strides[axis];
    return static_cast<std::size_t>(last + 1) * element_bytes();
}

std::string Convolution::inconsistency() const {
    const auto &xd = x.dimensions, &wd = w.dimensions, &yd = y.dimensions;
    if (x.type != w.type || x.type != y.type) return "the tensors' types differ";
    if (xd[0] != yd[0]) return "x and y have different numbers of images";
    if (xd[1] % wd[1] != 0 || wd[0] % (xd[1] / wd[1]) != 0) return "the channels do not divide into groups";
    if (yd[1] != wd[0]) return "y has another number of channels than w has filters";
    for (int axis = 0; axis < 2; axis++) {
        if (stride[axis] < 1 || dilation[axis] < 1) return "a stride or dilation below 1";
        const std::int64_t span = dilation[axis] * (wd[2 + axis] - 1) + 1;
        const std::int64_t free = xd[2 + axis] + pre_padding[axis] + post_padding[axis] - span;
        if (free < 0 || yd[2 + axis] != free / stride[axis] + 1) return "the size of y does not follow from x and w";
    }
    return {};
}

void Convolution::run(void *x_data, void *w_data, void *y_data) const {
    const auto unset = [](const TensorShape &shape) { return std::vector<float>(count(shape), 0.0f); };
    std::vector<float> xs = pass == Pass::input_gradient ? unset(x) : read(x, x_data);
    std::vector<float> ws = pass == Pass::weight_gradient ? unset(w) : read(w, w_data);
    std::vector<float> ys = pass == Pass::forward ? unset(y) : read(y, y_data);
    if (pass == Pass::forward) {
        forward(*this, xs, ws, ys);
        write(y, ys, alpha, beta, y_data);
    } else {
        gradient(*this, xs, ws, ys);
        if (pass == Pass::input_gradient) write(x, xs, alpha, beta, x_data);
        if (pass == Pass::weight_gradient) write(w, ws, alpha, beta, w_data);
    }
}

std::vector<std::int64_t> Convolution::numbers() const {
    std::vector<std::int64_t> numbers{static_cast<std::int64_t>(pass)};
    for (const TensorShape *shape : {&x, &w, &y}) {
        numbers.insert(numbers.end(), {shape->type, shape->name, shape->alignment});
        numbers.insert(numbers.end(), shape->dimensions.begin(), shape->dimensions.end());
        numbers.insert(numbers.end(), shape->strides.begin(), shape->strides.end());
    }
    for (const auto *pair : {&stride, &pre_padding, &post_padding, &dilation}) {
        numbers.insert(numbers.end(), pair->begin(), pair->end());
    }
    for (float factor : {alpha, beta}) numbers.push_back(__float_as_uint(factor));
    return numbers;
}

Convolution Convolution::from_numbers(const std::vector<std::int64_t> &numbers) {
    Convolution conv;
    auto next = numbers.begin();
    conv.pass = static_cast<Pass>(*next++);
    for (TensorShape *shape : {&conv.x, &conv.w, &conv.y}) {
        shape->type = static_cast<int>(*next++);
        shape->name = *next++;
        shape->alignment = *next++;
        for (auto &dimension : shape->dimensions) dimension = *next++;
        for (auto &stride : shape->strides) stride = *next++;
    }
    for (auto *pair : {&conv.stride, &conv.pre_padding, &conv.post_padding, &conv.dilation}) {
        for (auto &value : *pair) value = *next++;
    }
    for (float *factor : {&conv.alpha, &conv.beta}) *factor = __uint_as_float(static_cast<unsigned>(*next++));
    return conv;
}

} // namespace simulated::dnn
