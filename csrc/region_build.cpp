// Polygons -> grid of cells, and places -> tree of candidate lists (region_cells.h says what they look like).
#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <exception>
#include <map>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "region_cells.h"
#include "region_threads.h"

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
