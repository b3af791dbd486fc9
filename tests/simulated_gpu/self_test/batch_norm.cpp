#include "harness.hpp"

namespace test {
namespace {

struct Norm {
    const float *mean, *variance, *gamma, *beta;
    float eps, scale;
    int rows, channels, lanes_log2;
};

constexpr float eps = 1e-5f, scale = 0.1f;
const char *const kinds[] = {"identity", "relu", "scale_add", "add_relu"};
enum { identity, relu, scale_add, add_relu };

/// Every fifth channel has a mean of 80 standard deviations.
bool is_far(int channel) { return channel % 5 == 3; }

struct Shape {
    int rows, channels, width;
    int parts = 3;

    int lanes_log2() const {
        int log2 = 0;
        while ((1 << log2) < channels / width + (channels % width != 0) && log2 < 5) log2++;
        return log2;
    }
    unsigned lane_groups() const { return ceil_div(ceil_div(channels, width), 1 << lanes_log2()); }
    /// So many splits or a few less, the last one shorter.
    int rows_per_split() const { return std::max(1, rows / parts + 1); }
    unsigned splits() const { return ceil_div(rows, rows_per_split()); }
};

/// A batch norm in f64, from the same rounded inputs.
struct Reference {
    std::vector<double> mean, variance, normalised, y, dx, dshortcut, dgamma, dbeta;
};

/// Everything one case reads.
template <typename T> struct Case {
    Shape shape;
    int kind;
    bool constant_statistics;
    std::vector<T> x, shortcut, dy;
    std::vector<float> gamma, beta;

    Case(Shape shape, int kind, bool constant_statistics)
        : shape(shape), kind(kind), constant_statistics(constant_statistics) {
        Random random(static_cast<unsigned>(shape.rows * 4 + kind));
        const std::size_t count = static_cast<std::size_t>(shape.rows) * shape.channels;
        for (std::size_t i = 0; i < count; i++) {
            const int channel = static_cast<int>(i % shape.channels);
            const bool far = is_far(channel);
            x.push_back(narrow<T>((far ? 40.0 : channel % 3) + (far ? 0.5 : 1.3) * random.normal()));
        }
        shortcut = random.vector<T>(count);
        dy = random.vector<T>(count, 0.1);
        gamma = random.vector<float>(shape.channels, 1.0, 0.3);
        beta = random.vector<float>(shape.channels, 0.0, 0.3);
    }
};

template <typename T> void statistics(const Case<T> &c, Reference &r) {
    const int rows = c.shape.rows, channels = c.shape.channels;
    r.mean.assign(channels, 0.0);
    r.variance.assign(channels, 0.0);
    for (int i = 0; i < rows * channels; i++) r.mean[i % channels] += widen(c.x[i]) / static_cast<double>(rows);
    for (int i = 0; i < rows * channels; i++) {
        const double d = widen(c.x[i]) - r.mean[i % channels];
        r.variance[i % channels] += d * d / rows;
    }
}

/// The gradient that reaches the normalised value; `gate` is what the kernels decide by.
double through(int kind, double gate, double dy) {
    if (kind == identity) return dy;
    return gate > 0.0 ? (kind == scale_add ? scale * dy : dy) : 0.0;
}

/// `y` is the output that the kernels gave: it decides the gate of add_relu. The other gates are decided in f32 by the
/// kernels' expression from their statistics: a value that is 0 up to rounding may fall to either side.
template <typename T>
Reference reference(const Case<T> &c, const std::vector<float> &mean, const std::vector<float> &variance,
                    const std::vector<T> &y) {
    const int rows = c.shape.rows, channels = c.shape.channels;
    Reference r;
    statistics(c, r);
    r.dgamma.assign(channels, 0.0);
    r.dbeta.assign(channels, 0.0);
    std::vector<double> g(c.x.size());
    for (int i = 0; i < rows * channels; i++) {
        const int channel = i % channels;
        const double inverse = 1.0 / std::sqrt(r.variance[channel] + eps);
        const double normal = (widen(c.x[i]) - r.mean[channel]) * inverse;
        const double value = normal * c.gamma[channel] + c.beta[channel], other = widen(c.shortcut[i]);
        const double positive = std::max(value, 0.0);
        r.y.push_back(c.kind == identity  ? value
                      : c.kind == relu    ? positive
                      : c.kind == scale_add ? scale * positive + other
                                            : std::max(value + other, 0.0));
        const float slope = c.gamma[channel] * (1.0f / std::sqrt(variance[channel] + eps));
        const float decided = std::fma(widen(c.x[i]) - mean[channel], slope, c.beta[channel]);
        g[i] = through(c.kind, c.kind == add_relu ? widen(y[i]) : decided, widen(c.dy[i]));
        r.dshortcut.push_back(g[i]);
        r.dbeta[channel] += g[i];
        r.dgamma[channel] += g[i] * normal;
    }
    for (int i = 0; i < rows * channels; i++) {
        const int channel = i % channels;
        const double inverse = 1.0 / std::sqrt(r.variance[channel] + eps);
        const double normal = (widen(c.x[i]) - r.mean[channel]) * inverse;
        const double moved = (r.dbeta[channel] + normal * r.dgamma[channel]) / rows;
        r.dx.push_back(c.gamma[channel] * inverse * (g[i] - (c.constant_statistics ? 0.0 : moved)));
    }
    return r;
}

/// All that a forward and a backward pass write.
template <typename T> struct Outputs {
    std::vector<float> mean, variance, dparameters;
    std::vector<T> y, dx, dshortcut;
};

template <typename T> std::vector<unsigned char> run(const Case<T> &c, Outputs<T> &out) {
    const Shape &s = c.shape;
    const std::string base = std::string(suffix<T>()) + "_v" + std::to_string(s.width);
    const std::string kind = base + "_" + kinds[c.kind];
    const Buffer<T> x(c.x), shortcut(c.shortcut), dy(c.dy), y(c.x.size()), dx(c.x.size()), dshortcut(c.x.size());
    // Parameters may be views that begin anywhere.
    std::vector<float> behind_one{NAN};
    behind_one.insert(behind_one.end(), c.gamma.begin(), c.gamma.end());
    const Buffer<float> shifted(behind_one), aligned(c.gamma);
    float *gamma = c.kind == relu ? shifted.get() + 1 : aligned.get();
    const Buffer<float> beta(c.beta), mean(s.channels), variance(s.channels);
    const Buffer<float> dparameters(2 * s.channels);
    const Buffer<float2> parts(static_cast<std::size_t>(s.splits()) * s.channels);
    const Dimensions by_split{s.splits(), s.lane_groups(), 1}, by_row{2, s.lane_groups(), 1};
    const Dimensions by_channel{ceil_div(s.channels, 8), 1, 1}, threads{256, 1, 1}, merging{8, 64, 1};
    launch("bn_moments_" + base, by_split, threads, x.get(), parts.get(), s.rows, s.channels, s.lanes_log2(),
           s.rows_per_split());
    launch("bn_moments_finish", by_channel, merging, parts.get(), static_cast<int>(s.splits()), s.rows_per_split(),
           s.rows, s.channels, mean.get(), variance.get(), static_cast<float *>(nullptr), static_cast<float *>(nullptr), 0.0f);
    const Norm norm{mean, variance, gamma, beta, eps, scale, s.rows, s.channels, s.lanes_log2()};
    launch("bn_apply_" + kind, by_row, threads, x.get(), shortcut.get(), y.get(), norm);
    launch("bn_sums_" + kind, by_split, threads, x.get(), y.get(), dy.get(), norm, parts.get(), s.rows_per_split());
    launch("bn_sums_finish", by_channel, merging, parts.get(), static_cast<int>(s.splits()), s.channels, variance.get(),
           eps, dparameters.get());
    float *moving = c.constant_statistics ? nullptr : dparameters.get();
    launch("bn_gradient_" + kind, by_row, threads, x.get(), y.get(), dy.get(), norm, moving, dx.get(),
           c.kind == add_relu ? dshortcut.get() : nullptr);
    out = {mean.host(), variance.host(), dparameters.host(), y.host(), dx.host(), dshortcut.host()};
    std::vector<unsigned char> bytes = y.bytes();
    for (const auto &more : {dx.bytes(), dshortcut.bytes(), mean.bytes(), variance.bytes(), dparameters.bytes()}) {
        bytes.insert(bytes.end(), more.begin(), more.end());
    }
    return bytes;
}

template <typename T> void compare(const Case<T> &c) {
    Outputs<T> out;
    same_in_any_order("batch norm", [&] { return run(c, out); });
    const Reference r = reference(c, out.mean, out.variance, out.y);
    const std::string type = suffix<T>();
    const double of_dy = c.kind == scale_add ? scale : 1.0, root = std::sqrt(static_cast<double>(c.shape.rows)) * of_dy;
    // With a few rows the spread of a sample may be far below that of the channel, and f32 means are not exact.
    const bool few = c.shape.rows < 32;
    std::vector<double> unit;
    for (int channel = 0; channel < c.shape.channels; channel++) {
        const double sigma = std::sqrt(r.variance[channel] + eps);
        const double off = std::fabs(out.mean[channel] - r.mean[channel]) / (few ? std::max(sigma, 0.5) : sigma);
        check("batch norm: mean, in sigma", off, 1e-5);
        const double inverse = sigma / std::sqrt(static_cast<double>(out.variance[channel]) + eps);
        // Where the mean is 80 sigma, a split's mean is known to 4e-6 sigma: half a unit in its last place. With many
        // rows that does not matter.
        const bool far = is_far(channel) && c.shape.rows < 256;
        check(far ? "batch norm: 1 / sigma, mean 80 sigma, < 256 rows" : "batch norm: 1 / sigma, relative",
              std::fabs(inverse - 1.0), far ? 5e-6 : 5e-7);
        const double dgamma = out.dparameters[channel], dbeta = out.dparameters[c.shape.channels + channel];
        check("batch norm: dgamma, in sqrt(n)", std::fabs(dgamma - r.dgamma[channel]) / root, 2e-5);
        check("batch norm: dbeta, in sqrt(n)", std::fabs(dbeta - r.dbeta[channel]) / root, 1e-6);
        unit.push_back(std::fabs(c.gamma[channel]) / sigma * of_dy);
    }
    // y depends on the mean to 1e-5 sigma; dx is a difference of numbers as large as slope * dy.
    check("batch norm: y, " + type, worst_error(out.y, r.y, 1.0), rounding<T>() + 2e-5);
    double worst = 0.0;
    for (std::size_t i = 0; i < r.dx.size(); i++) {
        worst = std::max(worst, error_of(widen(out.dx[i]), r.dx[i], unit[i % c.shape.channels]));
    }
    check("batch norm: dx, " + type + (few ? ", few rows" : ""), worst, rounding<T>() + (few ? 5e-5 : 1e-5));
    if (c.kind == add_relu) check("batch norm: dshortcut", worst_error(out.dshortcut, r.dshortcut, 1.0), 0.0);
}

template <typename T> void all_kinds(Shape shape) {
    for (int kind = identity; kind <= add_relu; kind++) compare(Case<T>(shape, kind, kind == relu && shape.rows < 90));
}

/// A NaN must reach the outputs of its channel, and no other channel.
template <typename T> void nan_stays_in_its_channel() {
    Case<T> c({50, 24, 8}, relu, false);
    c.x[5 * 24 + 7] = narrow<T>(NAN);
    Outputs<T> out;
    run(c, out);
    bool holds = true;
    for (int i = 0; i < 50 * 24; i++) {
        const bool should = i % 24 == 7;
        holds = holds && std::isnan(widen(out.y[i])) == should && std::isnan(widen(out.dx[i])) == should;
    }
    require("batch norm: NaN stays in its channel", holds);
}

void running_statistics() {
    Random random(9);
    const int channels = 100;
    const auto mean = random.vector<float>(channels), variance = random.vector<float>(channels, 2.0, 0.1);
    std::vector<float2> part;
    for (int i = 0; i < channels; i++) part.push_back({mean[i], 50.0f * variance[i]});
    const Buffer<float2> parts(part);
    const Buffer<float> batch_mean(channels), batch_variance(channels);
    const Buffer<float> running_mean(std::vector<float>(channels, 0.5f)), running(std::vector<float>(channels, 2.0f));
    launch("bn_moments_finish", {ceil_div(channels, 8), 1, 1}, {8, 64, 1}, parts.get(), 1, 50, 50, channels,
           batch_mean.get(), batch_variance.get(), running_mean.get(), running.get(), 0.1f);
    std::vector<double> means, variances;
    for (int i = 0; i < channels; i++) {
        means.push_back(0.9 * 0.5 + 0.1 * mean[i]);
        variances.push_back(0.9 * 2.0 + 0.1 * (50.0 / 49.0) * variance[i]);
    }
    check("batch norm: running statistics", worst_error(running_mean.host(), means, 1.0), 3e-7);
    check("batch norm: running statistics", worst_error(running.host(), variances, 1.0), 3e-7);
}

} // namespace

void batch_norm() {
    for (const Shape &shape : {Shape{301, 3, 1}, {64, 100, 1}, {1000, 8, 1}, {37, 24, 1}, {2, 5, 1}}) {
        all_kinds<float>(shape);
        all_kinds<bf16>(shape);
    }
    for (const Shape &shape : {Shape{997, 8, 8}, {301, 24, 8}, {203, 512, 8}, {70, 2048, 8}, {5, 64, 8}, {2, 8, 8}, {1999, 8, 8, 280}}) {
        all_kinds<float>(shape);
        all_kinds<bf16>(shape);
    }
    nan_stays_in_its_channel<float>();
    nan_stays_in_its_channel<bf16>();
    running_statistics();
}

} // namespace test
