// From bytes to the first layer's input: choose, crop, mirror, scale.
#include "common.cuh"

/// bytes `[count, source_h, source_w, 3]` -> out `[n, h, w, c_out]`, T; channels from 3 on are 0.
///
/// `crops` `[n]` is x and y of the crop's corner in the source, negative in the padding, whether the crop is then
/// mirrored left to right (z), and which image is the source (w); null: the i-th image from its corner, not mirrored.
/// Outside of the source a byte is 0.
///
/// value = byte * scale - offset, rounded twice as the data crate's `normalise` rounds: both give the same bits. A
/// thread makes one pixel; 1-D grid of any size.
template <typename T>
__device__ __forceinline__ void images(const unsigned char *__restrict__ bytes, const int4 *__restrict__ crops,
                                       T *__restrict__ out, int n, int source_h, int source_w, int h, int w, int c_out,
                                       const float (&scales)[3], const float (&offsets)[3]) {
    const bool wide = c_out == 8 && aligned(out);
    const long long pixels = static_cast<long long>(n) * h * w;
    for (long long pixel = grid_thread(); pixel < pixels; pixel += grid_threads()) {
        const unsigned long long line = static_cast<unsigned long long>(pixel) / static_cast<unsigned>(w);
        const int column = static_cast<int>(pixel - static_cast<long long>(line) * w);
        const int image = static_cast<int>(line / static_cast<unsigned>(h));
        const int row = static_cast<int>(line - static_cast<unsigned long long>(image) * h);
        const int4 crop = crops == nullptr ? make_int4(0, 0, 0, image) : crops[image];
        const int x = crop.x + (crop.z ? w - 1 - column : column), y = crop.y + row;
        const bool inside = x >= 0 && x < source_w && y >= 0 && y < source_h;
        const unsigned char *from = bytes + ((static_cast<size_t>(crop.w) * source_h + y) * source_w + x) * 3;
        Values<8> values = zeros<8>();
#pragma unroll
        for (int i = 0; i < 3; i++) {
            const float byte = inside ? static_cast<float>(from[i]) : 0.0f;
            values.of[i] = __fsub_rn(__fmul_rn(byte, scales[i]), offsets[i]);
        }
        T *to = out + pixel * c_out;
        if (wide) {
            store<8>(to, values);
        } else {
#pragma unroll
            for (int i = 0; i < 3; i++) to[i] = narrow<T>(values.of[i]);
            for (int i = 3; i < c_out; i++) to[i] = narrow<T>(0.0f);
        }
    }
}

#define IMAGES(T, NAME)                                                                                                \
    extern "C" __global__ void __launch_bounds__(block_threads)                                                        \
    images_##NAME(const unsigned char *bytes, const int4 *crops, T *out, int n, int source_h, int source_w, int h,     \
                  int w, int c_out, float scale0, float scale1, float scale2, float offset0, float offset1,            \
                  float offset2) {                                                                                     \
        const float scales[3] = {scale0, scale1, scale2}, offsets[3] = {offset0, offset1, offset2};                    \
        images<T>(bytes, crops, out, n, source_h, source_w, h, w, c_out, scales, offsets);                             \
    }

IMAGES(float, f32)
IMAGES(bf16, bf16)
