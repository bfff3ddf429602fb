// Lookup on CUDA: a thread a point, the very functions of region_cells.h. Compiled with --fmad=false, so that every
// double comes out as on the CPU.
#include <cuda_runtime.h>

#include "region_cells.h"

namespace geogrpo {
namespace {

constexpr int THREADS = 256;

template <typename T>
__global__ void lookup_kernel(IndexView index, LookupOptions options, const T* __restrict__ latlon_deg, int64_t n,
                              int4* __restrict__ levels, uint8_t* __restrict__ is_near_coast) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= n) return;
  const double lat_deg = latlon_deg[2 * i], lon_deg = latlon_deg[2 * i + 1];
  const Point point = fixed_point(lat_deg, lon_deg, options.wrap);
  int32_t region = -1, place = -1;
  bool is_near = false;
  if (point.is_valid) {
    if (uses_polygons(index, options)) {
      region = polygon_region(index, point);
      if (region < 0 && options.coast_tolerance_km > 0) {
        region = region_near_coast(index, point, options.coast_tolerance_km);
        is_near = region >= 0;
      }
    }
    if (index.num_places > 0) {
      double degrees[2];
      place_degrees(lat_deg, lon_deg, point, index.metric, degrees);
      place = nearest_place(index, place_cell(point, index.metric, degrees), degrees);
      if (uses_polygons(index, options)) place = place_within(index, region, place, degrees);
    }
  }
  int32_t ids[NUM_LEVELS];
  write_levels(index, region, place, ids);
  levels[i] = make_int4(ids[0], ids[1], ids[2], ids[3]);
  is_near_coast[i] = is_near;
}

template <typename T>
const char* launch(const IndexView* index, const LookupOptions* options, const T* latlon_deg, int64_t n, int32_t* levels,
                   uint8_t* is_near_coast, void* stream) {
  if (n == 0) return nullptr;
  const int64_t num_blocks = (n + THREADS - 1) / THREADS;
  if (num_blocks > INT_MAX) return "too many points for one launch";
  lookup_kernel<<<unsigned(num_blocks), THREADS, 0, static_cast<cudaStream_t>(stream)>>>(
      *index, *options, latlon_deg, n, reinterpret_cast<int4*>(levels), is_near_coast);
  const cudaError_t status = cudaGetLastError();
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

}  // namespace
}  // namespace geogrpo

using namespace geogrpo;

// As geogrpo_lookup_f64 and _f32, all pointers but `index` and `options` to memory of the current device. Returns null
// or an error message.
extern "C" const char* geogrpo_lookup_cuda_f64(const IndexView* index, const LookupOptions* options,
                                               const double* latlon_deg, int64_t n, int32_t* levels,
                                               uint8_t* is_near_coast, void* stream) {
  return launch(index, options, latlon_deg, n, levels, is_near_coast, stream);
}

extern "C" const char* geogrpo_lookup_cuda_f32(const IndexView* index, const LookupOptions* options,
                                               const float* latlon_deg, int64_t n, int32_t* levels,
                                               uint8_t* is_near_coast, void* stream) {
  return launch(index, options, latlon_deg, n, levels, is_near_coast, stream);
}
