#include "statistics.hpp"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "memory.hpp"

namespace simulated {
namespace {

struct Statistics {
    std::mutex mutex;
    std::map<std::string, std::size_t> launches;
    std::chrono::microseconds passed{0};
    std::size_t synchronisations = 0, copies_to_device = 0, bytes_to_device = 0, copies_to_host = 0, bytes_to_host = 0;
};

/// Never destroyed: programs use the device while they end.
Statistics &statistics() {
    static auto *statistics = new Statistics;
    return *statistics;
}

struct AtExit {
    ~AtExit() {
        const char *path = std::getenv("SIMULATED_GPU_STATS");
        std::FILE *file = path == nullptr ? nullptr : std::fopen(path, "w");
        if (file == nullptr) return;
        const Statistics &all = statistics();
        std::fprintf(file,
                     "{\"synchronisations\": %zu, \"copies_to_device\": %zu, \"bytes_to_device\": %zu, "
                     "\"copies_to_host\": %zu, \"bytes_to_host\": %zu, \"peak_bytes\": %zu, \"launches\": {",
                     all.synchronisations, all.copies_to_device, all.bytes_to_device, all.copies_to_host,
                     all.bytes_to_host, peak_bytes());
        const char *separator = "";
        for (const auto &[kernel, count] : all.launches) {
            std::fprintf(file, "%s\"%s\": %zu", separator, kernel.c_str(), count);
            separator = ", ";
        }
        std::fprintf(file, "}}\n");
        std::fclose(file);
    }
} at_exit;

} // namespace

void count_launch(const std::string &kernel) {
    const std::lock_guard lock(statistics().mutex);
    statistics().launches[kernel]++;
}

void count_synchronisation() {
    const std::lock_guard lock(statistics().mutex);
    statistics().synchronisations++;
}

void pass_time(int microseconds) {
    const std::lock_guard lock(statistics().mutex);
    statistics().passed += std::chrono::microseconds(microseconds);
}

std::chrono::microseconds passed_time() {
    const std::lock_guard lock(statistics().mutex);
    return statistics().passed;
}

void count_to_device(std::size_t bytes) {
    const std::lock_guard lock(statistics().mutex);
    statistics().copies_to_device++;
    statistics().bytes_to_device += bytes;
}

void count_to_host(std::size_t bytes) {
    const std::lock_guard lock(statistics().mutex);
    statistics().copies_to_host++;
    statistics().bytes_to_host += bytes;
}

} // namespace simulated
