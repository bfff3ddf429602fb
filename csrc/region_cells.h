// The region index in memory, and the exact point tests. Shared by the builder, the CPU lookup and the CUDA lookup, so
// all three give the same answer to the last bit: integers where it is decided which side of a border a point is on,
// IEEE double without fused multiply-add elsewhere (-ffp-contract=off, nvcc --fmad=false).
//
// Coordinates are fixed point: x = (lon + 180) * 1e7, y = (lat + 90) * 1e7, so 1.1 cm at the equator. With
// x <= 3.6e9 and y <= 1.8e9 every product in a crossing test is below 2^63: exact for any edge, without an epsilon.
#pragma once

#include <climits>
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define GEOGRPO_HD __host__ __device__ inline
#else
#define GEOGRPO_HD inline
#endif

namespace geogrpo {

constexpr int64_t X_END = 3600000000, Y_END = 1800000000;
constexpr double UNITS_PER_DEG = 1e7;
constexpr double EARTH_RADIUS_KM = 6371.0088;
constexpr double PI = 3.14159265358979323846;
constexpr double KM_PER_UNIT = EARTH_RADIUS_KM * PI / 180.0 / UNITS_PER_DEG;

// ---- Cells of the polygon grid ----------------------------------------------------------------------------------
// A dense grid of coarse cells (0.21 degrees). One that a border crosses has a block of 8 x 8 leaves (0.026 degrees).
constexpr int CELL_BITS = 21, LEAF_BITS = 18, BLOCK_BITS = CELL_BITS - LEAF_BITS, BLOCK_SIDE = 1 << BLOCK_BITS;
constexpr int32_t CELL_COLUMNS = int32_t((X_END >> CELL_BITS) + 1), CELL_ROWS = int32_t((Y_END >> CELL_BITS) + 1);
constexpr int32_t LEAF_COLUMNS = int32_t((X_END >> LEAF_BITS) + 1), LEAF_ROWS = int32_t((Y_END >> LEAF_BITS) + 1);

// An entry of the grid, of a block, or of the place tree: two bits say what the other thirty count.
constexpr uint32_t TAG_SHIFT = 30, VALUE_MASK = (1u << TAG_SHIFT) - 1;
constexpr uint32_t TAG_ID = 0;     // id + 1, or 0 for none
constexpr uint32_t TAG_BLOCK = 1;  // number of a block of finer cells
constexpr uint32_t TAG_LIST = 2;   // word offset of a record (grid) or a candidate list (place tree)

GEOGRPO_HD uint32_t tag_of(uint32_t entry) { return entry >> TAG_SHIFT; }
GEOGRPO_HD uint32_t value_of(uint32_t entry) { return entry & VALUE_MASK; }
GEOGRPO_HD uint32_t make_entry(uint32_t tag, uint32_t value) { return tag << TAG_SHIFT | value; }

// A record lists the regions that a point of its leaf may be in, in order of priority; the first that holds it wins.
// Per candidate two words, then two words per run:
//   region << 2 | inside << 1 | last      inside: parity that the runs below start from
//   number of runs
//   first vertex
//   number of edges << 2 | flip_first << 1 | flip_last
// A run is a stretch of a ring whose edges touch the leaf. Where the ring leaves the leaf's west side between two
// heights, the parity west of the leaf changes at the run's end vertex: its flip bit is set.
constexpr uint32_t RECORD_LAST = 1, RECORD_INSIDE = 2, RUN_FLIP_LAST = 1, RUN_FLIP_FIRST = 2;
constexpr int CANDIDATE_SHIFT = 2, RUN_SHIFT = 2;

// ---- Cells of the place tree -------------------------------------------------------------------------------------
// A dense grid of roots (0.21 degrees), then trees of 8 x 8 cells down to 45 m. Finer roots or nodes save a step that
// waits for memory: 8 x 8 below 0.21 degrees answers 1.4 times as many points around cities as 4 x 4 below 0.42.
constexpr int ROOT_BITS = 21, NODE_BITS = 3, NODE_SIDE = 1 << NODE_BITS, NODE_SIZE = NODE_SIDE * NODE_SIDE;
constexpr int FINEST_BITS = 12;
constexpr int32_t ROOT_COLUMNS = int32_t((X_END >> ROOT_BITS) + 1), ROOT_ROWS = int32_t((Y_END >> ROOT_BITS) + 1);

enum Metric : int64_t { SPHERE = 0, DEGREES = 1 };

// Everything a lookup reads. Pointers are to host memory in region_lookup.cpp and to device memory in
// region_lookup.cu. Counts of zero leave a part out.
struct IndexView {
  // Polygons. Region ids 0 .. num_polygon_regions - 1, in order of priority.
  const uint32_t* cells;     // (CELL_ROWS, CELL_COLUMNS)
  const uint32_t* leaves;    // (num_blocks, 8, 8)
  const uint32_t* records;   // (num_record_words)
  const uint32_t* vertices;  // (num_vertices, 2) x, y
  int64_t num_cells, num_blocks, num_record_words, num_vertices;
  // Places. Place p is region num_regions - num_places + p.
  const uint32_t* roots;       // (ROOT_ROWS, ROOT_COLUMNS)
  const uint32_t* nodes;       // (num_nodes, 8, 8)
  const uint32_t* candidates;  // lists: a count, then that many places
  const double* places;        // (num_places, 3)
  int64_t num_roots, num_nodes, num_candidate_words, num_places;
  // With polygons too: the places of each polygon region and its descendants, sorted by their last coordinate.
  const int32_t* region_start;   // (num_polygon_regions + 1) into region_places
  const int32_t* region_places;  // places
  int64_t num_region_starts, num_region_places;
  // Every region, places included: its own id and its ancestors' by level, -1 where there is none.
  const int32_t* ancestors;  // (num_regions, 4)
  int64_t num_regions, num_polygon_regions;
  int64_t metric;  // of the places
};

constexpr int NUM_LEVELS = 4;  // country, state, county, city

struct LookupOptions {
  double coast_tolerance_km;  // 0: none
  int32_t wrap;               // 1: longitudes beyond 180 are folded; 0: they are nowhere
  int32_t use_polygons;       // 0: places only
};

GEOGRPO_HD bool uses_polygons(const IndexView& index, const LookupOptions& options) {
  return options.use_polygons && index.num_cells > 0;
}

// ---- Points ------------------------------------------------------------------------------------------------------
struct Point {
  uint32_t x, y;
  bool is_valid;  // false: x = y = 0, so that no cell outside the grid is ever computed
};

GEOGRPO_HD int64_t nearest_integer(double value) {
#ifdef __CUDA_ARCH__
  return __double2ll_rn(value);
#else
  return llrint(value);
#endif
}

// Into [-180, 180). The remainder is exact.
GEOGRPO_HD double fold_longitude(double lon_deg) {
  const double turned = fmod(lon_deg + 180.0, 360.0);
  return (turned < 0 ? turned + 360.0 : turned) - 180.0;
}

GEOGRPO_HD Point fixed_point(double lat_deg, double lon_deg, bool wrap) {
  // Written so that NaN fails
  bool is_valid = lat_deg >= -90.0 && lat_deg <= 90.0;
  if (!(lon_deg >= -180.0 && lon_deg < 180.0)) {
    const bool is_finite = lon_deg - lon_deg == 0;
    is_valid = is_valid && is_finite && (wrap || lon_deg == 180.0);
    lon_deg = is_valid ? fold_longitude(lon_deg) : 0.0;
  }
  if (!is_valid) return {0, 0, false};
  const int64_t x = nearest_integer((lon_deg + 180.0) * UNITS_PER_DEG);
  const int64_t y = nearest_integer((lat_deg + 90.0) * UNITS_PER_DEG);
  return {uint32_t(x >= X_END ? x - X_END : x), uint32_t(y >= Y_END ? Y_END - 1 : y), true};
}

// The degrees that a point's place is looked for with (longitude folded), 0 for a point that is none.
GEOGRPO_HD void place_degrees(double lat_deg, double lon_deg, Point point, int64_t metric, double* latlon_deg) {
  latlon_deg[0] = point.is_valid ? lat_deg : 0.0;
  latlon_deg[1] = point.is_valid ? lon_deg : 0.0;
  // Raw degrees know no wrap: there a longitude of 180 stays at the east end.
  if (!(latlon_deg[1] >= -180.0 && latlon_deg[1] < 180.0) && !(metric == DEGREES && lon_deg == 180.0))
    latlon_deg[1] = fold_longitude(lon_deg);
}

// The cell that a point's place is looked for in.
GEOGRPO_HD Point place_cell(Point point, int64_t metric, const double* latlon_deg) {
  return metric == DEGREES && point.x == 0 && latlon_deg[1] > 0.0 ? Point{uint32_t(X_END - 1), point.y, true} : point;
}

// ---- Exact tests -------------------------------------------------------------------------------------------------
// Whether the ray from (x, y) to the west crosses edge a-b: half open in y and closed in x, so that a point on a border
// that two regions share is in exactly one of them.
GEOGRPO_HD bool crosses_west(const uint32_t* a, const uint32_t* b, uint32_t x, uint32_t y) {
  if ((a[1] <= y) == (b[1] <= y)) return false;
  if (a[1] > b[1]) {
    const uint32_t* upper = a;
    a = b;
    b = upper;
  }
  const int64_t ax = a[0], ay = a[1], bx = b[0], by = b[1];
  return (bx - ax) * (int64_t(y) - ay) <= (int64_t(x) - ax) * (by - ay);
}

// Parity that one run adds at (x, y).
GEOGRPO_HD uint32_t run_parity(const uint32_t* run, const uint32_t* vertices, uint32_t x, uint32_t y) {
  const uint32_t* vertex = vertices + 2 * int64_t(run[0]);
  const uint32_t num_edges = run[1] >> RUN_SHIFT;
  uint32_t parity = 0;
  if (run[1] & RUN_FLIP_FIRST) parity ^= vertex[1] <= y;
  for (uint32_t i = 0; i < num_edges; ++i, vertex += 2) parity ^= crosses_west(vertex, vertex + 2, x, y);
  if (run[1] & RUN_FLIP_LAST) parity ^= vertex[1] <= y;
  return parity;
}

GEOGRPO_HD int32_t region_of_record(const uint32_t* record, const uint32_t* vertices, uint32_t x, uint32_t y) {
  for (;;) {
    const uint32_t head = record[0], num_runs = record[1];
    record += 2;
    uint32_t inside = (head & RECORD_INSIDE) != 0;
    for (uint32_t run = 0; run < num_runs; ++run, record += 2) inside ^= run_parity(record, vertices, x, y);
    if (inside) return int32_t(head >> CANDIDATE_SHIFT);
    if (head & RECORD_LAST) return -1;
  }
}

GEOGRPO_HD int64_t cell_of(uint32_t x, uint32_t y) {
  return int64_t(y >> CELL_BITS) * CELL_COLUMNS + (x >> CELL_BITS);
}

GEOGRPO_HD int64_t leaf_in_block(uint32_t block, uint32_t x, uint32_t y) {
  constexpr uint32_t mask = BLOCK_SIDE - 1;
  return (int64_t(block) << 2 * BLOCK_BITS) + ((y >> LEAF_BITS & mask) << BLOCK_BITS) + (x >> LEAF_BITS & mask);
}

// ---- Coast -------------------------------------------------------------------------------------------------------
// Number of the leaf that a coordinate falls in, within its cell.
GEOGRPO_HD int leaf_of(int64_t units) { return int(units >> LEAF_BITS & (BLOCK_SIDE - 1)); }

struct Nearest {
  double distance_km;
  int32_t id;
};

GEOGRPO_HD void sincos_deg(double deg, double* sine, double* cosine);

// Squared distance in km from the origin to the segment a-b.
GEOGRPO_HD double segment_distance2(double ax, double ay, double bx, double by) {
  const double dx = bx - ax, dy = by - ay, length2 = dx * dx + dy * dy;
  double t = length2 > 0 ? -(ax * dx + ay * dy) / length2 : 0.0;
  t = t < 0 ? 0.0 : (t > 1 ? 1.0 : t);
  const double px = ax + t * dx, py = ay + t * dy;
  return px * px + py * py;
}

// The candidates of one record against the best so far; a tie goes to the lower id.
GEOGRPO_HD void nearest_in_record(const IndexView& index, uint32_t offset, Point point, double km_per_x, Nearest* best) {
  const uint32_t* record = index.records + offset;
  for (;;) {
    const uint32_t head = record[0], num_runs = record[1];
    const int32_t region = int32_t(head >> CANDIDATE_SHIFT);
    record += 2;
    for (uint32_t run = 0; run < num_runs; ++run, record += 2) {
      const uint32_t* vertex = index.vertices + 2 * int64_t(record[0]);
      for (uint32_t i = 0; i < record[1] >> RUN_SHIFT; ++i, vertex += 2) {
        // Across the antimeridian the short way round
        double offset_x = double(vertex[0]) - double(point.x);
        const double turn = offset_x > X_END / 2 ? -double(X_END) : (offset_x < -double(X_END / 2) ? double(X_END) : 0.0);
        offset_x = offset_x + turn;
        const double next_x = double(vertex[2]) - double(point.x) + turn;
        const double ay = (double(vertex[1]) - double(point.y)) * KM_PER_UNIT;
        const double by = (double(vertex[3]) - double(point.y)) * KM_PER_UNIT;
        const double distance_km = sqrt(segment_distance2(offset_x * km_per_x, ay, next_x * km_per_x, by));
        if (distance_km < best->distance_km || (distance_km == best->distance_km && region < best->id))
          *best = {distance_km, region};
      }
    }
    if (head & RECORD_LAST) return;
  }
}

// The region whose border is nearest to a point outside every region, in the plane that touches the sphere there (a
// degree of longitude is cos(lat) of one of latitude); -1 beyond the tolerance.
GEOGRPO_HD int32_t region_near_coast(const IndexView& index, Point point, double tolerance_km) {
  double sine, cosine;
  sincos_deg(double(point.y) / UNITS_PER_DEG - 90.0, &sine, &cosine);
  const double km_per_x = KM_PER_UNIT * (cosine > 1e-9 ? cosine : 1e-9);
  const int64_t reach_y = int64_t(tolerance_km / KM_PER_UNIT) + 1;
  const double wanted_x = tolerance_km / km_per_x + 1;
  const int64_t reach_x = wanted_x < double(X_END / 2 - 1) ? int64_t(wanted_x) : X_END / 2 - 1;
  // The window in units, its ends wrapped in x
  const int64_t south = point.y > reach_y ? point.y - reach_y : 0;
  const int64_t north = point.y + reach_y < Y_END ? point.y + reach_y : Y_END - 1;
  const int64_t west = (int64_t(point.x) - reach_x + X_END) % X_END, east = (int64_t(point.x) + reach_x) % X_END;
  // The last column of cells is narrower: columns are visited by number, wrapped, and none twice.
  const bool is_all_around = 2 * reach_x >= X_END - (int64_t(1) << CELL_BITS);
  const int64_t first = west >> CELL_BITS, last = east >> CELL_BITS;
  const int64_t num_columns = is_all_around ? CELL_COLUMNS : (last - first + CELL_COLUMNS) % CELL_COLUMNS + 1;
  Nearest best = {tolerance_km, INT32_MAX};
  for (int64_t row = south >> CELL_BITS; row <= north >> CELL_BITS; ++row) {
    for (int64_t i = 0; i < num_columns; ++i) {
      const uint32_t entry = index.cells[row * CELL_COLUMNS + (first + i) % CELL_COLUMNS];
      if (tag_of(entry) != TAG_BLOCK) continue;
      const uint32_t* block = index.leaves + (int64_t(value_of(entry)) << 2 * BLOCK_BITS);
      // Of the cells at the window's ends, the leaves inside it
      const int from_y = row == south >> CELL_BITS ? leaf_of(south) : 0;
      const int to_y = row == north >> CELL_BITS ? leaf_of(north) : BLOCK_SIDE - 1;
      const int from_x = i == 0 && !is_all_around ? leaf_of(west) : 0;
      const int to_x = i == num_columns - 1 && !is_all_around ? leaf_of(east) : BLOCK_SIDE - 1;
      for (int y = from_y; y <= to_y; ++y) {
        for (int x = from_x; x <= to_x; ++x) {
          const uint32_t leaf = block[y * BLOCK_SIDE + x];
          if (tag_of(leaf) == TAG_LIST) nearest_in_record(index, value_of(leaf), point, km_per_x, &best);
        }
      }
    }
  }
  return best.id == INT32_MAX ? -1 : best.id;
}

// ---- Places ------------------------------------------------------------------------------------------------------
// Sine and cosine of degrees to the last bit or two, the same on every machine (a C library's are its own). The
// reduction to [-45, 45] is exact; polynomials: fdlibm's kernels (Sun Microsystems, 1993).
GEOGRPO_HD void sincos_deg(double deg, double* sine, double* cosine) {
  const int64_t turns = nearest_integer(deg / 90.0);
  const double quarter = double(turns);
  const double t = (deg - 90.0 * quarter) * (PI / 180.0), z = t * t;
  const double s =
      t + t * z * (-1.66666666666666324348e-01 +
                   z * (8.33333333332248946124e-03 +
                        z * (-1.98412698298579493134e-04 +
                             z * (2.75573137070700676789e-06 +
                                  z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)))));
  const double c =
      1.0 - (0.5 * z - z * z * (4.16666666666666019037e-02 +
                                z * (-1.38888888888741095749e-03 +
                                     z * (2.48015872894767294178e-05 +
                                          z * (-2.75573143513906633035e-07 +
                                               z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11))))));
  const int turn = int(turns & 3);
  *sine = turn == 0 ? s : (turn == 1 ? c : (turn == 2 ? -s : -c));
  *cosine = turn == 0 ? c : (turn == 1 ? -s : (turn == 2 ? -c : s));
}

// Where a point lies in the space that places are compared in: the unit sphere, or the plane of raw degrees.
GEOGRPO_HD void place_vector(double lat_deg, double lon_deg, int64_t metric, double* vector) {
  if (metric == DEGREES) {
    vector[0] = lon_deg;
    vector[1] = 0.0;
    vector[2] = lat_deg;
    return;
  }
  double sin_lat, cos_lat, sin_lon, cos_lon;
  sincos_deg(lat_deg, &sin_lat, &cos_lat);
  sincos_deg(lon_deg, &sin_lon, &cos_lon);
  vector[0] = cos_lat * cos_lon;
  vector[1] = cos_lat * sin_lon;
  vector[2] = sin_lat;
}

GEOGRPO_HD double distance2(const double* a, const double* b) {
  const double dx = a[0] - b[0], dy = a[1] - b[1], dz = a[2] - b[2];
  return dx * dx + dy * dy + dz * dz;
}

GEOGRPO_HD int64_t root_of(uint32_t x, uint32_t y) {
  return int64_t(y >> ROOT_BITS) * ROOT_COLUMNS + (x >> ROOT_BITS);
}

GEOGRPO_HD int64_t child_of(uint32_t node, int bits, uint32_t x, uint32_t y) {
  constexpr uint32_t mask = NODE_SIDE - 1;
  return int64_t(node) * NODE_SIZE + ((y >> bits & mask) << NODE_BITS) + (x >> bits & mask);
}

// The nearest of a list of places; a tie goes to the lower id.
GEOGRPO_HD int32_t nearest_in_list(const IndexView& index, uint32_t offset, const double* vector) {
  const uint32_t* list = index.candidates + offset;
  int32_t best = int32_t(list[1]);
  double best2 = distance2(index.places + 3 * int64_t(list[1]), vector);
  for (uint32_t i = 2; i <= list[0]; ++i) {
    const double d2 = distance2(index.places + 3 * int64_t(list[i]), vector);
    if (d2 < best2 || (d2 == best2 && int32_t(list[i]) < best)) best2 = d2, best = int32_t(list[i]);
  }
  return best;
}

// The nearest place among those of one polygon region and its descendants; -1 if there is none. The region's places are sorted by their last
// coordinate: the walk outwards stops where the difference in it alone exceeds the best distance.
GEOGRPO_HD int32_t nearest_in_region(const IndexView& index, int32_t region, const double* vector) {
  const int32_t begin = index.region_start[region], end = index.region_start[region + 1];
  int32_t lower = begin, upper = end;
  while (lower < upper) {
    const int32_t middle = lower + (upper - lower) / 2;
    if (index.places[3 * int64_t(index.region_places[middle]) + 2] < vector[2]) lower = middle + 1;
    else upper = middle;
  }
  int32_t below = lower - 1, above = lower, best = -1;
  double best2 = INFINITY;
  for (;;) {
    const double down = below >= begin ? vector[2] - index.places[3 * int64_t(index.region_places[below]) + 2] : INFINITY;
    const double up = above < end ? index.places[3 * int64_t(index.region_places[above]) + 2] - vector[2] : INFINITY;
    const double gap = down < up ? down : up;
    if (gap == INFINITY || gap * gap > best2) return best;
    const int32_t place = index.region_places[down <= up ? below-- : above++];
    const double d2 = distance2(index.places + 3 * int64_t(place), vector);
    if (d2 < best2 || (d2 == best2 && place < best)) best2 = d2, best = place;
  }
}

// ---- One point, all the way (CUDA: a thread's work; the CPU does the same in stages) ------------------------------
GEOGRPO_HD int32_t polygon_region(const IndexView& index, Point point) {
  uint32_t entry = index.cells[cell_of(point.x, point.y)];
  if (tag_of(entry) == TAG_BLOCK) entry = index.leaves[leaf_in_block(value_of(entry), point.x, point.y)];
  if (tag_of(entry) == TAG_LIST) return region_of_record(index.records + value_of(entry), index.vertices, point.x, point.y);
  return int32_t(value_of(entry)) - 1;
}

GEOGRPO_HD int32_t nearest_place(const IndexView& index, Point point, const double* latlon_deg) {
  uint32_t entry = index.roots[root_of(point.x, point.y)];
  for (int bits = ROOT_BITS - NODE_BITS; tag_of(entry) == TAG_BLOCK && bits >= FINEST_BITS; bits -= NODE_BITS)
    entry = index.nodes[child_of(value_of(entry), bits, point.x, point.y)];
  if (tag_of(entry) == TAG_BLOCK) return -1;
  if (tag_of(entry) == TAG_ID) return int32_t(value_of(entry)) - 1;
  double vector[3];
  place_vector(latlon_deg[0], latlon_deg[1], index.metric, vector);
  return nearest_in_list(index, value_of(entry), vector);
}

// The place of a point in `region`: the nearest one if it belongs there too, else the nearest of those that do, else -1.
// What is finer than `region` does not matter: a point may lie in a country and, of another source, in no state.
GEOGRPO_HD int32_t place_within(const IndexView& index, int32_t region, int32_t nearest, const double* latlon_deg) {
  if (region < 0 || nearest < 0) return -1;
  const int32_t* chain = index.ancestors + NUM_LEVELS * (index.num_regions - index.num_places + nearest);
  for (int level = 0; level < NUM_LEVELS; ++level)
    if (chain[level] == region) return nearest;
  double vector[3];
  place_vector(latlon_deg[0], latlon_deg[1], index.metric, vector);
  return nearest_in_region(index, region, vector);
}

// The ids of all levels. A place that was found belongs to the region that was found: its chain holds the region's.
GEOGRPO_HD void write_levels(const IndexView& index, int32_t region, int32_t place, int32_t* levels) {
  const int64_t id = place < 0 ? region : index.num_regions - index.num_places + place;
  if (id < 0) levels[0] = levels[1] = levels[2] = levels[3] = -1;
  else memcpy(levels, index.ancestors + NUM_LEVELS * id, NUM_LEVELS * sizeof(int32_t));
}

}  // namespace geogrpo
