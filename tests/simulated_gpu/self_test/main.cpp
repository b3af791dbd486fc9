// Tests of the kernels against plain f64 references, in several orders of threads.
#include "harness.hpp"

#include <map>

namespace test {
namespace {

struct Result {
    double error = 0.0, bound = 0.0;
    unsigned cases = 0, failures = 0;
};

std::map<std::string, Result> &results() {
    static std::map<std::string, Result> results;
    return results;
}

} // namespace

void check(const std::string &quantity, double error, double bound) {
    Result &result = results()[quantity];
    result.error = std::max(result.error, error);
    result.bound = bound;
    result.cases++;
    if (!(error <= bound)) result.failures++;
}

void require(const std::string &what, bool holds) { check(what, holds ? 0.0 : INFINITY, 0.0); }

bool report() {
    unsigned exact = 0, failures = 0;
    for (const auto &[quantity, result] : results()) {
        const bool failed = result.failures > 0, is_exact = result.bound == 0.0;
        exact += is_exact && !failed;
        failures += failed;
        if (is_exact && !failed) continue;
        std::printf("%-50s %5u cases  worst %7.1e  bound %7.1e  %s\n", quantity.c_str(), result.cases, result.error,
                    result.bound, failed ? "FAILED" : "ok");
    }
    std::printf("%u more hold exactly; %u of %zu failed\n", exact, failures, results().size());
    return failures == 0;
}

std::vector<unsigned char> same_in_any_order(const std::string &what,
                                             const std::function<std::vector<unsigned char>()> &outputs) {
    simulated::set_seed(0);
    const std::vector<unsigned char> expected = outputs();
    for (unsigned seed = 1; seed <= 2; seed++) {
        simulated::set_seed(seed);
        require(what + ": same bits in any order", outputs() == expected);
    }
    simulated::set_seed(0);
    return expected;
}

} // namespace test

int main() {
    test::batch_norm();
    test::pool();
    test::elementwise();
    test::weights();
    test::loss();
    test::update();
    test::images();
    test::device();
    test::libraries();
    test::convolution();
    simulated::check_all_guards("after the tests");
    return test::report() ? 0 : 1;
}
