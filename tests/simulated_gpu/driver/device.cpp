// The driver's device, contexts, streams and events. There is one device; its work is done when a call returns.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../memory.hpp"
#include "../statistics.hpp"
#include "errors.hpp"

using namespace simulated;

namespace {

constexpr int driver_version = 13000;

bool initialized = false;
int primary_context, memory_pool;
thread_local void *current_context = nullptr;

struct Event {
    std::chrono::microseconds recorded;
};

/// The H100's, but for the number of multiprocessors: with few of them work is divided into few blocks.
int attribute_of_device(int attribute) {
    switch (attribute) {
    case 1: // threads of a block
    case 2: // block, x
    case 3: // block, y
        return 1024;
    case 4: // block, z
        return 64;
    case 5: // grid, x
        return 2147483647;
    case 6: // grid, y
    case 7: // grid, z
        return 65535;
    case 8: // shared memory of a block
        return 49152;
    case 10: // threads of a warp
        return 32;
    case 16: // multiprocessors
        return 2;
    case 38: // second-level cache
        return 52428800;
    case 39: // threads of a multiprocessor
        return 2048;
    case 75: // compute capability
        return 9;
    case 76:
        return 0;
    case 81: // shared memory of a multiprocessor
        return 233472;
    case 97: // shared memory of a block, asked for
        return 232448;
    case 115: // memory pools
        return 1;
    default:
        return 0;
    }
}

} // namespace

bool simulated::has_context() { return current_context != nullptr; }

DRIVER cuInit(unsigned) {
    initialized = true;
    return success;
}

DRIVER cuDriverGetVersion(int *version) {
    *version = driver_version;
    return success;
}

/// SIMULATED_GPU_COUNT=0 is a machine without a GPU.
DRIVER cuDeviceGetCount(int *count) {
    if (!initialized) return not_initialized;
    const char *text = std::getenv("SIMULATED_GPU_COUNT");
    *count = text == nullptr ? 1 : std::atoi(text);
    return success;
}

DRIVER cuDeviceGet(int *device, int ordinal) {
    int count = 0;
    if (cuDeviceGetCount(&count) != success) return not_initialized;
    if (ordinal < 0 || ordinal >= count) return invalid_device;
    *device = ordinal;
    return success;
}

DRIVER cuDeviceGetName(char *name, int length, int) {
    std::snprintf(name, static_cast<std::size_t>(length), "simulated GPU");
    return success;
}

DRIVER cuDeviceGetUuid_v2(void *uuid, int) {
    std::memset(uuid, 0x5a, 16);
    return success;
}

DRIVER cuDeviceGetAttribute(int *value, int attribute, int) {
    *value = attribute_of_device(attribute);
    return success;
}

DRIVER cuDeviceTotalMem_v2(std::size_t *bytes, int) {
    *bytes = total_bytes();
    return success;
}

DRIVER cuDevicePrimaryCtxRetain(void **context, int) {
    if (!initialized) return not_initialized;
    *context = &primary_context;
    return success;
}

DRIVER cuDevicePrimaryCtxRelease_v2(int) { return success; }

DRIVER cuCtxGetCurrent(void **context) {
    *context = current_context;
    return success;
}

DRIVER cuCtxSetCurrent(void *context) {
    current_context = context;
    return success;
}

DRIVER cuCtxSynchronize() {
    REQUIRE_CONTEXT;
    count_synchronisation();
    return success;
}

DRIVER cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return success;
}

DRIVER cuDeviceGetDefaultMemPool(void **pool, int) {
    *pool = &memory_pool;
    return success;
}

DRIVER cuDeviceGetMemPool(void **pool, int) {
    *pool = &memory_pool;
    return success;
}

/// Number of CU_MEMPOOL_ATTR_USED_MEM_HIGH, bytes that were in use at once since it was set, which is to zero alone.
constexpr int used_memory_high = 8;

DRIVER cuMemPoolSetAttribute(void *pool, int attribute, void *value) {
    if (pool != &memory_pool) return invalid_value;
    if (attribute != used_memory_high) return success;
    if (*static_cast<std::uint64_t *>(value) != 0) return invalid_value;
    forget_recent_peak();
    return success;
}

DRIVER cuMemPoolGetAttribute(void *pool, int attribute, void *value) {
    if (pool != &memory_pool || attribute != used_memory_high) return invalid_value;
    *static_cast<std::uint64_t *>(value) = recent_peak_bytes();
    return success;
}

DRIVER cuMemPoolTrimTo(void *, std::size_t) { return success; }

DRIVER cuStreamCreate(void **stream, unsigned) {
    REQUIRE_CONTEXT;
    *stream = new char;
    return success;
}

DRIVER cuStreamCreateWithPriority(void **stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }

DRIVER cuStreamDestroy_v2(void *stream) {
    delete static_cast<char *>(stream);
    return success;
}

DRIVER cuStreamSynchronize(void *) {
    REQUIRE_CONTEXT;
    count_synchronisation();
    return success;
}

DRIVER cuStreamWaitEvent(void *, void *, unsigned) { return success; }

DRIVER cuStreamIsCapturing(void *, int *status) {
    *status = 0;
    return success;
}

DRIVER cuEventCreate(void **event, unsigned) {
    REQUIRE_CONTEXT;
    *event = new Event;
    return success;
}

DRIVER cuEventDestroy_v2(void *event) {
    delete static_cast<Event *>(event);
    return success;
}

DRIVER cuEventRecord(void *event, void *) {
    static_cast<Event *>(event)->recorded = passed_time();
    return success;
}

DRIVER cuEventQuery(void *) { return success; }

DRIVER cuEventSynchronize(void *) {
    count_synchronisation();
    return success;
}

DRIVER cuEventElapsedTime_v2(float *milliseconds, void *start, void *end) {
    const auto time = static_cast<Event *>(end)->recorded - static_cast<Event *>(start)->recorded;
    *milliseconds = std::chrono::duration<float, std::milli>(time).count();
    return success;
}

DRIVER cuEventElapsedTime(float *milliseconds, void *start, void *end) {
    return cuEventElapsedTime_v2(milliseconds, start, end);
}

DRIVER cuGetErrorName(int result, const char **name) {
    switch (result) {
    case success:
        *name = "CUDA_SUCCESS";
        break;
    case invalid_value:
        *name = "CUDA_ERROR_INVALID_VALUE";
        break;
    case out_of_memory:
        *name = "CUDA_ERROR_OUT_OF_MEMORY";
        break;
    case not_initialized:
        *name = "CUDA_ERROR_NOT_INITIALIZED";
        break;
    case invalid_device:
        *name = "CUDA_ERROR_INVALID_DEVICE";
        break;
    case invalid_context:
        *name = "CUDA_ERROR_INVALID_CONTEXT";
        break;
    case not_found:
        *name = "CUDA_ERROR_NOT_FOUND";
        break;
    case not_supported:
        *name = "CUDA_ERROR_NOT_SUPPORTED";
        break;
    default:
        *name = nullptr;
        return invalid_value;
    }
    return success;
}

DRIVER cuGetErrorString(int result, const char **text) { return cuGetErrorName(result, text); }
