// Which kernels a processor can run.

#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernels.h"

namespace tally {

extern const Kernels portable_kernels;
// The build says which of them it could compile.
#if defined(TALLY_AVX512_BF16)
extern const Kernels avx512_bf16_kernels;
#endif
#if defined(TALLY_AVX512_VNNI)
extern const Kernels avx512_vnni_kernels;
#endif
#if defined(TALLY_AVX2)
extern const Kernels avx2_kernels;
#endif

namespace {

#if defined(__x86_64__)

// Asked of the processor itself: what compilers offer for it (__builtin_cpu_supports) is not the
// same everywhere, and says no to everything with some.
struct Processor {
  bool avx2 = false, avx512 = false, vnni = false, bf16 = false;

  Processor() {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return;
    const bool fma = c >> 12 & 1, os_saves = c >> 27 & 1;
    if (!os_saves) return;
    unsigned low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    const bool wide = (low & 0x06) == 0x06, widest = (low & 0xe6) == 0xe6;  // saved by the system
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
    const unsigned most = a;
    avx2 = wide && fma && (b >> 5 & 1);
    const unsigned f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    avx512 = widest && fma && (b & f_dq_bw_vl) == f_dq_bw_vl;
    vnni = avx512 && (c >> 11 & 1);
    if (most >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) bf16 = vnni && (a >> 5 & 1);
  }
};

#endif

}  // namespace

const Kernels* kernels_for(const char* name) {
  const Kernels* runs[4];
  int count = 0;
#if defined(__x86_64__)
  const Processor has;
#endif
#if defined(TALLY_AVX512_BF16)
  if (has.bf16) runs[count++] = &avx512_bf16_kernels;
#endif
#if defined(TALLY_AVX512_VNNI)
  if (has.vnni) runs[count++] = &avx512_vnni_kernels;
#endif
#if defined(TALLY_AVX2)
  if (has.avx2) runs[count++] = &avx2_kernels;
#endif
  runs[count++] = &portable_kernels;
  if (!name || !*name) return runs[0];
  for (int i = 0; i < count; ++i)
    if (!std::strcmp(runs[i]->name, name)) return runs[i];
  return nullptr;
}

}  // namespace tally
