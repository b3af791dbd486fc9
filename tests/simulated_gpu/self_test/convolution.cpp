// Tests of the convolutions through cuDNN's graph interface, as programs call it.
#include "../cudnn/descriptor.hpp"
#include "harness.hpp"

extern "C" {
int cudnnCreate(void **handle);
int cudnnDestroy(void *handle);
int cudnnBackendCreateDescriptor(int kind, simulated::dnn::Descriptor **descriptor);
int cudnnBackendDestroyDescriptor(simulated::dnn::Descriptor *descriptor);
int cudnnBackendSetAttribute(simulated::dnn::Descriptor *descriptor, int name, int type, std::int64_t count,
                             const void *values);
int cudnnBackendGetAttribute(simulated::dnn::Descriptor *descriptor, int name, int type, std::int64_t room,
                             std::int64_t *count, void *values);
int cudnnBackendFinalize(simulated::dnn::Descriptor *descriptor);
int cudnnBackendExecute(void *handle, simulated::dnn::Descriptor *plan, simulated::dnn::Descriptor *pack);
}

namespace test {
namespace {

using namespace simulated::dnn;

/// A descriptor that is filled by calls one after the other; `status` is the first that is not a success.
class Graph {
  public:
    explicit Graph(int kind) { status = cudnnBackendCreateDescriptor(kind, &raw); }
    Graph(const Graph &) = delete;
    Graph &operator=(const Graph &) = delete;
    ~Graph() { cudnnBackendDestroyDescriptor(raw); }

    template <typename T> Graph &set(int name, int type, const std::vector<T> &values) {
        return note(cudnnBackendSetAttribute(raw, name, type, static_cast<std::int64_t>(values.size()), values.data()));
    }
    Graph &child(int name, const Graph &other) {
        return set(name, type_descriptor, std::vector<Descriptor *>{other.raw});
    }
    Graph &finalize() { return note(cudnnBackendFinalize(raw)); }
    template <typename T> std::vector<T> get(int name, int type, std::int64_t room) {
        std::vector<T> values(static_cast<std::size_t>(room));
        std::int64_t count = 0;
        note(cudnnBackendGetAttribute(raw, name, type, room, &count, values.data()));
        values.resize(static_cast<std::size_t>(std::min(room, count)));
        return values;
    }

    Descriptor *raw = nullptr;
    int status;

  private:
    Graph &note(int result) {
        status = status == success ? result : status;
        return *this;
    }
};

/// One convolution; pairs are height and width.
struct Shape {
    std::int64_t images, height, width, c_in, c_out, kernel, stride, padding, dilation, groups;

    std::int64_t out(std::int64_t length) const {
        return (length + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
    }
    std::int64_t per_group() const { return c_in / groups; }
    std::size_t x_len() const { return static_cast<std::size_t>(images * height * width * c_in); }
    std::size_t w_len() const { return static_cast<std::size_t>(c_out * kernel * kernel * per_group()); }
    std::size_t y_len() const { return static_cast<std::size_t>(images * out(height) * out(width) * c_out); }

    /// Calls `visit(offset in x, in w, in y)`, all channels-last, for every product of the convolution.
    template <typename Visit> void for_each_product(Visit visit) const {
        for (std::int64_t n = 0; n < images; n++)
            for (std::int64_t oy = 0; oy < out(height); oy++)
                for (std::int64_t ox = 0; ox < out(width); ox++)
                    for (std::int64_t k = 0; k < c_out; k++)
                        for (std::int64_t ky = 0; ky < kernel; ky++)
                            for (std::int64_t kx = 0; kx < kernel; kx++)
                                for (std::int64_t c = 0; c < per_group(); c++) {
                                    const std::int64_t y = oy * stride - padding + ky * dilation;
                                    const std::int64_t x = ox * stride - padding + kx * dilation;
                                    if (y < 0 || y >= height || x < 0 || x >= width) continue;
                                    const std::int64_t channel = k / (c_out / groups) * per_group() + c;
                                    visit(((n * height + y) * width + x) * c_in + channel,
                                          ((k * kernel + ky) * kernel + kx) * per_group() + c,
                                          ((n * out(height) + oy) * out(width) + ox) * c_out + k);
                                }
    }
};

constexpr std::int64_t x_name = 1, w_name = 2, y_name = 3;

Graph &describe(Graph &tensor, int type, std::int64_t name, std::int64_t n, std::int64_t c, std::int64_t h,
                std::int64_t w) {
    using Integers = std::vector<std::int64_t>;
    return tensor.set(tensor_data_type, type_data_type, std::vector<int>{type})
        .set(tensor_dimensions, type_int64, Integers{n, c, h, w})
        .set(tensor_strides, type_int64, Integers{h * w * c, 1, w * c, c})
        .set(tensor_name, type_int64, Integers{name})
        .set(tensor_alignment, type_int64, Integers{16})
        .finalize();
}

/// Kind of the operation and its attributes alpha, beta, convolution, w, x, y.
struct Names {
    int kind, alpha, beta, convolution, w, x, y;
};
constexpr Names names[] = {{forward_descriptor, 700, 701, 702, 703, 704, 705},
                           {input_gradient_descriptor, 706, 707, 708, 709, 710, 711},
                           {weight_gradient_descriptor, 712, 713, 714, 715, 716, 717}};

/// A plan for one pass, ready or refused.
struct Plan {
    Graph x{tensor_descriptor}, w{tensor_descriptor}, y{tensor_descriptor}, convolution{convolution_descriptor};
    Graph operation, graph{graph_descriptor}, heuristics{heuristics_descriptor}, config{engine_config_descriptor};
    Graph plan{plan_descriptor};

    Plan(void *handle, const Shape &s, Pass pass, int type, float alpha, float beta, std::int64_t y_rows)
        : operation(names[static_cast<int>(pass)].kind) {
        using Integers = std::vector<std::int64_t>;
        const Names &name = names[static_cast<int>(pass)];
        describe(x, type, x_name, s.images, s.c_in, s.height, s.width);
        describe(w, type, w_name, s.c_out, s.per_group(), s.kernel, s.kernel);
        describe(y, type, y_name, s.images, s.c_out, y_rows, s.out(s.width));
        convolution.set(conv_spatial_dims, type_int64, Integers{2}).set(conv_mode, 7, std::vector<int>{1});
        for (int padding : {conv_pre_paddings, conv_post_paddings}) {
            convolution.set(padding, type_int64, Integers{s.padding, s.padding});
        }
        convolution.set(conv_strides, type_int64, Integers{s.stride, s.stride})
            .set(conv_dilations, type_int64, Integers{s.dilation, s.dilation})
            .finalize();
        operation.child(name.x, x).child(name.w, w).child(name.y, y).child(name.convolution, convolution);
        operation.set(name.alpha, type_float, std::vector<float>{alpha})
            .set(name.beta, type_float, std::vector<float>{beta})
            .finalize();
        graph.child(graph_operations, operation).set(800, type_handle, std::vector<void *>{handle}).finalize();
        heuristics.child(heuristics_graph, graph).set(heuristics_mode, 8, std::vector<int>{2}).finalize();
        std::int64_t count = 0;
        cudnnBackendGetAttribute(heuristics.raw, heuristics_results, type_descriptor, 1, &count, &config.raw);
        plan.child(plan_config, config).set(plan_handle, type_handle, std::vector<void *>{handle}).finalize();
    }
};

/// Runs a plan, then the plan that its JSON gives, on the same tensors, and says whether both succeed.
int execute(void *handle, Plan &plan, void *x, void *w, void *y) {
    const Buffer<unsigned char> workspace(
        static_cast<std::size_t>(plan.plan.get<std::int64_t>(plan_workspace_size, type_int64, 1)[0]));
    Graph pack(variant_pack_descriptor);
    pack.set(pack_names, type_int64, std::vector<std::int64_t>{x_name, w_name, y_name})
        .set(pack_pointers, type_pointer, std::vector<void *>{x, w, y})
        .set(pack_workspace, type_pointer, std::vector<void *>{workspace.get()})
        .finalize();
    const std::vector<char> json = plan.plan.get<char>(plan_json, type_char, 10000);
    Graph again(plan_descriptor);
    again.set(plan_json, type_char, json).set(plan_handle, type_handle, std::vector<void *>{handle}).finalize();
    require("cudnn: a plan comes back from its JSON", again.status == success);
    return cudnnBackendExecute(handle, again.raw, pack.raw);
}

template <typename T> void compare(const Shape &s, Pass pass, float alpha, float beta) {
    Random random(41);
    const std::vector<T> x = random.vector<T>(s.x_len()), w = random.vector<T>(s.w_len());
    const std::vector<T> y = random.vector<T>(s.y_len());
    std::vector<double> sums(pass == Pass::forward ? s.y_len() : pass == Pass::input_gradient ? s.x_len() : s.w_len());
    s.for_each_product([&](std::int64_t i, std::int64_t j, std::int64_t k) {
        if (pass == Pass::forward) sums[k] += static_cast<double>(widen(x[i])) * widen(w[j]);
        if (pass == Pass::input_gradient) sums[i] += static_cast<double>(widen(y[k])) * widen(w[j]);
        if (pass == Pass::weight_gradient) sums[j] += static_cast<double>(widen(y[k])) * widen(x[i]);
    });
    const std::vector<T> &old = pass == Pass::forward ? y : pass == Pass::input_gradient ? x : w;
    for (std::size_t i = 0; i < sums.size(); i++) sums[i] = alpha * sums[i] + beta * widen(old[i]);
    const Buffer<T> device_x(x), device_w(w), device_y(y);
    void *handle = nullptr;
    cudnnCreate(&handle);
    Plan plan(handle, s, pass, sizeof(T) == 4 ? f32 : simulated::dnn::bf16, alpha, beta, s.out(s.height));
    require("cudnn: a plan", plan.plan.status == success);
    require("cudnn: runs", execute(handle, plan, device_x, device_w, device_y) == success);
    cudnnDestroy(handle);
    const Buffer<T> &result = pass == Pass::forward ? device_y : pass == Pass::input_gradient ? device_x : device_w;
    const char *const passes[] = {"forward", "input gradient", "weight gradient"};
    const double terms = std::sqrt(static_cast<double>(s.kernel * s.kernel * s.c_in));
    check(std::string("cudnn: ") + passes[static_cast<int>(pass)] + ", " + suffix<T>(),
          worst_error(result.host(), sums, terms), rounding<T>() + 2e-6);
}

/// Sizes that do not belong together must be refused, as the library refuses them.
void refusals() {
    const Shape s{1, 8, 8, 8, 8, 3, 1, 1, 1, 1};
    void *handle = nullptr;
    cudnnCreate(&handle);
    const Plan plan(handle, s, Pass::forward, f32, 1.0f, 0.0f, s.out(s.height) + 1);
    require("cudnn: refuses sizes that do not fit",
            plan.operation.status == shape_mismatch && plan.plan.status != success);
    Graph tensor(tensor_descriptor);
    require("cudnn: refuses an empty tensor", describe(tensor, f32, x_name, 0, 1, 1, 1).status == bad_param);
    cudnnDestroy(handle);
}

} // namespace

void convolution() {
    const Shape shapes[] = {
        {2, 7, 6, 8, 16, 3, 1, 1, 1, 1}, {1, 9, 8, 8, 8, 3, 2, 1, 1, 1},   {2, 5, 5, 24, 8, 1, 2, 0, 1, 1},
        {1, 9, 9, 8, 12, 3, 1, 2, 2, 4}, {1, 16, 16, 8, 8, 7, 2, 3, 1, 1}, {1, 6, 6, 6, 6, 3, 1, 1, 1, 6},
    };
    for (Pass pass : {Pass::forward, Pass::input_gradient, Pass::weight_gradient}) {
        for (const Shape &s : shapes) {
            compare<float>(s, pass, 1.0f, 0.0f);
            compare<bf16>(s, pass, 1.0f, 0.0f);
        }
        compare<float>({1, 6, 6, 8, 8, 3, 1, 1, 1, 1}, pass, 0.5f, 1.0f);
    }
    refusals();
}

} // namespace test
