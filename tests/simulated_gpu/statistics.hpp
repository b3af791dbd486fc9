// What a program did with the device, for tests: written as JSON at the end if SIMULATED_GPU_STATS names a file.
#pragma once

#include <cstddef>
#include <string>

namespace simulated {

void count_launch(const std::string &kernel);
/// A call that waits for the device.
void count_synchronisation();
void count_to_device(std::size_t bytes);
/// Copies to memory of the host wait for the device, too, but are counted here alone.
void count_to_host(std::size_t bytes);

} // namespace simulated
