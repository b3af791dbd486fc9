#include "../../../crates/kernels/cuda/loss.cu"

#include "../kernels.hpp"

#define TYPE(NAME)                                                                                                     \
    KERNEL("loss", cross_entropy_##NAME, 128, 1)                                                                       \
    KERNEL("loss", cross_entropy_gradient_##NAME, 128, 1)

TYPE(f32)
TYPE(bf16)
KERNEL("loss", mean_f32, 256, 1)
