// What operators demand and give (docs/numerics.md, section 4), and what makes a graph whole (docs/format.md).
#include <algorithm>

#include "fault.h"
#include "model.h"

namespace mpq {
namespace {

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

// The bits of a map of this shape: with a step, an upper and a lower one.
Shape two_planes(const Node& node, const Shape& shape, const std::string& where) {
  need(node.step == 0 || shape.channels % 4 == 0, where, "a step needs channels that are a multiple of 4");
  return node.step == 0 ? shape : Shape{2 * shape.channels, shape.height, shape.width};
}

std::vector<Typed> conv(const Model& model, const Node& node, const std::vector<Typed>& inputs, const std::string& where) {
  const Shape x = inputs[0].shape;
  const WType weight = model.constants[node.constant(Role::weight)].type;
  const int k = node.kernel, largest = weight == WType::w1 ? 1 : weight == WType::w4 ? 7 : 127;
  need(node.pad < k, where, "pad must be less than kernel");
  const int code = inputs[0].type == DType::u8 ? 255 : inputs[0].type == DType::u4 ? 15 : node.planes == 2 ? 3 : 1;
  need(node.planes == 1 || inputs[0].type == DType::b1, where, "'planes' is there only with a b1 input");
  need(node.planes == 1 || x.channels % 8 == 0, where, "the channels are no pairs of planes, 4 channels each");
  need(int64_t{x.channels / node.planes} * k * k * largest * code < int64_t{1} << 31, where, "the sum can reach 2^31");
  need(std::min(x.height, x.width) + 2 * node.pad >= k, where, "the kernel does not fit into the map");
  const Shape out{node.channels, (x.height + 2 * node.pad - k) / node.stride + 1, (x.width + 2 * node.pad - k) / node.stride + 1};
  if (inputs.size() == 2) {
    const Typed& r = inputs[1];
    need(r.type == DType::s16, where, "the residual must be s16");
    need(r.shape.height == out.height && r.shape.width == out.width, where, "the residual has another size than the output");
    const auto [small, large] = std::minmax(r.shape.channels, out.channels);
    need(large % small == 0, where, "the channels of residual and output do not divide each other");
  }
  std::vector<Typed> result;
  for (const DType type : node.output_types) result.push_back({type, type == DType::b1 ? two_planes(node, out, where) : out});
  return result;
}

void check_decode(const Model& model) {
  const Shape input = model.tensors[model.input].shape;
  int last = 0;
  for (const Level& level : model.levels) {
    const int stride = level.stride;
    const std::string where = "decode level of stride " + std::to_string(stride);
    need(stride >= 2 && stride <= 128 && (stride & (stride - 1)) == 0 && stride > last, where,
         "strides must be powers of two from 2 to 128, ascending");
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

size_t min_inputs(Op op) { return op == Op::concat ? 2 : 1; }

size_t max_inputs(Op op) { return op == Op::concat ? 16 : op == Op::conv ? 2 : 1; }

std::vector<Typed> infer(const Model& model, const Node& node, const std::vector<Typed>& inputs) {
  const std::string where = "node '" + node.name + "'";
  need(reads(node.op, inputs[0].type), where, "the operator does not read this dtype");
  const Shape x = inputs[0].shape;
  std::vector<Typed> result;
  switch (node.op) {
    case Op::conv: result = conv(model, node, inputs, where); break;
    case Op::threshold: result = {{DType::b1, two_planes(node, x, where)}}; break;
    case Op::requantise: result = {{DType::u4, x}}; break;
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
  for (const Typed& output : result) check_shape(output.shape, where);
  return result;
}

void check_shape(const Shape& shape, const std::string& where) {
  need(shape.channels <= kMaxChannels, where, "more than 4096 channels");
  need(shape.height <= kMaxEdge && shape.width <= kMaxEdge, where, "a map higher or wider than 8192");
  need(int64_t{shape.channels} * shape.height * shape.width <= kMaxElements, where, "a tensor of more than 2^28 elements");
}

void check_constant(const Constant& constant, Role role, const std::string& where) {
  const auto holds = [&constant](int value) {
    bool found = false;
    for (size_t i = 0; i < constant.count; i++) found |= weight_at(constant.type, constant.data, i) == value;
    return found;
  };
  if (constant.type == WType::w4) need(!holds(-8), where, "-8 is not a weight");
  if (constant.type == WType::w8) need(!holds(-128), where, "-128 is not a weight");
  if (role == Role::multiplier || role == Role::slope || role == Role::gain) need(!holds(-32768), where, "holds -32768");
}

void check_graph(const Model& model) {
  std::vector<char> read(model.tensors.size()), listed(model.tensors.size());
  for (const Node& node : model.nodes)
    for (const int i : node.inputs) read[i] = 1;
  for (const int i : model.outputs) {
    need(!listed[i], "a graph output is listed twice");
    listed[i] = 1;
  }
  for (size_t i = 0; i < model.tensors.size(); i++)
    need(read[i] || listed[i], "tensor '" + model.tensors[i].name + "'", "is read by no node and is no output");
  check_decode(model);
}

const char* type_name(DType type) {
  constexpr const char* kNames[] = {"u8", "b1", "u4", "s16"};
  return kNames[static_cast<int>(type)];
}

}  // namespace mpq
