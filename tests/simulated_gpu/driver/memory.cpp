// The driver's memory: blocks, copies, fills, and memory of the host that is said to be pinned.
#include "../memory.hpp"

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "../statistics.hpp"
#include "errors.hpp"

using namespace simulated;

using Address = unsigned long long;

static unsigned char *at(Address address) {
    return reinterpret_cast<unsigned char *>(static_cast<std::uintptr_t>(address));
}

DRIVER cuMemAlloc_v2(Address *address, std::size_t bytes) {
    REQUIRE_CONTEXT;
    if (bytes == 0) return invalid_value;
    void *block = allocate(bytes);
    *address = reinterpret_cast<std::uintptr_t>(block);
    return block == nullptr ? out_of_memory : success;
}

DRIVER cuMemAllocAsync(Address *address, std::size_t bytes, void *) { return cuMemAlloc_v2(address, bytes); }

DRIVER cuMemAllocFromPoolAsync(Address *address, std::size_t bytes, void *, void *) {
    return cuMemAlloc_v2(address, bytes);
}

DRIVER cuMemFree_v2(Address address) {
    REQUIRE_CONTEXT;
    release(at(address));
    return success;
}

DRIVER cuMemFreeAsync(Address address, void *) { return cuMemFree_v2(address); }

DRIVER cuMemGetInfo_v2(std::size_t *free, std::size_t *total) {
    REQUIRE_CONTEXT;
    *total = total_bytes();
    *free = *total - bytes_in_use();
    return success;
}

DRIVER cuMemcpyHtoD_v2(Address to, const void *from, std::size_t bytes) {
    REQUIRE_CONTEXT;
    require_device_memory(at(to), bytes, "a copy to the device");
    std::memcpy(at(to), from, bytes);
    count_to_device(bytes);
    return success;
}

DRIVER cuMemcpyHtoDAsync_v2(Address to, const void *from, std::size_t bytes, void *) {
    return cuMemcpyHtoD_v2(to, from, bytes);
}

DRIVER cuMemcpyDtoH_v2(void *to, Address from, std::size_t bytes) {
    REQUIRE_CONTEXT;
    require_device_memory(at(from), bytes, "a copy to the host");
    std::memcpy(to, at(from), bytes);
    count_to_host(bytes);
    return success;
}

DRIVER cuMemcpyDtoHAsync_v2(void *to, Address from, std::size_t bytes, void *) {
    return cuMemcpyDtoH_v2(to, from, bytes);
}

DRIVER cuMemcpyDtoD_v2(Address to, Address from, std::size_t bytes) {
    REQUIRE_CONTEXT;
    require_device_memory(at(from), bytes, "a copy within the device, from");
    require_device_memory(at(to), bytes, "a copy within the device, to");
    if (!is_idle()) std::memmove(at(to), at(from), bytes);
    return success;
}

DRIVER cuMemcpyDtoDAsync_v2(Address to, Address from, std::size_t bytes, void *) {
    return cuMemcpyDtoD_v2(to, from, bytes);
}

DRIVER cuMemsetD8_v2(Address to, unsigned char value, std::size_t bytes) {
    REQUIRE_CONTEXT;
    require_device_memory(at(to), bytes, "a fill");
    if (!is_idle()) std::memset(at(to), value, bytes);
    return success;
}

DRIVER cuMemsetD8Async(Address to, unsigned char value, std::size_t bytes, void *) {
    return cuMemsetD8_v2(to, value, bytes);
}

DRIVER cuMemsetD32_v2(Address to, unsigned value, std::size_t count) {
    REQUIRE_CONTEXT;
    require_device_memory(at(to), count * sizeof value, "a fill");
    if (is_idle()) return success;
    for (std::size_t i = 0; i < count; i++) std::memcpy(at(to) + i * sizeof value, &value, sizeof value);
    return success;
}

DRIVER cuMemsetD32Async(Address to, unsigned value, std::size_t count, void *) {
    return cuMemsetD32_v2(to, value, count);
}

DRIVER cuMemHostAlloc(void **address, std::size_t bytes, unsigned) {
    REQUIRE_CONTEXT;
    *address = std::malloc(bytes);
    return *address == nullptr ? out_of_memory : success;
}

DRIVER cuMemFreeHost(void *address) {
    std::free(address);
    return success;
}
