#include "session.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>

#include "cpu.h"
#include "fault.h"

namespace mpq {

namespace {
#ifdef MPQ_TESTS
constexpr int kFresh = 0x5a;  // no result may depend on what the memory of maps held before
#else
constexpr int kFresh = 0;
#endif
}  // namespace

Session::Memory Session::allocate(size_t bytes, int fill) {
  auto* memory = static_cast<uint8_t*>(::operator new(bytes, std::align_val_t{kAlign}));
  std::memset(memory, fill, bytes);
  return Memory(memory);
}

Session::Session(std::shared_ptr<const Model> model, const Options& options)
    : model_(std::move(model)),
      keep_(options.keep_tensors),
      isa_(choose_isa(options.isa)),
      plan_(make_plan(*model_, options.height > 0 ? options.height : model_->tensors[model_->input].shape.height,
                      options.width > 0 ? options.width : model_->tensors[model_->input].shape.width, isa_, options.threads,
                      !options.keep_tensors)),
      pool_(options.threads),
      arena_(allocate(plan_.arena_bytes, kFresh)),
      prepared_(allocate(plan_.prepared_bytes, 0)),
      tools_{pool_, row_kernels(isa_), arena_.get() + plan_.scratch_offset, plan_.scratch_bytes},
      nanoseconds_(plan_.steps.size()) {
  for (size_t i = 0; i < plan_.views.size(); i++) plan_.views[i].data = arena_.get() + plan_.offsets[i];
  for (const StepPlan& step : plan_.steps) {
    if (step.conv < 0) continue;
    const ConvPlan& conv = plan_.convs[step.conv];
    conv.kernel->prepare(conv.conv, model_->constants[step.node->constant(Role::weight)].data,
                         prepared_.get() + conv.prepared_offset);
  }
}

void Session::run(const uint8_t* image) {
  load_image(image, input(), tools_);
  execute();
}

Placement Session::run_photo(const uint8_t* photo, int w, int h, ptrdiff_t row_stride) {
  const View& in = input();
  const Placement at =
      letterbox_(photo, w, h, row_stride, in.data, in.width, in.height, in.pixel, ptrdiff_t{in.pitch} * in.pixel, tools_.rows);
  clear_border(in);
  execute();
  return at;
}

void Session::execute() {
  using Clock = std::chrono::steady_clock;
  auto before = Clock::now();
  for (size_t i = 0; i < plan_.steps.size(); i++) {
    execute(plan_.steps[i]);
    const auto after = Clock::now();
    nanoseconds_[i] = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(after - before).count());
    before = after;
  }
}

void Session::execute(const StepPlan& step) {
  if (step.done) return;
  const Node& node = *step.node;
  const View &in = plan_.views[node.inputs[0]], &out = plan_.views[node.outputs[0]];
  switch (node.op) {
    case Op::conv: {
      const ConvPlan& conv = plan_.convs[step.conv];
      View outputs[3];
      int count = 0;
      for (const int i : node.outputs) outputs[count++] = plan_.views[i];
      const View* residual = node.inputs.size() > 1 ? &plan_.views[node.inputs[1]] : nullptr;
      const View* pooled = conv.pool >= 0 ? &plan_.views[model_->nodes[conv.pool].outputs[0]] : nullptr;
      run_conv(conv, prepared_.get() + conv.prepared_offset, arena_.get() + conv.phase_offset, in, residual, outputs, count,
               pooled, tools_);
      break;
    }
    case Op::threshold: run_threshold(in, model_->i16(node, Role::threshold), node.step, out, tools_); break;
    case Op::requantise:
      run_requantise(in, model_->i16(node, Role::multiplier), model_->i16(node, Role::bias), node.fraction, out, tools_);
      break;
    case Op::avgpool2: run_avgpool2(in, out, tools_); break;
    case Op::maxpool: run_maxpool(in, node.kernel, out, tools_); break;
    case Op::upsample2: run_upsample2(in, out, tools_); break;
    case Op::concat: {
      int channel = 0;
      for (const int i : node.inputs) {
        run_concat(plan_.views[i], channel, out, tools_);
        channel += plan_.views[i].channels;
      }
      break;
    }
  }
}

std::vector<Box> Session::boxes(float min_score, float iou) const {
  std::vector<LevelMaps> levels;
  for (const Level& level : model_->levels)
    levels.push_back({level.stride, plan_.views[level.distance], plan_.views[level.logit]});
  return decode(levels, min_score, iou > 0 ? iou : model_->iou);
}

const View& Session::tensor(const std::string& name) const {
  for (size_t i = 0; i < model_->tensors.size(); i++) {
    if (model_->tensors[i].name != name) continue;
    const bool output = std::find(model_->outputs.begin(), model_->outputs.end(), static_cast<int>(i)) != model_->outputs.end();
    need(keep_ || output, "tensor '" + name + "'", "is not kept; make the session with keep_tensors");
    return plan_.views[i];
  }
  throw Fault("tensor '" + name + "' does not exist");
}

const char* Session::kernel_name(int step) const {
  const StepPlan& plan = plan_.steps[step];
  return plan.conv >= 0 ? plan_.convs[plan.conv].kernel->name : kOps[static_cast<int>(plan.node->op)];
}

}  // namespace mpq
