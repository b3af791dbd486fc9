#include "../../../crates/kernels/cuda/pool.cu"

#include "../kernels.hpp"

#define TYPE(NAME)                                                                                                     \
    KERNEL("pool", max_pool_##NAME, 256, 1)                                                                            \
    KERNEL("pool", max_pool_gradient_##NAME, 256, 1)                                                                   \
    KERNEL("pool", avg_pool_##NAME, 256, 1)                                                                            \
    KERNEL("pool", avg_pool_gradient_##NAME, 256, 1)                                                                   \
    KERNEL("pool", global_avg_pool_##NAME, 32, 8)                                                                      \
    KERNEL("pool", global_avg_pool_gradient_##NAME, 256, 1)

TYPE(f32)
TYPE(bf16)
