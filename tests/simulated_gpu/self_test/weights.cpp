#include "harness.hpp"

namespace test {
namespace {

template <typename T> void pack_and_unpack(int k, int c, int c_padded, int taps) {
    Random random(11);
    const std::size_t filters = static_cast<std::size_t>(k), len = filters * c * taps;
    const std::size_t packed_len = filters * taps * c_padded;
    const std::vector<float> w = random.vector<float>(len);
    std::vector<double> packed(packed_len, 0.0), unpacked(len);
    for (std::size_t i = 0; i < len; i++) {
        const std::size_t filter = i / taps / c, channel = i / taps % c, tap = i % taps;
        packed[(filter * taps + tap) * c_padded + channel] = unpacked[i] = widen(narrow<T>(w[i]));
    }
    std::vector<T> found;
    std::vector<float> back;
    same_in_any_order("weights", [&] {
        const Buffer<float> parameter(w), gradient(len);
        const Buffer<T> out(packed_len);
        const Dimensions grid{ceil_div(c_padded, 64), static_cast<unsigned>(k), 1};
        const std::string type = suffix<T>();
        launch("pack_weights_" + type, grid, {256, 1, 1}, parameter.get(), out.get(), k, c, c_padded, taps);
        launch("unpack_gradient_" + type, grid, {256, 1, 1}, out.get(), gradient.get(), k, c, c_padded, taps);
        found = out.host();
        back = gradient.host();
        return out.bytes();
    });
    check("weights: packed", worst_error(found, packed, 1.0), 0.0);
    check("weights: unpacked", worst_error(back, unpacked, 1.0), 0.0);
}

template <typename T> void pad(int rows, int c, int c_padded) {
    Random random(12);
    const std::vector<T> x = random.vector<T>(rows * c);
    std::vector<double> expected(static_cast<std::size_t>(rows) * c_padded, 0.0);
    for (int i = 0; i < rows * c; i++) expected[i / c * c_padded + i % c] = widen(x[i]);
    const Buffer<T> in(x), out(expected.size());
    launch(std::string("pad_channels_") + suffix<T>(), {2, 1, 1}, {256, 1, 1}, in.get(), out.get(),
           static_cast<long long>(rows), c, c_padded);
    check("weights: padded channels", worst_error(out.host(), expected, 1.0), 0.0);
}

template <typename T> void all_of() {
    pack_and_unpack<T>(5, 3, 8, 9);
    pack_and_unpack<T>(3, 3, 8, 49);
    pack_and_unpack<T>(2, 130, 136, 9);
    pack_and_unpack<T>(4, 64, 64, 1);
    pack_and_unpack<T>(2, 100, 100, 4);
    pack_and_unpack<T>(1, 65, 72, 121);
    pad<T>(77, 3, 8);
    pad<T>(77, 3, 4);
    pad<T>(5, 24, 24);
}

} // namespace

void weights() {
    all_of<float>();
    all_of<bf16>();
}

} // namespace test
