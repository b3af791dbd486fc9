// Results of the driver's functions, by the numbers that the driver gives them.
#pragma once

#define DRIVER extern "C" __attribute__((visibility("default"))) int

namespace simulated {

enum Result {
    success = 0,
    invalid_value = 1,
    out_of_memory = 2,
    not_initialized = 3,
    invalid_device = 101,
    invalid_context = 201,
    not_found = 500,
    not_supported = 801,
};

/// Whether this thread has made the device's context current: most of the driver refuses to work without.
bool has_context();

} // namespace simulated

#define REQUIRE_CONTEXT                                                                                                \
    if (!simulated::has_context()) return simulated::invalid_context
