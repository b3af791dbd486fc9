// Tests of the simulated device itself: each mistake it is to find ends the process, so it is made in a child.
#include <csignal>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.hpp"

namespace test {
namespace {

/// Whether `mistake` ends a process by `simulated::fail`.
bool is_found(const std::function<void()> &mistake) {
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        // What it says is expected, and not for the reader of this test's output.
        if (std::freopen("/dev/null", "w", stderr) == nullptr) _exit(2);
        mistake();
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

void write_at(float *to, int place) { to[place] = 1.0f; }

void read_wide(const float *from, float *to) { *to = reinterpret_cast<const float4 *>(from)->w; }

/// Every second thread waits at a barrier, the others of its warp in a shuffle.
void wait_in_vain(float *to) {
    if (threadIdx.x % 2 == 0) __syncthreads();
    if (threadIdx.x % 2 == 1) to[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

/// Not all threads come to the barrier.
void diverge(float *to) {
    if (threadIdx.x < 32) __syncthreads();
    to[threadIdx.x] = 1.0f;
}

/// Neighbours read each other's value without waiting for it.
void race(float *to) {
    __shared__ float values[64];
    values[threadIdx.x] = static_cast<float>(threadIdx.x);
    to[threadIdx.x] = values[63 - threadIdx.x];
}

/// The same with a barrier.
void no_race(float *to) {
    __shared__ float values[64];
    values[threadIdx.x] = static_cast<float>(threadIdx.x);
    __syncthreads();
    to[threadIdx.x] = values[63 - threadIdx.x];
}

const simulated::Register kernels[] = {
    {"test", "write_at", write_at, 1, 1}, {"test", "read_wide", read_wide}, {"test", "diverge", diverge},
    {"test", "race", race},               {"test", "no_race", no_race},     {"test", "wait_in_vain", wait_in_vain},
};

constexpr Dimensions one{1, 1, 1}, two_warps{64, 1, 1};

std::vector<std::vector<float>> in_three_orders(const char *kernel) {
    std::vector<std::vector<float>> results;
    for (unsigned seed = 0; seed < 3; seed++) {
        simulated::set_seed(seed);
        const Buffer<float> out(64);
        launch(kernel, one, two_warps, out.get());
        results.push_back(out.host());
    }
    simulated::set_seed(0);
    return results;
}

void mistakes() {
    const Buffer<float> out(64);
    float outside = 0.0f;
    float *const inside = out.get(), *const address = &outside;
    require("device: nothing is found where nothing is wrong",
            !is_found([=] { launch("write_at", one, one, inside, 63); }));
    require("device: a write behind a block is found", is_found([=] { launch("write_at", one, one, inside, 64); }));
    require("device: a write before a block is found", is_found([=] { launch("write_at", one, one, inside, -1); }));
    require("device: an address of the host is found", is_found([=] { launch("write_at", one, one, address, 0); }));
    require("device: a block of the wrong shape is found",
            is_found([=] { launch("write_at", one, two_warps, inside, 0); }));
    require("device: a misaligned access is found",
            is_found([=] { launch("read_wide", one, one, inside + 1, inside); }));
    require("device: a barrier for some threads is found",
            is_found([=] { launch("diverge", one, two_warps, inside); }));
    require("device: threads that wait in vain are found",
            is_found([=] { launch("wait_in_vain", one, two_warps, inside); }));
    require("device: a block freed twice is found", is_found([] {
                void *block = simulated::allocate(4);
                simulated::release(block);
                simulated::release(block);
            }));
}

void orders() {
    const auto racy = in_three_orders("race"), ordered = in_three_orders("no_race");
    require("device: a race shows", racy[0] != racy[1] || racy[1] != racy[2]);
    require("device: a barrier orders", ordered[0] == ordered[1] && ordered[1] == ordered[2] && ordered[0][0] == 63.0f);
    require("device: fresh memory is NaN", std::isnan(Buffer<float>(1).host()[0]) && Buffer<int>(1).host()[0] == -1);
}

} // namespace

void device() {
    mistakes();
    orders();
}

} // namespace test
