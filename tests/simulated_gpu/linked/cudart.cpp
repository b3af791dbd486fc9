// The run-time library: programs link to it; nothing of it is used. It also stands in for the kernels of quantised
// matrices that candle compiles into the program itself: the stand-in compiler leaves them out.
#include "../unsupported.hpp"

constexpr int not_supported = 801;

UNSUPPORTED(candle_launch_moe_align, not_supported)
UNSUPPORTED(moe_gemm_wmma, not_supported)
UNSUPPORTED(moe_gemm_gguf, not_supported)
UNSUPPORTED(moe_gemm_gguf_prefill, not_supported)
UNSUPPORTED(launch_mmvq_gguf_quantize_q8_1_bf16, not_supported)
UNSUPPORTED(launch_mmvq_gguf_quantize_q8_1_f16, not_supported)
UNSUPPORTED(launch_mmvq_gguf_quantize_q8_1_f32, not_supported)
UNSUPPORTED(launch_mmq_quantize_q8_1_D4, not_supported)
UNSUPPORTED(launch_mmq_quantize_q8_1_DS4, not_supported)
UNSUPPORTED(launch_mmq_quantize_q8_1_D2S6, not_supported)

#define FORMAT(NAME)                                                                                                   \
    UNSUPPORTED(launch_mmq_gguf_##NAME, not_supported)                                                                 \
    UNSUPPORTED(launch_mmvq_gguf_##NAME##_bf16_plain, not_supported)                                                   \
    UNSUPPORTED(launch_mmvq_gguf_##NAME##_f16_plain, not_supported)                                                    \
    UNSUPPORTED(launch_mmvq_gguf_##NAME##_f32_plain, not_supported)

FORMAT(q2_k)
FORMAT(q3_k)
FORMAT(q4_0)
FORMAT(q4_1)
FORMAT(q4_k)
FORMAT(q5_0)
FORMAT(q5_1)
FORMAT(q5_k)
FORMAT(q6_k)
FORMAT(q8_0)
