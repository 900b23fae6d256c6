// The forward pass: ids of any number of sequences to logits.
#pragma once

#include <memory>
#include <vector>

#include "kernels.h"
#include "matrix.h"
#include "memory.h"
#include "pool.h"

namespace tally {

// Mirrored in c_functions.py.
struct Shape {
  int32_t vocab, hidden, layers, heads, kv_heads, head_size, inner, context;
  int32_t layer_norm, post_norm, swiglu, halves, narrow_cache;
  float eps;
};

enum class Part : int32_t { embedding, head, qkv, proj, fc1, gate, fc2 };
enum class Scale : int32_t { attention, mlp, final };

class Model {
 public:
  Model(const Shape& shape, int threads, const Kernels& kernels);

  void shape_matrix(Part part, int layer, Kind kind, int outputs, int inputs, int group);
  OwnMatrix& matrix(Part part, int layer);
  // Keep a matrix whose rows are all there in less memory, where kernels and weights allow it.
  bool pack_matrix(Part part, int layer);
  void set_norm(Scale which, int layer, const float* weight, const float* bias);

  // How heads turn at `count` positions from `first` on: [count][head_size / 2] each. Known of a
  // position before it is computed.
  void set_angles(int first, int count, const float* cosines, const float* sines);

  // Room for sequences 0 .. slots - 1.
  void reserve(int slots) { slots_.resize(slots); }
  // Give back a slot's memory; what it held is forgotten.
  void drop_slot(int slot) { slots_[slot] = Slot(); }
  // Let `to` begin with the first `positions` of `from`.
  void copy_slot(int from, int to, int positions);

  // Computes `rows` ids, each at a position of a slot; a slot's rows follow each other, in the
  // order of their positions, and all earlier positions have been computed. Writes the logits of
  // the rows `wanted` (rising) to `logits`, `vocab` numbers each.
  void step(int rows, const int32_t* ids, const int32_t* slots, const int32_t* positions,
            int count, const int32_t* wanted, float* logits);

  Pool& pool() { return pool_; }
  const Kernels& kernels() const { return kernels_; }
  int vocab() const { return shape_.vocab; }

 private:
  struct Layer {
    OwnMatrix qkv, proj, fc1, gate, fc2;
    Norm attention, mlp;
  };
  struct Run {  // rows of one slot
    int slot, first, count;
  };
  struct Slot {  // keys and values of the first `positions`, a multiple of kKeyBlock
    Buffer<uint8_t> data;
    int positions = 0;
  };

  void set(Norm& norm, const float* weight, const float* bias);
  float* scratch(int thread) { return scratch_.get() + (size_t)thread * scratch_width_; }
  void find_runs(int rows, const int32_t* slots);
  void embed(int rows, const int32_t* ids, float* x);
  Prepared prepare(const Matrix& m, const Norm& norm, int rows, const float* x, int width);
  template <typename F>
  void multiply(const Matrix& m, const Prepared& a, int rows, const F& take);
  void normalise(const Norm& norm, int rows, float* x);
  void attend(int layer, const int32_t* positions, const int32_t* to_row, const float* qkv,
              float* mixed);
  void attention(int layer, int rows, const int32_t* positions, const int32_t* to_row, int count,
                 float*& x);
  void feed_forward(const Layer& layer, int rows, float* x);
  void hold(int slot, int positions);
  void copy(const Slot& from, const Slot& to, int positions);
  uint8_t* cache(const Slot& slot, int layer, int head, bool values) const;
  size_t cache_bytes(int positions, bool values) const;

  const Shape shape_;
  const Kernels& kernels_;
  Pool pool_;
  const int qkv_width_, head_padded_;
  Buffer<float> cosines_, sines_;
  OwnMatrix embedding_, head_;
  bool tied_ = true;
  std::vector<Layer> layers_;
  Norm final_;
  std::vector<Buffer<float>> norms_;
  std::vector<Slot> slots_;

  // Filled anew in each step.
  std::vector<Run> runs_;
  std::vector<int32_t> to_row_;
  Room<float> x_, chosen_, qkv_, mixed_, inner_, scales_;
  Room<uint8_t> prepared_;
  Room<int32_t> sums_;
  Room<float> scratch_;
  size_t scratch_width_ = 0, widest_row_ = 0;
};

}  // namespace tally
