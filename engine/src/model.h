// A model file in memory: checked against every MUST of docs/format.md, constants as views into the mapped bytes.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "layout.h"

namespace mpq {

constexpr int kMaxItems = 4096, kMaxChannels = 4096, kMaxEdge = 8192, kMaxClasses = 1024, kMaxName = 256, kMaxLevels = 8;
constexpr int64_t kMaxElements = int64_t{1} << 28;

enum class Op : uint8_t { conv = 1, threshold, requantise, avgpool2, maxpool, upsample2, concat };  // numbers of docs/format.md
inline constexpr const char* kOps[] = {"", "conv", "threshold", "requantise", "avgpool2", "maxpool", "upsample2", "concat"};
enum class Role : uint8_t { weight, multiplier, bias, slope, post, gain, threshold };  // in the order of a file
constexpr int kRoles = 7;

struct Shape {
  int channels = 0, height = 0, width = 0;
  bool operator==(const Shape& o) const { return channels == o.channels && height == o.height && width == o.width; }
};

struct Tensor {
  std::string name;
  DType type = DType::u8;
  Shape shape;
  double scale = 1;
};

struct Constant {
  WType type = WType::w1;
  const uint8_t* data = nullptr;
  size_t count = 0;
  const int16_t* i16() const { return reinterpret_cast<const int16_t*>(data); }
};

struct Node {
  Op op = Op::conv;
  std::string name;
  std::vector<int> inputs, outputs;                               // tensor indices
  std::array<int, kRoles> constants{-1, -1, -1, -1, -1, -1, -1};  // constant indices by role, -1: none
  // Attributes; those that the operator does not have stay as they are here.
  int channels = 0, kernel = 1, stride = 1, pad = 0, shift = 0, fraction = -1, residual_last = -1, planes = 1, step = 0;
  std::vector<DType> output_types;  // of a conv
  int constant(Role role) const { return constants[static_cast<int>(role)]; }
};

struct Level {
  int stride = 0, distance = 0, logit = 0;  // the latter two are tensor indices
};

// The bytes of a file: mapped, or an aligned copy of a caller's buffer.
class Bytes {
 public:
  static Bytes map(const char* path);
  static Bytes copy(const void* data, size_t size);
  Bytes(Bytes&& other) noexcept;
  Bytes& operator=(Bytes&&) = delete;
  ~Bytes();
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  Bytes(uint8_t* data, size_t size, bool mapped) : data_(data), size_(size), mapped_(mapped) {}
  uint8_t* data_;
  size_t size_;
  bool mapped_;
};

struct Model {
  explicit Model(Bytes bytes);  // throws Fault

  Bytes bytes;
  std::string_view header;  // the JSON text
  std::vector<Tensor> tensors;
  std::vector<Constant> constants;
  std::vector<Node> nodes;
  int input = 0;
  std::vector<int> outputs;
  std::vector<Level> levels;
  float iou = 0;
  std::vector<std::string> classes;

  const int16_t* i16(const Node& node, Role role) const {
    const int index = node.constant(role);
    return index < 0 ? nullptr : constants[index].i16();
  }
};

// rules.cpp: (dtype, shape) of every output of a node whose inputs have these types and shapes. Throws Fault.
struct Typed {
  DType type = DType::u8;
  Shape shape;
};
std::vector<Typed> infer(const Model& model, const Node& node, const std::vector<Typed>& inputs);
size_t min_inputs(Op op);
size_t max_inputs(Op op);

// rules.cpp: limits of shapes, values of constants, use of tensors and decode. Throw Fault.
void check_shape(const Shape& shape, const std::string& where);
void check_constant(const Constant& constant, Role role, const std::string& where);
void check_graph(const Model& model);

const char* type_name(DType type);

}  // namespace mpq
