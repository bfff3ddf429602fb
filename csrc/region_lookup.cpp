// Nearest place on the sphere, exact, threaded. Plain C ABI: no PyTorch, no Python headers.
//
// Places are unit vectors sorted by z. A chord is at least as long as its difference in z, so the walk away from a
// point's own z stops as soon as that difference alone exceeds the best chord found.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

namespace {

struct Best {
  double chord2 = std::numeric_limits<double>::infinity();
  int64_t id = -1;
};

// Lowest id wins an exact tie, whatever the order of the walk.
void offer(Best& best, const double* place, const double* point, int64_t id) {
  const double dx = place[0] - point[0], dy = place[1] - point[1], dz = place[2] - point[2];
  const double chord2 = dx * dx + dy * dy + dz * dz;
  if (chord2 < best.chord2 || (chord2 == best.chord2 && id < best.id)) best = {chord2, id};
}

int64_t nearest_place(const double* places, const int64_t* ids, int64_t num_places, const double* point) {
  const double z = point[2];
  int64_t lower = 0, upper = num_places;
  while (lower < upper) {
    const int64_t middle = lower + (upper - lower) / 2;
    if (places[3 * middle + 2] < z) lower = middle + 1; else upper = middle;
  }
  Best best;
  int64_t below = lower - 1, above = lower;
  for (;;) {
    const double down = below >= 0 ? z - places[3 * below + 2] : std::numeric_limits<double>::infinity();
    const double up = above < num_places ? places[3 * above + 2] - z : std::numeric_limits<double>::infinity();
    const double gap = std::min(down, up);
    if (gap == std::numeric_limits<double>::infinity() || gap * gap > best.chord2) return best.id;
    const int64_t next = down <= up ? below-- : above++;
    offer(best, places + 3 * next, point, ids[next]);
  }
}

}  // namespace

// places (num_places, 3) sorted by z, ids (num_places), points (num_points, 3), out (num_points); all row-major.
// Returns 0, or 1 when num_places is not positive.
extern "C" int geogrpo_nearest_place(const double* places, const int64_t* ids, int64_t num_places, const double* points,
                                     int64_t num_points, int64_t num_threads, int64_t* out) {
  if (num_places <= 0) return 1;
  const int64_t workers = std::max<int64_t>(1, std::min(num_threads, num_points / 64));
  auto work = [&](int64_t worker) {
    const int64_t begin = num_points * worker / workers, end = num_points * (worker + 1) / workers;
    for (int64_t i = begin; i < end; ++i) out[i] = nearest_place(places, ids, num_places, points + 3 * i);
  };
  std::vector<std::thread> threads;
  for (int64_t worker = 1; worker < workers; ++worker) threads.emplace_back(work, worker);
  work(0);
  for (auto& thread : threads) thread.join();
  return 0;
}
