// Predictions to boxes: docs/numerics.md, section 5.
#pragma once

#include <vector>

#include "layout.h"
#include "preprocess.h"

namespace mpq {

struct Box {
  float x1, y1, x2, y2, score;
  int class_id;
};

struct LevelMaps {
  int stride;
  View distance, logit;
};

constexpr int kMaxDetections = 300;

// Boxes after suppression, best first, in pixels of the input.
std::vector<Box> decode(const std::vector<LevelMaps>& levels, float min_score, float iou);

// The same boxes in pixels of the photo, clipped to it.
void to_photo(const Placement& place, std::vector<Box>& boxes);

}  // namespace mpq
