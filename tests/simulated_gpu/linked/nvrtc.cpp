// The run-time compiler: programs link to it; nothing of it is used.
#include "../unsupported.hpp"

constexpr int internal_error = 11;

UNSUPPORTED(nvrtcCompileProgram, internal_error)
UNSUPPORTED(nvrtcCreateProgram, internal_error)
UNSUPPORTED(nvrtcDestroyProgram, internal_error)
UNSUPPORTED(nvrtcGetPTX, internal_error)
UNSUPPORTED(nvrtcGetPTXSize, internal_error)
UNSUPPORTED(nvrtcGetProgramLog, internal_error)
UNSUPPORTED(nvrtcGetProgramLogSize, internal_error)
