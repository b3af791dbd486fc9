// Descriptors of cuDNN's graph interface: attributes by number, checked when they are finalised.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "convolution.hpp"

namespace simulated::dnn {

/// cudnnStatus_t.
enum Status : int {
    success = 0,
    bad_param = 2000,
    null_pointer = 2002,
    misaligned_pointer = 2003,
    not_finalized = 2004,
    size_insufficient = 2006,
    shape_mismatch = 2008,
    wrong_attribute_type = 2010,
    wrong_descriptor_type = 2012,
    not_supported = 3000,
};

/// cudnnBackendDescriptorType_t.
enum Kind : int {
    convolution_descriptor = 1,
    engine_descriptor = 2,
    engine_config_descriptor = 3,
    heuristics_descriptor = 4,
    plan_descriptor = 5,
    forward_descriptor = 10,
    weight_gradient_descriptor = 11,
    input_gradient_descriptor = 12,
    graph_descriptor = 15,
    variant_pack_descriptor = 16,
    tensor_descriptor = 17,
    device_descriptor = 38,
};

/// cudnnBackendAttributeType_t.
enum AttributeType : int {
    type_handle = 0,
    type_data_type = 1,
    type_boolean = 2,
    type_int64 = 3,
    type_float = 4,
    type_double = 5,
    type_pointer = 6,
    type_numerical_note = 11,
    type_descriptor = 15,
    type_behavior_note = 19,
    type_char = 24,
};

/// cudnnBackendAttributeName_t.
enum Name : int {
    conv_dilations = 102,
    conv_strides = 103,
    conv_post_paddings = 104,
    conv_pre_paddings = 105,
    conv_mode = 101,
    conv_spatial_dims = 106,
    heuristics_mode = 200,
    heuristics_graph = 201,
    heuristics_results = 202,
    config_engine = 300,
    plan_handle = 400,
    plan_config = 401,
    plan_workspace_size = 402,
    plan_json = 405,
    plan_device = 407,
    graph_operations = 801,
    tensor_alignment = 900,
    tensor_data_type = 901,
    tensor_dimensions = 902,
    tensor_strides = 903,
    tensor_name = 906,
    pack_names = 1000,
    pack_pointers = 1001,
    pack_workspace = 1003,
    engine_graph = 1300,
    engine_index = 1301,
    engine_numerical_note = 1303,
    engine_behavior_note = 1305,
    device_json = 2702,
};

struct Value {
    int type;
    std::int64_t count;
    std::vector<char> bytes;
};

struct State;

/// What a caller holds. Parents keep the state of their children, so a child's handle may go.
struct Descriptor {
    std::shared_ptr<State> state;
};

struct State {
    int kind = 0;
    bool is_final = false;
    std::map<int, Value> values;
    std::map<int, std::shared_ptr<State>> children;
    /// Of operations, and of everything that is made of one.
    std::shared_ptr<Convolution> convolution;
    /// Of configurations and what is made of them: place among the engines.
    std::size_t engine = 0;

    std::vector<std::int64_t> integers(int name) const;
    float number(int name) const;
    std::shared_ptr<State> child(int name) const;
};

/// Keeps what is said for cudnnGetLastErrorString and returns `status`.
int refuse(int status, const std::string &why);
const std::string &last_refusal();

/// Checks a descriptor, and works out what follows from its attributes.
int finalize(State &state);

/// Bytes of one value of a type; 0 for types that are not simulated.
std::size_t size_of(int type);

/// An engine as the heuristics propose it. All compute the same.
struct Engine {
    /// Working memory: not needed, but asked for, so that callers are seen to give it.
    std::int64_t workspace_bytes;
    /// What a convolution is said to take.
    int microseconds;
    bool is_deterministic, has_plan;
};

/// In the order of the heuristics. One that wants reproducible results, a plan and little memory finds that the third is
/// the first of them and the fourth the fastest.
constexpr Engine engines[] = {
    {4096, 100, false, true},    {4096, 100, true, false},           {4096, 3000, true, true},
    {16384, 1000, true, true},   {std::int64_t{1} << 40, 500, true, true},
};
constexpr std::size_t num_engines = sizeof engines / sizeof engines[0];

} // namespace simulated::dnn
