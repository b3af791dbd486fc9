#include "memory.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "block.hpp"

namespace simulated {
namespace {

constexpr std::size_t alignment = 256, guard_bytes = 64;
/// NaN as a float and as a bfloat16, but not what fresh memory holds.
constexpr unsigned char guard[2] = {0xc5, 0x7f};

std::recursive_mutex mutex;
std::size_t in_use = 0, peak = 0, recent_peak = 0;

/// Size of each live block by its address. Never destroyed: programs free memory while they end.
std::map<std::uintptr_t, std::size_t> &blocks() {
    static auto *blocks = new std::map<std::uintptr_t, std::size_t>;
    return *blocks;
}

/// Blocks that were freed while the device is idle, by their size: a real driver keeps them at hand, too, and the host's
/// time is what an idle device is for.
std::multimap<std::size_t, unsigned char *> &kept() {
    static auto *kept = new std::multimap<std::size_t, unsigned char *>;
    return *kept;
}

/// Memory for a block with its guards.
unsigned char *start_of(std::size_t bytes) {
    const std::size_t padded = (alignment + bytes + guard_bytes + alignment - 1) / alignment * alignment;
    const auto block = kept().find(bytes);
    if (block == kept().end()) return static_cast<unsigned char *>(std::aligned_alloc(alignment, padded));
    unsigned char *start = block->second;
    kept().erase(block);
    return start;
}

std::uintptr_t number(const void *address) { return reinterpret_cast<std::uintptr_t>(address); }

/// The block that holds an address, or the end.
auto find(const void *address) {
    auto block = blocks().upper_bound(number(address));
    if (block == blocks().begin()) return blocks().end();
    --block;
    return number(address) - block->first <= block->second ? block : blocks().end();
}

void write_guard(unsigned char *at) {
    for (std::size_t i = 0; i < guard_bytes; i++) at[i] = guard[i % 2];
}

void check_guard(const unsigned char *at, const char *side, std::size_t bytes, const char *what) {
    for (std::size_t i = 0; i < guard_bytes; i++) {
        if (at[i] == guard[i % 2]) continue;
        fail("%s: somebody wrote %s a block of %zu bytes (byte %zu of the guard)", what, side, bytes, i);
    }
}

void check_block(std::uintptr_t address, std::size_t bytes, const char *what) {
    const auto *data = reinterpret_cast<const unsigned char *>(address);
    check_guard(data - guard_bytes, "before", bytes, what);
    check_guard(data + bytes, "behind", bytes, what);
}

/// Checks what a program never freed.
struct AtExit {
    ~AtExit() { check_all_guards("at the end"); }
} at_exit;

} // namespace

bool is_idle() {
    static const bool idle = std::getenv("SIMULATED_GPU_IDLE") != nullptr;
    return idle;
}

std::size_t total_bytes() {
    static const std::size_t total = [] {
        const char *mebibytes = std::getenv("SIMULATED_GPU_MIB");
        return static_cast<std::size_t>(mebibytes == nullptr ? 16384 : std::strtoull(mebibytes, nullptr, 10)) << 20;
    }();
    return total;
}

void *allocate(std::size_t bytes) {
    const std::lock_guard lock(mutex);
    if (bytes == 0 || bytes > total_bytes() - std::min(in_use, total_bytes())) return nullptr;
    unsigned char *start = start_of(bytes);
    if (start == nullptr) return nullptr;
    unsigned char *data = start + alignment;
    write_guard(data - guard_bytes);
    if (!is_idle()) std::memset(data, 0xff, bytes);
    write_guard(data + bytes);
    blocks()[number(data)] = bytes;
    in_use += bytes;
    peak = std::max(peak, in_use);
    recent_peak = std::max(recent_peak, in_use);
    return data;
}

void release(void *address) {
    const std::lock_guard lock(mutex);
    if (address == nullptr) return;
    const auto block = blocks().find(number(address));
    if (block == blocks().end()) fail("%p is freed, but is no block of device memory (freed twice?)", address);
    check_block(block->first, block->second, "at its release");
    unsigned char *start = static_cast<unsigned char *>(address) - alignment;
    in_use -= block->second;
    if (is_idle()) {
        kept().emplace(block->second, start);
    } else {
        std::free(start);
    }
    blocks().erase(block);
}

bool is_device_memory(const void *address, std::size_t bytes) {
    const std::lock_guard lock(mutex);
    const auto block = find(address);
    return block != blocks().end() && number(address) - block->first + bytes <= block->second;
}

void require_device_memory(const void *address, std::size_t bytes, const char *what) {
    if (bytes == 0 || is_device_memory(address, bytes)) return;
    const std::lock_guard lock(mutex);
    const auto block = find(address);
    if (block == blocks().end()) fail("%s: %p is not device memory", what, address);
    fail("%s: %zu bytes from byte %zu on do not lie in a block of %zu", what, bytes,
         static_cast<std::size_t>(number(address) - block->first), block->second);
}

void check_guards(const void *address, const char *what) {
    const std::lock_guard lock(mutex);
    const auto block = find(address);
    if (block != blocks().end()) check_block(block->first, block->second, what);
}

void check_all_guards(const char *what) {
    const std::lock_guard lock(mutex);
    for (const auto &[address, bytes] : blocks()) check_block(address, bytes, what);
}

std::size_t bytes_in_use() {
    const std::lock_guard lock(mutex);
    return in_use;
}

std::size_t peak_bytes() {
    const std::lock_guard lock(mutex);
    return peak;
}

std::size_t recent_peak_bytes() {
    const std::lock_guard lock(mutex);
    return recent_peak;
}

void forget_recent_peak() {
    const std::lock_guard lock(mutex);
    recent_peak = in_use;
}

} // namespace simulated
