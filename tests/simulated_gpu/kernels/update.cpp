#include "../../../crates/kernels/cuda/update.cu"

#include "../kernels.hpp"

KERNEL("update", clip_scale, 256, 1)
KERNEL("update", sgd_multi, 256, 1)
KERNEL("update", adamw_multi, 256, 1)
KERNEL("update", ema_multi, 256, 1)
KERNEL("update", squares_multi, 256, 1)
KERNEL("update", squares_finish, 256, 1)
