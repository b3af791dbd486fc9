#include "../../../crates/kernels/cuda/images.cu"

#include "../kernels.hpp"

KERNEL("images", images_f32, 256, 1)
KERNEL("images", images_bf16, 256, 1)
