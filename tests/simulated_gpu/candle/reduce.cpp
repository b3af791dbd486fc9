// candle's modules reduce and indexing.
#include <cmath>
#include <limits>

#include "view.hpp"

namespace candle_kernels {
namespace {

using std::size_t;

struct Sum {
    double total = 0.0;
    template <typename T> void take(T value) { total += static_cast<double>(value); }
    double result() const { return total; }
};

/// The GPU's minimum and maximum pass over NaN.
struct Least {
    double best = INFINITY;
    template <typename T> void take(T value) { best = std::fmin(best, static_cast<double>(value)); }
    double result() const { return best; }
};

struct Largest {
    double best = -INFINITY;
    template <typename T> void take(T value) { best = std::fmax(best, static_cast<double>(value)); }
    double result() const { return best; }
};

/// Reduces `per_output` neighbours, in row-major order of the view, to each output.
template <typename T, typename Fold>
void fold(size_t output, size_t end, size_t per_output, size_t num_dims, const size_t *info, const T *in, T *out) {
    Fold fold;
    for (size_t i = output * per_output; i < end; i++) fold.take(widen(in[strided(i, num_dims, info)]));
    out[output] = Arithmetic<T>::narrow(static_cast<typename Arithmetic<T>::Wide>(fold.result()));
}

/// A block an output.
template <typename T, typename Fold>
void reduce(size_t numel, size_t per_output, size_t num_dims, const size_t *info, const T *in, T *out) {
    if (threadIdx.x != 0) return;
    const size_t output = blockIdx.x, end = std::min((output + 1) * per_output, numel);
    fold<T, Fold>(output, end, per_output, num_dims, info, in, out);
}

/// A thread an output.
template <typename T>
void sum_small(size_t outputs, size_t per_output, size_t num_dims, const size_t *info, const T *in, T *out) {
    for_each(outputs, [&](size_t output) {
        fold<T, Sum>(output, (output + 1) * per_output, per_output, num_dims, info, in, out);
    });
}

struct Smaller { template <typename W> static bool of(W x, W y) { return x < y; } };
struct Greater { template <typename W> static bool of(W x, W y) { return x > y; } };

template <typename T, typename Better>
void arg(size_t numel, size_t per_output, size_t num_dims, const size_t *info, const T *in, std::uint32_t *out) {
    if (threadIdx.x != 0) return;
    const size_t start = blockIdx.x * per_output, end = std::min(start + per_output, numel);
    size_t best = start;
    for (size_t i = start + 1; i < end; i++) {
        const auto value = widen(in[strided(i, num_dims, info)]), held = widen(in[strided(best, num_dims, info)]);
        if (Better::of(value, held)) best = i;
    }
    out[blockIdx.x] = static_cast<std::uint32_t>(best % info[num_dims - 1]);
}

/// An index that means "nothing": zeros are read for it and nothing is written.
template <typename Index> bool is_nothing(Index index) { return index == std::numeric_limits<Index>::max(); }

/// A GPU's assertion, which ends the context.
template <typename Index> size_t checked(Index index, size_t size) {
    if (static_cast<size_t>(index) >= size) simulated::fail("index %zu of %zu", static_cast<size_t>(index), size);
    return static_cast<size_t>(index);
}

template <typename T, typename Index>
void index_select(size_t numel, size_t num_dims, const size_t *info, const Index *ids, const T *in, T *out, size_t,
                  size_t source_dim, size_t ids_dim, size_t right) {
    for_each(numel, [&](size_t i) {
        const Index id = ids[i / right % ids_dim];
        if (is_nothing(id)) {
            out[i] = T{};
            return;
        }
        const size_t from = (i / (ids_dim * right) * source_dim + checked(id, source_dim)) * right + i % right;
        out[i] = in[strided(from, num_dims, info)];
    });
}

template <typename T, typename Index>
void gather(size_t numel, const Index *ids, const T *in, T *out, size_t, size_t source_dim, size_t ids_dim,
            size_t right) {
    for_each(numel, [&](size_t i) {
        const size_t left = i / (right * ids_dim);
        out[i] = is_nothing(ids[i]) ? T{} : in[(left * source_dim + checked(ids[i], source_dim)) * right + i % right];
    });
}

enum class Write { set, add };

template <typename T, Write write> void put(T &to, T value) {
    to = write == Write::set ? value : convert<T>(widen(to) + widen(value));
}

template <typename T, typename Index>
void index_add(const Index *ids, size_t ids_dim, const T *in, T *out, size_t left, size_t, size_t target_dim,
               size_t right) {
    for_each(left * right, [&](size_t i) {
        const size_t before = i / right, after = i % right;
        for (size_t j = 0; j < ids_dim; j++) {
            if (is_nothing(ids[j])) continue;
            const size_t to = (before * target_dim + checked(ids[j], target_dim)) * right + after;
            put<T, Write::add>(out[to], in[(before * ids_dim + j) * right + after]);
        }
    });
}

template <typename T, typename Index, Write write>
void scatter(const Index *ids, const T *in, T *out, size_t left, size_t source_dim, size_t target_dim, size_t right) {
    for_each(left * right, [&](size_t i) {
        const size_t before = i / right, after = i % right;
        for (size_t j = 0; j < source_dim; j++) {
            const size_t from = (before * source_dim + j) * right + after;
            if (is_nothing(ids[from])) continue;
            put<T, write>(out[(before * target_dim + checked(ids[from], target_dim)) * right + after], in[from]);
        }
    });
}

const struct AtLoad {
    AtLoad() {
        for_each_type([](auto value, const std::string &type) {
            using T = decltype(value);
            enter("reduce", "fast_sum_" + type, reduce<T, Sum>);
            enter("reduce", "fast_sum_small_" + type, sum_small<T>);
            enter("reduce", "fast_min_" + type, reduce<T, Least>);
            enter("reduce", "fast_max_" + type, reduce<T, Largest>);
            enter("reduce", "fast_argmin_" + type, arg<T, Smaller>);
            enter("reduce", "fast_argmax_" + type, arg<T, Greater>);
            for_each_index([&](auto index, const std::string &ids) {
                using Index = decltype(index);
                enter("indexing", "is_" + ids + "_" + type, index_select<T, Index>);
                enter("indexing", "gather_" + ids + "_" + type, gather<T, Index>);
                enter("indexing", "ia_" + ids + "_" + type, index_add<T, Index>);
                enter("indexing", "s_" + ids + "_" + type, scatter<T, Index, Write::set>);
                enter("indexing", "sa_" + ids + "_" + type, scatter<T, Index, Write::add>);
            });
        });
    }
} at_load;

} // namespace
} // namespace candle_kernels
