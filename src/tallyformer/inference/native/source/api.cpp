// What Python calls, through ctypes: plain C functions. Those that return an int return a negative
// number where memory is lacking, else 0 if nothing else is said.

#include <atomic>
#include <new>

#include "model.h"
#include "sampler.h"

using namespace tally;

namespace {

struct Handle {
  Model model;
  std::vector<Sampler> samplers;

  Handle(const Shape& shape, int threads, const Kernels& kernels)
      : model(shape, threads, kernels), samplers(threads, Sampler(kernels)) {}
};

template <typename F>
int guarded(const F& work) noexcept {
  try {
    work();
    return 0;
  } catch (...) {
    return -1;
  }
}

}  // namespace

#define API __attribute__((visibility("default")))

extern "C" {

// Grows with every change of what is here.
API int tally_version() { return 4; }

// The kernels that would run, or those with this name; null where the processor lacks them.
API const char* tally_kernels(const char* name) {
  const Kernels* found = kernels_for(name);
  return found ? found->name : nullptr;
}

API void* tally_create(const Shape* shape, int threads, const char* kernels) {
  const Kernels* found = kernels_for(kernels);
  if (!found) return nullptr;
  try {
    return new Handle(*shape, threads, *found);
  } catch (...) {
    return nullptr;
  }
}

API void tally_destroy(void* handle) { delete (Handle*)handle; }

API int tally_shape_matrix(void* handle, int part, int layer, int kind, int outputs, int inputs,
                       int group) {
  return guarded([&] {
    ((Handle*)handle)->model.shape_matrix((Part)part, layer, (Kind)kind, outputs, inputs, group);
  });
}

API void tally_fill_matrix(void* handle, int part, int layer, int first, int count, const void* rows,
                       const uint16_t* scales) {
  ((Handle*)handle)->model.matrix((Part)part, layer).fill(first, count, rows, scales);
}

// 1: it is packed.
API int tally_pack_matrix(void* handle, int part, int layer) {
  bool packed = false;
  const int lacking =
      guarded([&] { packed = ((Handle*)handle)->model.pack_matrix((Part)part, layer); });
  return lacking ? lacking : packed;
}

API int tally_set_bias(void* handle, int part, int layer, const float* bias) {
  return guarded([&] { ((Handle*)handle)->model.matrix((Part)part, layer).set_bias(bias); });
}

API int tally_set_norm(void* handle, int which, int layer, const float* weight, const float* bias) {
  return guarded([&] { ((Handle*)handle)->model.set_norm((Scale)which, layer, weight, bias); });
}

API void tally_set_angles(void* handle, int first, int count, const float* cosines,
                          const float* sines) {
  ((Handle*)handle)->model.set_angles(first, count, cosines, sines);
}

API int tally_reserve(void* handle, int slots) {
  return guarded([&] { ((Handle*)handle)->model.reserve(slots); });
}

API void tally_drop_slot(void* handle, int slot) { ((Handle*)handle)->model.drop_slot(slot); }

API int tally_copy_slot(void* handle, int from, int to, int positions) {
  return guarded([&] { ((Handle*)handle)->model.copy_slot(from, to, positions); });
}

API int tally_step(void* handle, int rows, const int32_t* ids, const int32_t* slots,
               const int32_t* positions, int count, const int32_t* wanted, float* logits) {
  return guarded([&] {
    ((Handle*)handle)->model.step(rows, ids, slots, positions, count, wanted, logits);
  });
}

// Chooses an id for each row of logits, `vocab` numbers every `stride`; changes them. How a row
// ended is in its draw.
API int tally_choose(void* handle, int rows, float* logits, int vocab, size_t stride, Draw* draws) {
  Handle& h = *(Handle*)handle;
  std::atomic<int> failed{0};
  h.model.pool().run(rows, [&](int row, int thread) {
    const int lacking = guarded([&] {
      draws[row].drawn = (int32_t)h.samplers[thread].choose(logits + row * stride, vocab, draws[row]);
    });
    if (lacking) failed = lacking;
  });
  return failed;
}

}  // extern "C"
