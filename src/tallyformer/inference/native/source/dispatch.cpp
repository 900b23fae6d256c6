// Which kernels a processor can run.

#include <cstring>

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

#if defined(TALLY_AVX512_BF16) || defined(TALLY_AVX512_VNNI)
bool has_avx512_vnni() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}
#endif

}  // namespace

const Kernels* kernels_for(const char* name) {
  const Kernels* runs[4];
  int count = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
#endif
#if defined(TALLY_AVX512_BF16)
  if (has_avx512_vnni() && __builtin_cpu_supports("avx512bf16"))
    runs[count++] = &avx512_bf16_kernels;
#endif
#if defined(TALLY_AVX512_VNNI)
  if (has_avx512_vnni()) runs[count++] = &avx512_vnni_kernels;
#endif
#if defined(TALLY_AVX2)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    runs[count++] = &avx2_kernels;
#endif
  runs[count++] = &portable_kernels;
  if (!name || !*name) return runs[0];
  for (int i = 0; i < count; ++i)
    if (!std::strcmp(runs[i]->name, name)) return runs[i];
  return nullptr;
}

}  // namespace tally
