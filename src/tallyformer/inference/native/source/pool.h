// Threads that share the parts of one piece of work after the other.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace tally {

// Whoever is free takes the next part. Nobody waits for a thread that the system has put aside,
// unless it holds a part. Threads look for work for a short while, then sleep.
class Pool {
 public:
  // `threads`: the caller included, 1 or more.
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return (int)workers_.size() + 1; }

  // Calls `work(part, thread)` for every part in 0 .. parts - 1, and returns when all are done.
  // One caller at a time.
  template <typename F>
  void run(int parts, const F& work) {
    if (parts <= 1 || workers_.empty()) {
      for (int part = 0; part < parts; ++part) work(part, 0);
      return;
    }
    for (int first = 0; first < parts; first += kMostParts) {
      const auto slice = [&](int part, int thread) { work(first + part, thread); };
      using Slice = decltype(slice);
      share(
          parts - first < kMostParts ? parts - first : kMostParts,
          [](const void* f, int part, int thread) { (*(Slice*)f)(part, thread); }, &slice);
    }
  }

 private:
  static constexpr int kMostParts = 0xffff;  // that a ticket can count
  using Call = void (*)(const void*, int part, int thread);
  void share(int parts, Call call, const void* work);
  bool take(int thread);
  void look_for_work(int thread);
  void wake();

  // Which piece of work (32 bits), its parts (16) and the next one to be taken (16), in one word:
  // a part is taken from exactly the work that it belongs to. What follows is written before it
  // and read only by a thread that holds a part.
  std::atomic<uint64_t> ticket_{0};
  Call call_ = nullptr;
  const void* work_ = nullptr;
  alignas(64) std::atomic<int> done_{0};
  alignas(64) std::atomic<int> asleep_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;

#if defined(__linux__)
  // Of each worker that sleeps, else 0; with the mutex.
  std::vector<pid_t> sleeping_;
  cpu_set_t allowed_;  // processors, of those that wake up
  bool moved_ = false;
#endif
};

}  // namespace tally
