// From bytes to structs (docs/format.md, all but the section "Graph", which is in rules.cpp).
#include "model.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <new>
#include <unordered_set>

#include "fault.h"
#include "json.h"
#include "sha256.h"

namespace mpq {
namespace {

constexpr uint8_t kMagic[8] = {'M', 'P', 'Q', 'Y', '\r', '\n', 0x1a, '\n'};
constexpr size_t kPrefix = 128;
constexpr uint64_t kMaxHeader = 16 << 20, kMaxData = 1 << 30;

uint64_t little(const uint8_t* p, int bytes) {
  uint64_t value = 0;
  for (int i = bytes; i-- > 0;) value = value << 8 | p[i];
  return value;
}

bool all_zero(const uint8_t* begin, const uint8_t* end) {
  for (; begin < end; begin++)
    if (*begin != 0) return false;
  return true;
}

struct Sections {
  std::string_view header;
  const uint8_t* data;
  size_t data_length;
};

Sections sections(const uint8_t* file, size_t size) {
  need(size >= kPrefix, "shorter than the 128 bytes that a .mpqy file starts with");
  need(std::memcmp(file, kMagic, 8) == 0, "not a .mpqy file (wrong magic)");
  need(little(file + 8, 4) == 1, "version is not 1, the only one that this engine knows");
  need(little(file + 12, 4) == 0, "unknown flags");
  need(all_zero(file + 72, file + kPrefix), "bytes 72 to 127 must be zero");
  const uint64_t header = little(file + 16, 8), offset = little(file + 24, 8), length = little(file + 32, 8);
  need(header >= 2 && header <= kMaxHeader, "header_length must be 2 bytes to 16 MiB");
  need(offset == round_up<uint64_t>(kPrefix + header, 64), "data_offset must be 128 + header_length rounded up to 64");
  need(length <= kMaxData && length % 64 == 0, "data_length must be a multiple of 64, at most 1 GiB");
  need(size == offset + length, "truncated, or longer than its header says");
  const auto digest = sha256(file + kPrefix, size - kPrefix);
  need(std::memcmp(file + 40, digest.data(), 32) == 0, "the checksum is wrong: the file is damaged");
  need(all_zero(file + kPrefix + header, file + offset), "the bytes between header and data must be zero");
  return {{reinterpret_cast<const char*>(file) + kPrefix, header}, file + offset, length};
}

// Typed access to the header, every fault with a path.
const Json& object(const Json& value, const std::string& where, std::initializer_list<const char*> keys, bool more = false) {
  need(value.kind == Json::Kind::object, where, "must be an object");
  for (const char* key : keys)
    if (!value.find(key)) throw Fault(where + ": the key '" + key + "' is missing");
  need(more || value.keys.size() == keys.size(), where, "has an unknown key");
  return value;
}

const std::vector<Json>& list(const Json& value, const std::string& where, size_t low, size_t high) {
  need(value.kind == Json::Kind::array, where, "must be a list");
  if (value.items.size() < low || value.items.size() > high)
    throw Fault(where + ": has " + std::to_string(value.items.size()) + " items, must have " + std::to_string(low) + ".." +
                std::to_string(high));
  return value.items;
}

int64_t integer(const Json& value, const std::string& where, int64_t low, int64_t high) {
  if (value.kind != Json::Kind::integer || value.integer < low || value.integer > high)
    throw Fault(where + ": must be an integer " + std::to_string(low) + ".." + std::to_string(high));
  return value.integer;
}

int index(const Json& value, const std::string& where, size_t count) {
  need(count > 0, where, "names an item of an empty list");
  return static_cast<int>(integer(value, where, 0, static_cast<int64_t>(count) - 1));
}

double real(const Json& value, const std::string& where) {
  need(value.kind == Json::Kind::integer || value.kind == Json::Kind::real, where, "must be a number");
  return value.real;
}

const std::string& string(const Json& value, const std::string& where) {
  need(value.kind == Json::Kind::string, where, "must be a string");
  return value.string;
}

const std::string& name(const Json& value, const std::string& where) {
  const std::string& result = string(value, where);
  need(!result.empty() && result.size() <= kMaxName, where, "must have 1 to 256 bytes");
  for (const char c : result) need(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f, where, "holds a control character");
  return result;
}

template <class Item>
void unique_names(const std::vector<Item>& items, const char* kind) {
  std::unordered_set<std::string_view> seen;
  for (const Item& item : items)
    if (!seen.insert(item.name).second) throw Fault(std::string(kind) + " '" + item.name + "' is there twice");
}

template <class T, size_t N>
T one_of(const std::string& value, const char* const (&names)[N], const std::string& where, const char* fault) {
  for (size_t i = 0; i < N; i++)
    if (value == names[i]) return static_cast<T>(i);
  throw Fault(where + ": " + fault);
}

constexpr const char* kTypes[] = {"u8", "b1", "u4", "s16"};
constexpr const char* kWeights[] = {"w1", "w4", "w8", "i16"};
constexpr const char* kOps[] = {"", "conv", "threshold", "requantise", "avgpool2", "maxpool", "upsample2", "concat"};
constexpr const char* kRoleNames[] = {"weight", "multiplier", "bias", "slope", "post", "gain", "threshold"};
constexpr int kBits[] = {1, 4, 8, 16};

Tensor tensor(const Json& value, const std::string& where) {
  object(value, where, {"name", "dtype", "shape", "scale"});
  Tensor result;
  result.name = name(*value.find("name"), where + " name");
  result.type = one_of<DType>(string(*value.find("dtype"), where + " dtype"), kTypes, where, "unknown dtype");
  const auto& shape = list(*value.find("shape"), where + " shape", 3, 3);
  result.shape.channels = static_cast<int>(integer(shape[0], where + " channels", 1, kMaxChannels));
  result.shape.height = static_cast<int>(integer(shape[1], where + " height", 1, kMaxEdge));
  result.shape.width = static_cast<int>(integer(shape[2], where + " width", 1, kMaxEdge));
  result.scale = real(*value.find("scale"), where + " scale");
  need(result.scale > 0, where, "scale must be above 0");
  return result;
}

std::vector<Constant> read_constants(const Json& value, const Sections& file) {
  std::vector<Constant> constants;
  size_t end = 0;
  for (const Json& item : list(value, "constants", 0, kMaxItems)) {
    const std::string where = "constant " + std::to_string(constants.size());
    object(item, where, {"name", "dtype", "shape", "offset", "bytes"});
    Constant constant;
    constant.name = name(*item.find("name"), where + " name");
    constant.type = one_of<WType>(string(*item.find("dtype"), where + " dtype"), kWeights, where, "unknown dtype");
    int64_t count = 1;
    for (const Json& n : list(*item.find("shape"), where + " shape", 1, 4)) {
      constant.shape.push_back(static_cast<int>(integer(n, where + " shape", 1, kMaxChannels)));
      count *= constant.shape.back();  // at most 2^48
    }
    need(count <= kMaxElements, where, "more than 2^28 elements");
    const int bits = kBits[static_cast<int>(constant.type)];
    const size_t size = static_cast<size_t>((count * bits + 7) / 8);
    const auto offset = static_cast<size_t>(integer(*item.find("offset"), where + " offset", 0, kMaxData));
    const auto bytes = static_cast<size_t>(integer(*item.find("bytes"), where + " bytes", 0, kMaxData));
    need(bytes == size, where, "bytes is not the packed size of its shape");
    need(offset == round_up<size_t>(end, 64), where, "offset must be the next multiple of 64: no hole, no overlap");
    need(offset + bytes <= file.data_length, where, "ends behind the data section");
    need(all_zero(file.data + end, file.data + offset), where, "the gap before it must be zero");
    end = offset + bytes;
    constant.data = file.data + offset;
    constant.count = static_cast<size_t>(count);
    const int spare = static_cast<int>(8 * static_cast<int64_t>(size) - count * bits);
    need(spare == 0 || file.data[end - 1] >> (8 - spare) == 0, where, "unused bits of the last byte must be zero");
    constants.push_back(std::move(constant));
  }
  need(file.data_length == round_up<size_t>(end, 64), "the data section does not end with the last constant");
  need(all_zero(file.data + end, file.data + file.data_length), "the bytes behind the last constant must be zero");
  return constants;
}

void attributes(const Json& value, Node& node, const std::string& where) {
  struct Rule {
    const char* name;
    Op op;
    int Node::* field;
    int low, high;
    bool optional;
  };
  static constexpr Rule kRules[] = {
      {"kernel", Op::conv, &Node::kernel, 1, 7, false},     {"stride", Op::conv, &Node::stride, 1, 2, false},
      {"pad", Op::conv, &Node::pad, 0, 6, false},           {"shift", Op::conv, &Node::shift, -15, 16, false},
      {"fraction", Op::conv, &Node::fraction, 0, 14, true}, {"residual_last", Op::conv, &Node::residual_last, 0, 1, true},
      {"kernel", Op::maxpool, &Node::kernel, 1, 13, false}, {"fraction", Op::requantise, &Node::fraction, 0, 14, false},
  };
  need(value.kind == Json::Kind::object, where, "attributes must be an object");
  size_t known = 0;
  for (const Rule& rule : kRules) {
    if (rule.op != node.op) continue;
    const Json* item = value.find(rule.name);
    if (!item && rule.optional) continue;
    if (!item) throw Fault(where + ": attribute '" + rule.name + "' is missing");
    node.*rule.field = static_cast<int>(integer(*item, where + " attribute '" + rule.name + "'", rule.low, rule.high));
    known++;
  }
  need(node.op != Op::maxpool || node.kernel % 2 == 1, where, "the kernel must be odd");
  if (node.op == Op::conv) {
    const Json* outputs = value.find("outputs");
    need(outputs, where, "attribute 'outputs' is missing");
    for (const Json& item : list(*outputs, where + " attribute 'outputs'", 1, 3)) {
      const auto type = one_of<DType>(string(item, where + " outputs"), kTypes, where, "unknown dtype in 'outputs'");
      need(type != DType::u8, where, "a conv cannot write u8");
      for (const DType other : node.output_types) need(other != type, where, "'outputs' lists a dtype twice");
      node.output_types.push_back(type);
    }
    known++;
  }
  need(value.keys.size() == known, where, "has an unknown attribute");
}

Node node(const Json& value, const std::string& number, size_t tensors, size_t constants) {
  object(value, number, {"op", "name", "inputs", "outputs", "constants", "attributes"});
  Node result;
  result.name = name(*value.find("name"), number + " name");
  const std::string where = "node '" + result.name + "'";
  const std::string& op = string(*value.find("op"), where + " op");
  need(!op.empty(), where, "unknown operator");
  result.op = one_of<Op>(op, kOps, where, "unknown operator");
  for (const Json& i : list(*value.find("inputs"), where + " inputs", 1, 16))
    result.inputs.push_back(index(i, where + " input", tensors));
  for (const Json& i : list(*value.find("outputs"), where + " outputs", 1, 3))
    result.outputs.push_back(index(i, where + " output", tensors));
  const Json& roles = object(*value.find("constants"), where + " constants", {}, true);
  for (size_t i = 0; i < roles.keys.size(); i++) {
    const auto role = one_of<int>(roles.keys[i], kRoleNames, where, "unknown constant role");
    result.constants[role] = index(roles.items[i], where + " constant", constants);
  }
  attributes(*value.find("attributes"), result, where);
  return result;
}

void read_decode(const Json& value, Model& model) {
  object(value, "decode", {"kind", "iou", "levels"});
  need(string(*value.find("kind"), "decode kind") == "ltrb_exp2", "decode: unknown kind");
  const double iou = real(*value.find("iou"), "decode iou");
  need(iou > 0 && iou <= 1, "decode: iou must be above 0 and at most 1");
  model.iou = static_cast<float>(iou);
  for (const Json& item : list(*value.find("levels"), "decode levels", 1, kMaxLevels)) {
    const std::string where = "decode level " + std::to_string(model.levels.size());
    object(item, where, {"stride", "distance", "logit"});
    Level level;
    level.stride = static_cast<int>(integer(*item.find("stride"), where + " stride", 2, 128));
    level.distance = index(*item.find("distance"), where + " distance", model.tensors.size());
    level.logit = index(*item.find("logit"), where + " logit", model.tensors.size());
    model.levels.push_back(level);
  }
}

void check_policy(const Json& value) {
  object(value, "policy", {"name", "bits"});
  name(*value.find("name"), "policy name");
  const Json& bits = object(*value.find("bits"), "policy bits", {"stem", "backbone", "neck", "predict"});
  for (const Json& pair : bits.items)
    for (const Json& n : list(pair, "policy bits", 2, 2)) integer(n, "policy bits", 1, 32);
}

}  // namespace

Model::Model(Bytes owned) : bytes(std::move(owned)) {
  const Sections file = sections(bytes.data(), bytes.size());
  header = file.header;
  const Json root = parse_json(header);
  object(root, "header", {"graph", "decode", "classes", "policy", "card"}, true);
  const Json& graph = object(*root.find("graph"), "graph", {"tensors", "constants", "nodes", "input", "outputs"});
  for (const Json& item : list(*graph.find("tensors"), "tensors", 1, kMaxItems))
    tensors.push_back(tensor(item, "tensor " + std::to_string(tensors.size())));
  unique_names(tensors, "tensor");
  constants = read_constants(*graph.find("constants"), file);
  unique_names(constants, "constant");
  for (const Json& item : list(*graph.find("nodes"), "nodes", 1, kMaxItems))
    nodes.push_back(node(item, "node " + std::to_string(nodes.size()), tensors.size(), constants.size()));
  unique_names(nodes, "node");
  input = index(*graph.find("input"), "graph input", tensors.size());
  for (const Json& item : list(*graph.find("outputs"), "graph outputs", 1, kMaxItems))
    outputs.push_back(index(item, "graph output", tensors.size()));
  read_decode(*root.find("decode"), *this);
  for (const Json& item : list(*root.find("classes"), "classes", 1, kMaxClasses)) classes.push_back(name(item, "class name"));
  check_policy(*root.find("policy"));
  object(*root.find("card"), "card", {}, true);
  check_graph(*this);
}

Bytes Bytes::map(const char* path) {
  const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw Fault(std::string("cannot be opened: ") + std::strerror(errno));
  struct stat status;
  const bool regular = fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  const auto size = regular ? static_cast<size_t>(status.st_size) : 0;
  void* data = size > 0 ? mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0) : MAP_FAILED;
  close(descriptor);
  need(regular, "not a file");
  need(size > 0, "empty");
  need(data != MAP_FAILED, "cannot be mapped");
  return {static_cast<uint8_t*>(data), size, true};
}

Bytes Bytes::copy(const void* data, size_t size) {
  need(data != nullptr && size > 0, "empty");
  auto* copy = static_cast<uint8_t*>(::operator new(size, std::align_val_t{kAlign}));
  std::memcpy(copy, data, size);
  return {copy, size, false};
}

Bytes::Bytes(Bytes&& other) noexcept : data_(other.data_), size_(other.size_), mapped_(other.mapped_) { other.data_ = nullptr; }

Bytes::~Bytes() {
  if (data_ == nullptr) return;
  if (mapped_)
    munmap(data_, size_);
  else
    ::operator delete(data_, std::align_val_t{kAlign});
}

}  // namespace mpq
