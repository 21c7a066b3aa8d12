#include "postprocess.h"

#include <algorithm>

#include "numerics.h"

namespace mpq {
namespace {

constexpr size_t kMaxCandidates = 4096, kBuffer = 16 * kMaxCandidates;

struct Candidate {
  float score;
  uint64_t place;  // level, cell, class: 6, 48 and 10 bits, so that ascending order is the tie order
  bool operator<(const Candidate& other) const { return score != other.score ? score > other.score : place < other.place; }
};

// The smallest logit whose score reaches min_score, or 32768 if none does. The score ascends with the logit.
int smallest_logit(float min_score) {
  int low = -32768, high = 32768;
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (score(middle) >= min_score)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

void keep_best(std::vector<Candidate>& all) {
  if (all.size() <= kMaxCandidates) return;
  std::nth_element(all.begin(), all.begin() + kMaxCandidates, all.end());
  all.resize(kMaxCandidates);
}

std::vector<Candidate> candidates(const std::vector<LevelMaps>& levels, int least) {
  std::vector<Candidate> all;
  for (size_t l = 0; l < levels.size() && least <= 32767; l++) {
    const View& logit = levels[l].logit;
    for (int c = 0; c < logit.channels; c++)
      for (int y = 0; y < logit.height; y++) {
        const int16_t* row = logit.s16(c) + ptrdiff_t{y} * logit.pitch;
        int found = 0;  // most rows have none, and this loop has no branches
        for (int x = 0; x < logit.width; x++) found |= row[x] >= least;
        for (int x = 0; found && x < logit.width; x++)
          if (row[x] >= least)
            all.push_back(
                {score(row[x]), uint64_t{l} << 58 | (uint64_t(y) * uint64_t(logit.width) + uint64_t(x)) << 10 | uint64_t(c)});
        if (all.size() >= kBuffer) keep_best(all);
      }
  }
  keep_best(all);
  std::sort(all.begin(), all.end());
  return all;
}

float distance(const LevelMaps& level, int side, int y, int x) {
  return exp2_q10(level.distance.s16(side)[ptrdiff_t{y} * level.distance.pitch + x]) * static_cast<float>(level.stride);
}

Box box_of(const LevelMaps& level, const Candidate& candidate) {
  const auto cell = static_cast<int>(candidate.place >> 10 & ((uint64_t{1} << 48) - 1));
  const int y = cell / level.logit.width, x = cell % level.logit.width;
  const float cx = (static_cast<float>(x) + 0.5f) * static_cast<float>(level.stride);
  const float cy = (static_cast<float>(y) + 0.5f) * static_cast<float>(level.stride);
  return {cx - distance(level, 0, y, x),
          cy - distance(level, 1, y, x),
          cx + distance(level, 2, y, x),
          cy + distance(level, 3, y, x),
          candidate.score,
          static_cast<int>(candidate.place & 1023)};
}

float area(const Box& b) { return (b.x2 - b.x1) * (b.y2 - b.y1); }

bool overlaps(const Box& kept, const Box& other, float iou) {
  const float width = std::max(0.0f, std::min(kept.x2, other.x2) - std::max(kept.x1, other.x1));
  const float height = std::max(0.0f, std::min(kept.y2, other.y2) - std::max(kept.y1, other.y1));
  const float inter = width * height;
  return inter > iou * (area(kept) + area(other) - inter);
}

}  // namespace

std::vector<Box> decode(const std::vector<LevelMaps>& levels, float min_score, float iou) {
  std::vector<Box> kept;
  for (const Candidate& candidate : candidates(levels, smallest_logit(min_score))) {
    const Box box = box_of(levels[candidate.place >> 58], candidate);
    const bool dropped =
        std::any_of(kept.begin(), kept.end(), [&](const Box& k) { return k.class_id == box.class_id && overlaps(k, box, iou); });
    if (dropped) continue;
    kept.push_back(box);
    if (kept.size() == kMaxDetections) break;
  }
  return kept;
}

void to_photo(const Placement& at, std::vector<Box>& boxes) {
  const auto w = static_cast<float>(at.w), h = static_cast<float>(at.h);
  const float across = w / static_cast<float>(at.nw), down = h / static_cast<float>(at.nh);
  const auto left = static_cast<float>(at.left), top = static_cast<float>(at.top);
  for (Box& b : boxes) {
    b.x1 = std::min(std::max((b.x1 - left) * across, 0.0f), w);
    b.x2 = std::min(std::max((b.x2 - left) * across, 0.0f), w);
    b.y1 = std::min(std::max((b.y1 - top) * down, 0.0f), h);
    b.y2 = std::min(std::max((b.y2 - top) * down, 0.0f), h);
  }
}

}  // namespace mpq
