// Everything that a file can make the engine do: load, plan, prepare, run once, decode. For hostile files.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <vector>

#include "mpqyolo.h"

// Large maps are legal and slow, and say nothing new: beyond this the file is only loaded and planned.
constexpr uint64_t kMaxArenaToRun = uint64_t{64} << 20;

// True if the file is accepted, or its size is refused for a stated reason; `error` has the line.
inline bool exercise(const void* data, size_t size, char* error, size_t error_size) {
  mpq_model* model = mpq_model_open_memory(data, size, error, error_size);
  if (model == nullptr) return false;
  mpq_options options = {};
  options.threads = 2;
  mpq_session* session = mpq_session_new(model, &options, error, error_size);
  mpq_model_free(model);
  if (session == nullptr) return false;
  const mpq_session_info info = mpq_session_describe(session);
  if (info.arena_bytes <= kMaxArenaToRun) {
    const std::vector<uint8_t> photo(3 * 40 * 30, 200);
    std::vector<mpq_box> boxes(300);
    mpq_session_detect(session, photo.data(), 40, 30, 3 * 40, 0.1f, 0, boxes.data(), 300, error, error_size);
  }
  mpq_session_free(session);
  return true;
}
