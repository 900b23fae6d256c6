// A weight matrix that owns its numbers, filled row by row.
#pragma once

#include "kernels.h"
#include "memory.h"
#include "pool.h"

namespace tally {

class OwnMatrix {
 public:
  Matrix view;

  // Throws std::bad_alloc.
  void shape(Kind kind, int outputs, int inputs, int group);
  // Rows `first` .. as float32, bfloat16 bits, or whole numbers in one byte each; `scales` as
  // bfloat16 bits, `groups` for each row.
  void fill(int first, int count, const void* rows, const uint16_t* scales);
  void set_bias(const float* bias);
  // bfloat16 in less memory, once all rows are there; whether the weights allow it. Throws
  // std::bad_alloc.
  bool pack(Pool& pool);

 private:
  Buffer<uint8_t> data_, uppers_, whole_blocks_;
  Buffer<uint64_t> whole_;
  Buffer<const uint8_t*> blocks_;
  Buffer<uint16_t> scales_;
  Buffer<float> bias_;
};

}  // namespace tally
