#include "../../../crates/kernels/cuda/weights.cu"

#include "../kernels.hpp"

#define TYPE(NAME)                                                                                                     \
    KERNEL("weights", pack_weights_##NAME, 256, 1)                                                                     \
    KERNEL("weights", unpack_gradient_##NAME, 256, 1)                                                                  \
    KERNEL("weights", fold_images_##NAME, 256, 1)                                                                      \
    KERNEL("weights", pad_channels_##NAME, 256, 1)

KERNEL("weights", fold_weights, 256, 1)
KERNEL("weights", unfold_gradient, 256, 1)
TYPE(f32)
TYPE(bf16)
