// bfloat16 weights in 12 bits each; kernels.h says how.

#include <algorithm>
#include <numeric>
#include <vector>

#include "matrix.h"

namespace tally {

namespace {

constexpr int kCodes = 16;
constexpr int kNone = 255;
constexpr int kWorthwhile = 8;  // of so many blocks at most one is kept whole
constexpr int kWords = kBlock * kPanel;

// The upper bytes that a panel has most often, and the number of each byte among them.
void choose_uppers(const uint16_t* weights, int count, uint8_t* uppers, uint8_t* numbers) {
  int counts[256] = {};
  for (int i = 0; i < count; ++i) ++counts[weights[i] >> 8];
  std::vector<int> bytes(256);
  std::iota(bytes.begin(), bytes.end(), 0);
  std::partial_sort(bytes.begin(), bytes.begin() + kCodes, bytes.end(), [&](int a, int b) {
    return counts[a] != counts[b] ? counts[a] > counts[b] : a < b;
  });
  std::fill_n(numbers, 256, kNone);
  for (int i = 0; i < kCodes; ++i) {
    uppers[i] = (uint8_t)bytes[i];
    numbers[bytes[i]] = (uint8_t)i;
  }
}

// Whether the block could be packed.
bool pack_block(const uint16_t* weights, const uint8_t* numbers, uint8_t* to) {
  for (int i = 0; i < kWords; ++i)
    if (numbers[weights[i] >> 8] == kNone) return false;
  for (int i = 0; i < kWords; ++i) {
    const int step = i / (2 * kPanel), place = Packed::place(i / 2 % kPanel, i % 2);
    to[step * 2 * kPanel + place] = (uint8_t)weights[i];
    to[4 * kPanel + place] |= numbers[weights[i] >> 8] << 4 * step;
  }
  return true;
}

}  // namespace

bool OwnMatrix::pack(Pool& pool) {
  if (view.packed.uppers) return true;
  const int panels = view.panels(), blocks = view.padded / kBlock, words = (blocks + 63) / 64;
  const auto of_panel = [&](int panel) {
    return (const uint16_t*)(view.data + panel * view.panel_bytes());
  };
  Buffer<uint8_t> packed((size_t)panels * blocks * kPackedBlock, Pages::large);
  Buffer<uint8_t> uppers((size_t)panels * kCodes);
  Buffer<uint64_t> whole((size_t)panels * words);
  std::vector<int> counts(panels);
  pool.run(panels, [&](int panel, int) {
    uint8_t numbers[256];
    choose_uppers(of_panel(panel), blocks * kWords, uppers.get() + panel * kCodes, numbers);
    for (int b = 0; b < blocks; ++b) {
      uint8_t* to = packed.get() + ((size_t)panel * blocks + b) * kPackedBlock;
      if (pack_block(of_panel(panel) + b * kWords, numbers, to)) continue;
      whole[(size_t)panel * words + b / 64] |= (uint64_t)1 << b % 64;
      ++counts[panel];
    }
  });
  const size_t kept = std::accumulate(counts.begin(), counts.end(), (size_t)0);
  if (kept * kWorthwhile > (size_t)panels * blocks) return false;
  Buffer<uint8_t> whole_blocks(kept * kWholeBlock, Pages::large);
  Buffer<const uint8_t*> first(panels);
  uint8_t* next = whole_blocks.get();
  for (int panel = 0; panel < panels; ++panel) {
    first[panel] = next;
    for (int b = 0; b < blocks; ++b) {
      if (!(whole[(size_t)panel * words + b / 64] >> b % 64 & 1)) continue;
      std::memcpy(next, of_panel(panel) + b * kWords, kWholeBlock);
      next += kWholeBlock;
    }
  }
  data_ = std::move(packed);
  uppers_ = std::move(uppers);
  whole_ = std::move(whole);
  whole_blocks_ = std::move(whole_blocks);
  blocks_ = std::move(first);
  view.data = data_.get();
  view.packed = Packed{uppers_.get(), whole_.get(), blocks_.get(), words};
  return true;
}

}  // namespace tally
