// cuBLASLt: programs link to it; nothing of it is used.
#include "../unsupported.hpp"

constexpr int not_supported = 15;

UNSUPPORTED(cublasLtCreate, not_supported)
UNSUPPORTED(cublasLtDestroy, not_supported)
UNSUPPORTED(cublasLtLoggerOpenFile, not_supported)
UNSUPPORTED(cublasLtLoggerSetLevel, not_supported)
UNSUPPORTED(cublasLtMatmul, not_supported)
UNSUPPORTED(cublasLtMatmulAlgoGetHeuristic, not_supported)
UNSUPPORTED(cublasLtMatmulDescCreate, not_supported)
UNSUPPORTED(cublasLtMatmulDescDestroy, not_supported)
UNSUPPORTED(cublasLtMatmulDescSetAttribute, not_supported)
UNSUPPORTED(cublasLtMatmulPreferenceCreate, not_supported)
UNSUPPORTED(cublasLtMatmulPreferenceDestroy, not_supported)
UNSUPPORTED(cublasLtMatmulPreferenceSetAttribute, not_supported)
UNSUPPORTED(cublasLtMatrixLayoutCreate, not_supported)
UNSUPPORTED(cublasLtMatrixLayoutDestroy, not_supported)
UNSUPPORTED(cublasLtMatrixLayoutSetAttribute, not_supported)
