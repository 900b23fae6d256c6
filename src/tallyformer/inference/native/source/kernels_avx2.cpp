#include "kernels.inl"

namespace tally {
extern const Kernels avx2_kernels;
const Kernels avx2_kernels = make_table("avx2");
}  // namespace tally
