// The kernels, written once for every processor; each kernels_*.cpp compiles them with its flags.
//
// Each row is computed with the same operations in the same order, however many rows there are
// and whichever thread computes it, so that it has the same bits alone and among others.

#include "kernels.h"
#include "lanes.h"

namespace {

using namespace tally;

constexpr int kParts = kPanel / kLanes;  // registers that hold one number of each output

#if defined(__AVX512F__)
constexpr int kRows = 8;  // rows that share one reading of the weights
#else
constexpr int kRows = 2;
#endif

// --- Products of one step of weights with one row's inputs ------------------------------------

struct Float32 {
  static constexpr int kStep = 1;
  using Input = float;
  INLINE Floats add(Floats sum, const uint8_t* weights, float x) {
    return sum + load<Floats>(weights) * x;
  }
};

struct Bfloat16 {
  static constexpr int kStep = 2;
  using Input = uint32_t;
  INLINE Floats add(Floats sum, const uint8_t* weights, uint32_t pair) {
    return add(sum, load<Words>(weights), pair);
  }
  INLINE Floats add(Floats sum, Words w, uint32_t pair) {
#if defined(__AVX512BF16__)
    const __m512i x = _mm512_set1_epi32((int)pair);
    return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)x);
#else
    float low, high;
    const uint32_t low_bits = pair << 16, high_bits = pair & 0xffff0000u;
    std::memcpy(&low, &low_bits, 4);
    std::memcpy(&high, &high_bits, 4);
    sum = sum + (Floats)(w << 16) * low;
    return sum + (Floats)(w & 0xffff0000u) * high;
#endif
  }
};

// sum + the four products of unsigned weights and signed inputs in each lane; exact.
INLINE Ints dot4(Ints sum, Ints weights, int32_t inputs) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weights, _mm512_set1_epi32(inputs));
#elif defined(__AVX2__) && !defined(__AVX512F__)
  const __m256i w = (__m256i)weights, x = _mm256_set1_epi32(inputs);
  const __m256i bytes = _mm256_set1_epi16(0x00ff);
  const __m256i even = _mm256_madd_epi16(_mm256_and_si256(w, bytes),
                                         _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8));
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), _mm256_srai_epi16(x, 8));
  return (Ints)_mm256_add_epi32((__m256i)sum, _mm256_add_epi32(even, odd));
#else
  sum += (weights & 255) * (int32_t)(int8_t)inputs;
  sum += ((weights >> 8) & 255) * (int32_t)(int8_t)(inputs >> 8);
  sum += ((weights >> 16) & 255) * (int32_t)(int8_t)(inputs >> 16);
  return sum + ((weights >> 24) & 255) * (int32_t)(int8_t)(inputs >> 24);
#endif
}

// Weights come from memory once in a step, for the first rows that meet them. They are asked for
// further ahead than the processor looks by itself, and not to be kept for the next step.
constexpr int kAhead = 8192;  // bytes

template <int Bytes>
INLINE void fetch_ahead(const uint8_t* weights) {
  for (int line = 0; line < Bytes; line += 64) __builtin_prefetch(weights + kAhead + line, 0, 0);
}

// --- One panel --------------------------------------------------------------------------------

template <int R>
INLINE void finish(const Matrix& m, int panel, const Floats (&sums)[R][kParts], float* out,
                   size_t stride) {
  for (int j = 0; j < kParts; ++j) {
    Floats bias = all(0);
    if (m.bias) bias = load<Floats>(m.bias + panel * kPanel + j * kLanes);
    for (int r = 0; r < R; ++r) store(out + r * stride + j * kLanes, sums[r][j] + bias);
  }
}

template <typename Type, int R>
static void float_rows(const Matrix& m, int panel, const Prepared& a, int row, float* out,
                       size_t stride) {
  const uint8_t* weights = m.data + panel * m.panel_bytes();
  const uint8_t* inputs = a.data + row * a.row_bytes;
  Floats sums[R][kParts] = {};
  for (int k = 0; k < m.padded; k += Type::kStep) {
    if (row == 0) fetch_ahead<kPanel * 4>(weights);
    for (int r = 0; r < R; ++r) {
      typename Type::Input x;
      std::memcpy(&x, inputs + r * a.row_bytes + (k / Type::kStep) * sizeof x, sizeof x);
      for (int j = 0; j < kParts; ++j)
        sums[r][j] = Type::add(sums[r][j], weights + j * kLanes * 4, x);
    }
    weights += kPanel * 4;
  }
  finish<R>(m, panel, sums, out, stride);
}

#if defined(__AVX512BW__)

constexpr bool kPacks = true;

// Both steps of a packed block as they were.
INLINE void unpack(const uint8_t* block, __m512i uppers, Words (&steps)[2][kParts]) {
  const __m512i numbers = _mm512_loadu_si512(block + 128), low = _mm512_set1_epi8(15);
  for (int s = 0; s < 2; ++s) {
    const __m512i lower = _mm512_loadu_si512(block + s * 64);
    const __m512i which = _mm512_and_si512(s ? _mm512_srli_epi16(numbers, 4) : numbers, low);
    const __m512i upper = _mm512_shuffle_epi8(uppers, which);
    steps[s][0] = (Words)_mm512_unpacklo_epi8(lower, upper);
    steps[s][1] = (Words)_mm512_unpackhi_epi8(lower, upper);
  }
}

template <int R>
INLINE void add_step(Floats (&sums)[R][kParts], const Words (&weights)[kParts],
                     const uint8_t* inputs, size_t next) {
  for (int r = 0; r < R; ++r) {
    uint32_t pair;
    std::memcpy(&pair, inputs + r * next, sizeof pair);
    for (int j = 0; j < kParts; ++j) sums[r][j] = Bfloat16::add(sums[r][j], weights[j], pair);
  }
}

template <int R>
static void packed_rows(const Matrix& m, int panel, const Prepared& a, int row, float* out,
                        size_t stride) {
  const Packed& p = m.packed;
  const uint8_t* packed = m.data + panel * m.panel_bytes();
  const uint8_t* whole = p.blocks[panel];
  const uint64_t* is_whole = p.whole + (size_t)panel * p.words;
  const __m512i uppers =
      _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)(p.uppers + panel * 16)));
  const uint8_t* inputs = a.data + row * a.row_bytes;
  Floats sums[R][kParts] = {};
  uint64_t bits = 0;
  for (int b = 0; b < m.padded / kBlock; ++b, bits >>= 1) {
    if (b % 64 == 0) bits = is_whole[b / 64];
    Words steps[2][kParts];
    if (__builtin_expect(bits & 1, 0)) {
      for (auto& step : steps)
        for (int j = 0; j < kParts; ++j, whole += 64) step[j] = load<Words>(whole);
    } else {
      unpack(packed, uppers, steps);
    }
    if (row == 0) fetch_ahead<kPackedBlock>(packed);
    packed += kPackedBlock;
    for (const auto& step : steps) {
      add_step<R>(sums, step, inputs, a.row_bytes);
      inputs += 4;
    }
  }
  finish<R>(m, panel, sums, out, stride);
}

#else

constexpr bool kPacks = false;

template <int R>
static void packed_rows(const Matrix&, int, const Prepared&, int, float*, size_t) {}

#endif

struct Int8 {
  static constexpr int kStep = 4, kZero = 128;
  template <int R>
  INLINE void add(Ints (&sums)[R][kParts], const uint8_t* weights, const uint8_t* x, size_t next) {
    for (int j = 0; j < kParts; ++j) {
      const Ints w = load<Ints>(weights + j * kLanes * 4);
      for (int r = 0; r < R; ++r) {
        int32_t inputs;
        std::memcpy(&inputs, x + r * next, 4);
        sums[r][j] = dot4(sums[r][j], w, inputs);
      }
    }
  }
};

struct Int4 {
  static constexpr int kStep = 8, kZero = 8;
  template <int R>
  INLINE void add(Ints (&sums)[R][kParts], const uint8_t* weights, const uint8_t* x, size_t next) {
    for (int j = 0; j < kParts; ++j) {
      const Ints both = load<Ints>(weights + j * kLanes * 4);
      const Ints low = both & 0x0f0f0f0f, high = (both >> 4) & 0x0f0f0f0f;
      for (int r = 0; r < R; ++r) {
        int32_t first, second;
        std::memcpy(&first, x + r * next, 4);
        std::memcpy(&second, x + r * next + 4, 4);
        sums[r][j] = dot4(dot4(sums[r][j], low, first), high, second);
      }
    }
  }
};

template <typename Type, int R>
static void whole_rows(const Matrix& m, int panel, const Prepared& a, int row, float* out,
                       size_t stride) {
  const uint8_t* weights = m.data + panel * m.panel_bytes();
  const uint8_t* inputs = a.data + row * a.row_bytes;
  const uint16_t* scales = m.scales + (size_t)panel * m.groups() * kPanel;
  Floats sums[R][kParts] = {};
  for (int g = 0; g < m.groups(); ++g) {
    Ints part[R][kParts];
    for (int r = 0; r < R; ++r)
      for (int j = 0; j < kParts; ++j)
        part[r][j] = all_ints(-Type::kZero * a.sums[(row + r) * a.groups + g]);
    for (int k = 0; k < m.group; k += Type::kStep) {
      if (row == 0) fetch_ahead<kPanel * 4>(weights);
      Type::template add<R>(part, weights, inputs + k, a.row_bytes);
      weights += kPanel * 4;
    }
    inputs += m.group;
    for (int j = 0; j < kParts; ++j) {
      const Floats scale = from_bf16(scales + g * kPanel + j * kLanes);
      for (int r = 0; r < R; ++r)
        sums[r][j] =
            sums[r][j] + to_floats(part[r][j]) * (scale * a.scales[(row + r) * a.groups + g]);
    }
  }
  finish<R>(m, panel, sums, out, stride);
}

template <int R>
static void some_rows(const Matrix& m, int panel, const Prepared& a, int row, float* out,
                      size_t stride) {
  switch (m.kind) {
    case Kind::f32: return float_rows<Float32, R>(m, panel, a, row, out, stride);
    case Kind::bf16:
      if (m.packed.uppers) return packed_rows<R>(m, panel, a, row, out, stride);
      return float_rows<Bfloat16, R>(m, panel, a, row, out, stride);
    case Kind::int8: return whole_rows<Int8, R>(m, panel, a, row, out, stride);
    case Kind::int4: return whole_rows<Int4, R>(m, panel, a, row, out, stride);
  }
}

template <int R>
static void last_rows(const Matrix& m, int panel, const Prepared& a, int row, int left, float* out,
                      size_t stride) {
  if (left == R) return some_rows<R>(m, panel, a, row, out, stride);
  if constexpr (R > 1) last_rows<R - 1>(m, panel, a, row, left, out, stride);
}

static void panel(const Matrix& m, int panel, const Prepared& a, int rows, float* out,
                  size_t stride) {
  int row = 0;
  for (; row + kRows <= rows; row += kRows)
    some_rows<kRows>(m, panel, a, row, out + row * stride, stride);
  if (row < rows) last_rows<kRows - 1>(m, panel, a, row, rows - row, out + row * stride, stride);
}

// --- Rows -------------------------------------------------------------------------------------

static void norm(const Norm& n, const float* x, float* out, int width) {
  if (!n.weight) {
    std::memcpy(out, x, sizeof(float) * width);
    return;
  }
  const int whole = width / kLanes * kLanes;
  float mean = 0;
  if (n.centred) {
    Floats sum = all(0);
    for (int i = 0; i < whole; i += kLanes) sum = sum + load<Floats>(x + i);
    float total = sum_of(sum);
    for (int i = whole; i < width; ++i) total += x[i];
    mean = total / width;
  }
  Floats squares = all(0);
  for (int i = 0; i < whole; i += kLanes) {
    const Floats v = load<Floats>(x + i) - mean;
    squares = squares + v * v;
  }
  float total = sum_of(squares);
  for (int i = whole; i < width; ++i) total += (x[i] - mean) * (x[i] - mean);
  const float scale = 1.0f / __builtin_sqrtf(total / width + n.eps);
  for (int i = 0; i < whole; i += kLanes) {
    Floats v = (load<Floats>(x + i) - mean) * scale * load<Floats>(n.weight + i);
    if (n.bias) v = v + load<Floats>(n.bias + i);
    store(out + i, v);
  }
  for (int i = whole; i < width; ++i)
    out[i] = (x[i] - mean) * scale * n.weight[i] + (n.bias ? n.bias[i] : 0.0f);
}

// To whole numbers of -127 to 127: x is about number * scale. What is not finite has no such number,
// so that its group's scale is NaN: it shall not become some number that looks like an answer.
static void quantize(const Matrix& m, const float* x, int8_t* out, float* scales, int32_t* sums) {
  for (int g = 0; g < m.groups(); ++g, x += m.group, out += m.group) {
    Floats most_lanes = all(0), wrong_lanes = all(0);
    const int whole = m.group / kLanes * kLanes;
    for (int i = 0; i < whole; i += kLanes) {
      const Floats v = load<Floats>(x + i);
      most_lanes = larger(absolute(v), most_lanes);
      wrong_lanes = wrong_lanes + v * 0.0f;
    }
    float most = max_of(most_lanes), wrong = sum_of(wrong_lanes);
    for (int i = whole; i < m.group; ++i) {
      most = __builtin_fmaxf(most, __builtin_fabsf(x[i]));
      wrong += x[i] * 0.0f;
    }
    const float inverse = most > 0 ? 127.0f / most : 0.0f;
    scales[g] = wrong == 0.0f ? most / 127.0f : __builtin_nanf("");
    Ints sum_lanes = all_ints(0);
    for (int i = 0; i < whole; i += kLanes) {
      const Ints q = nearest(load<Floats>(x + i) * inverse);
      sum_lanes += q;
      store(out + i, __builtin_convertvector(q, Bytes));
    }
    int32_t sum = 0;
    for (int i = 0; i < kLanes; ++i) sum += sum_lanes[i];
    for (int i = whole; i < m.group; ++i) {
      out[i] = (int8_t)__builtin_rintf(x[i] * inverse);
      sum += out[i];
    }
    sums[g] = sum;
  }
}

static void prepare(const Matrix& m, const float* x, uint8_t* out, float* scales, int32_t* sums) {
  if (m.kind == Kind::f32) {
    std::memcpy(out, x, sizeof(float) * m.padded);
  } else if (m.kind == Kind::bf16) {
    int i = 0;
    for (; i + kLanes <= m.padded; i += kLanes)
      store_bf16((uint16_t*)out + i, load<Floats>(x + i));
    for (; i < m.padded; ++i) ((uint16_t*)out)[i] = to_bf16(x[i]);
  } else {
    quantize(m, x, (int8_t*)out, scales, sums);
  }
}

static void packed_row(const Matrix& m, int output, float* out) {
  const Packed& p = m.packed;
  const int panel = output / kPanel, inside = output % kPanel;
  const uint8_t* packed = m.data + panel * m.panel_bytes();
  const uint8_t* whole = p.blocks[panel];
  for (int b = 0; b < m.padded / kBlock; ++b, packed += kPackedBlock) {
    const bool is_whole = p.whole[(size_t)panel * p.words + b / 64] >> b % 64 & 1;
    for (int i = 0; i < kBlock && b * kBlock + i < m.inputs; ++i) {
      const int place = Packed::place(inside, i % 2), number = packed[128 + place] >> i / 2 * 4 & 15;
      uint16_t half = (uint16_t)(p.uppers[panel * 16 + number] << 8 | packed[i / 2 * 64 + place]);
      if (is_whole) std::memcpy(&half, whole + (i / 2 * kPanel + inside) * 4 + i % 2 * 2, 2);
      const uint32_t bits = (uint32_t)half << 16;
      std::memcpy(out + b * kBlock + i, &bits, 4);
    }
    if (is_whole) whole += kWholeBlock;
  }
}

static void row(const Matrix& m, int output, float* out) {
  if (m.packed.uppers) return packed_row(m, output, out);
  const int inside = output % kPanel;
  const size_t panel = output / kPanel;
  const uint8_t* data = m.data + panel * m.panel_bytes();
  const uint16_t* scales = m.scales + panel * m.groups() * kPanel + inside;
  for (int k = 0; k < m.inputs; ++k) {
    if (m.kind == Kind::f32) {
      std::memcpy(out + k, data + ((size_t)k * kPanel + inside) * 4, 4);
    } else if (m.kind == Kind::bf16) {
      uint16_t half;
      std::memcpy(&half, data + ((size_t)(k / 2) * kPanel + inside) * 4 + k % 2 * 2, 2);
      const uint32_t bits = (uint32_t)half << 16;
      std::memcpy(out + k, &bits, 4);
    } else {
      const bool eight = m.kind == Kind::int8;
      const int step = eight ? 4 : 8;
      const uint8_t byte = data[((size_t)(k / step) * kPanel + inside) * 4 + k % 4];
      const int number = eight ? byte - 128 : (k % 8 < 4 ? byte & 15 : byte >> 4) - 8;
      const uint32_t bits = (uint32_t)scales[(size_t)(k / m.group) * kPanel] << 16;
      float scale;
      std::memcpy(&scale, &bits, 4);
      out[k] = (float)number * scale;
    }
  }
}

// Calls f(Floats) on all numbers; what is left over is filled up with zeros.
template <typename F>
INLINE void change(float* x, int count, F f) {
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) store(x + i, f(load<Floats>(x + i), i));
  if (i == count) return;
  float part[kLanes] = {};
  std::memcpy(part, x + i, sizeof(float) * (count - i));
  store(part, f(load<Floats>(part), -1));
  std::memcpy(x + i, part, sizeof(float) * (count - i));
}

static void gelu_all(float* x, int count) {
  change(x, count, [](Floats v, int) { return gelu(v); });
}

static void silu_times(float* gate, const float* x, int count) {
  change(gate, count, [](Floats v, int) { return silu(v); });
  for (int i = 0; i < count; ++i) gate[i] *= x[i];
}

static void add(float* x, const float* y, int count) {
  for (int i = 0; i < count; ++i) x[i] += y[i];
}

static void rotate(float* head, const float* cosines, const float* sines, int size, bool halves) {
  const int pairs = size / 2;
  for (int r = 0; r < pairs; ++r) {
    float* first = head + (halves ? r : 2 * r);
    float* second = head + (halves ? r + pairs : 2 * r + 1);
    const float a = *first, b = *second;
    *first = a * cosines[r] - b * sines[r];
    *second = b * cosines[r] + a * sines[r];
  }
}

// --- Attention --------------------------------------------------------------------------------

// A cache of float32, or of pairs of bfloat16: neighbouring channels of a key, and neighbouring
// positions of a value, lie together, as Bfloat16 multiplies them.

struct Wide {
  using Number = float;
  static constexpr int kPair = 1;
  using Type = Float32;
  INLINE float kept(float x) { return x; }
};

struct Narrow {
  using Number = uint16_t;
  static constexpr int kPair = 2;
  using Type = Bfloat16;
  INLINE uint16_t kept(float x) { return to_bf16(x); }
};

template <typename C>
static void keep_as(typename C::Number* keys, typename C::Number* values, const float* key,
                    const float* value, int position, int size, int padded) {
  constexpr int pair = C::kPair;
  auto* block = keys + (size_t)(position / kKeyBlock) * size * kKeyBlock +
                position % kKeyBlock * pair;
  for (int d = 0; d < size; ++d)
    block[(size_t)(d / pair) * kKeyBlock * pair + d % pair] = C::kept(key[d]);
  auto* line = values + (size_t)(position / pair) * padded * pair + position % pair;
  for (int d = 0; d < size; ++d) {
    line[(size_t)d * pair] = C::kept(value[d]);
    // Nothing is known of the next position yet, but it is multiplied (by 0).
    if (pair == 2 && position % 2 == 0) line[(size_t)d * pair + 1] = 0;
  }
}

static void keep(bool narrow, void* keys, void* values, const float* key, const float* value,
                 int position, int size, int padded) {
  if (narrow)
    keep_as<Narrow>((uint16_t*)keys, (uint16_t*)values, key, value, position, size, padded);
  else
    keep_as<Wide>((float*)keys, (float*)values, key, value, position, size, padded);
}

constexpr int kBlockParts = kKeyBlock / kLanes;

// `q`: inputs of the cache's kind, one a channel or a pair of them.
template <typename C, int Blocks>
INLINE void score_blocks(const typename C::Type::Input* q, const uint8_t* keys, int size,
                         float* scores) {
  const size_t block_bytes = (size_t)size * kKeyBlock * sizeof(typename C::Number);
  Floats sums[Blocks * kBlockParts] = {};
  for (int d = 0; d < size / C::kPair; ++d)
    for (int b = 0; b < Blocks; ++b)
      for (int j = 0; j < kBlockParts; ++j)
        sums[b * kBlockParts + j] =
            C::Type::add(sums[b * kBlockParts + j],
                         keys + b * block_bytes + ((size_t)d * kKeyBlock + j * kLanes) * 4, q[d]);
  for (int i = 0; i < Blocks * kBlockParts; ++i) store(scores + i * kLanes, sums[i]);
}

// `weights`: inputs, one a position or a pair of them.
template <typename C, int Parts>
INLINE void mix(const typename C::Type::Input* weights, const uint8_t* values, int last,
                int padded, float scale, float* out) {
  Floats sums[Parts] = {};
  for (int s = 0; s <= last / C::kPair; ++s)
    for (int j = 0; j < Parts; ++j)
      sums[j] = C::Type::add(sums[j], values + ((size_t)s * padded + j * kLanes) * 4, weights[s]);
  for (int j = 0; j < Parts; ++j) store(out + j * kLanes, sums[j] * scale);
}

// Scores to weights, not yet divided by their sum, which is returned.
static float soften(float* scores, int count, int whole) {
  for (int s = count; s < whole; ++s) scores[s] = -__builtin_inff();
  Floats most_lanes = all(-__builtin_inff());
  for (int s = 0; s < whole; s += kLanes)
    most_lanes = larger(load<Floats>(scores + s), most_lanes);
  const float most = max_of(most_lanes);
  Floats total = all(0);
  for (int s = 0; s < whole; s += kLanes) {
    const Floats score = load<Floats>(scores + s);
    const Floats e = exponential(score - most);
    const Floats weight = score > -__builtin_inff() ? e : all(0);
    total = total + weight;
    store(scores + s, weight);
  }
  return sum_of(total);
}

// `count` numbers, filled up to a whole register, as inputs of the cache's kind.
template <typename C>
INLINE const typename C::Type::Input* as_inputs(float* x, int count, float* room) {
  using Input = typename C::Type::Input;
  if (C::kPair == 1) return (const Input*)x;
  for (int i = 0; i < count; i += kLanes) store_bf16((uint16_t*)room + i, load<Floats>(x + i));
  return (const Input*)room;
}

template <typename C>
static void attend_as(float* q, const uint8_t* keys, const uint8_t* values, int last, int size,
                      int padded, float* scores, float* out) {
  const size_t block_bytes = (size_t)size * kKeyBlock * sizeof(typename C::Number);
  const int blocks = last / kKeyBlock + 1, whole = blocks * kKeyBlock;
  const auto* query = as_inputs<C>(q, size, out);
  int b = 0;
  for (; b + 4 <= blocks; b += 4)
    score_blocks<C, 4>(query, keys + b * block_bytes, size, scores + b * kKeyBlock);
  for (; b < blocks; ++b)
    score_blocks<C, 1>(query, keys + b * block_bytes, size, scores + b * kKeyBlock);
  const float scale = 1.0f / soften(scores, last + 1, whole);
  const auto* weights = as_inputs<C>(scores, whole, scores + whole);
  constexpr int kMany = 64 / kLanes;
  int d = 0;
  for (; d + 64 <= padded; d += 64)
    mix<C, kMany>(weights, values + (size_t)d * 4, last, padded, scale, out + d);
  for (; d < padded; d += 16)
    mix<C, 16 / kLanes>(weights, values + (size_t)d * 4, last, padded, scale, out + d);
}

static void attend(bool narrow, float* q, const void* keys, const void* values, int last,
                   int size, int padded, float* scores, float* out) {
  const auto* k = (const uint8_t*)keys;
  const auto* v = (const uint8_t*)values;
  if (narrow)
    attend_as<Narrow>(q, k, v, last, size, padded, scores, out);
  else
    attend_as<Wide>(q, k, v, last, size, padded, scores, out);
}

// --- Sampling ---------------------------------------------------------------------------------

// 0, or NaN for NaN and infinity; -infinity is what an id has that never follows.
INLINE Floats wrongness(Floats x) {
  const Floats least = all(-3.40282347e38f);
  return larger(least, x) * 0.0f;  // NaN stays, as it is no less than anything
}

static float maxima(const float* x, int count, float* parts) {
  Floats most = all(-__builtin_inff()), wrong = all(0);
  const int whole = count / (kStripe * kLanes) * (kStripe * kLanes);
  for (int i = 0; i < whole; i += kStripe * kLanes) {
    Floats best = load<Floats>(x + i);
    wrong = wrong + wrongness(best);
    for (int j = 1; j < kStripe; ++j) {
      const Floats more = load<Floats>(x + i + j * kLanes);
      wrong = wrong + wrongness(more);
      best = larger(more, best);
    }
    store(parts + i / kStripe, best);
    most = larger(best, most);
  }
  float largest = max_of(most), bad = sum_of(wrong);
  for (int i = whole; i < count; ++i) {
    largest = x[i] > largest ? x[i] : largest;
    bad += wrongness(all(x[i]))[0];
  }
  return bad == 0.0f ? largest : __builtin_nanf("");
}

static int at_least(const float* x, int count, float threshold, int32_t* ids) {
  int found = 0, i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    if (!any(load<Floats>(x + i) >= threshold)) continue;
    for (int k = i; k < i + kLanes; ++k)
      if (x[k] >= threshold) ids[found++] = k;
  }
  for (; i < count; ++i)
    if (x[i] >= threshold) ids[found++] = i;
  return found;
}

static double sum_exp(const float* x, int count, float most, float factor, double* chunks) {
  double total = 0;
  for (int start = 0; start < count; start += kChunk) {
    const int end = start + kChunk < count ? start + kChunk : count;
    Floats sum = all(0);
    int i = start;
    for (; i + kLanes <= end; i += kLanes)
      sum = sum + exponential((load<Floats>(x + i) - most) * factor);
    double chunk = sum_of(sum);
    for (; i < end; ++i) chunk += exponential(all((x[i] - most) * factor))[0];
    if (chunks) chunks[start / kChunk] = chunk;
    total += chunk;
  }
  return total;
}

static void exp_all(const float* x, int count, float most, float factor, float* out) {
  for (int i = 0; i < count; ++i) out[i] = exponential(all((x[i] - most) * factor))[0];
}

constexpr Kernels make_table(const char* name) {
  return Kernels{name,   kPacks, norm, prepare, panel,  row,      gelu_all, silu_times,
                 add,    rotate, keep, attend,  maxima, at_least, sum_exp,  exp_all};
}

}  // namespace
