// Lookup on the CPU, threaded, and the check of an index that came from a file. Plain C ABI for ctypes.
//
// What a lookup costs is waiting for memory, so points go through in blocks: each stage asks for what the next one
// reads. Per point the result is that of polygon_region and nearest_place (region_cells.h).
#include <algorithm>
#include <cstdio>
#include <new>
#include <vector>

#include "region_cells.h"
#include "region_threads.h"

namespace geogrpo {
namespace {

// Points a block: 1,024 answers 132 million a second from Natural Earth's countries where 512 does 115 and 128 does 106.
constexpr int BLOCK = 1024;
// Starting a thread takes as long as looking up some thousand points.
constexpr int64_t POINTS_PER_THREAD = 16384;

struct Block {
  int size;
  Point points[BLOCK];
  double latlon_deg[BLOCK][2];
  uint32_t entries[BLOCK];
  int32_t regions[BLOCK], places[BLOCK];
  bool is_near_coast[BLOCK];
};

void find_regions(const IndexView& index, const LookupOptions& options, Block& block) {
  int waiting[BLOCK], num_waiting = 0;
  int64_t cells[BLOCK];
  for (int i = 0; i < block.size; ++i) {
    cells[i] = cell_of(block.points[i].x, block.points[i].y);
    __builtin_prefetch(index.cells + cells[i]);
  }
  for (int i = 0; i < block.size; ++i) {
    const uint32_t entry = block.entries[i] = index.cells[cells[i]];
    waiting[num_waiting] = i;
    if (tag_of(entry) != TAG_BLOCK) continue;
    ++num_waiting;
    cells[i] = leaf_in_block(value_of(entry), block.points[i].x, block.points[i].y);
    __builtin_prefetch(index.leaves + cells[i]);
  }
  int num_records = 0;
  for (int k = 0; k < num_waiting; ++k) {
    const int i = waiting[k];
    const uint32_t entry = block.entries[i] = index.leaves[cells[i]];
    waiting[num_records] = i;
    if (tag_of(entry) != TAG_LIST) continue;
    ++num_records;
    __builtin_prefetch(index.records + value_of(entry));
  }
  for (int k = 0; k < num_records; ++k) {
    const uint32_t* record = index.records + value_of(block.entries[waiting[k]]);
    if (record[1] > 0) __builtin_prefetch(index.vertices + 2 * int64_t(record[2]));
  }
  for (int i = 0; i < block.size; ++i) block.regions[i] = int32_t(value_of(block.entries[i])) - 1;
  for (int k = 0; k < num_records; ++k) {
    const int i = waiting[k];
    const uint32_t* record = index.records + value_of(block.entries[i]);
    block.regions[i] = region_of_record(record, index.vertices, block.points[i].x, block.points[i].y);
  }
  for (int i = 0; i < block.size; ++i) {
    block.is_near_coast[i] = false;
    if (!block.points[i].is_valid) {
      block.regions[i] = -1;
    } else if (block.regions[i] < 0 && options.coast_tolerance_km > 0) {
      block.regions[i] = region_near_coast(index, block.points[i], options.coast_tolerance_km);
      block.is_near_coast[i] = block.regions[i] >= 0;
    }
  }
}

template <typename T>
void find_places(const IndexView& index, const LookupOptions& options, const T* latlon_deg, Block& block) {
  int waiting[BLOCK], num_waiting = 0, num_lists = 0, lists[BLOCK];
  double vectors[BLOCK][3];
  int64_t slots[BLOCK];
  for (int i = 0; i < block.size; ++i) {
    place_degrees(latlon_deg[2 * i], latlon_deg[2 * i + 1], block.points[i], index.metric, block.latlon_deg[i]);
    block.points[i] = place_cell(block.points[i], index.metric, block.latlon_deg[i]);
    slots[i] = root_of(block.points[i].x, block.points[i].y);
    __builtin_prefetch(index.roots + slots[i]);
  }
  auto arrive = [&](int i, uint32_t entry, int bits) {
    block.entries[i] = entry;
    if (tag_of(entry) == TAG_BLOCK && bits < FINEST_BITS) {
      block.entries[i] = 0;
    } else if (tag_of(entry) == TAG_BLOCK) {
      slots[i] = child_of(value_of(entry), bits, block.points[i].x, block.points[i].y);
      __builtin_prefetch(index.nodes + slots[i]);
      waiting[num_waiting++] = i;
    } else if (tag_of(entry) == TAG_LIST) {
      __builtin_prefetch(index.candidates + value_of(entry));
      lists[num_lists++] = i;
    }
  };
  for (int i = 0; i < block.size; ++i) arrive(i, index.roots[slots[i]], ROOT_BITS - NODE_BITS);
  for (int bits = ROOT_BITS - 2 * NODE_BITS; num_waiting > 0; bits -= NODE_BITS) {
    const int count = num_waiting;
    num_waiting = 0;
    for (int k = 0; k < count; ++k) arrive(waiting[k], index.nodes[slots[waiting[k]]], bits);
  }
  for (int k = 0; k < num_lists; ++k) {
    const uint32_t* list = index.candidates + value_of(block.entries[lists[k]]);
    for (uint32_t j = 1; j <= std::min(list[0], 4u); ++j) __builtin_prefetch(index.places + 3 * int64_t(list[j]));
  }
  for (int i = 0; i < block.size; ++i) block.places[i] = int32_t(value_of(block.entries[i])) - 1;
  for (int k = 0; k < num_lists; ++k)
    place_vector(block.latlon_deg[lists[k]][0], block.latlon_deg[lists[k]][1], index.metric, vectors[k]);
  for (int k = 0; k < num_lists; ++k)
    block.places[lists[k]] = nearest_in_list(index, value_of(block.entries[lists[k]]), vectors[k]);
  for (int i = 0; i < block.size; ++i) {
    if (!block.points[i].is_valid) block.places[i] = -1;
    else if (uses_polygons(index, options)) block.places[i] = place_within(index, block.regions[i], block.places[i], block.latlon_deg[i]);
  }
}

template <typename T>
void lookup_range(const IndexView& index, const LookupOptions& options, const T* latlon_deg, int64_t begin, int64_t end,
                  int32_t* levels, uint8_t* is_near_coast) {
  Block block;
  for (int64_t start = begin; start < end; start += BLOCK) {
    block.size = int(std::min<int64_t>(BLOCK, end - start));
    const T* some = latlon_deg + 2 * start;
    for (int i = 0; i < block.size; ++i) block.points[i] = fixed_point(some[2 * i], some[2 * i + 1], options.wrap);
    if (uses_polygons(index, options)) {
      find_regions(index, options, block);
    } else {
      std::fill_n(block.regions, BLOCK, -1);
      std::fill_n(block.is_near_coast, BLOCK, false);
    }
    if (index.num_places > 0) find_places(index, options, some, block);
    else std::fill_n(block.places, BLOCK, -1);
    for (int i = 0; i < block.size; ++i) {
      write_levels(index, block.regions[i], block.places[i], levels + NUM_LEVELS * (start + i));
      is_near_coast[start + i] = block.is_near_coast[i];
    }
  }
}

template <typename T>
void lookup(const IndexView& index, const LookupOptions& options, const T* latlon_deg, int64_t n, int64_t num_threads,
            int32_t* levels, uint8_t* is_near_coast) {
  const int64_t workers = std::max<int64_t>(1, std::min(num_threads, n / POINTS_PER_THREAD));
  auto work = [&](int64_t worker) {
    lookup_range(index, options, latlon_deg, n * worker / workers, n * (worker + 1) / workers, levels, is_near_coast);
  };
  run_on_threads(workers, work);
}

// ---- Check -------------------------------------------------------------------------------------------------------
// Every number that a lookup uses as an offset, so that no file can make it read outside the arrays.
const char* check_record(const IndexView& index, int64_t offset, int64_t* num_checked_words) {
  int64_t at = offset;
  for (;;) {
    if (at + 2 > index.num_record_words) return "a record runs past the end of `records`";
    const uint32_t head = index.records[at];
    if (int64_t(head >> CANDIDATE_SHIFT) >= index.num_polygon_regions) return "a record names a region that is not there";
    const int64_t num_runs = index.records[at + 1];
    at += 2;
    if (at + 2 * num_runs > index.num_record_words) return "a record runs past the end of `records`";
    for (int64_t run = 0; run < num_runs; ++run, at += 2)
      if (int64_t(index.records[at]) + (index.records[at + 1] >> RUN_SHIFT) >= index.num_vertices)
        return "a record names a vertex that is not there";
    if (head & RECORD_LAST) break;
  }
  // Each record belongs to one leaf; otherwise a small file could keep this check busy for hours.
  *num_checked_words += at - offset;
  return *num_checked_words > index.num_record_words ? "records overlap" : nullptr;
}

const char* check_leaf(const IndexView& index, uint32_t entry, int64_t* num_checked_words) {
  if (tag_of(entry) == TAG_LIST) return check_record(index, value_of(entry), num_checked_words);
  const bool is_sound = tag_of(entry) == TAG_ID && int64_t(value_of(entry)) <= index.num_polygon_regions;
  return is_sound ? nullptr : "a leaf names a region that is not there";
}

const char* check_cell(const IndexView& index, uint32_t entry) {
  const int64_t value = value_of(entry);
  const bool is_sound = (tag_of(entry) == TAG_ID && value <= index.num_polygon_regions) ||
                        (tag_of(entry) == TAG_BLOCK && value < index.num_blocks);
  return is_sound ? nullptr : "a cell names a region or block that is not there";
}

const char* check_place_entries(const IndexView& index, const uint32_t* entries, int64_t n, const std::vector<bool>& is_list) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t value = value_of(entries[i]);
    // 0: a cell beyond the north-east corner of the world, never visited
    const bool is_sound = (tag_of(entries[i]) == TAG_ID && value <= index.num_places) ||
                          (tag_of(entries[i]) == TAG_BLOCK && value < index.num_nodes) ||
                          (tag_of(entries[i]) == TAG_LIST && value < index.num_candidate_words && is_list[value]);
    if (!is_sound) return "the tree names a place, node or list that is not there";
  }
  return nullptr;
}

const char* check_polygons(const IndexView& index) {
  if (index.num_cells == 0) return index.num_polygon_regions == 0 ? nullptr : "`cells` is missing";
  if (index.num_cells != int64_t(CELL_ROWS) * CELL_COLUMNS) return "`cells` has the wrong size";
  const char* problem = nullptr;
  int64_t num_checked_words = 0;
  for (int64_t i = 0; i < index.num_cells && !problem; ++i) problem = check_cell(index, index.cells[i]);
  for (int64_t i = 0; i < index.num_blocks * BLOCK_SIDE * BLOCK_SIDE && !problem; ++i)
    problem = check_leaf(index, index.leaves[i], &num_checked_words);
  for (int64_t i = 0; i < index.num_vertices && !problem; ++i)
    if (index.vertices[2 * i] > X_END || index.vertices[2 * i + 1] > Y_END) problem = "a vertex lies outside the world";
  return problem;
}

const char* check_places(const IndexView& index) {
  if (index.num_places == 0) return index.num_roots == 0 ? nullptr : "`places` is missing";
  if (index.num_roots != int64_t(ROOT_ROWS) * ROOT_COLUMNS) return "`roots` has the wrong size";
  if (index.num_regions < index.num_places) return "`places` has more rows than there are regions";
  std::vector<bool> is_list(size_t(index.num_candidate_words), false);
  for (int64_t at = 0; at < index.num_candidate_words;) {
    const int64_t size = index.candidates[at];
    if (size < 1 || at + size >= index.num_candidate_words) return "a candidate list runs past the end of `candidates`";
    for (int64_t i = 1; i <= size; ++i)
      if (index.candidates[at + i] >= index.num_places) return "a candidate list names a place that is not there";
    is_list[size_t(at)] = true;
    at += size + 1;
  }
  if (const char* problem = check_place_entries(index, index.roots, index.num_roots, is_list)) return problem;
  return check_place_entries(index, index.nodes, index.num_nodes * NODE_SIZE, is_list);
}

const char* check_region_places(const IndexView& index) {
  if (index.num_cells == 0 || index.num_places == 0) return nullptr;
  if (index.num_region_starts != index.num_polygon_regions + 1) return "`region_start` has the wrong size";
  for (int64_t i = 0; i + 1 < index.num_region_starts; ++i)
    if (index.region_start[i] > index.region_start[i + 1]) return "`region_start` is not sorted";
  if (index.region_start[0] < 0 || index.region_start[index.num_polygon_regions] > index.num_region_places)
    return "`region_start` runs past the end of `region_places`";
  for (int64_t i = 0; i < index.num_region_places; ++i)
    if (index.region_places[i] < 0 || index.region_places[i] >= index.num_places)
      return "`region_places` names a place that is not there";
  return nullptr;
}

const char* check(const IndexView& index) {
  if (index.metric != SPHERE && index.metric != DEGREES) return "the metric is unknown";
  if (index.num_polygon_regions > index.num_regions) return "there are more polygon regions than regions";
  for (int64_t i = 0; i < index.num_regions * NUM_LEVELS; ++i)
    if (index.ancestors[i] < -1 || index.ancestors[i] >= index.num_regions) return "`ancestors` names a region that is not there";
  if (const char* problem = check_polygons(index)) return problem;
  if (const char* problem = check_places(index)) return problem;
  return check_region_places(index);
}

}  // namespace
}  // namespace geogrpo

using namespace geogrpo;

// latlon_deg (n, 2) -> levels (n, 4): region ids of country, state, county, city, -1 where there is none; and
// is_near_coast (n). The index must have passed geogrpo_check.
extern "C" void geogrpo_lookup_f64(const IndexView* index, const LookupOptions* options, const double* latlon_deg,
                                   int64_t n, int64_t num_threads, int32_t* levels, uint8_t* is_near_coast) {
  lookup(*index, *options, latlon_deg, n, num_threads, levels, is_near_coast);
}

extern "C" void geogrpo_lookup_f32(const IndexView* index, const LookupOptions* options, const float* latlon_deg,
                                   int64_t n, int64_t num_threads, int32_t* levels, uint8_t* is_near_coast) {
  lookup(*index, *options, latlon_deg, n, num_threads, levels, is_near_coast);
}

// Null for a sound index, else what is wrong with it.
extern "C" const char* geogrpo_check(const IndexView* index) {
  try {
    return check(*index);
  } catch (const std::bad_alloc&) {
    return "there is not enough memory to check it";
  }
}
