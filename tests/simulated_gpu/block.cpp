#include "block.hpp"

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <random>
#include <vector>

#include "fiber.hpp"

Dimensions threadIdx, blockIdx, blockDim, gridDim;

namespace simulated {
namespace {

constexpr unsigned warp_size = 32;

/// Where a thread is while others run.
enum class State { fresh, ready, at_barrier, at_shuffle, done };

struct Thread {
    State state;
    Fiber *fiber;
    Dimensions index;
};

/// The exchange of a warp. Values of two shuffles are kept: a thread may be at the next one while others still read.
struct Warp {
    unsigned live, arrived, round;
    float values[2][warp_size];
    std::vector<unsigned> order;
};

/// The block that runs. Barriers and the entry of fibers have no argument, so it is global.
struct Block {
    const char *name = nullptr;
    const std::function<void()> *body = nullptr;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    std::vector<unsigned> order;
    std::deque<unsigned> ready;
    std::vector<Fiber *> idle;
    unsigned next = 0, current = 0, num_done = 0, num_at_barrier = 0;
    Fiber scheduler;
};

Block block;
unsigned seed = 0;
bool seed_is_set = false;

unsigned current_seed() {
    if (!seed_is_set) {
        const char *text = std::getenv("SIMULATED_GPU_SEED");
        set_seed(text == nullptr ? 0 : static_cast<unsigned>(std::strtoul(text, nullptr, 10)));
    }
    return seed;
}

void enter(unsigned thread) {
    block.current = thread;
    threadIdx = block.threads[thread].index;
}

/// Those of `threads` that wait in `state` may go on, in that order and not in that of their arrival.
void release(const std::vector<unsigned> &threads, State state) {
    for (unsigned thread : threads) {
        if (block.threads[thread].state != state) continue;
        block.threads[thread].state = State::ready;
        block.ready.push_back(thread);
    }
}

void release_barrier() {
    block.num_at_barrier = 0;
    release(block.order, State::at_barrier);
}

void finish_thread() {
    block.threads[block.current].state = State::done;
    block.num_done++;
    Warp &warp = block.warps[block.current / warp_size];
    warp.live--;
    if (warp.arrived > 0) fail("threads of a warp have ended where others shuffle");
    if (block.num_at_barrier > 0) fail("threads have ended where others wait at a barrier");
}

/// What a fiber does: runs threads that have not begun, one after the other, until none is left. A thread that waits
/// keeps the fiber it is on, and another fiber goes on with the rest.
void work() {
    for (;;) {
        while (block.next < block.order.size()) {
            const unsigned thread = block.order[block.next++];
            block.threads[thread].fiber = block.idle.back();
            block.idle.pop_back();
            enter(thread);
            (*block.body)();
            block.idle.push_back(block.threads[block.current].fiber);
            finish_thread();
        }
        Fiber *self = block.threads[block.current].fiber;
        switch_fiber(self, &block.scheduler);
    }
}

/// Gives way to other threads until this one is ready again.
void wait(State state) {
    const unsigned thread = block.current;
    block.threads[thread].state = state;
    switch_fiber(block.threads[thread].fiber, &block.scheduler);
}

void run_block() {
    while (block.num_done < block.threads.size()) {
        Fiber *to;
        if (!block.ready.empty()) {
            enter(block.ready.front());
            block.ready.pop_front();
            to = block.threads[block.current].fiber;
        } else if (block.next < block.order.size()) {
            if (block.idle.empty()) block.idle.push_back(make_fiber(work));
            to = block.idle.back();
        } else {
            fail("threads wait for each other: %u of %zu at a barrier, the others in a shuffle", block.num_at_barrier,
                 block.threads.size());
        }
        switch_fiber(&block.scheduler, to);
    }
}

void start_block(unsigned number) {
    const unsigned count = static_cast<unsigned>(block.threads.size());
    for (unsigned thread = 0; thread < count; thread++) {
        block.threads[thread] = {State::fresh, nullptr,
                                 {thread % blockDim.x, thread / blockDim.x % blockDim.y,
                                  thread / (blockDim.x * blockDim.y)}};
        block.order[thread] = thread;
    }
    if (current_seed() != 0) {
        std::mt19937 random(current_seed() * 2654435761u + number);
        std::shuffle(block.order.begin(), block.order.end(), random);
    }
    for (Warp &warp : block.warps) {
        warp.live = warp.arrived = warp.round = 0;
        warp.order.clear();
    }
    for (unsigned thread : block.order) {
        Warp &warp = block.warps[thread / warp_size];
        warp.live++;
        warp.order.push_back(thread);
    }
    block.ready.clear();
    block.next = block.num_done = block.num_at_barrier = 0;
}

} // namespace

void run_grid(const char *name, Dimensions grid, Dimensions dimensions, const std::function<void()> &body) {
    gridDim = grid;
    blockDim = dimensions;
    const std::size_t count = static_cast<std::size_t>(dimensions.x) * dimensions.y * dimensions.z;
    block.name = name;
    block.body = &body;
    block.threads.resize(count);
    block.order.resize(count);
    block.warps.resize((count + warp_size - 1) / warp_size);
    unsigned number = 0;
    for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++) {
        for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++) {
            for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) {
                start_block(number++);
                run_block();
            }
        }
    }
    block.name = nullptr;
}

const char *running_kernel() { return block.name; }

void set_seed(unsigned value) {
    seed = value;
    seed_is_set = true;
}

int lane() { return static_cast<int>(block.current % warp_size); }

float shuffle(unsigned mask, float value, int source) {
    if (mask != 0xffffffffu) fail("a shuffle of part of a warp is not simulated");
    Warp &warp = block.warps[block.current / warp_size];
    float *values = warp.values[warp.round % 2];
    values[block.current % warp_size] = value;
    if (++warp.arrived < warp.live) {
        wait(State::at_shuffle);
    } else {
        warp.arrived = 0;
        warp.round++;
        release(warp.order, State::at_shuffle);
    }
    return values[source];
}

void fail(const char *format, ...) {
    std::fprintf(stderr, "simulated GPU: ");
    if (block.name != nullptr) {
        std::fprintf(stderr, "kernel %s, block (%u, %u, %u), thread (%u, %u, %u): ", block.name, blockIdx.x, blockIdx.y,
                     blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    }
    va_list arguments;
    va_start(arguments, format);
    std::vfprintf(stderr, format, arguments);
    va_end(arguments);
    std::fprintf(stderr, "\n");
    std::abort();
}

} // namespace simulated

void __syncthreads() {
    using namespace simulated;
    if (block.num_done > 0) fail("threads have ended where others wait at a barrier");
    if (++block.num_at_barrier < block.threads.size()) {
        wait(State::at_barrier);
    } else {
        release_barrier();
    }
}

// What the compiler calls, with -fsanitize=alignment, where an address does not allow the access made to it: a float4
// that does not lie on 16 bytes is a fault on a GPU. Defined here, no sanitizer's library is needed.
extern "C" [[noreturn]] void __ubsan_handle_type_mismatch_v1_abort(void *, std::uintptr_t address) {
    simulated::fail("a misaligned access to 0x%llx", static_cast<unsigned long long>(address));
}
