#include "harness.hpp"

namespace test {
namespace {

struct Sizes {
    int count, source_h, source_w, n, h, w, c_out;
};

enum Choice { in_order, chosen };
enum Cut { whole, cropped };

/// By the steps of the data crate: choose, pad with zeros, crop, mirror, then `byte * scale - offset` in f32.
template <typename T> void compare(const Sizes &s, Choice choice, Cut cut) {
    Random random(31);
    std::vector<unsigned char> bytes(static_cast<std::size_t>(s.count) * s.source_h * s.source_w * 3);
    for (auto &byte : bytes) byte = static_cast<unsigned char>(random.below(256));
    std::vector<int4> crops;
    for (int i = 0; i < s.n; i++) {
        const int image = choice == chosen ? static_cast<int>(random.below(s.count)) : i;
        const int x = static_cast<int>(random.below(9)) - 4, y = static_cast<int>(random.below(9)) - 4;
        crops.push_back({x, y, i % 2, image});
    }
    const float scales[3] = {1.0f / (255.0f * 0.2470f), 1.0f / (255.0f * 0.2435f), 1.0f / (255.0f * 0.2616f)};
    const float offsets[3] = {0.4914f / 0.2470f, 0.4822f / 0.2435f, 0.4465f / 0.2616f};
    std::vector<double> expected;
    for (int i = 0; i < s.n; i++)
        for (int row = 0; row < s.h; row++)
            for (int column = 0; column < s.w; column++)
                for (int c = 0; c < s.c_out; c++) {
                    const int4 crop = cut == cropped ? crops[i] : int4{0, 0, 0, i};
                    const int y = crop.y + row, x = crop.x + (crop.z ? s.w - 1 - column : column);
                    const bool inside = y >= 0 && y < s.source_h && x >= 0 && x < s.source_w;
                    const int byte = inside && c < 3 ? bytes[((crop.w * s.source_h + y) * s.source_w + x) * 3 + c] : 0;
                    const float value = c < 3 ? static_cast<float>(byte) * scales[c] - offsets[c] : 0.0f;
                    expected.push_back(widen(narrow<T>(value)));
                }
    const Buffer<unsigned char> source(bytes);
    const Buffer<int4> device_crops(crops);
    const Buffer<T> out(expected.size());
    launch(std::string("images_") + suffix<T>(), {2, 1, 1}, {256, 1, 1}, source.get(),
           cut == cropped ? device_crops.get() : nullptr, out.get(), s.n, s.source_h, s.source_w, s.h, s.w, s.c_out,
           scales[0], scales[1], scales[2], offsets[0], offsets[1], offsets[2]);
    check("images: bits of the data crate", worst_error(out.host(), expected, 1.0), 0.0);
}

template <typename T> void all_of() {
    for (int c_out : {3, 4, 8}) {
        for (Choice choice : {in_order, chosen}) {
            compare<T>({5, 32, 32, 4, 32, 32, c_out}, choice, cropped);
        }
        compare<T>({5, 9, 12, 4, 9, 12, c_out}, in_order, whole);
        compare<T>({3, 20, 14, 3, 7, 5, c_out}, chosen, cropped);
    }
}

} // namespace

void images() {
    all_of<float>();
    all_of<bf16>();
}

} // namespace test
