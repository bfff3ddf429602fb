// Work on several threads, of which any may fail to start or throw.
#pragma once

#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace geogrpo {

// Calls work(0) .. work(num_workers - 1), each on a thread of its own but the first and those whose thread cannot be
// started: these are the caller's. Rethrows the first exception when all are done.
template <typename Work>
void run_on_threads(int64_t num_workers, Work work) {
  std::exception_ptr problem;
  std::mutex mutex;
  auto guarded = [&](int64_t worker) {
    try {
      work(worker);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!problem) problem = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  int64_t num_started = 1;
  try {
    for (; num_started < num_workers; ++num_started) threads.emplace_back(guarded, num_started);
  } catch (const std::exception&) {
    // No thread or no memory for one
  }
  guarded(0);
  for (int64_t worker = num_started; worker < num_workers; ++worker) guarded(worker);
  for (auto& thread : threads) thread.join();
  if (problem) std::rethrow_exception(problem);
}

}  // namespace geogrpo
