// Memory that begins at a cache line and is zero at first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace tally {

enum class Pages { small, large };  // large ones, where the system has them, for what is read whole

template <typename T>
class Buffer {
 public:
  Buffer() = default;
  // Throws std::bad_alloc. Small pages take memory only when they are written to.
  explicit Buffer(size_t count, Pages pages = Pages::small) : bytes_(count * sizeof(T)) {
    if (!bytes_) return;
#if defined(__linux__)
    void* p = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    if (pages == Pages::large) madvise(p, bytes_, MADV_HUGEPAGE);
#else
    (void)pages;
    void* p = nullptr;
    if (posix_memalign(&p, 64, bytes_)) throw std::bad_alloc();
    std::memset(p, 0, bytes_);
#endif
    data_ = (T*)p;
  }
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Buffer() {
    if (!data_) return;
#if defined(__linux__)
    munmap(data_, bytes_);
#else
    std::free(data_);
#endif
  }

  // Give back what is behind the first `count`, to a whole page.
  void shrink(size_t count) {
#if defined(__linux__)
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t left = (count * sizeof(T) + page - 1) / page * page;
    if (left >= bytes_ || munmap((uint8_t*)data_ + left, bytes_ - left)) return;
    bytes_ = left;
#else
    (void)count;
#endif
  }

  T* get() const { return data_; }
  T& operator[](size_t i) const { return data_[i]; }
  explicit operator bool() const { return data_; }

 private:
  T* data_ = nullptr;
  size_t bytes_ = 0;
};

// Grows, and then holds whatever was there.
template <typename T>
class Room {
 public:
  T* of(size_t count) {
    if (count > count_) {
      buffer_ = Buffer<T>(count);
      count_ = count;
    }
    return buffer_.get();
  }
  T* get() const { return buffer_.get(); }

 private:
  Buffer<T> buffer_;
  size_t count_ = 0;
};

}  // namespace tally
