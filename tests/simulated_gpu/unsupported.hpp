// Functions that programs link to and that are not simulated.
#pragma once

#include <cstdio>

/// A function that says once that it was called, and returns `result`. Its arguments are not looked at.
#define UNSUPPORTED(name, result)                                                                                      \
    extern "C" __attribute__((visibility("default"))) int name() {                                                     \
        static const int said = std::fprintf(stderr, "simulated GPU: " #name " is not simulated\n");                   \
        static_cast<void>(said);                                                                                       \
        return result;                                                                                                 \
    }
