#include "harness.hpp"

namespace test {
namespace {

struct Pool {
    int images, height, width, channels, out_height, out_width, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
};

enum Rounding { floor, ceil };

/// Square windows; the number of windows is PyTorch's.
Pool pool_of(int images, int height, int width, int channels, int kernel, int stride, int pad, Rounding rounding) {
    const auto windows = [&](int length) {
        const int free = length + 2 * pad - kernel;
        int count = (rounding == ceil ? free + stride - 1 : free) / stride + 1;
        if (rounding == ceil && (count - 1) * stride >= length + pad) count--;
        return count;
    };
    return {images, height, width, channels, windows(height), windows(width), kernel, kernel, stride, stride, pad, pad};
}

std::size_t input_len(const Pool &p) { return static_cast<std::size_t>(p.images) * p.height * p.width * p.channels; }
std::size_t output_len(const Pool &p) {
    return static_cast<std::size_t>(p.images) * p.out_height * p.out_width * p.channels;
}

/// Calls `visit(output, input, rank in the window, is the window's first)` for each input under each window.
template <typename Visit> void for_each_pair(const Pool &p, Visit visit) {
    std::size_t output = 0;
    for (int n = 0; n < p.images; n++)
        for (int oy = 0; oy < p.out_height; oy++)
            for (int ox = 0; ox < p.out_width; ox++)
                for (int c = 0; c < p.channels; c++, output++) {
                    for (int ky = 0; ky < p.kernel_h; ky++)
                        for (int kx = 0; kx < p.kernel_w; kx++) {
                            const int y = oy * p.stride_h - p.pad_h + ky, x = ox * p.stride_w - p.pad_w + kx;
                            if (y < 0 || y >= p.height || x < 0 || x >= p.width) continue;
                            const std::size_t input = ((static_cast<std::size_t>(n) * p.height + y) * p.width + x);
                            visit(output, input * p.channels + c, ky * p.kernel_w + kx, oy, ox);
                        }
                }
}

template <typename T> std::vector<double> as_doubles(const std::vector<T> &values) {
    std::vector<double> doubles;
    for (const T &value : values) doubles.push_back(widen(value));
    return doubles;
}

template <typename T> void max_pool(const Pool &p) {
    Random random(1);
    // Few different values, so that maxima tie, and some NaN.
    std::vector<T> x;
    for (std::size_t i = 0; i < input_len(p); i++) {
        x.push_back(narrow<T>(random.below(40) == 0 ? NAN : static_cast<double>(random.below(5)) - 2.0));
    }
    const std::vector<T> dy = random.vector<T>(output_len(p));
    std::vector<double> y(output_len(p), 0.0), dx(input_len(p), 0.0);
    std::vector<unsigned char> winner(output_len(p));
    std::vector<std::size_t> source(output_len(p), SIZE_MAX);
    for_each_pair(p, [&](std::size_t output, std::size_t input, int rank, int, int) {
        const double value = widen(x[input]);
        if (source[output] != SIZE_MAX && !(value > y[output]) && !std::isnan(value)) return;
        y[output] = value;
        winner[output] = static_cast<unsigned char>(rank);
        source[output] = input;
    });
    for (std::size_t output = 0; output < source.size(); output++) dx[source[output]] += widen(dy[output]);
    std::vector<T> found_y, found_dx;
    std::vector<unsigned char> found_winner;
    same_in_any_order("max pool", [&] {
        const Buffer<T> in(x), gradient(dy), out(output_len(p)), back(input_len(p));
        const Buffer<unsigned char> winners(output_len(p));
        const std::string type = suffix<T>();
        launch("max_pool_" + type, {3, 1, 1}, {256, 1, 1}, in.get(), out.get(), winners.get(), p);
        launch("max_pool_gradient_" + type, {3, 1, 1}, {256, 1, 1}, gradient.get(), winners.get(), back.get(), p);
        found_y = out.host();
        found_dx = back.host();
        found_winner = winners.host();
        return back.bytes();
    });
    require("max pool: which place wins", found_winner == winner);
    check("max pool: y", worst_error(found_y, y, 1.0), 0.0);
    check(std::string("max pool: dx, ") + suffix<T>(), worst_error(found_dx, dx, 1.0), rounding<T>() + 3e-7);
}

template <typename T> void average_pool(const Pool &p, int count_padding) {
    Random random(2);
    const std::vector<T> x = random.vector<T>(input_len(p)), dy = random.vector<T>(output_len(p));
    std::vector<double> y(output_len(p), 0.0), dx(input_len(p), 0.0), inside(output_len(p), 0.0);
    for_each_pair(p, [&](std::size_t output, std::size_t, int, int, int) { inside[output]++; });
    for_each_pair(p, [&](std::size_t output, std::size_t input, int, int oy, int ox) {
        double divisor = inside[output];
        if (count_padding) {
            const int top = oy * p.stride_h, left = ox * p.stride_w;
            divisor = static_cast<double>(std::min(p.kernel_h, p.height + 2 * p.pad_h - top)) *
                      std::min(p.kernel_w, p.width + 2 * p.pad_w - left);
        }
        y[output] += widen(x[input]) / divisor;
        dx[input] += widen(dy[output]) / divisor;
    });
    std::vector<T> found_y, found_dx;
    same_in_any_order("average pool", [&] {
        const Buffer<T> in(x), gradient(dy), out(output_len(p)), back(input_len(p));
        const std::string type = suffix<T>();
        launch("avg_pool_" + type, {3, 1, 1}, {256, 1, 1}, in.get(), out.get(), p, count_padding);
        launch("avg_pool_gradient_" + type, {3, 1, 1}, {256, 1, 1}, gradient.get(), back.get(), p, count_padding);
        found_y = out.host();
        found_dx = back.host();
        return back.bytes();
    });
    check(std::string("average pool: y, ") + suffix<T>(), worst_error(found_y, y, 1.0), rounding<T>() + 3e-7);
    check(std::string("average pool: dx, ") + suffix<T>(), worst_error(found_dx, dx, 1.0), rounding<T>() + 3e-7);
}

template <typename T> void global_average(int images, int pixels, int channels) {
    Random random(3);
    const std::size_t len = static_cast<std::size_t>(images) * pixels * channels;
    const std::vector<T> x = random.vector<T>(len, 0.5), dy = random.vector<T>(images * channels);
    std::vector<double> y(images * channels, 0.0), dx;
    for (std::size_t i = 0; i < len; i++) {
        const std::size_t image = i / channels / pixels, out = image * channels + i % channels;
        y[out] += widen(x[i]) / static_cast<double>(pixels);
        dx.push_back(widen(dy[out]) / static_cast<double>(pixels));
    }
    std::vector<T> found_y, found_dx;
    same_in_any_order("global average pool", [&] {
        const Buffer<T> in(x), gradient(dy), out(images * channels), back(len);
        const std::string type = suffix<T>();
        const Dimensions grid{ceil_div(channels, 32), static_cast<unsigned>(images), 1};
        launch("global_avg_pool_" + type, grid, {32, 8, 1}, in.get(), out.get(), images, pixels, channels);
        launch("global_avg_pool_gradient_" + type, {2, 1, 1}, {256, 1, 1}, gradient.get(), back.get(), images, pixels,
               channels);
        found_y = out.host();
        found_dx = back.host();
        return out.bytes();
    });
    check(std::string("global average pool: y, ") + suffix<T>(), worst_error(found_y, y, 1.0), rounding<T>() + 3e-7);
    check(std::string("global average pool: dx, ") + suffix<T>(), worst_error(found_dx, dx, 1.0), rounding<T>() + 1e-7);
}

template <typename T> void all_of(int channels) {
    const Pool pools[] = {pool_of(2, 8, 6, channels, 2, 2, 0, floor), pool_of(2, 9, 7, channels, 3, 2, 1, floor),
                          pool_of(1, 9, 7, channels, 3, 2, 1, ceil), pool_of(2, 8, 10, channels, 3, 2, 0, ceil),
                          pool_of(1, 5, 6, channels, 3, 1, 1, floor), pool_of(1, 6, 6, channels, 2, 3, 1, ceil),
                          pool_of(1, 4, 4, channels, 1, 1, 0, floor)};
    for (const Pool &p : pools) {
        max_pool<T>(p);
        average_pool<T>(p, 0);
        average_pool<T>(p, 1);
    }
    global_average<T>(3, 35, channels);
    global_average<T>(2, 1, channels);
}

} // namespace

void pool() {
    for (int channels : {3, 8, 24, 100}) {
        all_of<float>(channels);
        all_of<bf16>(channels);
    }
    global_average<float>(1, 49, 512);
    global_average<bf16>(1, 49, 2048);
}

} // namespace test
