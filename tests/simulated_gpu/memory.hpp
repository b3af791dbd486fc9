// The memory of the simulated device.
#pragma once

#include <cstddef>

namespace simulated {

/// A block of `bytes` on a 256-byte boundary, filled with 0xff (NaN, or an index far out of range), with guards on both
/// sides; null where the limit (SIMULATED_GPU_MIB) does not allow it. 0 bytes give null, too.
void *allocate(std::size_t bytes);

/// Frees what `allocate` gave and checks its guards. Ends the process for any other address.
void release(void *address);

/// Whether `bytes` from `address` on lie in one live block.
bool is_device_memory(const void *address, std::size_t bytes);

/// Ends the process if `bytes` from `address` on do not lie in one live block. `what` is for the message.
void require_device_memory(const void *address, std::size_t bytes, const char *what);

/// Ends the process if somebody wrote over the ends of the block that holds `address`. Nothing for other addresses.
void check_guards(const void *address, const char *what);

/// The same for all live blocks.
void check_all_guards(const char *what);

/// Whether the device computes nothing (SIMULATED_GPU_IDLE): calls are checked and counted, and memory keeps what lies in it.
bool is_idle();

std::size_t bytes_in_use();
std::size_t peak_bytes();
/// The peak since the last call of forget_recent_peak.
std::size_t recent_peak_bytes();
void forget_recent_peak();
std::size_t total_bytes();

} // namespace simulated
