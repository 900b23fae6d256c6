// bfloat16 weights in 12 bits each; kernels.h says how.

#include <algorithm>
#include <numeric>
#include <vector>

#include "matrix.h"

namespace tally {

namespace {

constexpr int kUppers = 16;
constexpr int kNone = 255;
constexpr int kWorthwhile = 8;  // of so many blocks at most one is kept whole
constexpr int kTogether = 64;   // panels that are packed before they take the place of others
constexpr int kWeights = kBlock * kPanel;

// The number of each upper byte among a panel's, or kNone.
struct Numbers {
  uint8_t of[256];

  explicit Numbers(const uint8_t* uppers) {
    std::fill_n(of, 256, kNone);
    for (int i = 0; i < kUppers; ++i) of[uppers[i]] = (uint8_t)i;
  }
  bool cover(const uint16_t* block) const {
    return std::all_of(block, block + kWeights, [&](uint16_t w) { return of[w >> 8] != kNone; });
  }
};

// The upper bytes that these weights have most often.
void choose_uppers(const uint16_t* weights, int count, uint8_t* uppers) {
  int counts[256] = {};
  for (int i = 0; i < count; ++i) ++counts[weights[i] >> 8];
  int bytes[256];
  std::iota(bytes, bytes + 256, 0);
  std::partial_sort(bytes, bytes + kUppers, bytes + 256, [&](int a, int b) {
    return counts[a] != counts[b] ? counts[a] > counts[b] : a < b;
  });
  std::copy_n(bytes, kUppers, uppers);
}

void pack_block(const uint16_t* weights, const Numbers& numbers, uint8_t* to) {
  std::fill_n(to, kPackedBlock, 0);
  for (int i = 0; i < kWeights; ++i) {
    const int step = i / (2 * kPanel), place = Packed::place(i / 2 % kPanel, i % 2);
    to[step * 2 * kPanel + place] = (uint8_t)weights[i];
    to[4 * kPanel + place] |= numbers.of[weights[i] >> 8] << 4 * step;
  }
}

}  // namespace

bool OwnMatrix::pack(Pool& pool) {
  if (view.packed.uppers) return true;
  const int panels = view.panels(), blocks = view.padded / kBlock, words = (blocks + 63) / 64;
  const auto block_of = [&](int panel, int block) {
    return (const uint16_t*)(view.data + panel * view.panel_bytes()) + block * kWeights;
  };
  Buffer<uint8_t> uppers((size_t)panels * kUppers);
  Buffer<uint64_t> whole((size_t)panels * words);
  std::vector<size_t> counts(panels);
  pool.run(panels, [&](int panel, int) {
    choose_uppers(block_of(panel, 0), blocks * kWeights, uppers.get() + panel * kUppers);
    const Numbers numbers(uppers.get() + panel * kUppers);
    for (int b = 0; b < blocks; ++b) {
      if (numbers.cover(block_of(panel, b))) continue;
      whole[(size_t)panel * words + b / 64] |= (uint64_t)1 << b % 64;
      ++counts[panel];
    }
  });
  const size_t kept = std::accumulate(counts.begin(), counts.end(), (size_t)0);
  if (kept * kWorthwhile > (size_t)panels * blocks) return false;
  Buffer<uint8_t> whole_blocks(kept * kWholeBlock, Pages::large);
  Buffer<const uint8_t*> first(panels);
  size_t before = 0;
  for (int panel = 0; panel < panels; before += counts[panel++])
    first[panel] = whole_blocks.get() + before * kWholeBlock;

  // Packed panels take the place of whole ones before them, so that no more memory is needed.
  const size_t packed_bytes = (size_t)blocks * kPackedBlock;
  Buffer<uint8_t> some(std::min(panels, kTogether) * packed_bytes);
  for (int begin = 0; begin < panels; begin += kTogether) {
    const int count = std::min(kTogether, panels - begin);
    pool.run(count, [&](int i, int) {
      const int panel = begin + i;
      const Numbers numbers(uppers.get() + panel * kUppers);
      uint8_t* next = const_cast<uint8_t*>(first[panel]);
      for (int b = 0; b < blocks; ++b) {
        if (whole[(size_t)panel * words + b / 64] >> b % 64 & 1) {
          std::memcpy(next, block_of(panel, b), kWholeBlock);
          next += kWholeBlock;
        } else {
          pack_block(block_of(panel, b), numbers, some.get() + i * packed_bytes + b * kPackedBlock);
        }
      }
    });
    std::memcpy(data_.get() + begin * packed_bytes, some.get(), count * packed_bytes);
  }
  data_.shrink(panels * packed_bytes);
  uppers_ = std::move(uppers);
  whole_ = std::move(whole);
  whole_blocks_ = std::move(whole_blocks);
  blocks_ = std::move(first);
  view.packed = Packed{uppers_.get(), whole_.get(), blocks_.get(), words};
  return true;
}

}  // namespace tally
