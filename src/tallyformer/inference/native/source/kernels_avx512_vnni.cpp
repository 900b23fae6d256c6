#include "kernels.inl"

namespace tally {
extern const Kernels avx512_vnni_kernels;
const Kernels avx512_vnni_kernels = make_table("avx512_vnni");
}  // namespace tally
