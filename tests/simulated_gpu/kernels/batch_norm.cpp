#include "../../../crates/kernels/cuda/batch_norm.cu"

#include "../kernels.hpp"

#define KIND(NAME, KIND)                                                                                               \
    KERNEL("batch_norm", bn_apply_##NAME##_##KIND, 256, 1)                                                             \
    KERNEL("batch_norm", bn_sums_##NAME##_##KIND, 256, 1)                                                              \
    KERNEL("batch_norm", bn_gradient_##NAME##_##KIND, 256, 1)

#define WIDTH(NAME)                                                                                                    \
    KERNEL("batch_norm", bn_moments_##NAME, 256, 1)                                                                    \
    KIND(NAME, identity)                                                                                               \
    KIND(NAME, relu)                                                                                                   \
    KIND(NAME, scale_add)                                                                                              \
    KIND(NAME, add_relu)

WIDTH(f32_v8)
WIDTH(f32_v1)
WIDTH(bf16_v8)
WIDTH(bf16_v1)
KERNEL("batch_norm", bn_moments_finish, 8, 64)
KERNEL("batch_norm", bn_sums_finish, 8, 64)
