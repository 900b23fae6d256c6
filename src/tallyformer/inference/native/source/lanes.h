// Vectors of as many floats as one register of the target holds, by the compiler's own vector
// types: the same source becomes AVX-512, AVX2, SSE and NEON code.
//
// Everything here is internal to one translation unit: several of them, compiled for different
// processors, live in one library.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));
typedef uint16_t Halves __attribute__((vector_size(kLanes * 2)));
typedef int8_t Bytes __attribute__((vector_size(kLanes)));

template <typename V, typename T>
INLINE V load(const T* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <typename V, typename T>
INLINE void store(T* to, V v) {
  std::memcpy(to, &v, sizeof v);
}

INLINE Floats all(float x) { return Floats{} + x; }
INLINE Ints all_ints(int32_t x) { return Ints{} + x; }
INLINE Floats to_floats(Ints v) { return __builtin_convertvector(v, Floats); }
INLINE Floats as_floats(Ints v) { return (Floats)v; }
INLINE Ints as_ints(Floats v) { return (Ints)v; }
INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }
INLINE Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
INLINE Floats absolute(Floats v) { return as_floats(as_ints(v) & 0x7fffffff); }

// To the nearest whole number, halves to the even one. |v| must be below 2^22.
INLINE Ints nearest(Floats v) { return as_ints(v + 12582912.0f) - 0x4b400000; }

// Sums and maxima over lanes, always in the same order.
INLINE float sum_of(Floats v) {
  float parts[kLanes];
  store(parts, v);
  for (int half = kLanes / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) parts[i] += parts[i + half];
  return parts[0];
}

INLINE float max_of(Floats v) {
  float parts[kLanes];
  store(parts, v);
  for (int half = kLanes / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) parts[i] = parts[i] > parts[i + half] ? parts[i] : parts[i + half];
  return parts[0];
}

INLINE bool any(Ints mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)mask) != 0;
#else
  int32_t found = 0;
  for (int i = 0; i < kLanes; ++i) found |= mask[i];
  return found != 0;
#endif
}

// bfloat16: the upper half of a float32.
INLINE Floats from_bf16(const uint16_t* from) {
  const Words wide = __builtin_convertvector(load<Halves>(from), Words);
  return (Floats)(wide << 16);
}

INLINE uint16_t to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

INLINE void store_bf16(uint16_t* to, Floats v) {
  const Words bits = (Words)v;
  const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  store(to, __builtin_convertvector(rounded, Halves));
}

// e^v to about 1e-7 of itself; exactly 0 below -104, and no overflow above 88.
// e^v = 2^n * e^r with |r| <= ln(2) / 2, and e^r by its series to the sixth power.
INLINE Floats exponential(Floats v) {
  v = larger(smaller(v, all(88.0f)), all(-120.0f));
  const Floats shifted = v * 1.44269504f + 12582912.0f;
  const Ints n = as_ints(shifted) - 0x4b400000;
  const Floats whole = shifted - 12582912.0f;
  // ln(2) in two parts, so that whole * ln(2) loses nothing.
  const Floats r = (v - whole * 0.693359375f) - whole * -2.12194440e-4f;
  Floats p = r * (1.0f / 720) + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // 2^n in two factors: n may be below what one exponent holds.
  const Ints half = n >> 1;
  return p * as_floats((half + 127) << 23) * as_floats((n - half + 127) << 23);
}

// x times the standard normal distribution function: GELU (Hendrycks and Gimpel 2016). The
// complementary error function is Abramowitz and Stegun's 7.1.26, to 1.5e-7.
INLINE Floats gelu(Floats x) {
  const Floats z = absolute(x) * 0.70710678f;
  const Floats t = 1.0f / (z * 0.3275911f + 1.0f);
  Floats p = t * 1.061405429f - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const Floats tail = 0.5f * p * t * exponential(-(z * z));
  return x * (x < 0.0f ? tail : 1.0f - tail);
}

INLINE Floats silu(Floats x) { return x / (exponential(-x) + 1.0f); }

}  // namespace
