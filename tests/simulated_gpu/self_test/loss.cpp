#include "harness.hpp"

namespace test {
namespace {

enum Kind { labels, soft };

/// A batch of logits, with all that its loss depends on.
template <typename T> struct Case {
    int rows, classes;
    Kind kind;
    float smoothing;
    std::vector<T> logits;
    std::vector<unsigned> label;
    std::vector<float> targets;

    Case(int rows, int classes, Kind kind, float smoothing)
        : rows(rows), classes(classes), kind(kind), smoothing(smoothing) {
        Random random(13);
        logits = random.vector<T>(static_cast<std::size_t>(rows) * classes, 30.0, 4.0);
        for (int row = 0; row < rows; row++) {
            label.push_back(random.below(classes));
            const float share = 1.5f / static_cast<float>(classes);
            for (int at = 0; at < classes; at++) targets.push_back(at % 3 == 1 ? 0.0f : share);
        }
    }

    double target(int row, int at) const {
        if (kind == soft) return targets[row * classes + at];
        return (label[row] == static_cast<unsigned>(at) ? 1.0 - smoothing : 0.0) +
               static_cast<double>(smoothing) / classes;
    }
};

constexpr float upstream = 0.7f;

template <typename T> void reference(const Case<T> &c, std::vector<double> &losses, std::vector<double> &gradient) {
    for (int row = 0; row < c.rows; row++) {
        const T *logits = c.logits.data() + row * c.classes;
        double largest = -INFINITY, sum = 0.0, loss = 0.0, mass = 0.0;
        for (int at = 0; at < c.classes; at++) largest = std::max(largest, static_cast<double>(widen(logits[at])));
        for (int at = 0; at < c.classes; at++) sum += std::exp(widen(logits[at]) - largest);
        for (int at = 0; at < c.classes; at++) {
            mass += c.target(row, at);
            if (c.target(row, at) != 0.0) loss += c.target(row, at) * (largest + std::log(sum) - widen(logits[at]));
        }
        losses.push_back(loss);
        for (int at = 0; at < c.classes; at++) {
            const double probability = std::exp(widen(logits[at]) - largest) / sum;
            gradient.push_back(upstream / c.rows * (probability * mass - c.target(row, at)));
        }
    }
}

template <typename T>
std::vector<unsigned char> run(const Case<T> &c, std::vector<float> &losses, std::vector<T> &gradient, float &mean) {
    const Buffer<T> logits(c.logits), dlogits(c.logits.size());
    const Buffer<unsigned> label(c.label);
    const Buffer<float> targets(c.targets), row_losses(c.rows), scalar(std::vector<float>{upstream}), mean_loss(1);
    const unsigned *device_labels = c.kind == labels ? label.get() : nullptr;
    const float *device_targets = c.kind == soft ? targets.get() : nullptr;
    const std::string type = suffix<T>();
    const Dimensions grid{ceil_div(c.rows, 4), 1, 1}, threads{128, 1, 1};
    launch("cross_entropy_" + type, grid, threads, logits.get(), device_labels, device_targets, c.smoothing,
           row_losses.get(), c.rows, c.classes);
    launch("mean_f32", {1, 1, 1}, {256, 1, 1}, row_losses.get(), mean_loss.get(), c.rows);
    launch("cross_entropy_gradient_" + type, grid, threads, logits.get(), device_labels, device_targets, c.smoothing,
           scalar.get(), dlogits.get(), c.rows, c.classes);
    losses = row_losses.host();
    gradient = dlogits.host();
    mean = mean_loss.host()[0];
    std::vector<unsigned char> bytes = row_losses.bytes(), more = dlogits.bytes();
    bytes.insert(bytes.end(), more.begin(), more.end());
    return bytes;
}

template <typename T> void compare(const Case<T> &c) {
    std::vector<double> expected_losses, expected_gradient;
    reference(c, expected_losses, expected_gradient);
    std::vector<float> losses;
    std::vector<T> gradient;
    float mean;
    same_in_any_order("cross-entropy", [&] { return run(c, losses, gradient, mean); });
    check("cross-entropy: loss", worst_error(losses, expected_losses, 1.0), 1e-6);
    double total = 0.0;
    for (double loss : expected_losses) total += loss;
    check("cross-entropy: mean", error_of(mean, total / c.rows, 1.0), 1e-6);
    check(std::string("cross-entropy: gradient, ") + suffix<T>(),
          worst_error(gradient, expected_gradient, upstream / static_cast<double>(c.rows)), rounding<T>() + 1e-6);
}

/// What numbers alone cannot say: labels out of range, infinite logits, targets of 0.
void borders() {
    std::vector<float> losses, gradient;
    float mean;
    Case<float> c(3, 10, labels, 0.0f);
    c.label[1] = 10;
    run(c, losses, gradient, mean);
    require("cross-entropy: a label out of range is NaN", std::isnan(losses[1]) && std::isnan(gradient[10]));
    require("cross-entropy: other rows are not", !std::isnan(losses[0]) && !std::isnan(gradient[20]));
    Case<float> infinite(1, 10, soft, 0.0f);
    infinite.logits[1] = -INFINITY; // its target is 0
    run(infinite, losses, gradient, mean);
    require("cross-entropy: 0 times infinity takes no part", std::isfinite(losses[0]) && gradient[1] == 0.0f);
    infinite.logits[2] = NAN;
    run(infinite, losses, gradient, mean);
    require("cross-entropy: NaN stays NaN", std::isnan(losses[0]) && std::isnan(gradient[0]));
}

template <typename T> void all_of() {
    for (int classes : {1, 2, 10, 100, 1000}) {
        for (float smoothing : {0.0f, 0.1f}) compare(Case<T>(7, classes, labels, smoothing));
        compare(Case<T>(5, classes, soft, 0.0f));
    }
    compare(Case<T>(300, 10, labels, 0.1f));
}

} // namespace

void loss() {
    all_of<float>();
    all_of<bf16>();
    borders();
}

} // namespace test
