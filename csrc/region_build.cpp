// Polygons -> grid of cells, and places -> tree of candidate lists (region_cells.h says what they look like).
#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "place_tree.h"
#include "region_cells.h"

namespace geogrpo {
namespace {

// Edge e runs from vertex e to vertex e + 1 of the closed rings, laid end to end.
struct Rings {
  const uint32_t* vertices;
  const int64_t* offset;  // (num_rings + 1)
  const int32_t* region;  // (num_rings)
  int64_t num_rings;
};

struct LeafEdge {
  int32_t column, region;
  uint32_t edge;
  bool operator<(const LeafEdge& other) const {
    if (column != other.column) return column < other.column;
    return region != other.region ? region < other.region : edge < other.edge;
  }
};

// Where a region's border crosses the bottom line of a row of leaves: points at x or east of it have the other parity.
struct Crossing {
  int64_t x;
  int32_t region;
  bool operator<(const Crossing& other) const { return x != other.x ? x < other.x : region < other.region; }
};

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a % b < 0) != (b < 0)); }
int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

struct Grid {
  std::vector<uint32_t> cells, leaves, records;
  std::vector<uint32_t> crossings;  // (region, x, y): one place where a region's border crosses itself
};

class GridBuilder {
 public:
  GridBuilder(const Rings& rings, int32_t num_regions)
      : rings_(rings), crosses_itself_(num_regions, false), edges_(LEAF_ROWS), lines_(LEAF_ROWS) {}

  Grid build() {
    for (int64_t ring = 0; ring < rings_.num_rings; ++ring)
      for (int64_t e = rings_.offset[ring]; e + 1 < rings_.offset[ring + 1]; ++e) add_edge(uint32_t(e), rings_.region[ring]);
    grid_.cells.assign(size_t(CELL_ROWS) * CELL_COLUMNS, 0);
    for (int32_t row = 0; row < CELL_ROWS; ++row) build_cell_row(row);
    return std::move(grid_);
  }

 private:
  const uint32_t* vertex(uint32_t v) const { return rings_.vertices + 2 * int64_t(v); }

  void add_edge(uint32_t edge, int32_t region) {
    const uint32_t *a = vertex(edge), *b = vertex(edge + 1);
    // One direction for both, so that two regions that share an edge find it in the same leaves
    if (a[1] > b[1] || (a[1] == b[1] && a[0] > b[0])) std::swap(a, b);
    const int64_t ax = a[0], ay = a[1], bx = b[0], by = b[1], dx = bx - ax, dy = by - ay;
    for (int64_t row = ay >> LEAF_BITS; row <= by >> LEAF_BITS; ++row) {
      const int64_t bottom = row << LEAF_BITS, top = bottom + (int64_t(1) << LEAF_BITS);
      const int64_t from_y = std::max(ay, bottom), to_y = std::min(by, top);
      int64_t west = std::min(ax, bx), east = std::max(ax, bx);
      if (dy > 0) {
        const int64_t from_x = dx * (from_y - ay), to_x = dx * (to_y - ay);
        west = ax + floor_div(std::min(from_x, to_x), dy);
        east = ax + ceil_div(std::max(from_x, to_x), dy);
      }
      for (int64_t column = west >> LEAF_BITS; column <= std::min(east, X_END) >> LEAF_BITS; ++column)
        edges_[row].push_back({int32_t(column), region, edge});
      // The same half-open rule as crosses_west
      if (ay <= bottom && bottom < by) lines_[row].push_back({ax + ceil_div(dx * (bottom - ay), dy), region});
    }
  }

  void build_cell_row(int32_t cell_row) {
    std::vector<bool> has_border(CELL_COLUMNS, false);
    const int32_t first = cell_row << BLOCK_BITS, last = std::min(first + BLOCK_SIDE, LEAF_ROWS);
    for (int32_t row = first; row < last; ++row)
      for (const LeafEdge& edge : edges_[row]) has_border[edge.column >> BLOCK_BITS] = true;
    uint32_t* cells = grid_.cells.data() + size_t(cell_row) * CELL_COLUMNS;
    for (int32_t column = 0; column < CELL_COLUMNS; ++column) {
      if (!has_border[column]) continue;
      cells[column] = make_entry(TAG_BLOCK, uint32_t(grid_.leaves.size() >> 2 * BLOCK_BITS));
      grid_.leaves.resize(grid_.leaves.size() + BLOCK_SIDE * BLOCK_SIDE, 0);
    }
    for (int32_t row = first; row < last; ++row) build_leaf_row(row, has_border, cells);
  }

  // From west to east along the bottom line of a row of leaves, with the set of regions that hold its points.
  void build_leaf_row(int32_t row, const std::vector<bool>& has_border, uint32_t* cells) {
    std::vector<LeafEdge>& edges = edges_[row];
    std::vector<Crossing>& line = lines_[row];
    std::sort(edges.begin(), edges.end());
    std::sort(line.begin(), line.end());
    inside_.clear();
    size_t next_crossing = 0, next_edge = 0;
    auto advance_to = [&](int64_t x) {
      for (; next_crossing < line.size() && line[next_crossing].x <= x; ++next_crossing) {
        const auto found = std::lower_bound(inside_.begin(), inside_.end(), line[next_crossing].region);
        if (found != inside_.end() && *found == line[next_crossing].region) inside_.erase(found);
        else inside_.insert(found, line[next_crossing].region);
      }
    };
    auto entry_here = [&] { return make_entry(TAG_ID, inside_.empty() ? 0 : uint32_t(inside_.front()) + 1); };
    const bool is_first = row % BLOCK_SIDE == 0;
    for (int32_t cell = 0; cell < CELL_COLUMNS; ++cell) {
      if (!has_border[cell]) {
        if (!is_first) continue;
        advance_to(int64_t(cell) << CELL_BITS);
        cells[cell] = entry_here();
        continue;
      }
      uint32_t* block = grid_.leaves.data() + (size_t(value_of(cells[cell])) << 2 * BLOCK_BITS);
      for (int32_t column = cell << BLOCK_BITS; column < (cell + 1) << BLOCK_BITS; ++column) {
        advance_to(int64_t(column) << LEAF_BITS);
        const size_t begin = next_edge;
        while (next_edge < edges.size() && edges[next_edge].column == column) ++next_edge;
        block[(row % BLOCK_SIDE) * BLOCK_SIDE + column % BLOCK_SIDE] =
            begin == next_edge ? entry_here() : write_record(row, column, &edges[begin], &edges[begin] + (next_edge - begin));
      }
    }
    edges = {};
    line = {};
  }

  bool is_inside(int32_t region) const { return std::binary_search(inside_.begin(), inside_.end(), region); }

  // The record of a leaf: the regions with edges in it, and those that hold all of it, by id. The list ends at the
  // first region that holds every point left over.
  uint32_t write_record(int32_t row, int32_t column, const LeafEdge* begin, const LeafEdge* end) {
    const size_t offset = grid_.records.size();
    const uint32_t x0 = uint32_t(column) << LEAF_BITS, y0 = uint32_t(row) << LEAF_BITS;
    size_t next_whole = 0, head = offset;
    uint32_t num_holding_corner = 0;
    std::vector<std::array<uint32_t, 4>> seen;
    for (const LeafEdge* group = begin; group < end;) {
      const int32_t region = group->region;
      const LeafEdge* group_end = group;
      while (group_end < end && group_end->region == region) ++group_end;
      while (next_whole < inside_.size() && inside_[next_whole] < region) {
        // A region without edges here that holds the corner holds the whole leaf
        return finish_record(offset, grid_.records.size(), inside_[next_whole]);
      }
      if (next_whole < inside_.size() && inside_[next_whole] == region) ++next_whole;
      head = grid_.records.size();
      write_candidate(region, x0, y0, group, group_end);
      find_self_crossing(group, group_end);
      num_holding_corner += is_inside(region);
      for (const LeafEdge* e = group; e < group_end; ++e) seen.push_back(normalized(e->edge));
      // Where every edge is there twice, crossing one changes two memberships: their number stays odd all over the
      // leaf, so whoever is in none of the others is in this one.
      if (num_holding_corner % 2 == 1 && all_paired(seen)) return finish_record(offset, head, region);
      group = group_end;
    }
    if (next_whole < inside_.size()) return finish_record(offset, grid_.records.size(), inside_[next_whole]);
    grid_.records[head] |= RECORD_LAST;
    return make_list_entry(offset);
  }

  // Ends a record with a region that holds all that is left, in place of whatever was written from `head` on.
  uint32_t finish_record(size_t offset, size_t head, int32_t region) {
    if (head == offset) return make_entry(TAG_ID, uint32_t(region) + 1);
    grid_.records.resize(head);
    grid_.records.push_back(uint32_t(region) << CANDIDATE_SHIFT | RECORD_INSIDE | RECORD_LAST);
    grid_.records.push_back(0);
    return make_list_entry(offset);
  }

  static uint32_t make_list_entry(size_t offset) {
    if (offset > VALUE_MASK) throw std::length_error("the polygons are too detailed: more than 2^30 words of records.");
    return make_entry(TAG_LIST, uint32_t(offset));
  }

  void write_candidate(int32_t region, uint32_t x0, uint32_t y0, const LeafEdge* begin, const LeafEdge* end) {
    std::vector<uint32_t>& words = grid_.records;
    const size_t head = words.size();
    words.push_back(uint32_t(region) << CANDIDATE_SHIFT);
    words.push_back(0);
    uint32_t parity = is_inside(region);
    for (const LeafEdge* first = begin; first < end;) {
      const LeafEdge* last = first;
      while (last + 1 < end && (last + 1)->edge == last->edge + 1) ++last;
      const uint32_t num_edges = last->edge - first->edge + 1;
      uint32_t flips = 0;
      if (flips_west(first->edge, x0, y0, previous_edge(first->edge), begin, end)) flips |= RUN_FLIP_FIRST;
      if (flips_west(last->edge + 1, x0, y0, next_edge_of(last->edge), begin, end)) flips |= RUN_FLIP_LAST;
      words.push_back(first->edge);
      words.push_back(num_edges << RUN_SHIFT | flips);
      words[head + 1] += 1;
      parity ^= run_parity(&words[words.size() - 2], rings_.vertices, x0, y0);
      first = last + 1;
    }
    if (parity) words[head] |= RECORD_INSIDE;
  }

  // Whether a run's end vertex changes the parity west of the leaf somewhere in its height.
  bool flips_west(uint32_t v, uint32_t x0, uint32_t y0, uint32_t neighbor, const LeafEdge* begin, const LeafEdge* end) const {
    const uint32_t *at = vertex(v), y1 = y0 + (1u << LEAF_BITS) - 1;
    if (at[0] >= x0 || at[1] <= y0 || at[1] > y1) return false;
    return !std::binary_search(begin, end, LeafEdge{begin->column, begin->region, neighbor});
  }

  int64_t ring_of(uint32_t edge) const {
    return std::upper_bound(rings_.offset, rings_.offset + rings_.num_rings + 1, int64_t(edge)) - rings_.offset - 1;
  }

  uint32_t previous_edge(uint32_t edge) const {
    const int64_t ring = ring_of(edge);
    return int64_t(edge) == rings_.offset[ring] ? uint32_t(rings_.offset[ring + 1] - 2) : edge - 1;
  }

  uint32_t next_edge_of(uint32_t edge) const {
    const int64_t ring = ring_of(edge);
    return int64_t(edge) == rings_.offset[ring + 1] - 2 ? uint32_t(rings_.offset[ring]) : edge + 1;
  }

  std::array<uint32_t, 4> normalized(uint32_t edge) const {
    const uint32_t *a = vertex(edge), *b = vertex(edge + 1);
    if (a[1] > b[1] || (a[1] == b[1] && a[0] > b[0])) std::swap(a, b);
    return {a[0], a[1], b[0], b[1]};
  }

  static bool all_paired(std::vector<std::array<uint32_t, 4>>& edges) {
    if (edges.size() % 2) return false;
    std::sort(edges.begin(), edges.end());
    for (size_t i = 0; i < edges.size(); i += 2)
      if (edges[i] != edges[i + 1]) return false;
    return true;
  }

  static int side(const uint32_t* a, const uint32_t* b, const uint32_t* p) {
    const int64_t left = (int64_t(b[0]) - a[0]) * (int64_t(p[1]) - a[1]);
    const int64_t right = (int64_t(b[1]) - a[1]) * (int64_t(p[0]) - a[0]);
    return (left > right) - (left < right);
  }

  // Of two segments that cross, to a unit or so: it is for a message.
  static std::array<uint32_t, 2> intersection(const uint32_t* a, const uint32_t* b, const uint32_t* c, const uint32_t* d) {
    const double rx = double(b[0]) - a[0], ry = double(b[1]) - a[1], sx = double(d[0]) - c[0], sy = double(d[1]) - c[1];
    const double t = ((double(c[0]) - a[0]) * sy - (double(c[1]) - a[1]) * sx) / (rx * sy - ry * sx);
    return {uint32_t(llrint(a[0] + t * rx)), uint32_t(llrint(a[1] + t * ry))};
  }

  void find_self_crossing(const LeafEdge* begin, const LeafEdge* end) {
    if (crosses_itself_[begin->region]) return;
    for (const LeafEdge* first = begin; first < end; ++first) {
      for (const LeafEdge* second = first + 1; second < end; ++second) {
        const uint32_t *a = vertex(first->edge), *b = vertex(first->edge + 1);
        const uint32_t *c = vertex(second->edge), *d = vertex(second->edge + 1);
        if (side(a, b, c) * side(a, b, d) >= 0 || side(c, d, a) * side(c, d, b) >= 0) continue;
        crosses_itself_[begin->region] = true;
        const auto [x, y] = intersection(a, b, c, d);
        grid_.crossings.insert(grid_.crossings.end(), {uint32_t(begin->region), x, y});
        return;
      }
    }
  }

  Rings rings_;
  std::vector<bool> crosses_itself_;
  std::vector<std::vector<LeafEdge>> edges_;
  std::vector<std::vector<Crossing>> lines_;
  std::vector<int32_t> inside_;  // regions that hold the point reached, sorted
  Grid grid_;
};

using Arrays = std::vector<std::vector<uint32_t>>;

template <typename Build>
Arrays* guarded(char* error, int64_t error_size, Build build) {
  try {
    return new Arrays(build());
  } catch (const std::bad_alloc&) {
    std::strncpy(error, "out of memory", size_t(error_size - 1));
    return nullptr;
  } catch (const std::exception& problem) {
    std::strncpy(error, problem.what(), size_t(error_size - 1));
    return nullptr;
  }
}

}  // namespace
}  // namespace geogrpo

using namespace geogrpo;

// Polygons -> {cells, leaves, records, crossings}. vertices (V, 2) x, y with x <= X_END, y <= Y_END; rings are closed and
// have at least 4 vertices. Returns null with a message where it cannot.
extern "C" void* geogrpo_build_grid(const uint32_t* vertices, const int64_t* ring_offset, const int32_t* ring_region,
                                    int64_t num_rings, int32_t num_regions, char* error, int64_t error_size) {
  return guarded(error, error_size, [&] {
    Grid grid = GridBuilder({vertices, ring_offset, ring_region, num_rings}, num_regions).build();
    return Arrays{std::move(grid.cells), std::move(grid.leaves), std::move(grid.records), std::move(grid.crossings)};
  });
}

// places (num_places, 3) as geogrpo_place_vectors gives them -> {roots, nodes, candidates}.
extern "C" void* geogrpo_build_place_tree(const double* places, int64_t num_places, int64_t metric, int64_t num_threads,
                                          char* error, int64_t error_size) {
  return guarded(error, error_size, [&] {
    auto tree = build_place_tree(places, num_places, metric, num_threads);
    return Arrays{std::move(tree.roots), std::move(tree.nodes), std::move(tree.candidates)};
  });
}

extern "C" int64_t geogrpo_built_size(const void* arrays, int64_t which) {
  return int64_t((*static_cast<const Arrays*>(arrays))[size_t(which)].size());
}

extern "C" const uint32_t* geogrpo_built_data(const void* arrays, int64_t which) {
  return (*static_cast<const Arrays*>(arrays))[size_t(which)].data();
}

extern "C" void geogrpo_built_free(void* arrays) { delete static_cast<Arrays*>(arrays); }

// latlon_deg (n, 2) -> out (n, 3)
extern "C" void geogrpo_place_vectors(const double* latlon_deg, int64_t n, int64_t metric, double* out) {
  for (int64_t i = 0; i < n; ++i) place_vector(latlon_deg[2 * i], latlon_deg[2 * i + 1], metric, out + 3 * i);
}
