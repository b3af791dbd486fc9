#include "fiber.hpp"

#include <cstdint>
#include <cstdlib>
#include <sys/mman.h>

#include "block.hpp"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simulated {

constexpr std::size_t stack_bytes = 128 << 10;

static void *make_stack() {
    constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (stack == MAP_FAILED) fail("no memory for the stack of a thread");
    // The lowest page stays untouched: running over the end of a stack is a fault, not a riddle.
    mprotect(stack, 4096, PROT_NONE);
    return stack;
}

#if defined(__x86_64__)

// Keeps what the calling convention says a function keeps, and nothing else: a switch is a dozen instructions, where
// swapcontext asks the kernel for the signal mask twice.
asm(R"(
.text
.local simulated_gpu_switch
.type simulated_gpu_switch, @function
simulated_gpu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size simulated_gpu_switch, .-simulated_gpu_switch
)");

extern "C" void simulated_gpu_switch(void **from, void *to);

Fiber *make_fiber(void (*entry)()) {
    constexpr int saved_registers = 6;
    // A function is entered with the stack 8 bytes off a multiple of 16.
    auto *top = reinterpret_cast<std::uintptr_t *>(static_cast<char *>(make_stack()) + stack_bytes) - 2;
    *top = reinterpret_cast<std::uintptr_t>(entry);
    auto *fiber = new Fiber;
    fiber->context = top - saved_registers;
    return fiber;
}

void switch_fiber(Fiber *from, Fiber *to) { simulated_gpu_switch(&from->context, to->context); }

#else

Fiber *make_fiber(void (*entry)()) {
    auto *context = new ucontext_t;
    getcontext(context);
    context->uc_stack.ss_sp = make_stack();
    context->uc_stack.ss_size = stack_bytes;
    context->uc_link = nullptr;
    makecontext(context, entry, 0);
    auto *fiber = new Fiber;
    fiber->context = context;
    return fiber;
}

void switch_fiber(Fiber *from, Fiber *to) {
    if (from->context == nullptr) from->context = new ucontext_t;
    swapcontext(static_cast<ucontext_t *>(from->context), static_cast<ucontext_t *>(to->context));
}

#endif

} // namespace simulated
