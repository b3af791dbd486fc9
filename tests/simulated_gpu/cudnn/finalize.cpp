#include <cstdlib>

#include "descriptor.hpp"

namespace simulated::dnn {
namespace {

/// The attributes of an operation's kind, from its first one on: alpha, beta, then the others in the order of `names`.
struct OperationNames {
    Pass pass;
    int alpha, beta, convolution, w, x, y;
};

OperationNames names_of(int kind) {
    switch (kind) {
    case forward_descriptor:
        return {Pass::forward, 700, 701, 702, 703, 704, 705};
    case input_gradient_descriptor:
        return {Pass::input_gradient, 706, 707, 708, 709, 710, 711};
    default:
        return {Pass::weight_gradient, 712, 713, 714, 715, 716, 717};
    }
}

int finalize_tensor(State &state) {
    const auto dimensions = state.integers(tensor_dimensions), strides = state.integers(tensor_strides);
    if (dimensions.size() != 4 || strides.size() != 4) return refuse(not_supported, "a tensor of other than 4 axes");
    for (std::int64_t dimension : dimensions) {
        if (dimension < 1) return refuse(bad_param, "a tensor with an empty axis");
    }
    if (state.integers(tensor_name).size() != 1) return refuse(bad_param, "a tensor without a unique id");
    const auto type = state.integers(tensor_data_type), alignment = state.integers(tensor_alignment);
    if (type.size() != 1 || alignment.size() != 1) return refuse(bad_param, "a tensor without a type or alignment");
    if (type[0] != f32 && type[0] != bf16) return refuse(not_supported, "a tensor of other than f32 or bf16");
    return success;
}

TensorShape shape_of(const State &tensor) {
    TensorShape shape;
    shape.type = static_cast<int>(tensor.integers(tensor_data_type)[0]);
    shape.name = tensor.integers(tensor_name)[0];
    shape.alignment = tensor.integers(tensor_alignment)[0];
    for (int axis = 0; axis < 4; axis++) {
        shape.dimensions[axis] = tensor.integers(tensor_dimensions)[axis];
        shape.strides[axis] = tensor.integers(tensor_strides)[axis];
    }
    return shape;
}

int finalize_convolution(State &state) {
    if (state.integers(conv_spatial_dims) != std::vector<std::int64_t>{2}) {
        return refuse(not_supported, "a convolution of other than 2 spatial axes");
    }
    for (int name : {conv_dilations, conv_strides, conv_post_paddings, conv_pre_paddings}) {
        if (state.integers(name).size() == 2) continue;
        return refuse(bad_param, "a convolution lacks strides, padding or dilation");
    }
    if (state.integers(conv_mode) != std::vector<std::int64_t>{1}) {
        return refuse(not_supported, "a convolution that is no cross-correlation");
    }
    return success;
}

int finalize_operation(State &state) {
    const OperationNames names = names_of(state.kind);
    const auto x = state.child(names.x), w = state.child(names.w), y = state.child(names.y);
    const auto parameters = state.child(names.convolution);
    if (!x || !w || !y || !parameters) return refuse(bad_param, "an operation without its tensors or its convolution");
    const auto convolution = std::make_shared<Convolution>();
    convolution->pass = names.pass;
    convolution->x = shape_of(*x);
    convolution->w = shape_of(*w);
    convolution->y = shape_of(*y);
    const auto pair = [&](int name) {
        const auto values = parameters->integers(name);
        return std::array<std::int64_t, 2>{values[0], values[1]};
    };
    convolution->stride = pair(conv_strides);
    convolution->pre_padding = pair(conv_pre_paddings);
    convolution->post_padding = pair(conv_post_paddings);
    convolution->dilation = pair(conv_dilations);
    convolution->alpha = state.number(names.alpha);
    convolution->beta = state.number(names.beta);
    const std::string inconsistency = convolution->inconsistency();
    if (!inconsistency.empty()) return refuse(shape_mismatch, inconsistency);
    state.convolution = convolution;
    return success;
}

/// Takes the operation from the child of this name.
int inherit(State &state, int name, const char *missing) {
    const auto child = state.child(name);
    if (!child || !child->convolution) return refuse(bad_param, missing);
    state.convolution = child->convolution;
    state.engine = child->engine;
    return success;
}

/// Reads back what `cudnnBackendGetAttribute` wrote: numbers between brackets.
int plan_from_json(State &state) {
    const auto &bytes = state.values.at(plan_json).bytes;
    const std::string text(bytes.begin(), bytes.end());
    const char *at = std::strchr(text.c_str(), '[');
    std::vector<std::int64_t> numbers;
    while (at != nullptr && *at != '\0' && *at != ']') {
        char *end;
        numbers.push_back(std::strtoll(at + 1, &end, 10));
        at = end;
    }
    if (numbers.size() != Convolution().numbers().size()) return refuse(bad_param, "no plan of this library");
    state.convolution = std::make_shared<Convolution>(Convolution::from_numbers(numbers));
    return success;
}

int finalize_plan(State &state) {
    const bool has_place = state.values.count(plan_handle) != 0 || state.child(plan_device);
    if (!has_place) return refuse(bad_param, "a plan without a handle");
    if (state.values.count(plan_json) != 0) return plan_from_json(state);
    const int status = inherit(state, plan_config, "a plan without an engine's configuration");
    if (status == success && !engines[state.engine].has_plan) return refuse(not_supported, "an engine without plans");
    return status;
}

int finalize_pack(State &state) {
    const bool same = state.integers(pack_names).size() == state.integers(pack_pointers).size();
    return same ? success : refuse(bad_param, "there are not as many addresses as unique ids");
}

} // namespace

int finalize(State &state) {
    switch (state.kind) {
    case tensor_descriptor:
        return finalize_tensor(state);
    case convolution_descriptor:
        return finalize_convolution(state);
    case forward_descriptor:
    case input_gradient_descriptor:
    case weight_gradient_descriptor:
        return finalize_operation(state);
    case graph_descriptor:
        return inherit(state, graph_operations, "a graph without an operation");
    case heuristics_descriptor:
        return inherit(state, heuristics_graph, "heuristics without a graph");
    case engine_descriptor:
        return inherit(state, engine_graph, "an engine without a graph");
    case engine_config_descriptor:
        return inherit(state, config_engine, "a configuration without an engine");
    case plan_descriptor:
        return finalize_plan(state);
    case variant_pack_descriptor:
        return finalize_pack(state);
    default:
        return success;
    }
}

} // namespace simulated::dnn
