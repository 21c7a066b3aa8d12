#include "plan.h"

#include <algorithm>
#include <map>
#include <utility>

#include "fault.h"
#include "ops/ops.h"

namespace mpq {
namespace {

constexpr size_t kMaxArena = size_t{4} << 30;
constexpr int kBand = 1 << 16;  // bytes of half a band of rows: all of it stays in L2

// Which part of which map a map is: concat inputs lie inside the concat's output where alignment allows, so that
// concat moves nothing.
struct Slice {
  int root;      // tensor that owns the memory
  int channels;  // before this slice
};

class Planner {
 public:
  Planner(const Model& model, int height, int width, Isa isa, int threads, bool reuse)
      : model_(model), isa_(isa), threads_(threads), reuse_(reuse) {
    infer_types(height, width);
    choose_borders();
    choose_slices();
    lay_out();
    for (const Node& node : model.nodes) add_step(node);
    if (reuse_) fuse_pools();
    for (const StepPlan& step : plan.steps)
      plan.scratch_bytes = std::max(plan.scratch_bytes, round_up<size_t>(step.scratch_bytes, kAlign));
    place();
  }
  Plan plan;

 private:
  struct Block {
    size_t bytes;
    int first, last;  // steps in which it lives
    size_t offset = 0;
  };

  const Model& model_;
  Isa isa_;
  int threads_;
  bool reuse_;
  std::vector<Typed> types_;
  std::map<std::pair<int, int>, int> borders_;
  std::vector<Slice> slices_;
  std::vector<size_t> sizes_, leads_;  // by root tensor

  int steps() const { return static_cast<int>(model_.nodes.size()); }

  void infer_types(int height, int width) {
    need(height > 0 && width > 0 && height <= kMaxEdge && width <= kMaxEdge, "the image size must be 1..8192");
    for (const Level& level : model_.levels)
      need(height % level.stride == 0 && width % level.stride == 0,
           "image size " + std::to_string(height) + "x" + std::to_string(width),
           "height and width must be multiples of the largest stride");
    types_.resize(model_.tensors.size());
    types_[model_.input] = {DType::u8, {model_.tensors[model_.input].shape.channels, height, width}};
    for (const Node& node : model_.nodes) {
      std::vector<Typed> inputs;
      for (const int i : node.inputs) inputs.push_back(types_[i]);
      const std::vector<Typed> outputs = infer(model_, node, inputs);
      for (size_t i = 0; i < outputs.size(); i++) types_[node.outputs[i]] = outputs[i];
    }
    for (const Level& level : model_.levels)
      for (const int i : {level.distance, level.logit})
        need(types_[i].shape.height == height / level.stride && types_[i].shape.width == width / level.stride,
             "this image size does not fit the model's levels");
  }

  int& border_of(int tensor) { return borders_[{types_[tensor].shape.height, types_[tensor].shape.width}]; }

  // One border a size: the widest that a convolution needs on a map of that size. A split b1 map has the pitch of the
  // convolution's output, which therefore needs the border of the phases.
  void choose_borders() {
    for (const Node& node : model_.nodes) {
      if (node.op != Op::conv) continue;
      int& in = border_of(node.inputs[0]);
      in = std::max(in, node.pad);
      int& out = border_of(node.outputs[0]);
      if (node.stride == 2) out = std::max(out, (node.pad + 1) / 2);
    }
  }

  void choose_slices() {
    const int count = static_cast<int>(model_.tensors.size());
    slices_.resize(count);
    for (int i = 0; i < count; i++) slices_[i] = {i, 0};
    for (int n = steps(); n-- > 0;) {  // backwards: a concat inside a concat finds its own place first
      const Node& node = model_.nodes[n];
      if (node.op != Op::concat) continue;
      const Slice whole = slices_[node.outputs[0]];
      int channels = 0;
      for (const int input : node.inputs) {
        const Typed& t = types_[input];
        const bool last = &input == &node.inputs.back();
        const int step = t.type == DType::s16 ? 1 : t.type == DType::b1 ? 4 : 16;
        const bool aligned = channels % step == 0 && (last || t.shape.channels % step == 0);
        if (aligned && t.type != DType::u8 && slices_[input].root == input && input != node.outputs[0])
          slices_[input] = {whole.root, whole.channels + channels};
        channels += t.shape.channels;
      }
    }
    // Roots were given from the last concat to the first, so each is final already: a slice's root is never sliced later.
  }

  // Pixels as codes that convolutions alone read: 4 bytes a pixel instead of 16.
  bool is_stem_codes(int tensor) const {
    if (types_[tensor].type != DType::u4 || types_[tensor].shape.channels > 4) return false;
    bool recoded = false, otherwise = false;
    for (const Node& node : model_.nodes) {
      for (const int i : node.outputs) recoded |= i == tensor && node.op == Op::requantise && node.inputs[0] == model_.input;
      for (const int i : node.inputs) otherwise |= i == tensor && node.op != Op::conv;
    }
    return recoded && !otherwise;
  }

  void lay_out() {
    const size_t count = model_.tensors.size();
    plan.views.resize(count);
    sizes_.resize(count);
    leads_.resize(count);
    for (size_t i = 0; i < count; i++) {
      View& v = plan.views[i];
      const Shape shape = types_[i].shape;
      v.type = types_[i].type;
      v.channels = shape.channels, v.height = shape.height, v.width = shape.width;
      v.border = border_of(static_cast<int>(i));
      v.pitch = v.width + v.border;
      const Slice slice = slices_[i];
      if (slice.root != static_cast<int>(i)) continue;
      const auto lead = static_cast<size_t>(v.border) * v.pitch + v.border;
      const auto body = static_cast<size_t>(v.positions());
      const size_t below = static_cast<size_t>(v.border) * v.pitch;
      const auto room = static_cast<size_t>(v.planar() ? kPlanarRoom : kInterleavedRoom);
      const size_t padded = lead + std::max(body + below, round_up(body, room));
      if (v.type == DType::s16) {
        v.plane = static_cast<ptrdiff_t>(round_up(body, room));
        sizes_[i] = static_cast<size_t>(v.plane) * v.channels * sizeof(int16_t);
      } else if (v.type == DType::b1) {
        v.plane = static_cast<ptrdiff_t>(round_up<size_t>(padded, kAlign));
        sizes_[i] = static_cast<size_t>(v.plane) * ((v.channels + 3) / 4);
        leads_[i] = lead;
      } else {
        v.pixel = round_up(v.channels, v.type == DType::u8 || is_stem_codes(static_cast<int>(i)) ? 4 : 16);
        sizes_[i] = padded * v.pixel;
        leads_[i] = lead * v.pixel;
      }
      need(sizes_[i] <= kMaxArena, "this image size needs more than 4 GiB of memory");
    }
    for (size_t i = 0; i < count; i++) {
      const View& root = plan.views[slices_[i].root];
      plan.views[i].plane = root.plane;
      plan.views[i].pixel = root.pixel;
    }
  }

  void add_step(const Node& node) {
    StepPlan step;
    step.node = &node;
    if (node.op == Op::conv) {
      step.conv = static_cast<int>(plan.convs.size());
      plan.convs.push_back(plan_conv(node));
      const ConvPlan& conv = plan.convs.back();
      step.scratch_bytes = conv.kernel->scratch_bytes(conv.conv);
    } else if (node.op == Op::maxpool) {
      step.scratch_bytes = maxpool_scratch(plan.views[node.inputs[0]]);
    }
    plan.steps.push_back(step);
  }

  // The step that alone reads a tensor, or -1.
  int only_reader(int tensor) const {
    int reader = -1, count = 0;
    for (int n = 0; n < steps(); n++)
      for (const int i : model_.nodes[n].inputs)
        if (i == tensor) reader = n, count++;
    const bool output = std::find(model_.outputs.begin(), model_.outputs.end(), tensor) != model_.outputs.end();
    return count == 1 && !output ? reader : -1;
  }

  // The stem's stream is the largest map of a detector; where a pool alone reads it, it is pooled before it leaves the cache.
  // Of 1-bit layers (deeper, so smaller maps, and a tile of positions is no row) this was measured to cost more than it saves.
  void fuse_pools() {
    for (StepPlan& step : plan.steps) {
      if (step.conv < 0) continue;
      ConvPlan& conv = plan.convs[step.conv];
      if (conv.conv.out_u4 || conv.conv.input == DType::b1) continue;
      for (const int tensor : step.node->outputs) {
        const int pool = types_[tensor].type == DType::s16 && slices_[tensor].root == tensor ? only_reader(tensor) : -1;
        if (pool < 0 || model_.nodes[pool].op != Op::avgpool2) continue;
        conv.pool = pool;
        plan.steps[pool].done = true;
        const int pitch = conv.conv.out_pitch, row_bytes = pitch * conv.conv.out_channels * static_cast<int>(sizeof(int16_t));
        conv.band_rows = std::min(std::max(kBand / row_bytes, 1) * 2, round_up(conv.conv.height, 2));
        conv.band_plane = round_up(conv.band_rows * pitch + kPlanarRoom, kPlanarRoom);
        conv.band_offset = round_up<size_t>(step.scratch_bytes, kAlign);
        step.scratch_bytes = conv.band_offset + static_cast<size_t>(conv.band_plane) * conv.conv.out_channels * sizeof(int16_t);
        sizes_[tensor] = 0;
      }
    }
  }

  ConvPlan plan_conv(const Node& node) {
    const View &x = plan.views[node.inputs[0]], &out = plan.views[node.outputs[0]];
    ConvPlan p;
    Conv& c = p.conv;
    c.input = x.type;
    c.weight = model_.constants[node.constant(Role::weight)].type;
    c.in_channels = x.channels / node.planes, c.out_channels = node.channels;
    c.planes = node.planes, c.step = node.step;
    c.kernel = node.kernel, c.stride = node.stride, c.pad = node.pad;
    c.height = out.height, c.width = out.width;
    c.in_pitch = x.pitch, c.in_pixel = x.pixel, c.out_pitch = out.pitch;
    c.shift = node.shift, c.fraction = std::max(node.fraction, 0);
    c.residual_channels = node.inputs.size() > 1 ? plan.views[node.inputs[1]].channels : 0;
    c.residual_last = node.residual_last == 1;
    for (const DType type : node.output_types) (type == DType::s16 ? c.out_s16 : type == DType::u4 ? c.out_u4 : c.out_b1) = true;
    c.multiplier = model_.i16(node, Role::multiplier);
    c.bias = model_.i16(node, Role::bias);
    c.slope = model_.i16(node, Role::slope);
    c.post = model_.i16(node, Role::post);
    c.gain = model_.i16(node, Role::gain);
    c.threshold = model_.i16(node, Role::threshold);
    if (x.type == DType::b1) plan_taps(x, p);
    p.kernel = &conv_kernel(c, isa_);
    p.prepared_offset = plan.prepared_bytes;
    plan.prepared_bytes += round_up<size_t>(p.kernel->prepared_bytes(c) + kSlack, kAlign);
    return p;
  }

  void plan_taps(const View& x, ConvPlan& p) {
    Conv& c = p.conv;
    ptrdiff_t phase_size = 0;
    if (c.stride == 2) {
      p.split = true;
      const int border = p.phase_border = (c.pad + 1) / 2;
      const int rows = (x.height + 1) / 2, columns = (x.width + 1) / 2;
      c.in_pitch = std::max(c.out_pitch, columns + border);
      phase_size = round_up<ptrdiff_t>(ptrdiff_t{rows + 2 * border + 1} * c.in_pitch + border, kAlign);
      p.phase_plane = 4 * phase_size;
    }
    for (int dy = -c.pad; dy < c.kernel - c.pad; dy++)
      for (int dx = -c.pad; dx < c.kernel - c.pad; dx++)
        p.taps.push_back(p.split ? ((dy & 1) * 2 + (dx & 1)) * phase_size + ptrdiff_t{dy >> 1} * c.in_pitch + (dx >> 1)
                                 : ptrdiff_t{dy} * c.in_pitch + dx);
  }

  // Lifetimes, then offsets: the largest block first, each at the lowest place where nothing that lives with it lies.
  void place() {
    const size_t count = model_.tensors.size();
    std::vector<Block> blocks;
    std::vector<int> block_of(count, -1);
    for (size_t i = 0; i < count; i++) {
      if (slices_[i].root != static_cast<int>(i)) continue;
      block_of[i] = static_cast<int>(blocks.size());
      blocks.push_back({sizes_[i], steps(), -1});
    }
    const auto touch = [&](int tensor, int step) {
      Block& block = blocks[block_of[slices_[tensor].root]];
      block.first = std::min(block.first, step);
      block.last = std::max(block.last, step);
    };
    touch(model_.input, -1);
    for (int n = 0; n < steps(); n++) {
      for (const int i : model_.nodes[n].inputs) touch(i, n);
      for (const int i : model_.nodes[n].outputs) touch(i, n);
      const int conv = plan.steps[n].conv;
      if (conv >= 0 && plan.convs[conv].pool >= 0) touch(model_.nodes[plan.convs[conv].pool].outputs[0], n);
    }
    for (const int i : model_.outputs) touch(i, steps());
    if (!reuse_)
      for (Block& block : blocks) block.first = -1, block.last = steps();
    std::vector<int> phase_block(plan.convs.size(), -1);
    for (int n = 0; n < steps(); n++) {
      const int conv = plan.steps[n].conv;
      if (conv < 0 || !plan.convs[conv].split) continue;
      phase_block[conv] = static_cast<int>(blocks.size());
      const int channels = plan.views[model_.nodes[n].inputs[0]].channels;
      blocks.push_back({static_cast<size_t>(plan.convs[conv].phase_plane) * ((channels + 3) / 4), n, n});
    }

    std::vector<int> order(blocks.size()), placed;
    for (size_t i = 0; i < order.size(); i++) order[i] = static_cast<int>(i);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return blocks[a].bytes > blocks[b].bytes; });
    size_t top = kSlack;
    for (const int i : order) {
      Block& block = blocks[i];
      block.bytes = round_up<size_t>(block.bytes, kAlign);
      block.offset = kSlack;
      for (const int j : placed) {  // by ascending offset
        const Block& other = blocks[j];
        if (other.last < block.first || block.last < other.first) continue;
        if (block.offset + block.bytes <= other.offset) break;
        block.offset = std::max(block.offset, other.offset + other.bytes);
      }
      top = std::max(top, block.offset + block.bytes);
      need(top <= kMaxArena, "this image size needs more than 4 GiB of memory");
      placed.insert(
          std::upper_bound(placed.begin(), placed.end(), i, [&](int a, int b) { return blocks[a].offset < blocks[b].offset; }),
          i);
    }

    plan.offsets.resize(count);
    for (size_t i = 0; i < count; i++) {
      const Slice slice = slices_[i];
      const View& v = plan.views[i];
      const size_t inside = v.type == DType::s16  ? static_cast<size_t>(slice.channels * v.plane) * sizeof(int16_t)
                            : v.type == DType::b1 ? static_cast<size_t>(slice.channels / 4 * v.plane)
                                                  : static_cast<size_t>(slice.channels);
      plan.offsets[i] = blocks[block_of[slice.root]].offset + leads_[slice.root] + inside;
    }
    for (size_t i = 0; i < plan.convs.size(); i++)
      if (phase_block[i] >= 0) plan.convs[i].phase_offset = blocks[phase_block[i]].offset;
    plan.scratch_offset = round_up<size_t>(top + kSlack, kAlign);
    plan.arena_bytes = plan.scratch_offset + plan.scratch_bytes * threads_ + kSlack;
    need(plan.arena_bytes <= kMaxArena, "this image size and number of threads need more than 4 GiB of memory");
    need(plan.prepared_bytes <= kMaxArena, "the weights need more than 4 GiB of memory");
  }
};

}  // namespace

Plan make_plan(const Model& model, int height, int width, Isa isa, int threads, bool reuse) {
  return std::move(Planner(model, height, width, isa, threads, reuse).plan);
}

}  // namespace mpq
