// Stacks of their own for threads that wait.
#pragma once

#include <cstddef>

namespace simulated {

/// A stack and where it stands. Fibers are never destroyed: they are used again by later blocks.
struct Fiber {
    void *context = nullptr;
};

/// A fiber that calls `entry` when it is first resumed; `entry` must not return.
Fiber *make_fiber(void (*entry)());

/// Leaves `from`, whose state is kept, and goes on in `to`.
void switch_fiber(Fiber *from, Fiber *to);

} // namespace simulated
