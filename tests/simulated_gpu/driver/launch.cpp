// The driver's modules and launches. A module is known by its first line, which the stand-in compiler writes; kernels
// are looked up by name.
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "../kernels.hpp"
#include "errors.hpp"

using namespace simulated;

namespace {

/// The first line is this and the name of the source without its extension.
constexpr char marker[] = "simulated module ";

/// What `find_kernel` takes. A real compiler's output has no name in it, but candle's is text (PTX) and ours is not.
std::string name_of(const char *image) {
    if (std::strncmp(image, marker, sizeof marker - 1) == 0) {
        const char *name = image + sizeof marker - 1;
        return {name, std::strcspn(name, "\n")};
    }
    return image[0] == '/' || image[0] == '.' ? candle : std::string();
}

} // namespace

DRIVER cuModuleLoadData(void **module, const void *image) {
    REQUIRE_CONTEXT;
    *module = new std::string(name_of(static_cast<const char *>(image)));
    return success;
}

DRIVER cuModuleUnload(void *module) {
    delete static_cast<std::string *>(module);
    return success;
}

DRIVER cuModuleGetFunction(const void **function, void *module, const char *name) {
    *function = find_kernel(*static_cast<std::string *>(module), name);
    return *function == nullptr ? not_found : success;
}

DRIVER cuFuncSetAttribute(void *, int, int) { return success; }

DRIVER cuFuncSetCacheConfig(void *, int) { return success; }

DRIVER cuFuncGetAttribute(int *value, int attribute, void *) {
    *value = attribute == 0 ? 1024 : 0; // threads of a block
    return success;
}

DRIVER cuLaunchKernel(const void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned, void *, void **arguments, void **) {
    REQUIRE_CONTEXT;
    constexpr unsigned most_x = 2147483647, most_yz = 65535, most_threads = 1024;
    const bool is_empty = grid_x == 0 || grid_y == 0 || grid_z == 0 || block_x == 0 || block_y == 0 || block_z == 0;
    if (is_empty || grid_x > most_x || grid_y > most_yz || grid_z > most_yz) return invalid_value;
    if (block_x > most_threads || block_y > most_threads || block_x * block_y * block_z > most_threads) {
        return invalid_value;
    }
    launch(*static_cast<const Kernel *>(function), {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, arguments);
    return success;
}
