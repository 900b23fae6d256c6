#include "pool.h"

#include <chrono>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tally {

namespace {

constexpr auto kLook = std::chrono::microseconds(150);
constexpr int kFew = 8;  // threads that are worth a call of the system each

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

uint64_t parts_of(uint64_t ticket) { return ticket >> 16 & 0xffff; }
uint64_t next_of(uint64_t ticket) { return ticket & 0xffff; }

}  // namespace

Pool::Pool(int threads) {
#if defined(__linux__)
  sleeping_.resize(threads);
#endif
  for (int thread = 1; thread < threads; ++thread)
    workers_.emplace_back([this, thread] { look_for_work(thread); });
}

Pool::~Pool() {
  stop_ = true;
  {
    std::lock_guard<std::mutex> lock(mutex_);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Pool::share(int parts, Call call, const void* work) {
  call_ = call;
  work_ = work;
  done_.store(0, std::memory_order_relaxed);
  const uint64_t number = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
  ticket_.store(number << 32 | (uint64_t)parts << 16);
  if (asleep_.load()) wake();
  while (take(0)) {
  }
  for (int looks = 0; done_.load(std::memory_order_acquire) < parts; ++looks) {
    if (looks < 4096)
      pause();
    else
      std::this_thread::yield();
  }
}

// Linux may wake a thread on the processor of its caller and leave both there for several
// milliseconds while another one is idle. So whoever sleeps may not wake up there, and may run
// everywhere again once awake.
void Pool::wake() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
#if defined(__linux__)
    const int here = sched_getcpu();
    moved_ = here >= 0 && (int)workers_.size() <= kFew &&
             !sched_getaffinity(0, sizeof allowed_, &allowed_) && CPU_COUNT(&allowed_) > 1;
    if (moved_) {
      cpu_set_t elsewhere = allowed_;
      CPU_CLR(here, &elsewhere);
      for (pid_t worker : sleeping_)
        if (worker) sched_setaffinity(worker, sizeof elsewhere, &elsewhere);
    }
#endif
  }
  wake_.notify_all();
}

bool Pool::take(int thread) {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  do {
    if (next_of(ticket) >= parts_of(ticket)) return false;
  } while (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel,
                                          std::memory_order_acquire));
  call_(work_, (int)next_of(ticket), thread);
  done_.fetch_add(1, std::memory_order_release);
  return true;
}

void Pool::look_for_work(int thread) {
  using Clock = std::chrono::steady_clock;
  while (!stop_) {
    const Clock::time_point until = Clock::now() + kLook;
    do {
      for (int looks = 0; looks < 64; ++looks) {
        while (take(thread)) {
        }
        pause();
      }
    } while (!stop_ && Clock::now() < until);
    std::unique_lock<std::mutex> lock(mutex_);
    ++asleep_;
#if defined(__linux__)
    sleeping_[thread] = (pid_t)syscall(SYS_gettid);
#endif
    wake_.wait(lock, [this] {
      const uint64_t ticket = ticket_.load();
      return stop_ || next_of(ticket) < parts_of(ticket);
    });
    --asleep_;
#if defined(__linux__)
    sleeping_[thread] = 0;
    if (moved_) sched_setaffinity(0, sizeof allowed_, &allowed_);
#endif
  }
}

}  // namespace tally
