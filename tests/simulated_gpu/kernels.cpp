#include "kernels.hpp"

#include <map>
#include <mutex>

#include "memory.hpp"
#include "statistics.hpp"

namespace simulated {
namespace {

using Table = std::map<std::pair<std::string, std::string>, Kernel>;

Table &table() {
    static auto *table = new Table;
    return *table;
}

/// A launch is over when it returns, so one at a time is what a stream does.
std::mutex device;

bool is_candles(const std::string &module) { return module.compare(0, candle.size(), candle) == 0; }

} // namespace

const std::string candle = "candle/";

void add_kernel(Kernel kernel) {
    const std::pair key(kernel.module, kernel.name);
    table().emplace(key, std::move(kernel));
}

const Kernel *find_kernel(const std::string &module, const std::string &name) {
    const Kernel *found = nullptr;
    for (const auto &[key, kernel] : table()) {
        if (key.second != name) continue;
        if (key.first == module || key.first == candle + module) return &kernel;
        const bool is_unknown = module.empty() || module == candle;
        if (is_unknown && (found == nullptr || is_candles(key.first) == is_candles(module))) found = &kernel;
    }
    return found;
}

void launch(const Kernel &kernel, Dimensions grid, Dimensions block, void **arguments) {
    const std::lock_guard lock(device);
    const char *name = kernel.name.c_str();
    if (kernel.block_x != 0 && (block.x != kernel.block_x || block.y != kernel.block_y || block.z != 1)) {
        fail("%s is written for blocks of (%u, %u), not (%u, %u, %u)", name, kernel.block_x, kernel.block_y, block.x,
             block.y, block.z);
    }
    std::vector<const void *> addresses;
    for (std::size_t i = 0; i < kernel.is_address.size(); i++) {
        const void *address = kernel.is_address[i] ? *static_cast<void **>(arguments[i]) : nullptr;
        if (address == nullptr) continue;
        if (!is_device_memory(address, 0)) fail("argument %zu of %s, %p, is not device memory", i, name, address);
        addresses.push_back(address);
    }
    if (!is_idle()) run_grid(name, grid, block, kernel.bind(arguments));
    for (const void *address : addresses) check_guards(address, name);
    count_launch(kernel.name);
}

} // namespace simulated
