// candle's modules affine, binary, cast, fill, ternary and unary.
#include <algorithm>
#include <cmath>

#include "view.hpp"

namespace candle_kernels {
namespace {

using std::size_t;

/// Without a source the destination is changed in place.
template <typename T> T source(const T *in, const T *out, size_t index, size_t at) {
    return in == nullptr ? out[index] : in[at];
}

template <typename T>
void affine(size_t numel, size_t num_dims, const size_t *info, const T *in, T *out, T mul, T add) {
    for_each(numel, [&](size_t i) {
        const auto x = widen(source(in, out, i, strided(i, num_dims, info)));
        out[i] = convert<T>(x * widen(mul) + widen(add));
    });
}

struct Negate { template <typename W> static W of(W x) { return -x; } };
struct Reciprocal { template <typename W> static W of(W x) { return W(1) / x; } };
struct Exp { template <typename W> static W of(W x) { return std::exp(x); } };
struct Log { template <typename W> static W of(W x) { return std::log(x); } };
struct Sin { template <typename W> static W of(W x) { return std::sin(x); } };
struct Cos { template <typename W> static W of(W x) { return std::cos(x); } };
struct Tanh { template <typename W> static W of(W x) { return std::tanh(x); } };
struct Erf { template <typename W> static W of(W x) { return std::erf(x); } };
struct Ceil { template <typename W> static W of(W x) { return std::ceil(x); } };
struct Floor { template <typename W> static W of(W x) { return std::floor(x); } };
struct Round { template <typename W> static W of(W x) { return std::round(x); } };
struct Absolute { template <typename W> static W of(W x) { return std::fabs(x); } };
struct Square { template <typename W> static W of(W x) { return x * x; } };
struct Root { template <typename W> static W of(W x) { return std::sqrt(x); } };
/// NaN becomes 0, as with the GPU's maximum.
struct Relu { template <typename W> static W of(W x) { return std::fmax(x, W(0)); } };
struct Sigmoid { template <typename W> static W of(W x) { return W(1) / (W(1) + std::exp(-x)); } };
struct Silu { template <typename W> static W of(W x) { return x * Sigmoid::of(x); } };
struct Sign { template <typename W> static W of(W x) { return static_cast<W>((x > W(0)) - (x < W(0))); } };

template <typename T, typename Function>
void unary(size_t numel, size_t num_dims, const size_t *info, const T *in, T *out) {
    for_each(numel, [&](size_t i) {
        out[i] = convert<T>(Function::of(widen(source(in, out, i, strided(i, num_dims, info)))));
    });
}

template <typename T> void copy(size_t numel, size_t num_dims, const size_t *info, const T *in, T *out) {
    for_each(numel, [&](size_t i) { out[i] = source(in, out, i, strided(i, num_dims, info)); });
}

template <typename T>
void power(size_t numel, size_t num_dims, const size_t *info, T exponent, const T *in, T *out) {
    for_each(numel, [&](size_t i) {
        out[i] = convert<T>(std::pow(widen(source(in, out, i, strided(i, num_dims, info))), widen(exponent)));
    });
}

struct Add { template <typename W> static W of(W x, W y) { return static_cast<W>(x + y); } };
struct Subtract { template <typename W> static W of(W x, W y) { return static_cast<W>(x - y); } };
struct Multiply { template <typename W> static W of(W x, W y) { return static_cast<W>(x * y); } };
struct Divide { template <typename W> static W of(W x, W y) { return static_cast<W>(x / y); } };
struct Minimum { template <typename W> static W of(W x, W y) { return y < x ? y : x; } };
struct Maximum { template <typename W> static W of(W x, W y) { return x < y ? y : x; } };
struct Equal { template <typename W> static bool of(W x, W y) { return x == y; } };
struct Unequal { template <typename W> static bool of(W x, W y) { return x != y; } };
struct Less { template <typename W> static bool of(W x, W y) { return x < y; } };
struct LessOrEqual { template <typename W> static bool of(W x, W y) { return x <= y; } };
struct Greater { template <typename W> static bool of(W x, W y) { return x > y; } };
struct GreaterOrEqual { template <typename W> static bool of(W x, W y) { return x >= y; } };

template <typename T, typename Out, typename Function>
void binary(size_t numel, size_t num_dims, const size_t *info, const T *left, const T *right, Out *out) {
    for_each(numel, [&](size_t i) {
        const auto x = widen(left[strided(i, num_dims, info, 0)]), y = widen(right[strided(i, num_dims, info, 1)]);
        out[i] = Arithmetic<Out>::narrow(Function::of(x, y));
    });
}

template <typename From, typename To>
void cast(size_t numel, size_t num_dims, const size_t *info, const From *in, To *out) {
    for_each(numel, [&](size_t i) { out[i] = convert<To>(in[strided(i, num_dims, info)]); });
}

template <typename T> void fill(T *out, T value, size_t numel) {
    for_each(numel, [&](size_t i) { out[i] = value; });
}

template <typename T> void set(size_t numel, size_t num_dims, const size_t *info, T value, T *out) {
    for_each(numel, [&](size_t i) { out[strided(i, num_dims, info)] = value; });
}

template <typename T>
void copy2d(const T *from, T *to, std::uint32_t rows, std::uint32_t columns, std::uint32_t from_stride,
            std::uint32_t to_stride) {
    for_each(static_cast<size_t>(rows) * columns, [&](size_t i) {
        to[i / columns * to_stride + i % columns] = from[i / columns * from_stride + i % columns];
    });
}

template <typename T, typename Condition>
void where(size_t numel, size_t num_dims, const size_t *info, const Condition *condition, const T *yes, const T *no,
           T *out) {
    for_each(numel, [&](size_t i) {
        out[i] = condition[strided(i, num_dims, info, 0)] ? yes[strided(i, num_dims, info, 1)]
                                                          : no[strided(i, num_dims, info, 2)];
    });
}

/// Enters `prefix_TYPE` of a module for a type.
template <typename T> class Entry {
  public:
    Entry(T, const std::string &type) : type(type) {}

    template <typename Function> void unary_function(const char *name) const {
        enter("unary", name + ("_" + type), unary<T, Function>);
    }
    template <typename Function> void binary_function(const char *name) const {
        enter("binary", name + ("_" + type), binary<T, T, Function>);
    }
    template <typename Function> void comparison(const char *name) const {
        enter("binary", name + ("_" + type), binary<T, std::uint8_t, Function>);
    }

  private:
    std::string type;
};

void enter_float_functions() {
    for_each_float([](auto value, const std::string &type) {
        using T = decltype(value);
        const Entry<T> entry(value, type);
        entry.template unary_function<Negate>("uneg");
        entry.template unary_function<Reciprocal>("urecip");
        entry.template unary_function<Exp>("uexp");
        entry.template unary_function<Log>("ulog");
        entry.template unary_function<Sin>("usin");
        entry.template unary_function<Cos>("ucos");
        entry.template unary_function<Tanh>("utanh");
        entry.template unary_function<Erf>("uerf");
        entry.template unary_function<Ceil>("uceil");
        entry.template unary_function<Floor>("ufloor");
        entry.template unary_function<Round>("uround");
        entry.template unary_function<Absolute>("uabs");
        entry.template unary_function<Square>("usqr");
        entry.template unary_function<Root>("usqrt");
        entry.template unary_function<Relu>("urelu");
        entry.template unary_function<Sigmoid>("usigmoid");
        entry.template unary_function<Silu>("usilu");
        entry.template unary_function<Sign>("usign");
        enter("unary", "upowf_" + type, power<T>);
    });
}

void enter_functions() {
    for_each_type([](auto value, const std::string &type) {
        using T = decltype(value);
        const Entry<T> entry(value, type);
        entry.template binary_function<Add>("badd");
        entry.template binary_function<Subtract>("bsub");
        entry.template binary_function<Multiply>("bmul");
        entry.template binary_function<Divide>("bdiv");
        entry.template binary_function<Minimum>("bminimum");
        entry.template binary_function<Maximum>("bmaximum");
        entry.template comparison<Equal>("eq");
        entry.template comparison<Unequal>("ne");
        entry.template comparison<Less>("lt");
        entry.template comparison<LessOrEqual>("le");
        entry.template comparison<Greater>("gt");
        entry.template comparison<GreaterOrEqual>("ge");
        enter("affine", "affine_" + type, affine<T>);
        enter("unary", "ucopy_" + type, copy<T>);
        enter("fill", "fill_" + type, fill<T>);
        enter("fill", "const_set_" + type, set<T>);
        enter("fill", "copy2d_" + type, copy2d<T>);
        for_each_type([&](auto other, const std::string &to) {
            enter("cast", "cast_" + type + "_" + to, cast<T, decltype(other)>);
        });
        for_each_index([&](auto index, const std::string &condition) {
            enter("ternary", "where_" + condition + "_" + type, where<T, decltype(index)>);
        });
    });
}

const struct AtLoad {
    AtLoad() {
        enter_float_functions();
        enter_functions();
    }
} at_load;

} // namespace
} // namespace candle_kernels
