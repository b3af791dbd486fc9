#include "../../../crates/kernels/cuda/elementwise.cu"

#include "../kernels.hpp"

#define TYPE(NAME)                                                                                                     \
    KERNEL("elementwise", relu_##NAME, 256, 1)                                                                         \
    KERNEL("elementwise", relu_gradient_##NAME, 256, 1)                                                                \
    KERNEL("elementwise", add_##NAME, 256, 1)                                                                          \
    KERNEL("elementwise", fill_##NAME, 256, 1)                                                                         \
    KERNEL("elementwise", add_bias_##NAME, 256, 1)                                                                     \
    KERNEL("elementwise", transpose_images_##NAME, 32, 8)                                                              \
    KERNEL("elementwise", column_sums_##NAME, 32, 8)

TYPE(f32)
TYPE(bf16)
KERNEL("elementwise", cast_f32_bf16, 256, 1)
KERNEL("elementwise", cast_bf16_f32, 256, 1)
KERNEL("elementwise", column_sums_finish, 256, 1)
