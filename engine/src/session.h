// One thread's way through a model: plan, memory, prepared weights and the pool.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model.h"
#include "ops/ops.h"
#include "plan.h"
#include "postprocess.h"
#include "preprocess.h"
#include "threads.h"

namespace mpq {

struct Options {
  int height = 0, width = 0, threads = 1;
  bool keep_tensors = false;
  const char* isa = nullptr;
};

class Session {
 public:
  Session(std::shared_ptr<const Model> model, const Options& options);  // throws Fault, std::bad_alloc

  void run(const uint8_t* image);  // dense (height, width, channels)
  Placement run_photo(const uint8_t* photo, int w, int h, ptrdiff_t row_stride);
  std::vector<Box> boxes(float min_score, float iou) const;  // in pixels of the input; iou 0: the model's own
  const View& tensor(const std::string& name) const;         // throws Fault if there is none that can be read

  const Model& model() const { return *model_; }
  const Plan& plan() const { return plan_; }
  const View& input() const { return plan_.views[model_->input]; }
  Isa isa() const { return isa_; }
  int threads() const { return pool_.threads(); }
  const char* kernel_name(int step) const;
  uint64_t nanoseconds(int step) const { return nanoseconds_[step]; }

 private:
  struct Free {
    void operator()(uint8_t* p) const { ::operator delete(p, std::align_val_t{kAlign}); }
  };
  using Memory = std::unique_ptr<uint8_t[], Free>;
  static Memory allocate(size_t bytes, int fill);
  void execute();
  void execute(const StepPlan& step);

  std::shared_ptr<const Model> model_;
  bool keep_;
  Isa isa_;
  Plan plan_;
  ThreadPool pool_;
  Memory arena_, prepared_;
  Tools tools_;
  Letterbox letterbox_;
  std::vector<uint64_t> nanoseconds_;
};

}  // namespace mpq
