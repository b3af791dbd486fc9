// What a program did with the device, for tests: written as JSON at the end if SIMULATED_GPU_STATS names a file.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace simulated {

void count_launch(const std::string &kernel);
/// A call that waits for the device.
void count_synchronisation();
void count_to_device(std::size_t bytes);
/// Moves the device's clock on: something is said to have taken so long.
void pass_time(int microseconds);
/// Time that is said to have passed on the device.
std::chrono::microseconds passed_time();
/// Copies to memory of the host wait for the device, too, but are counted here alone.
void count_to_host(std::size_t bytes);

} // namespace simulated
