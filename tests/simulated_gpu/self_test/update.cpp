#include "harness.hpp"

namespace test {
namespace {

/// As the kernels have it; what is packed comes last.
struct Tensor {
    float *param;
    const void *grad;
    float *first, *second;
    bf16 *shadow;
    long long len;
    float lr, weight_decay;
    int channels, channels_padded, taps;
    int gradient;
};
enum GradientKind { gradient_f32, gradient_bf16, gradient_packed };

struct Block {
    int tensor, piece;
};

constexpr int chunk = 4096;
constexpr const float *no_clip = nullptr;
const std::size_t lengths[] = {1, 3, 50, 4096, 4099, 12289};
/// Which of them has a gradient that does not begin on 16 bytes.
constexpr std::size_t shifted = 4;

/// Values of several tensors, and the tables that a launch reads.
struct Set {
    std::vector<std::vector<float>> param, grad, first, second;
    std::vector<Block> blocks;

    explicit Set(unsigned seed) {
        Random random(seed);
        for (std::size_t i = 0; i < std::size(lengths); i++) {
            param.push_back(random.vector<float>(lengths[i]));
            grad.push_back(random.vector<float>(lengths[i]));
            first.push_back(random.vector<float>(lengths[i], 0.0, 0.5));
            second.push_back(random.vector<float>(lengths[i], 2.0, 0.1));
            for (std::size_t at = 0; at < lengths[i]; at += chunk) {
                blocks.push_back({static_cast<int>(i), static_cast<int>(at / chunk)});
            }
        }
    }
    static float lr(std::size_t tensor) { return tensor % 2 == 0 ? 0.1f : 0.05f; }
    static float weight_decay(std::size_t tensor) { return tensor % 2 == 0 ? 5e-4f : 0.0f; }
};

/// The set on the device.
struct Device {
    std::vector<std::unique_ptr<Buffer<float>>> param, grad, first, second;
    std::vector<Tensor> tensors;

    explicit Device(const Set &set) {
        const auto copy = [](const std::vector<std::vector<float>> &from, auto &to) {
            for (const auto &values : from) to.push_back(std::make_unique<Buffer<float>>(values));
        };
        // One gradient lies behind something else, so that it does not begin on 16 bytes.
        std::vector<float> behind = set.grad[shifted];
        behind.insert(behind.begin(), NAN);
        copy(set.param, param);
        copy(set.grad, grad);
        grad[shifted] = std::make_unique<Buffer<float>>(behind);
        copy(set.first, first);
        copy(set.second, second);
        for (std::size_t i = 0; i < param.size(); i++) {
            const float *begin = grad[i]->get() + (i == shifted ? 1 : 0);
            tensors.push_back({*param[i], begin, *first[i], *second[i], nullptr, static_cast<long long>(lengths[i]),
                               Set::lr(i), Set::weight_decay(i), 0, 0, 0, gradient_f32});
        }
    }
    std::vector<unsigned char> bytes() const {
        std::vector<unsigned char> bytes;
        for (const auto *buffers : {&param, &first, &second}) {
            for (const auto &buffer : *buffers) {
                const auto more = buffer->bytes();
                bytes.insert(bytes.end(), more.begin(), more.end());
            }
        }
        return bytes;
    }
};

/// What a rule does to one element, in f64: gradient, and parameter and moments in place.
using Rule = std::function<void(std::size_t tensor, double g, double &param, double &first, double &second)>;

template <typename... Arguments>
void compare(const std::string &what, const std::string &kernel, const Rule &rule, double bound,
             Arguments... arguments) {
    const Set set(21);
    std::vector<std::vector<float>> param, first, second;
    same_in_any_order("update", [&] {
        const Device device(set);
        const Buffer<Tensor> tensors(device.tensors);
        const Buffer<Block> blocks(set.blocks);
        launch(kernel, {static_cast<unsigned>(set.blocks.size()), 1, 1}, {256, 1, 1}, tensors.get(), blocks.get(),
               arguments...);
        param.clear(), first.clear(), second.clear();
        for (std::size_t i = 0; i < device.param.size(); i++) {
            param.push_back(device.param[i]->host());
            first.push_back(device.first[i]->host());
            second.push_back(device.second[i]->host());
        }
        return device.bytes();
    });
    for (std::size_t i = 0; i < param.size(); i++) {
        for (std::size_t at = 0; at < lengths[i]; at++) {
            double p = set.param[i][at], f = set.first[i][at], s = set.second[i][at];
            rule(i, set.grad[i][at], p, f, s);
            check(what + ": parameter", error_of(param[i][at], p, 1.0), bound);
            check(what + ": moments", std::max(error_of(first[i][at], f, 1.0), error_of(second[i][at], s, 1.0)), bound);
        }
    }
}

void sgd() {
    const char *const names[] = {"sgd", "sgd, heavy momentum", "sgd, nesterov"};
    for (int kind = 0; kind < 3; kind++) {
        for (float grad_scale : {1.0f, 0.3f}) {
            const Rule rule = [=](std::size_t i, double g, double &param, double &first, double &) {
                double step = static_cast<double>(grad_scale) * g + Set::weight_decay(i) * param;
                if (kind != 0) {
                    first = 0.9f * first + step;
                    step = kind == 2 ? step + 0.9f * first : first;
                }
                param -= Set::lr(i) * step;
            };
            compare(names[kind], "sgd_multi", rule, 5e-7, 0.9f, kind, grad_scale, no_clip);
        }
    }
}

void adamw(float grad_scale) {
    const double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, steps = 3.0;
    const double correction1 = 1.0 - std::pow(beta1, steps), root = std::sqrt(1.0 - std::pow(beta2, steps));
    const Rule rule = [=](std::size_t i, double grad, double &param, double &first, double &second) {
        const double g = static_cast<double>(grad_scale) * grad;
        first += (1.0 - beta1) * (g - first);
        second = beta2 * second + (1.0 - beta2) * g * g;
        param = (1.0 - static_cast<double>(Set::lr(i)) * Set::weight_decay(i)) * param -
                Set::lr(i) / correction1 * (first / (std::sqrt(second) / root + eps));
    };
    compare("adamw", "adamw_multi", rule, 5e-7, static_cast<float>(1.0 - beta1), static_cast<float>(beta2),
            static_cast<float>(1.0 - beta2), static_cast<float>(eps), static_cast<float>(correction1),
            static_cast<float>(root), grad_scale, no_clip);
}

/// A filter bank: its sizes, and how its gradient lies.
struct Bank {
    int filters, channels, padded, taps, gradient;
    bool has_shadow;

    std::size_t len() const { return static_cast<std::size_t>(filters) * channels * taps; }
    std::size_t packed_len() const { return static_cast<std::size_t>(filters) * padded * taps; }
    bool is_one_order() const { return taps == 1 && channels == padded && gradient != gradient_packed; }
    /// Where an element of the parameter lies in what is packed.
    std::size_t packed(std::size_t at) const {
        const std::size_t tap = at % taps, channel = at / taps % channels, filter = at / taps / channels;
        return (filter * taps + tap) * padded + channel;
    }
};

/// SGD on a bank, whose gradient is bfloat16 or f32, packed or not, and whose copy for convolutions moves along.
void bank(const Bank &bank) {
    Random random(23);
    const std::vector<float> param = random.vector<float>(bank.len()), first = random.vector<float>(bank.len());
    std::vector<bf16> grads(bank.gradient == gradient_packed ? bank.packed_len() : bank.len(), narrow<bf16>(0.0f));
    std::vector<float> wide(bank.len());
    for (std::size_t at = 0; at < bank.len(); at++) {
        const bf16 value = narrow<bf16>(static_cast<float>(random.normal()));
        wide[at] = widen(value);
        grads[bank.gradient == gradient_packed ? bank.packed(at) : at] = value;
    }
    const bool is_cut_in_tiles = !bank.is_one_order() && (bank.has_shadow || bank.gradient == gradient_packed);
    const int groups = (bank.padded + 63) / 64;
    const int pieces = is_cut_in_tiles ? bank.filters * groups : static_cast<int>((bank.len() + chunk - 1) / chunk);
    std::vector<Block> cut;
    for (int piece = 0; piece < pieces; piece++) cut.push_back({0, piece});
    std::vector<float> moved, buffer;
    std::vector<bf16> shadow;
    same_in_any_order("update", [&] {
        const Buffer<float> device_param(param), device_first(first), device_wide(wide);
        const Buffer<bf16> device_grads(grads), device_shadow(bank.packed_len());
        const void *grad = bank.gradient == gradient_f32 ? static_cast<const void *>(device_wide.get())
                                                         : static_cast<const void *>(device_grads.get());
        const Buffer<Tensor> tensors(std::vector<Tensor>{
            {device_param.get(), grad, device_first.get(), nullptr, bank.has_shadow ? device_shadow.get() : nullptr,
             static_cast<long long>(bank.len()), 0.1f, 5e-4f, bank.channels, bank.padded,
             is_cut_in_tiles ? bank.taps : 0, bank.gradient}});
        const Buffer<Block> blocks(cut);
        launch("sgd_multi", {static_cast<unsigned>(pieces), 1, 1}, {256, 1, 1}, tensors.get(), blocks.get(), 0.9f, 1,
               0.5f, no_clip);
        moved = device_param.host(), buffer = device_first.host(), shadow = device_shadow.host();
        return device_param.bytes();
    });
    std::size_t wrong = 0;
    std::vector<bf16> expected(bank.packed_len(), narrow<bf16>(0.0f));
    for (std::size_t at = 0; at < bank.len(); at++) {
        const double step = 0.9f * first[at] + 0.5 * wide[at] + 5e-4f * param[at];
        check("sgd on filters: parameter", error_of(moved[at], param[at] - 0.1f * step, 1.0), 5e-7);
        check("sgd on filters: moments", error_of(buffer[at], step, 1.0), 5e-7);
        expected[bank.packed(at)] = narrow<bf16>(moved[at]);
    }
    for (std::size_t at = 0; bank.has_shadow && at < expected.size(); at++) {
        wrong += std::memcmp(&expected[at], &shadow[at], sizeof(bf16)) != 0;
    }
    check("sgd on filters: copy for convolutions", static_cast<double>(wrong), 0.0);
}

void banks() {
    for (int gradient : {gradient_f32, gradient_bf16, gradient_packed}) {
        for (bool has_shadow : {false, true}) {
            bank({3, 5, 8, 9, gradient, has_shadow});
            bank({2, 70, 72, 9, gradient, has_shadow});
            bank({2, 72, 72, 9, gradient, has_shadow});
            bank({2, 64, 64, 49, gradient, has_shadow});
            bank({5, 136, 136, 1, gradient, has_shadow});
            bank({5, 3, 8, 1, gradient, has_shadow});
        }
    }
}

/// The scale that a clipped step takes from memory.
void clipping() {
    for (double squares : {0.0, 4.0, 1e12, std::nan("")}) {
        for (double factor : {1.0, 0.25}) {
            const double bound = 0.5, clip = bound / (factor * std::sqrt(squares) + 1e-6);
            const Buffer<double> sum(std::vector<double>{squares});
            const Buffer<float> scale(1), param(std::vector<float>{3.0f}), grad(std::vector<float>{2.0f}), buffer(1);
            launch("clip_scale", {1, 1, 1}, {256, 1, 1}, sum.get(), factor, bound, scale.get());
            const double expected = clip < 1.0 ? factor * clip : factor;
            check("clipping: scale", error_of(scale.host()[0], expected, 1.0), 6e-8);
            const Buffer<Tensor> tensors(std::vector<Tensor>{
                {param.get(), grad.get(), buffer.get(), nullptr, nullptr, 1, 0.1f, 0.0f, 0, 0, 0, gradient_f32}});
            const Buffer<Block> blocks(std::vector<Block>{{0, 0}});
            launch("sgd_multi", {1, 1, 1}, {256, 1, 1}, tensors.get(), blocks.get(), 0.0f, 0, 77.0f, scale.get());
            check("clipping: step", error_of(param.host()[0], 3.0 - 0.1f * 2.0 * expected, 1.0), 2e-7);
        }
    }
}

void ema() {
    const Rule rule = [](std::size_t, double g, double &param, double &, double &) { param = 0.99 * param + 0.01 * g; };
    compare("moving average", "ema_multi", rule, 2e-7, 0.99f, 0.01f);
}

void norm() {
    Set set(22);
    double expected = 0.0;
    for (const auto &grad : set.grad)
        for (float g : grad) expected += static_cast<double>(g) * g;
    const auto sum_of_squares = [&] {
        const Device device(set);
        const Buffer<Tensor> tensors(device.tensors);
        const Buffer<Block> blocks(set.blocks);
        const Buffer<double> parts(set.blocks.size()), sum(1);
        const int count = static_cast<int>(set.blocks.size());
        launch("squares_multi", {static_cast<unsigned>(count), 1, 1}, {256, 1, 1}, tensors.get(), blocks.get(),
               parts.get());
        launch("squares_finish", {1, 1, 1}, {256, 1, 1}, parts.get(), count, sum.get());
        return sum.host()[0];
    };
    check("gradient norm, squared", error_of(sum_of_squares(), expected, 1.0), 1e-13);
    set.grad[2][7] = NAN;
    require("gradient norm: NaN stays NaN", std::isnan(sum_of_squares()));
}

} // namespace

void update() {
    sgd();
    for (float grad_scale : {1.0f, 0.3f}) adamw(grad_scale);
    banks();
    clipping();
    ema();
    norm();
}

} // namespace test
