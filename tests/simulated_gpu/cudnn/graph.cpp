// The functions of cuDNN's graph interface, and of its handles.
#include <algorithm>
#include <cstdio>
#include <string>

#include "../block.hpp"
#include "../memory.hpp"
#include "../statistics.hpp"
#include "descriptor.hpp"

using namespace simulated;
using namespace simulated::dnn;

#define CUDNN extern "C" __attribute__((visibility("default")))

namespace simulated::dnn {

static thread_local std::string refusal;

int refuse(int status, const std::string &why) {
    refusal = "simulated: " + why;
    return status;
}

const std::string &last_refusal() { return refusal; }

std::size_t size_of(int type) {
    switch (type) {
    case type_handle:
    case type_int64:
    case type_double:
    case type_pointer:
    case type_descriptor:
        return 8;
    case type_boolean:
    case type_char:
        return 1;
    default:
        return 4;
    }
}

std::vector<std::int64_t> State::integers(int name) const {
    const auto found = values.find(name);
    std::vector<std::int64_t> integers;
    if (found == values.end()) return integers;
    const Value &value = found->second;
    for (std::int64_t i = 0; i < value.count; i++) {
        const char *from = value.bytes.data() + static_cast<std::size_t>(i) * size_of(value.type);
        std::int64_t wide = 0;
        std::memcpy(&wide, from, size_of(value.type)); // little-endian: narrow types fill the low bytes
        integers.push_back(wide);
    }
    return integers;
}

float State::number(int name) const {
    const auto found = values.find(name);
    if (found == values.end()) return 0.0f;
    float narrow;
    double wide;
    std::memcpy(&narrow, found->second.bytes.data(), sizeof narrow);
    if (found->second.type != type_double) return narrow;
    std::memcpy(&wide, found->second.bytes.data(), sizeof wide);
    return static_cast<float>(wide);
}

std::shared_ptr<State> State::child(int name) const {
    const auto found = children.find(name);
    return found == children.end() ? nullptr : found->second;
}

namespace {

std::string plan_as_json(const Convolution &convolution) {
    std::string text = "{\"simulated_plan\": ", separator = "[";
    for (std::int64_t number : convolution.numbers()) {
        text += separator + std::to_string(number);
        separator = ", ";
    }
    return text + "]}";
}

/// Copies values out if there is room for any; the count is that of all there are, as the library counts.
template <typename T>
int give(const std::vector<T> &values, std::int64_t room, std::int64_t *count, void *to) {
    if (count != nullptr) *count = static_cast<std::int64_t>(values.size());
    const std::size_t some = std::min(values.size(), static_cast<std::size_t>(std::max<std::int64_t>(room, 0)));
    if (to != nullptr && some > 0) std::memcpy(to, values.data(), some * sizeof(T));
    return success;
}

/// Fills the caller's descriptors with those of engines, from `first` on, as many as there is room for.
int give_engines(const State &parent, int kind, std::size_t first, std::size_t number, std::int64_t room,
                 std::int64_t *count, void *to) {
    if (count != nullptr) *count = static_cast<std::int64_t>(number);
    for (std::size_t i = 0; to != nullptr && i < number && static_cast<std::int64_t>(i) < room; i++) {
        Descriptor *descriptor = static_cast<Descriptor **>(to)[i];
        if (descriptor == nullptr || descriptor->state->kind != kind) {
            return refuse(wrong_descriptor_type, "the caller's descriptor is of another kind");
        }
        descriptor->state->convolution = parent.convolution;
        descriptor->state->engine = first + i;
        descriptor->state->is_final = true;
    }
    return success;
}

/// Bfloat16 is multiplied by tensor cores, f32 is not.
std::vector<int> numerical_notes(const State &engine) {
    constexpr int tensor_core = 0, nondeterministic = 4;
    std::vector<int> notes;
    if (engine.convolution->x.type == bf16) notes.push_back(tensor_core);
    if (!engines[engine.engine].is_deterministic) notes.push_back(nondeterministic);
    return notes;
}

/// The tensors' addresses in the order x, w, y.
int addresses(const Convolution &convolution, const State &pack, void *(&found)[3]) {
    const auto names = pack.integers(pack_names), pointers = pack.integers(pack_pointers);
    const TensorShape *shapes[] = {&convolution.x, &convolution.w, &convolution.y};
    for (int i = 0; i < 3; i++) {
        const auto name = std::find(names.begin(), names.end(), shapes[i]->name);
        if (name == names.end()) return refuse(bad_param, "a tensor has no address");
        const std::int64_t address = pointers[static_cast<std::size_t>(name - names.begin())];
        if (address % shapes[i]->alignment != 0) return refuse(misaligned_pointer, "an address is not aligned as said");
        found[i] = reinterpret_cast<void *>(address);
        require_device_memory(found[i], shapes[i]->bytes(), "a tensor of cuDNN");
    }
    return success;
}

} // namespace
} // namespace simulated::dnn

CUDNN std::size_t cudnnGetVersion() { return 91900; }
CUDNN std::size_t cudnnGetCudartVersion() { return 13000; }

CUDNN const char *cudnnGetErrorString(int status) {
    return status == success ? "CUDNN_STATUS_SUCCESS" : "CUDNN_STATUS of the simulated library";
}

CUDNN void cudnnGetLastErrorString(char *text, std::size_t room) {
    std::snprintf(text, room, "%s", last_refusal().c_str());
}

CUDNN int cudnnCreate(void **handle) {
    *handle = new char;
    return success;
}

CUDNN int cudnnDestroy(void *handle) {
    delete static_cast<char *>(handle);
    return success;
}

CUDNN int cudnnSetStream(void *, void *) { return success; }

CUDNN int cudnnBackendCreateDescriptor(int kind, Descriptor **descriptor) {
    *descriptor = new Descriptor{std::make_shared<State>()};
    (*descriptor)->state->kind = kind;
    return success;
}

CUDNN int cudnnBackendDestroyDescriptor(Descriptor *descriptor) {
    delete descriptor;
    return success;
}

CUDNN int cudnnBackendSetAttribute(Descriptor *descriptor, int name, int type, std::int64_t count, const void *values) {
    if (descriptor == nullptr || (values == nullptr && count > 0)) return refuse(null_pointer, "a null pointer");
    State &state = *descriptor->state;
    if (state.is_final) return refuse(bad_param, "an attribute is set after the descriptor was finalised");
    if (type == type_descriptor) {
        if (count != 1) return refuse(not_supported, "other than one descriptor in an attribute");
        const auto *child = *static_cast<Descriptor *const *>(values);
        if (child == nullptr || !child->state->is_final) {
            return refuse(not_finalized, "a descriptor is used that is not finalised");
        }
        state.children[name] = child->state;
        return success;
    }
    const auto *bytes = static_cast<const char *>(values);
    state.values[name] = {type, count, {bytes, bytes + static_cast<std::size_t>(count) * size_of(type)}};
    return success;
}

CUDNN int cudnnBackendFinalize(Descriptor *descriptor) {
    if (descriptor == nullptr) return refuse(null_pointer, "a null pointer");
    const int status = finalize(*descriptor->state);
    descriptor->state->is_final = status == success;
    return status;
}

CUDNN int cudnnBackendGetAttribute(Descriptor *descriptor, int name, int, std::int64_t room, std::int64_t *count,
                                   void *values) {
    if (descriptor == nullptr) return refuse(null_pointer, "a null pointer");
    const State &state = *descriptor->state;
    if (!state.is_final) return refuse(not_finalized, "an attribute is read before the descriptor was finalised");
    switch (name) {
    case heuristics_results:
        return give_engines(state, engine_config_descriptor, 0, num_engines, room, count, values);
    case config_engine:
        return give_engines(state, engine_descriptor, state.engine, 1, room, count, values);
    case engine_index:
        return give(std::vector<std::int64_t>{static_cast<std::int64_t>(state.engine)}, room, count, values);
    case engine_numerical_note:
        return give(numerical_notes(state), room, count, values);
    case engine_behavior_note:
        return give(std::vector<int>(), room, count, values);
    case plan_workspace_size:
        return give(std::vector<std::int64_t>{engines[state.engine].workspace_bytes}, room, count, values);
    case plan_json: {
        const std::string text = plan_as_json(*state.convolution);
        return give(std::vector<char>(text.begin(), text.end()), room, count, values);
    }
    default:
        return refuse(not_supported, "attribute " + std::to_string(name) + " cannot be read");
    }
}

CUDNN int cudnnBackendExecute(void *handle, Descriptor *plan, Descriptor *pack) {
    if (handle == nullptr || plan == nullptr || pack == nullptr) return refuse(null_pointer, "a null pointer");
    if (!plan->state->is_final || !pack->state->is_final) return refuse(not_finalized, "a plan that is not finalised");
    const auto workspace = pack->state->integers(pack_workspace);
    if (workspace.size() != 1 || workspace[0] == 0) return refuse(null_pointer, "a plan without its working memory");
    const Engine &engine = engines[plan->state->engine];
    const auto workspace_bytes = static_cast<std::size_t>(engine.workspace_bytes);
    void *scratch = reinterpret_cast<void *>(workspace[0]);
    require_device_memory(scratch, workspace_bytes, "working memory of cuDNN");
    const Convolution &convolution = *plan->state->convolution;
    void *tensors[3];
    const int status = addresses(convolution, *pack->state, tensors);
    if (status != success) return status;
    std::memset(scratch, 0xff, workspace_bytes); // what lies in it is lost
    if (!is_idle()) convolution.run(tensors[0], tensors[1], tensors[2]);
    for (const void *tensor : tensors) check_guards(tensor, "a convolution of cuDNN");
    pass_time(engine.microseconds);
    const std::string pass = convolution.pass == Pass::forward          ? "cudnn_forward"
                             : convolution.pass == Pass::input_gradient ? "cudnn_input_gradient"
                                                                        : "cudnn_weight_gradient";
    count_launch(pass + ", engine " + std::to_string(plan->state->engine));
    return success;
}
