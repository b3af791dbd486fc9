// Running the blocks of a kernel on the host, thread by thread.
#pragma once

#include <cstddef>
#include <functional>

struct Dimensions {
    unsigned x = 1, y = 1, z = 1;
};

// What a kernel sees of its place. One kernel runs at a time, so these are plain globals.
extern Dimensions threadIdx, blockIdx, blockDim, gridDim;

/// Waits for all threads of the block.
void __syncthreads();

namespace simulated {

/// Runs `body` once for each thread of each block, blocks one after the other.
///
/// Threads run to their end or to a barrier, in an order that follows from the environment's SIMULATED_GPU_SEED (0: by
/// index) and the block. A thread that waits keeps its stack; one that never waits costs a function call. Ends the
/// process if threads wait for each other in vain. `name` is for messages.
void run_grid(const char *name, Dimensions grid, Dimensions block, const std::function<void()> &body);

/// The name of the kernel that runs, or null.
const char *running_kernel();

/// Sets the seed of the order of threads for what is launched from now on.
void set_seed(unsigned seed);

/// This thread's place in its warp.
int lane();

/// Exchanges a value with all threads of the warp: returns that of `source`.
float shuffle(unsigned mask, float value, int source);

/// Prints what is wrong and where, and ends the process.
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

} // namespace simulated
