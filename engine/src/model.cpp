// From bytes to structs (docs/format.md); what operators demand and give is in rules.cpp.
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
using Keys = std::initializer_list<const char*>;

const Json& object(const Json& value, const std::string& where, Keys keys, Keys optional = {}) {
  need(value.kind == Json::Kind::object, where, "must be an object");
  size_t known = keys.size();
  for (const char* key : keys)
    if (!value.find(key)) throw Fault(where + ": the key '" + key + "' is missing");
  for (const char* key : optional) known += value.find(key) ? 1 : 0;
  need(value.keys.size() == known, where, "has an unknown key");
  return value;
}

// Of an object that may have any other keys too.
const Json& member(const Json& value, const char* key) {
  need(value.kind == Json::Kind::object, "header: must be an object");
  const Json* item = value.find(key);
  if (!item) throw Fault(std::string("header: the key '") + key + "' is missing");
  return *item;
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

void check_name(const std::string& name, const std::string& where) {
  need(!name.empty() && name.size() <= kMaxName, where, "a name must have 1 to 256 bytes");
  for (const char c : name) need(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f, where, "a name holds a control character");
}

const std::string& name(const Json& value, const std::string& where) {
  const std::string& result = string(value, where);
  check_name(result, where);
  return result;
}

template <class T, size_t N>
T one_of(const std::string& value, const char* const (&names)[N], const std::string& where, const char* fault) {
  for (size_t i = 0; i < N; i++)
    if (value == names[i]) return static_cast<T>(i);
  throw Fault(where + ": " + fault);
}

constexpr const char* kTypes[] = {"u8", "b1", "u4", "s16"};
constexpr const char* kWeights[] = {"w1", "w4", "w8", "i16"};
constexpr const char* kRoleNames[] = {"weight", "multiplier", "bias", "slope", "post", "gain", "threshold"};
constexpr int kBits[] = {1, 4, 8, 16};
constexpr int kMaxFraction = 15;  // an s16 map counts in 2^-fraction

// The graph, growing node by node, and how much of the data section its constants have taken.
class GraphReader {
 public:
  GraphReader(Model& model, const Sections& file) : model_(model), file_(file) {}

  void read(const Json& graph) {
    object(graph, "graph", {"input", "nodes", "outputs"});
    const auto& input = list(*graph.find("input"), "graph input", 3, 3);
    const int height = size(input[1], "graph input height", kMaxEdge), width = size(input[2], "graph input width", kMaxEdge);
    add_tensor(string(input[0], "graph input"), {DType::u8, {3, height, width}}, 1. / 255, "graph input");
    for (const Json& item : list(*graph.find("nodes"), "nodes", 1, kMaxItems))
      add_node(item, "node " + std::to_string(model_.nodes.size()));
    need(file_.data_length == round_up<size_t>(end_, 64), "the data section does not end with the last constant");
    need(all_zero(file_.data + end_, file_.data + file_.data_length), "the bytes behind the last constant must be zero");
    for (const Json& item : list(*graph.find("outputs"), "graph outputs", 1, kMaxItems))
      model_.outputs.push_back(index(item, "graph output", model_.tensors.size()));
  }

 private:
  struct Output {
    double scale;
    std::string name;
  };

  Model& model_;
  const Sections& file_;
  size_t end_ = 0;  // of the last constant
  std::unordered_set<std::string> tensor_names_, node_names_;

  static int size(const Json& value, const std::string& where, int high) {
    return static_cast<int>(integer(value, where, 1, high));
  }

  static int attribute(const Json* value, const std::string& where, int low, int high, int absent) {
    return value ? static_cast<int>(integer(*value, where, low, high)) : absent;
  }

  static double scale(const Json& value, const std::string& where) {
    const double result = real(value, where + " scale");
    need(result > 0, where, "scale must be above 0");
    return result;
  }

  void add_tensor(const std::string& called, const Typed& typed, double scale, const std::string& where) {
    need(model_.tensors.size() < kMaxItems, where, "more than 4096 tensors");
    check_shape(typed.shape, where);
    check_name(called, where);
    need(tensor_names_.insert(called).second, where, "its name is there twice");
    model_.tensors.push_back({called, typed.type, typed.shape, scale});
  }

  // The next one of the data section.
  void add_constant(Node& node, Role role, WType type, int64_t count) {
    const std::string where = "constant '" + node.name + "." + kRoleNames[static_cast<int>(role)] + "'";
    need(count <= kMaxElements, where, "more than 2^28 elements");
    need(model_.constants.size() < kMaxItems, where, "more than 4096 constants");
    const int64_t bits = count * kBits[static_cast<int>(type)];
    const size_t start = round_up<size_t>(end_, 64), bytes = static_cast<size_t>((bits + 7) / 8);
    need(start + bytes <= file_.data_length, where, "ends behind the data section");
    need(all_zero(file_.data + end_, file_.data + start), where, "the gap before it must be zero");
    end_ = start + bytes;
    const int spare = static_cast<int>(8 * static_cast<int64_t>(bytes) - bits);
    need(spare == 0 || file_.data[end_ - 1] >> (8 - spare) == 0, where, "unused bits of the last byte must be zero");
    const Constant constant{type, file_.data + start, static_cast<size_t>(count)};
    check_constant(constant, role, where);
    node.constants[static_cast<int>(role)] = static_cast<int>(model_.constants.size());
    model_.constants.push_back(constant);
  }

  void add_node(const Json& value, const std::string& number) {
    const auto& items = list(value, number, 4, 4);
    Node node;
    node.name = name(items[1], number + " name");
    const std::string where = "node '" + node.name + "'";
    need(node_names_.insert(node.name).second, where, "the name is there twice");
    const std::string& op = string(items[0], where + " operator");
    need(!op.empty(), where, "unknown operator");
    node.op = one_of<Op>(op, kOps, where, "unknown operator");
    std::vector<Typed> inputs;
    for (const Json& i : list(items[2], where + " inputs", min_inputs(node.op), max_inputs(node.op))) {
      node.inputs.push_back(index(i, where + " input", model_.tensors.size()));
      const Tensor& tensor = model_.tensors[node.inputs.back()];
      inputs.push_back({tensor.type, tensor.shape});
    }
    const Tensor& first = model_.tensors[node.inputs[0]];
    std::vector<Output> outputs{{first.scale, node.name}};
    const Json& details = items[3];
    switch (node.op) {
      case Op::conv: outputs = conv(details, node, where); break;
      case Op::threshold:
        object(details, where, {}, {"step"});
        node.step = attribute(details.find("step"), where + " step", 1, 32767, 0);
        add_constant(node, Role::threshold, WType::i16, first.shape.channels);
        outputs[0].scale = 1;
        break;
      case Op::requantise:
        object(details, where, {"fraction", "scale"});
        node.fraction = static_cast<int>(integer(*details.find("fraction"), where + " fraction", 0, 14));
        outputs[0].scale = scale(*details.find("scale"), where);
        for (const Role role : {Role::multiplier, Role::bias}) add_constant(node, role, WType::i16, first.shape.channels);
        break;
      case Op::maxpool:
        object(details, where, {"kernel"});
        node.kernel = static_cast<int>(integer(*details.find("kernel"), where + " kernel", 1, 13));
        need(node.kernel % 2 == 1, where, "the kernel must be odd");
        break;
      case Op::concat:
        for (const int i : node.inputs) need(model_.tensors[i].scale == first.scale, where, "the inputs have different scales");
        [[fallthrough]];
      default: object(details, where, {});
    }
    for (size_t i = 0; i < outputs.size(); i++) node.outputs.push_back(static_cast<int>(model_.tensors.size() + i));
    const std::vector<Typed> types = infer(model_, node, inputs);
    for (size_t i = 0; i < outputs.size(); i++) add_tensor(outputs[i].name, types[i], outputs[i].scale, where + " output");
    model_.nodes.push_back(std::move(node));
  }

  std::vector<Output> conv(const Json& details, Node& node, const std::string& where) {
    object(details, where, {"weight", "channels", "kernel", "out"},
           {"stride", "pad", "shift", "residual_last", "planes", "with"});
    const auto get = [&details](const char* key) { return details.find(key); };
    node.kernel = static_cast<int>(integer(*get("kernel"), where + " kernel", 1, 7));
    node.stride = attribute(get("stride"), where + " stride", 1, 2, 1);
    node.pad = attribute(get("pad"), where + " pad", 0, 6, node.kernel / 2);
    node.shift = attribute(get("shift"), where + " shift", -15, 16, 0);
    const bool residual = node.inputs.size() == 2;
    need(residual || !get("residual_last"), where, "'residual_last' needs a residual");
    if (residual) node.residual_last = attribute(get("residual_last"), where + " residual_last", 0, 1, 0);
    node.planes = attribute(get("planes"), where + " planes", 2, 2, 1);
    const auto weight = one_of<WType>(string(*get("weight"), where + " weight"), kWeights, where, "unknown type of weights");
    need(weight != WType::i16, where, "unknown type of weights");
    node.channels = size(*get("channels"), where + " channels", kMaxChannels);

    int roles = bit(Role::weight) | bit(Role::multiplier) | bit(Role::bias);
    std::vector<Output> outputs;
    for (const Json& item : list(*get("out"), where + " out", 1, 3)) {
      const std::string at = where + " output " + std::to_string(outputs.size());
      const auto& cells = list(item, at, 1, 4);
      const auto type = one_of<DType>(string(cells[0], at), kTypes, at, "unknown dtype");
      need(type != DType::u8, at, "unknown dtype");
      for (const DType other : node.output_types) need(other != type, at, "its dtype is there twice");
      node.output_types.push_back(type);
      const bool stepped = type == DType::b1 && cells.size() > 1 && cells[1].kind == Json::Kind::integer;
      const size_t fixed = type == DType::s16 || stepped ? 2 : type == DType::u4 ? 3 : 1;
      list(item, at, fixed, fixed + 1);
      Output output{1, outputs.empty() ? node.name : node.name + "." + type_name(type)};
      if (type == DType::s16) {
        output.scale = std::ldexp(1., -static_cast<int>(integer(cells[1], at + " fraction", 0, kMaxFraction)));
      } else if (type == DType::u4) {
        node.fraction = static_cast<int>(integer(cells[1], at + " fraction", 0, 14));
        output.scale = scale(cells[2], at);
      } else {
        roles |= bit(Role::threshold);
        if (stepped) node.step = static_cast<int>(integer(cells[1], at + " step", 1, 32767));
      }
      if (cells.size() > fixed) output.name = name(cells[fixed], at + " name");
      outputs.push_back(std::move(output));
    }
    if (const Json* with = get("with"))
      for (const Json& item : list(*with, where + " with", 0, 3)) {
        const auto role = one_of<Role>(string(item, where + " with"), kRoleNames, where, "unknown role in 'with'");
        need(role == Role::slope || role == Role::post || role == Role::gain, where, "unknown role in 'with'");
        need(!(roles & bit(role)), where, "a role comes twice in 'with'");
        need(role != Role::gain || residual, where, "'gain' needs a residual");
        roles |= bit(role);
      }
    for (int i = 0; i < kRoles; i++) {
      const auto role = static_cast<Role>(i);
      if (!(roles & bit(role))) continue;
      if (role == Role::weight) {
        const int64_t reads = model_.tensors[node.inputs[0]].shape.channels / node.planes;
        add_constant(node, role, weight, reads * node.kernel * node.kernel * node.channels);
      } else {
        add_constant(node, role, WType::i16, role == Role::gain ? model_.tensors[node.inputs[1]].shape.channels : node.channels);
      }
    }
    return outputs;
  }

  static constexpr int bit(Role role) { return 1 << static_cast<int>(role); }
};

void read_decode(const Json& value, Model& model) {
  object(value, "decode", {"kind", "iou", "levels"});
  need(string(*value.find("kind"), "decode kind") == "ltrb_exp2", "decode: unknown kind");
  const double iou = real(*value.find("iou"), "decode iou");
  need(iou > 0 && iou <= 1, "decode: iou must be above 0 and at most 1");
  model.iou = static_cast<float>(iou);
  for (const Json& item : list(*value.find("levels"), "decode levels", 1, kMaxLevels)) {
    const std::string where = "decode level " + std::to_string(model.levels.size());
    const auto& pair = list(item, where, 2, 2);
    const int distance = index(pair[0], where, model.tensors.size()), logit = index(pair[1], where, model.tensors.size());
    const int stride = model.tensors[model.input].shape.height / model.tensors[distance].shape.height;
    model.levels.push_back({stride, distance, logit});  // check_graph sees to it that the division is exact
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
  GraphReader(*this, file).read(member(root, "graph"));
  read_decode(member(root, "decode"), *this);
  for (const Json& item : list(member(root, "classes"), "classes", 1, kMaxClasses)) classes.push_back(name(item, "class name"));
  check_policy(member(root, "policy"));
  need(member(root, "card").kind == Json::Kind::object, "card: must be an object");
  check_graph(*this);
}

Bytes Bytes::map(const char* path) {
  const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
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
