// Places -> tree of candidate lists (region_cells.h says what it looks like). Included by region_build.cpp alone.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <numeric>
#include <stdexcept>
#include <utility>
#include <vector>

#include "region_cells.h"
#include "region_threads.h"

namespace geogrpo {
namespace {

// Candidate lists. A place stays on a cell's list unless another place is nearer for every point of the cell: with c the
// centre and r the radius of a ball around the cell, p is never nearest if |p-c|^2 - |q-c|^2 > 2 r |p-q|.
class PlaceTreeBuilder {
 public:
  PlaceTreeBuilder(const double* places, int64_t num_places, int64_t metric)
      : places_(places), num_places_(num_places), metric_(metric) {}

  struct Tree {
    std::vector<uint32_t> roots, nodes, candidates;
  };

  // The cells to start from, each a piece of work that is independent of the others.
  static std::vector<std::array<int64_t, 2>> start_cells() {
    std::vector<std::array<int64_t, 2>> cells;
    for (int64_t y = 0; y < Y_END; y += int64_t(1) << START_BITS)
      for (int64_t x = 0; x < X_END; x += int64_t(1) << START_BITS) cells.push_back({x, y});
    return cells;
  }

  // The tree below one start cell; `roots` holds pairs of slot and entry.
  Tree build(std::array<int64_t, 2> start) {
    std::vector<int32_t> everything(num_places_);
    std::iota(everything.begin(), everything.end(), 0);
    descend(start[0], start[1], START_BITS, everything);
    return std::move(tree_);
  }

 private:
  // 54 degrees: small enough for the farthest point of a cell to be one of its corners.
  static constexpr int START_BITS = 29;
  static constexpr size_t MAX_LIST = 4, MAX_PRUNED = 400;

  void descend(int64_t x, int64_t y, int bits, const std::vector<int32_t>& parent) {
    if (x >= X_END || y >= Y_END) return;
    const std::vector<int32_t> kept = candidates(x, y, bits, parent);
    if (bits == ROOT_BITS) {
      tree_.roots.push_back(uint32_t(root_of(uint32_t(x), uint32_t(y))));
      tree_.roots.push_back(write(x, y, bits, kept));
      return;
    }
    const int64_t half = int64_t(1) << (bits - 1);
    for (int child = 0; child < 4; ++child) descend(x + (child & 1) * half, y + (child >> 1) * half, bits - 1, kept);
  }

  uint32_t write(int64_t x, int64_t y, int bits, const std::vector<int32_t>& kept) {
    if (kept.size() == 1) return make_entry(TAG_ID, uint32_t(kept[0]) + 1);
    if (kept.size() <= MAX_LIST || bits <= FINEST_BITS) return write_list(kept);
    const size_t node = tree_.nodes.size() / NODE_SIZE;
    tree_.nodes.resize(tree_.nodes.size() + NODE_SIZE, 0);
    const int child_bits = bits - NODE_BITS;
    for (int child = 0; child < NODE_SIZE; ++child) {
      const int64_t child_x = x + (int64_t(child % NODE_SIDE) << child_bits), child_y = y + (int64_t(child / NODE_SIDE) << child_bits);
      if (child_x >= X_END || child_y >= Y_END) continue;
      const uint32_t entry = write(child_x, child_y, child_bits, candidates(child_x, child_y, child_bits, kept));
      tree_.nodes[node * NODE_SIZE + child] = entry;
    }
    return make_entry(TAG_BLOCK, uint32_t(node));
  }

  uint32_t write_list(std::vector<int32_t> list) {
    std::sort(list.begin(), list.end());
    const auto [known, is_new] = lists_.try_emplace(list, uint32_t(tree_.candidates.size()));
    if (is_new) {
      tree_.candidates.push_back(uint32_t(list.size()));
      tree_.candidates.insert(tree_.candidates.end(), list.begin(), list.end());
    }
    return make_entry(TAG_LIST, known->second);
  }

  double distance(int32_t a, int32_t b) const { return std::sqrt(distance2(places_ + 3 * int64_t(a), places_ + 3 * int64_t(b))); }

  // The places of `parent` that may be nearest to a point of the cell.
  std::vector<int32_t> candidates(int64_t x, int64_t y, int bits, const std::vector<int32_t>& parent) const {
    const int64_t size = int64_t(1) << bits;
    // A unit wider than the cell: points are rounded to units, and those at the very north and east belong to the last
    const double west = double(x - 1) / UNITS_PER_DEG - 180, east = double(std::min(x + size, X_END) + 1) / UNITS_PER_DEG - 180;
    const double south = std::max(double(y - 1) / UNITS_PER_DEG - 90, -90.0);
    const double north = std::min(double(std::min(y + size, Y_END) + 1) / UNITS_PER_DEG - 90, 90.0);
    double center[3], corner[3], radius2 = 0;
    place_vector((south + north) / 2, (west + east) / 2, metric_, center);
    for (int i = 0; i < 4; ++i) {
      place_vector(i & 1 ? south : north, i & 2 ? west : east, metric_, corner);
      radius2 = std::max(radius2, distance2(center, corner));
    }
    const double radius = std::sqrt(radius2) * (1 + 1e-9) + 1e-14;
    std::vector<std::pair<double, int32_t>> near;
    near.reserve(parent.size());
    double limit = INFINITY;
    for (const int32_t place : parent) {
      const double d = std::sqrt(distance2(places_ + 3 * int64_t(place), center));
      if (d > limit) continue;
      near.push_back({d, place});
      limit = std::min(limit, d + 2 * radius);
    }
    near.erase(std::remove_if(near.begin(), near.end(), [&](const auto& item) { return item.first > limit; }), near.end());
    std::vector<int32_t> kept;
    if (near.size() > MAX_PRUNED) {
      for (const auto& item : near) kept.push_back(item.second);
      return kept;
    }
    std::sort(near.begin(), near.end());
    std::vector<double> kept_distance;
    for (const auto& [d, place] : near) {
      bool is_needed = true;
      for (size_t i = 0; i < kept.size() && is_needed; ++i) {
        const double between = distance(place, kept[i]), rounding = 1e-15 * (d + kept_distance[i] + 1e-3);
        // Of places at one point only the lowest id can win
        is_needed = between > 0 ? d * d - kept_distance[i] * kept_distance[i] <= 2 * radius * between + rounding : place < kept[i];
      }
      if (!is_needed) continue;
      kept.push_back(place);
      kept_distance.push_back(d);
    }
    return kept;
  }

  const double* places_;
  int64_t num_places_;
  int64_t metric_;
  Tree tree_;
  std::map<std::vector<int32_t>, uint32_t> lists_;
};

// The pieces in their order, so that the tree is the same whatever the number of threads.
PlaceTreeBuilder::Tree join(const std::vector<PlaceTreeBuilder::Tree>& pieces) {
  PlaceTreeBuilder::Tree tree;
  tree.roots.assign(size_t(ROOT_ROWS) * ROOT_COLUMNS, 0);
  for (const auto& piece : pieces) {
    const uint32_t first_node = uint32_t(tree.nodes.size() / NODE_SIZE), first_word = uint32_t(tree.candidates.size());
    auto moved = [&](uint32_t entry) {
      if (tag_of(entry) == TAG_BLOCK) return entry + first_node;
      return tag_of(entry) == TAG_LIST ? entry + first_word : entry;
    };
    for (size_t i = 0; i < piece.roots.size(); i += 2) tree.roots[piece.roots[i]] = moved(piece.roots[i + 1]);
    for (const uint32_t entry : piece.nodes) tree.nodes.push_back(moved(entry));
    tree.candidates.insert(tree.candidates.end(), piece.candidates.begin(), piece.candidates.end());
    if (tree.candidates.size() > VALUE_MASK || tree.nodes.size() / NODE_SIZE > VALUE_MASK)
      throw std::length_error("too many places: more than 2^30 words of candidate lists.");
  }
  return tree;
}

PlaceTreeBuilder::Tree build_place_tree(const double* places, int64_t num_places, int64_t metric, int64_t num_threads) {
  const auto starts = PlaceTreeBuilder::start_cells();
  std::vector<PlaceTreeBuilder::Tree> pieces(starts.size());
  std::atomic<size_t> next{0};
  run_on_threads(num_threads, [&](int64_t) {
    for (size_t i = next++; i < starts.size(); i = next++)
      pieces[i] = PlaceTreeBuilder(places, num_places, metric).build(starts[i]);
  });
  return join(pieces);
}

}  // namespace
}  // namespace geogrpo
