// The kernels that the simulated device knows, by module and name.
#pragma once

#include <functional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "block.hpp"

namespace simulated {

struct Kernel {
    std::string module, name;
    /// What one thread does, once the arguments are known.
    std::function<std::function<void()>(void **arguments)> bind;
    /// Which arguments are addresses.
    std::vector<bool> is_address;
    /// Threads of a block that the kernel is written for; 0 where any will do.
    unsigned block_x, block_y;
};

/// Enters a kernel into the table.
void add_kernel(Kernel kernel);

/// What candle's modules have in front of their names here: some of its kernels are called as ours are.
extern const std::string candle;

/// The kernel of this name in a module, ours or candle's. A module that is not known by name is "" or `candle`: then
/// the name is looked for in all modules, and our own or candle's come first. Null if there is none.
const Kernel *find_kernel(const std::string &module, const std::string &name);

/// Runs a kernel after checking its block and addresses, and its blocks' guards afterwards.
void launch(const Kernel &kernel, Dimensions grid, Dimensions block, void **arguments);

/// Reads the arguments out of the driver's array and calls `function` with copies of them, once a thread.
template <typename... Arguments, std::size_t... I>
std::function<void()> bound(void (*function)(Arguments...), void **values, std::index_sequence<I...>) {
    const std::tuple<std::decay_t<Arguments>...> arguments{*static_cast<std::decay_t<Arguments> *>(values[I])...};
    return [=] { std::apply(function, arguments); };
}

/// Enters a kernel when the library is loaded: `static const Register r("pool", "max_pool_f32", max_pool_f32);`
struct Register {
    template <typename... Arguments>
    Register(const std::string &module, const std::string &name, void (*function)(Arguments...), unsigned block_x = 0,
             unsigned block_y = 0) {
        const auto bind = [=](void **values) {
            return bound(function, values, std::index_sequence_for<Arguments...>());
        };
        add_kernel({module, name, bind, {std::is_pointer_v<Arguments>...}, block_x, block_y});
    }
};

/// A kernel of our own sources under its C name.
#define KERNEL(module, name, block_x, block_y)                                                                         \
    static const ::simulated::Register register_##name(module, #name, name, block_x, block_y);

} // namespace simulated
