#include "kernels.inl"

namespace tally {
extern const Kernels avx512_bf16_kernels;
const Kernels avx512_bf16_kernels = make_table("avx512_bf16");
}  // namespace tally
