// The C API: handles round the classes, exceptions turned into one line of text. Nothing is decided here.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <memory>
#include <new>

#include "cpu.h"
#include "fault.h"
#include "mpqyolo.h"
#include "session.h"

struct mpq_model {
  std::shared_ptr<const mpq::Model> model;
};

struct mpq_session {
  explicit mpq_session(std::shared_ptr<const mpq::Model> model, const mpq::Options& options)
      : session(std::move(model), options) {}
  mpq::Session session;
};

namespace {

void report(const char* text, char* error, size_t size) {
  if (error == nullptr || size == 0) return;
  const size_t length = std::min(std::strlen(text), size - 1);
  std::memcpy(error, text, length);
  error[length] = '\0';
}

// What `call` returns, or `failed` after it threw.
template <class Call, class Result>
Result guarded(const Call& call, Result failed, char* error, size_t size) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    report("out of memory", error, size);
  } catch (const std::exception& fault) {
    report(fault.what(), error, size);
  } catch (...) {
    report("unknown fault", error, size);
  }
  return failed;
}

int32_t give(const std::vector<mpq::Box>& found, mpq_box* boxes, int32_t capacity) {
  const auto count = static_cast<int32_t>(std::min<size_t>(found.size(), static_cast<size_t>(std::max(capacity, 0))));
  for (int32_t i = 0; i < count; i++)
    boxes[i] = {found[i].x1, found[i].y1, found[i].x2, found[i].y2, found[i].score, found[i].class_id};
  return count;
}

void check_call(const mpq_session* session, const mpq_box* boxes, int32_t capacity, float min_score, float iou) {
  mpq::need(session != nullptr, "no session");
  mpq::need(boxes != nullptr || capacity <= 0, "no room for boxes");
  mpq::need(min_score >= 0 && min_score <= 1, "min_score must be 0..1");
  mpq::need(iou >= 0 && iou <= 1, "iou must be 0..1");
}

mpq_placement to_c(const mpq::Placement& p) { return {p.left, p.top, p.nw, p.nh, p.w, p.h}; }

}  // namespace

const char* mpq_version(void) { return MPQ_VERSION; }

int32_t mpq_abi_version(void) { return MPQ_ABI_VERSION; }

mpq_model* mpq_model_open(const char* path, char* error, size_t error_size) {
  return guarded(
      [&] {
        mpq::need(path != nullptr, "no path");
        return new mpq_model{std::make_shared<const mpq::Model>(mpq::Bytes::map(path))};
      },
      static_cast<mpq_model*>(nullptr), error, error_size);
}

mpq_model* mpq_model_open_memory(const void* data, size_t size, char* error, size_t error_size) {
  return guarded([&] { return new mpq_model{std::make_shared<const mpq::Model>(mpq::Bytes::copy(data, size))}; },
                 static_cast<mpq_model*>(nullptr), error, error_size);
}

void mpq_model_free(mpq_model* model) { delete model; }

mpq_model_info mpq_model_describe(const mpq_model* handle) {
  const mpq::Model& model = *handle->model;
  const mpq::Shape shape = model.tensors[model.input].shape;
  return {shape.height, shape.width, shape.channels, static_cast<int32_t>(model.classes.size()), model.levels.back().stride,
          model.iou};
}

const char* mpq_model_class_name(const mpq_model* handle, int32_t class_id) {
  const auto& classes = handle->model->classes;
  return class_id >= 0 && static_cast<size_t>(class_id) < classes.size() ? classes[class_id].c_str() : nullptr;
}

const char* mpq_model_header(const mpq_model* handle, size_t* length) {
  if (length) *length = handle->model->header.size();
  return handle->model->header.data();
}

mpq_session* mpq_session_new(const mpq_model* model, const mpq_options* options, char* error, size_t error_size) {
  return guarded(
      [&] {
        mpq::Options chosen;
        if (options != nullptr) {
          chosen.height = options->height, chosen.width = options->width;
          chosen.threads = options->threads == 0 ? 1 : options->threads;
          chosen.keep_tensors = options->keep_tensors != 0;
          chosen.isa = options->isa;
        }
        mpq::need(chosen.height >= 0 && chosen.width >= 0, "the image size must be 1..8192");
        mpq::need(chosen.threads >= 1 && chosen.threads <= 64, "threads must be 1..64");
        mpq::need(model != nullptr, "no model");
        return new mpq_session(model->model, chosen);
      },
      static_cast<mpq_session*>(nullptr), error, error_size);
}

void mpq_session_free(mpq_session* session) { delete session; }

mpq_session_info mpq_session_describe(const mpq_session* handle) {
  const mpq::Session& s = handle->session;
  return {s.input().height,     s.input().width,         s.threads(),           static_cast<int32_t>(s.plan().steps.size()),
          s.plan().arena_bytes, s.plan().prepared_bytes, mpq::isa_name(s.isa())};
}

void mpq_session_run(mpq_session* session, const uint8_t* image) { session->session.run(image); }

int32_t mpq_session_decode(const mpq_session* session, float min_score, float iou, const mpq_placement* place, mpq_box* boxes,
                           int32_t capacity, char* error, size_t error_size) {
  return guarded(
      [&] {
        check_call(session, boxes, capacity, min_score, iou);
        std::vector<mpq::Box> found = session->session.boxes(min_score, iou);
        if (place) {
          mpq::need(place->nw > 0 && place->nh > 0 && place->w > 0 && place->h > 0, "the placement is empty");
          mpq::to_photo({place->left, place->top, place->nw, place->nh, place->w, place->h}, found);
        }
        return give(found, boxes, capacity);
      },
      -1, error, error_size);
}

int32_t mpq_session_detect(mpq_session* session, const uint8_t* photo, int32_t w, int32_t h, ptrdiff_t row_stride,
                           float min_score, float iou, mpq_box* boxes, int32_t capacity, char* error, size_t error_size) {
  return guarded(
      [&] {
        check_call(session, boxes, capacity, min_score, iou);
        const mpq::Placement at = session->session.run_photo(photo, w, h, row_stride);
        std::vector<mpq::Box> found = session->session.boxes(min_score, iou);
        mpq::to_photo(at, found);
        return give(found, boxes, capacity);
      },
      -1, error, error_size);
}

int64_t mpq_session_tensor(const mpq_session* session, const char* name, mpq_tensor_info* info, void* values, size_t size,
                           char* error, size_t error_size) {
  return guarded(
      [&] {
        mpq::need(session != nullptr && name != nullptr, "no session or no name");
        const mpq::View& view = session->session.tensor(name);
        const int64_t bytes = int64_t{view.channels} * view.height * view.width * (view.type == mpq::DType::s16 ? 2 : 1);
        if (info) *info = {static_cast<int32_t>(view.type), view.channels, view.height, view.width};
        if (values) {
          mpq::need(size >= static_cast<size_t>(bytes), "the buffer is too small");
          mpq::read_dense(view, values);
        }
        return bytes;
      },
      int64_t{-1}, error, error_size);
}

mpq_layer_info mpq_session_layer(const mpq_session* handle, int32_t layer) {
  const mpq::Session& s = handle->session;
  if (layer < 0 || static_cast<size_t>(layer) >= s.plan().steps.size()) return {nullptr, nullptr, 0};
  return {s.plan().steps[layer].node->name.c_str(), s.kernel_name(layer), s.nanoseconds(layer)};
}

int32_t mpq_letterbox(const uint8_t* photo, int32_t w, int32_t h, ptrdiff_t row_stride, uint8_t* image, int32_t width,
                      int32_t height, mpq_placement* place, char* error, size_t error_size) {
  return guarded(
      [&] {
        mpq::need(image != nullptr && width > 0 && height > 0, "the image has no pixels");
        const mpq::Placement at = mpq::Letterbox()(photo, w, h, row_stride, image, width, height, 3, 3 * ptrdiff_t{width},
                                                   mpq::row_kernels(mpq::choose_isa(nullptr)));
        if (place) *place = to_c(at);
        return 0;
      },
      -1, error, error_size);
}
