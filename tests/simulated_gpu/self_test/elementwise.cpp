#include "harness.hpp"

namespace test {
namespace {

/// Numbers with everything that a comparison may stumble over among them.
template <typename T> std::vector<T> special(Random &random, std::size_t len) {
    std::vector<T> values = random.vector<T>(len);
    const double odd[] = {NAN, INFINITY, -INFINITY, 0.0, -0.0};
    for (std::size_t i = 0; i < len && i < 5; i++) values[i * 7 % len] = narrow<T>(odd[i]);
    return values;
}

/// The address of a buffer, or the one behind its first element: not on 16 bytes.
template <typename T> T *shifted(const Buffer<T> &buffer, int shift) { return buffer.get() + shift; }

template <typename T> std::vector<T> tail(const Buffer<T> &buffer, int shift) {
    const std::vector<T> values = buffer.host();
    return {values.begin() + shift, values.end()};
}

template <typename T> void maps(std::size_t len, int shift) {
    Random random(5);
    const std::vector<T> x = special<T>(random, len + shift), y = special<T>(random, len + shift);
    const Dimensions grid{2, 1, 1}, threads{256, 1, 1};
    const long long n = static_cast<long long>(len);
    const std::string type = suffix<T>();
    std::vector<double> relu, gradient, sum;
    for (std::size_t i = shift; i < len + shift; i++) {
        const double a = widen(x[i]), b = widen(y[i]);
        relu.push_back(a < 0.0 ? 0.0 : a);
        gradient.push_back(a > 0.0 ? b : 0.0);
        sum.push_back(a + b);
    }
    const Buffer<T> a(x), b(y), out(len + shift);
    launch("relu_" + type, grid, threads, shifted(a, shift), shifted(out, shift), n);
    check("relu", worst_error(tail(out, shift), relu, 1.0), 0.0);
    launch("relu_gradient_" + type, grid, threads, shifted(a, shift), shifted(b, shift), shifted(out, shift), n);
    check("relu: gradient", worst_error(tail(out, shift), gradient, 1.0), 0.0);
    launch("add_" + type, grid, threads, shifted(a, shift), shifted(b, shift), shifted(a, shift), n);
    check("add onto an input, " + type, worst_error(tail(a, shift), sum, 1.0), rounding<T>());
    launch("fill_" + type, grid, threads, shifted(out, shift), 0.375f, n);
    check("fill", worst_error(tail(out, shift), std::vector<double>(len, 0.375), 1.0), 0.0);
}

void casts(std::size_t len, int shift) {
    Random random(6);
    const std::vector<float> x = special<float>(random, len + shift);
    const Buffer<float> wide(x), back(len + shift);
    const Buffer<bf16> narrowed(len + shift);
    const long long n = static_cast<long long>(len);
    launch("cast_f32_bf16", {2, 1, 1}, {256, 1, 1}, shifted(wide, shift), shifted(narrowed, shift), n);
    launch("cast_bf16_f32", {2, 1, 1}, {256, 1, 1}, shifted(narrowed, shift), shifted(back, shift), n);
    std::vector<double> expected;
    for (std::size_t i = shift; i < x.size(); i++) expected.push_back(x[i]);
    check("cast to bf16 and back", worst_error(tail(back, shift), expected, 1e-30), rounding<bf16>());
    std::vector<double> rounded;
    for (std::size_t i = shift; i < x.size(); i++) rounded.push_back(widen(narrow<bf16>(x[i])));
    check("cast to bf16: to nearest, ties to even", worst_error(tail(back, shift), rounded, 1.0), 0.0);
}

template <typename T> void bias(int rows, int columns) {
    Random random(7);
    const std::vector<T> y = random.vector<T>(rows * columns);
    const std::vector<float> bias = random.vector<float>(columns);
    std::vector<double> expected;
    for (int i = 0; i < rows * columns; i++) expected.push_back(widen(y[i]) + static_cast<double>(bias[i % columns]));
    const Buffer<T> out(y);
    const Buffer<float> device_bias(bias);
    launch(std::string("add_bias_") + suffix<T>(), {2, 1, 1}, {256, 1, 1}, out.get(), device_bias.get(),
           static_cast<long long>(rows), columns);
    check(std::string("add bias, ") + suffix<T>(), worst_error(out.host(), expected, 1.0), rounding<T>());
}

template <typename T> void transpose(int images, int rows, int columns) {
    Random random(8);
    const std::vector<T> x = random.vector<T>(static_cast<std::size_t>(images) * rows * columns);
    std::vector<double> expected(x.size());
    for (int n = 0; n < images; n++)
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < columns; c++)
                expected[(n * columns + c) * rows + r] = widen(x[(n * rows + r) * columns + c]);
    std::vector<T> found;
    same_in_any_order("transpose", [&] {
        const Buffer<T> in(x), out(x.size());
        const Dimensions grid{ceil_div(columns, 32), ceil_div(rows, 32), static_cast<unsigned>(images)};
        launch(std::string("transpose_images_") + suffix<T>(), grid, {32, 8, 1}, in.get(), out.get(), images, rows,
               columns);
        found = out.host();
        return out.bytes();
    });
    check("transpose", worst_error(found, expected, 1.0), 0.0);
}

template <typename T> void sums(int rows, int columns) {
    Random random(9);
    const std::vector<T> x = random.vector<T>(static_cast<std::size_t>(rows) * columns, 0.3);
    std::vector<double> expected(columns, 0.0);
    for (std::size_t i = 0; i < x.size(); i++) expected[i % columns] += widen(x[i]);
    const int rows_per_split = rows / 3 + 1, splits = static_cast<int>(ceil_div(rows, rows_per_split));
    std::vector<float> found;
    same_in_any_order("column sums", [&] {
        const Buffer<T> in(x);
        const Buffer<float> parts(static_cast<std::size_t>(splits) * columns), out(columns);
        const Dimensions grid{ceil_div(columns, 32), static_cast<unsigned>(splits), 1};
        launch(std::string("column_sums_") + suffix<T>(), grid, {32, 8, 1}, in.get(), parts.get(), rows, columns,
               rows_per_split);
        launch("column_sums_finish", {1, 1, 1}, {256, 1, 1}, parts.get(), splits, columns, out.get());
        found = out.host();
        return out.bytes();
    });
    check("column sums", worst_error(found, expected, std::sqrt(static_cast<double>(rows))), 1e-6);
}

template <typename T> void all_of() {
    for (int shift : {0, 1}) {
        maps<T>(1, shift);
        maps<T>(1003, shift);
        maps<T>(8192, shift);
    }
    bias<T>(37, 10);
    bias<T>(37, 24);
    for (int columns : {3, 8, 100, 512}) transpose<T>(2, 45, columns);
    for (int columns : {3, 10, 100, 512}) sums<T>(77, columns);
    sums<T>(1, 10);
}

} // namespace

void elementwise() {
    all_of<float>();
    all_of<bf16>();
    casts(1003, 0);
    casts(1003, 1);
}

} // namespace test
