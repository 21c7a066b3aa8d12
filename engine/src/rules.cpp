// What operators demand and give (docs/numerics.md, section 4), and what makes a graph whole (docs/format.md, "Graph").
#include <algorithm>

#include "fault.h"
#include "model.h"

namespace mpq {
namespace {

constexpr int bit(Role role) { return 1 << static_cast<int>(role); }

struct Needs {
  int required, optional;
  size_t min_inputs, max_inputs;
};

Needs needs(Op op) {
  switch (op) {
    case Op::conv:
      return {bit(Role::weight) | bit(Role::multiplier) | bit(Role::bias),
              bit(Role::slope) | bit(Role::post) | bit(Role::gain) | bit(Role::threshold), 1, 2};
    case Op::threshold: return {bit(Role::threshold), 0, 1, 1};
    case Op::requantise: return {bit(Role::multiplier) | bit(Role::bias), 0, 1, 1};
    case Op::concat: return {0, 0, 2, 16};
    default: return {0, 0, 1, 1};
  }
}

bool reads(Op op, DType type) {
  switch (op) {
    case Op::conv: return type != DType::s16;
    case Op::threshold:
    case Op::avgpool2: return type == DType::s16;
    case Op::requantise: return type == DType::s16 || type == DType::u8;
    case Op::maxpool: return type != DType::u8;
    default: return true;
  }
}

void per_channel(const Model& model, const Node& node, Role role, int channels, const std::string& where) {
  const int index = node.constant(role);
  if (index < 0) return;
  const Constant& constant = model.constants[index];
  need(constant.type == WType::i16, where, "a constant that must be i16 is not");
  need(constant.shape.size() == 1 && constant.shape[0] == channels, where, "a constant does not have one value a channel");
  if (role == Role::multiplier || role == Role::slope || role == Role::gain)
    need(std::find(constant.i16(), constant.i16() + channels, -32768) == constant.i16() + channels, where,
         "multiplier, slope or gain holds -32768");
}

std::vector<Typed> conv(const Model& model, const Node& node, const std::vector<Typed>& inputs, const std::string& where) {
  const Shape x = inputs[0].shape;
  const Constant& weight = model.constants[node.constant(Role::weight)];
  const int k = node.kernel, largest = weight.type == WType::w1 ? 1 : weight.type == WType::w4 ? 7 : 127;
  need(weight.type != WType::i16, where, "the weight is i16, must be w1, w4 or w8");
  need(weight.shape.size() == 4 && weight.shape[1] == k && weight.shape[2] == k && weight.shape[3] == x.channels, where,
       "the weight's shape is not [O, kernel, kernel, C]");
  need(node.pad < k, where, "pad must be less than kernel");
  const int code = inputs[0].type == DType::u8 ? 255 : inputs[0].type == DType::u4 ? 15 : 1;
  need(int64_t{x.channels} * k * k * largest * code < int64_t{1} << 31, where, "the sum can reach 2^31");
  need(std::min(x.height, x.width) + 2 * node.pad >= k, where, "the kernel does not fit into the map");
  const Shape out{weight.shape[0], (x.height + 2 * node.pad - k) / node.stride + 1,
                  (x.width + 2 * node.pad - k) / node.stride + 1};
  for (const Role role : {Role::multiplier, Role::bias, Role::slope, Role::post, Role::threshold})
    per_channel(model, node, role, out.channels, where);
  const auto writes = [&node](DType type) {
    return std::find(node.output_types.begin(), node.output_types.end(), type) != node.output_types.end();
  };
  need((node.constant(Role::threshold) >= 0) == writes(DType::b1), where, "'threshold' is there exactly with a b1 output");
  need((node.fraction >= 0) == writes(DType::u4), where, "'fraction' is there exactly with a u4 output");
  need((node.residual_last >= 0) == (inputs.size() == 2), where, "'residual_last' is there exactly with a residual");
  if (inputs.size() == 2) {
    const Typed& r = inputs[1];
    need(r.type == DType::s16, where, "the residual must be s16");
    need(r.shape.height == out.height && r.shape.width == out.width, where, "the residual has another size than the output");
    const auto [small, large] = std::minmax(r.shape.channels, out.channels);
    need(large % small == 0, where, "the channels of residual and output do not divide each other");
    per_channel(model, node, Role::gain, r.shape.channels, where);
  } else {
    need(node.constant(Role::gain) < 0, where, "'gain' needs a residual");
  }
  std::vector<Typed> result;
  for (const DType type : node.output_types) result.push_back({type, out});
  return result;
}

void check_shape(const Shape& shape, const std::string& where) {
  need(shape.channels <= kMaxChannels, where, "more than 4096 channels");
  need(shape.height <= kMaxEdge && shape.width <= kMaxEdge, where, "a map higher or wider than 8192");
  need(int64_t{shape.channels} * shape.height * shape.width <= kMaxElements, where, "a tensor of more than 2^28 elements");
}

void check_weights(const Constant& constant) {
  if (constant.type != WType::w4 && constant.type != WType::w8) return;
  const int least = constant.type == WType::w4 ? -8 : -128;
  bool found = false;
  for (size_t i = 0; i < constant.count; i++) found |= weight_at(constant.type, constant.data, i) == least;
  if (found) throw Fault("constant '" + constant.name + "': -8 and -128 are not weights");
}

void check_decode(const Model& model) {
  const Shape input = model.tensors[model.input].shape;
  int last = 0;
  for (const Level& level : model.levels) {
    const int stride = level.stride;
    const std::string where = "decode level of stride " + std::to_string(stride);
    need((stride & (stride - 1)) == 0 && stride > last, where, "strides must be powers of two, ascending");
    last = stride;
    need(input.height % stride == 0 && input.width % stride == 0, where, "does not divide the input size");
    const auto check = [&](int index, int channels) {
      const Tensor& t = model.tensors[index];
      need(std::find(model.outputs.begin(), model.outputs.end(), index) != model.outputs.end(), where,
           "a map is no output of the graph");
      need(t.type == DType::s16, where, "a map is not s16");
      need(t.shape == Shape{channels, input.height / stride, input.width / stride}, where,
           "a map has another shape than the level");
    };
    check(level.distance, 4);
    check(level.logit, static_cast<int>(model.classes.size()));
  }
}

}  // namespace

std::vector<Typed> infer(const Model& model, const Node& node, const std::vector<Typed>& inputs) {
  const std::string where = "node '" + node.name + "'";
  const Needs want = needs(node.op);
  need(inputs.size() >= want.min_inputs && inputs.size() <= want.max_inputs, where, "wrong number of inputs");
  need(reads(node.op, inputs[0].type), where, "the operator does not read this dtype");
  int roles = 0;
  for (int i = 0; i < kRoles; i++) roles |= node.constants[i] >= 0 ? 1 << i : 0;
  need((roles & want.required) == want.required, where, "a constant is missing");
  need((roles & ~(want.required | want.optional)) == 0, where, "a constant that the operator does not have");

  const Shape x = inputs[0].shape;
  std::vector<Typed> result;
  switch (node.op) {
    case Op::conv: result = conv(model, node, inputs, where); break;
    case Op::threshold:
      per_channel(model, node, Role::threshold, x.channels, where);
      result = {{DType::b1, x}};
      break;
    case Op::requantise:
      per_channel(model, node, Role::multiplier, x.channels, where);
      per_channel(model, node, Role::bias, x.channels, where);
      result = {{DType::u4, x}};
      break;
    case Op::avgpool2:
      need(x.height % 2 == 0 && x.width % 2 == 0, where, "height and width must be even");
      result = {{DType::s16, {x.channels, x.height / 2, x.width / 2}}};
      break;
    case Op::maxpool: result = {inputs[0]}; break;
    case Op::upsample2: result = {{inputs[0].type, {x.channels, 2 * x.height, 2 * x.width}}}; break;
    case Op::concat: {
      Shape sum{0, x.height, x.width};
      for (const Typed& input : inputs) {
        need(input.type == inputs[0].type, where, "the inputs have different dtypes");
        need(input.shape.height == x.height && input.shape.width == x.width, where, "the inputs differ in height or width");
        sum.channels += input.shape.channels;
      }
      result = {{inputs[0].type, sum}};
      break;
    }
  }
  need(result.size() == node.outputs.size(), where, "wrong number of outputs");
  for (const Typed& output : result) check_shape(output.shape, where);
  return result;
}

void check_graph(const Model& model) {
  const Tensor& input = model.tensors[model.input];
  need(input.type == DType::u8 && input.shape.channels == 3, "the graph's input must be u8 with 3 channels");
  for (const Tensor& tensor : model.tensors) check_shape(tensor.shape, "tensor '" + tensor.name + "'");
  for (const Constant& constant : model.constants) check_weights(constant);

  std::vector<char> written(model.tensors.size()), read(model.tensors.size()), used(model.constants.size());
  written[model.input] = 1;
  for (const Node& node : model.nodes) {
    const std::string where = "node '" + node.name + "'";
    std::vector<Typed> inputs;
    for (const int i : node.inputs) {
      need(written[i], where, "reads a tensor before it is written");
      read[i] = 1;
      inputs.push_back({model.tensors[i].type, model.tensors[i].shape});
    }
    for (const int i : node.constants)
      if (i >= 0) used[i] = 1;
    const std::vector<Typed> outputs = infer(model, node, inputs);
    if (node.op == Op::concat)
      for (const int i : node.inputs) {
        const Tensor &first = model.tensors[node.inputs[0]], &other = model.tensors[i];
        need(first.type == DType::b1 || first.type == DType::u8 || first.scale == other.scale, where,
             "the inputs have different scales");
      }
    for (size_t i = 0; i < outputs.size(); i++) {
      const int index = node.outputs[i];
      const Tensor& tensor = model.tensors[index];
      need(!written[index], where, "writes a tensor that is already written");
      written[index] = 1;
      if (tensor.type != outputs[i].type || !(tensor.shape == outputs[i].shape))
        throw Fault(where + ": tensor '" + tensor.name + "' is " + type_name(tensor.type) + text(tensor.shape) + ", must be " +
                    type_name(outputs[i].type) + text(outputs[i].shape));
    }
  }
  std::vector<char> listed(model.tensors.size());
  for (const int i : model.outputs) {
    need(!listed[i], "a graph output is listed twice");
    listed[i] = 1;
  }
  for (size_t i = 0; i < model.tensors.size(); i++) {
    need(written[i], "tensor '" + model.tensors[i].name + "'", "is written by no node");
    need(read[i] || listed[i], "tensor '" + model.tensors[i].name + "'", "is read by no node and is no output");
  }
  for (size_t i = 0; i < used.size(); i++) need(used[i], "constant '" + model.constants[i].name + "'", "is used by no node");
  check_decode(model);
}

const char* type_name(DType type) {
  constexpr const char* kNames[] = {"u8", "b1", "u4", "s16"};
  return kNames[static_cast<int>(type)];
}

std::string text(const Shape& shape) {
  return "[" + std::to_string(shape.channels) + ", " + std::to_string(shape.height) + ", " + std::to_string(shape.width) + "]";
}

}  // namespace mpq
