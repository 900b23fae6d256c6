// What the model needs of a processor: a table of functions for each kind that is known.
#pragma once

#include <cstddef>
#include <cstdint>

#define ALWAYS __attribute__((always_inline))

namespace tally {

// How weights are kept, and what rows are turned into before they meet them.
enum class Kind : int32_t { f32 = 0, bf16 = 1, int8 = 2, int4 = 3 };

constexpr int kPanel = 32;     // outputs that are computed together
constexpr int kKeyBlock = 16;  // positions whose keys lie together
constexpr int kStripe = 64;    // numbers that a maximum covers
constexpr int kChunk = 256;    // numbers that are summed together

// bfloat16 weights in 12 bits each instead of 16, for kernels that read them faster so: nearly all
// upper bytes of a panel (a sign and seven bits of an exponent) are one of 16, so that four bits
// tell which. Nothing is lost: a block that has another upper byte is kept as it is, too.
constexpr int kBlock = 4;                          // inputs of a block, of 32 outputs
constexpr int kWholeBlock = kBlock * kPanel * 2;   // bytes
constexpr int kPackedBlock = kBlock * kPanel * 3 / 2;

// A packed block is two steps. The lower bytes of the first are followed by those of the second,
// and these by the numbers of the upper bytes: of the first in the lower halves. Within a step
// the bytes of 16 outputs and of the other 16 take turns, eight at a time.
struct Packed {
  const uint8_t* uppers = nullptr;   // [panel][16]; null: not packed
  const uint64_t* whole = nullptr;   // [panel][words]: a bit for each block that is kept whole
  const uint8_t* const* blocks = nullptr;  // [panel]: its whole blocks, one after the other
  int words = 0;

  // Where a step keeps an output's first input (0) or second (1).
  ALWAYS static int place(int output, int input) {
    const int at = output % 16 * 2 + input;
    return at / 8 * 16 + output / 16 * 8 + at % 8;
  }
};

// A weight matrix, outputs x inputs, cut into panels of 32 outputs. Within a panel the inputs
// follow each other, in steps of 1 (f32), 2 (bf16), 4 (int8) or 8 (int4); a step holds its inputs
// of the 32 outputs one output after the other. int8 is stored + 128, int4 + 8. In an int4 step
// the low halves of an output's four bytes are the first four inputs.
// `scales`: one bfloat16 for an output and a group of inputs: [panel][group][32].
struct Matrix {
  Kind kind = Kind::f32;
  int outputs = 0, inputs = 0;
  int group = 0;   // inputs that share a scale, a multiple of 8; divides `padded`
  int padded = 0;  // inputs, filled up with zeros
  const uint8_t* data = nullptr;
  const uint16_t* scales = nullptr;
  const float* bias = nullptr;  // one for each output and 0 up to a whole panel, or null
  Packed packed;

  // Always inlined: a copy that one kind of kernels was compiled with must not serve another.
  ALWAYS int panels() const { return (outputs + kPanel - 1) / kPanel; }
  ALWAYS int groups() const { return padded / group; }
  ALWAYS size_t panel_bytes() const {
    const size_t all = (size_t)padded * kPanel;
    switch (kind) {
      case Kind::f32: return 4 * all;
      case Kind::bf16: return packed.uppers ? all * 3 / 2 : 2 * all;
      case Kind::int8: return all;
      default: return all / 2;
    }
  }
};

// Rows as a kind of weights wants them. For int8 and int4: whole numbers of -127 to 127 with one
// scale and one sum for each group.
struct Prepared {
  const uint8_t* data = nullptr;  // [row][row_bytes]
  const float* scales = nullptr;  // [row][groups]
  const int32_t* sums = nullptr;  // [row][groups]
  size_t row_bytes = 0;
  int groups = 0;
};

struct Norm {
  const float* weight = nullptr;  // null: no norm
  const float* bias = nullptr;
  float eps = 0;
  bool centred = false;  // LayerNorm; otherwise RMSNorm
};

struct Kernels {
  const char* name;
  bool packs;  // whether `panel` and `row` read packed weights, faster than others

  // out = norm(x), float32, `width` numbers; without a weight a copy.
  void (*norm)(const Norm&, const float* x, float* out, int width);

  // A row of float32 as `m` wants it; `scales` and `sums` are for int8 and int4.
  void (*prepare)(const Matrix& m, const float* x, uint8_t* out, float* scales, int32_t* sums);

  // `rows` x 32 outputs of one panel, bias included: out[row * stride + output].
  void (*panel)(const Matrix& m, int panel, const Prepared& a, int rows, float* out, size_t stride);

  // One row of the matrix as float32 (an embedding).
  void (*row)(const Matrix& m, int output, float* out);

  void (*gelu)(float* x, int count);
  void (*silu_times)(float* gate, const float* x, int count);  // gate = silu(gate) * x
  void (*add)(float* x, const float* y, int count);

  // Turn a head of `size` channels by a position's cosines and sines, size / 2 each.
  void (*rotate)(float* head, const float* cosines, const float* sines, int size, bool halves);

  // Keep one position's key and value of a head, after all earlier ones; kernels.inl has the
  // order. `padded`: size, filled up to 16; positions are kept in blocks of 16.
  void (*keep)(bool narrow, void* keys, void* values, const float* key, const float* value,
               int position, int size, int padded);

  // One query over positions 0 .. last: out = softmax(q . keys) values. q is already scaled; it
  // and `out` have `padded` places. `scores` has room for twice the positions, filled up to 16.
  void (*attend)(bool narrow, float* q, const void* keys, const void* values, int last, int size,
                 int padded, float* scores, float* out);

  // Largest number, NaN if one is NaN or infinite; -infinity is not. `parts` gets count / 64 numbers (rounded down to
  // whole registers), each the largest of 64 that no other covers.
  float (*maxima)(const float* x, int count, float* parts);
  // Places of all numbers that are at least `threshold`, in order; returns how many.
  int (*at_least)(const float* x, int count, float threshold, int32_t* ids);
  // Sum of exp((x - most) * factor); `chunks`, if given, gets the sum of each kChunk numbers.
  double (*sum_exp)(const float* x, int count, float most, float factor, double* chunks);
  // out = exp((x - most) * factor), as sum_exp has them.
  void (*exp_all)(const float* x, int count, float most, float factor, float* out);
};

// The best table that this processor can run, or the one with this name if it can; else null.
const Kernels* kernels_for(const char* name);

}  // namespace tally
