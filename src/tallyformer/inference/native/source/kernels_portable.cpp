#include "kernels.inl"

namespace tally {
extern const Kernels portable_kernels;
const Kernels portable_kernels = make_table("portable");
}  // namespace tally
