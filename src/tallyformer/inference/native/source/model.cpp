// Shapes: rows x hidden (x), rows x (heads + 2 kv_heads) * head_size (qkv), rows x heads *
// head_size (mixed), rows x inner. A part of a step is shared among the threads by outputs of a
// matrix, by rows, or by heads; nobody else writes what a part writes.

#include "model.h"

#include <algorithm>
#include <cmath>

namespace tally {

namespace {

constexpr int kAlone = 2;        // rows that are not worth sharing
constexpr int kPartsEach = 4;    // parts of a matrix for each thread
constexpr int kFirstHeld = 256;  // positions that a slot has memory for at first

int up_to(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

Model::Model(const Shape& shape, int threads, const Kernels& kernels)
    : shape_(shape),
      kernels_(kernels),
      pool_(threads),
      qkv_width_((shape.heads + 2 * shape.kv_heads) * shape.head_size),
      head_padded_(up_to(shape.head_size, 16)),
      layers_(shape.layers) {
  const size_t angles = (size_t)shape.context * shape.head_size / 2;
  cosines_ = Buffer<float>(angles);
  sines_ = Buffer<float>(angles);
}

void Model::set_angles(int first, int count, const float* cosines, const float* sines) {
  const size_t each = shape_.head_size / 2;
  std::copy_n(cosines, count * each, cosines_.get() + first * each);
  std::copy_n(sines, count * each, sines_.get() + first * each);
}

OwnMatrix& Model::matrix(Part part, int layer) {
  switch (part) {
    case Part::embedding: return embedding_;
    case Part::head: return head_;
    case Part::qkv: return layers_[layer].qkv;
    case Part::proj: return layers_[layer].proj;
    case Part::fc1: return layers_[layer].fc1;
    case Part::gate: return layers_[layer].gate;
    default: return layers_[layer].fc2;
  }
}

void Model::shape_matrix(Part part, int layer, Kind kind, int outputs, int inputs, int group) {
  OwnMatrix& m = matrix(part, layer);
  m.shape(kind, outputs, inputs, group);
  widest_row_ = std::max(widest_row_, (size_t)m.view.padded);
  if (part == Part::head) tied_ = false;
}

bool Model::pack_matrix(Part part, int layer) {
  OwnMatrix& m = matrix(part, layer);
  return kernels_.packs && m.view.kind == Kind::bf16 && m.pack(pool_);
}

void Model::set(Norm& norm, const float* weight, const float* bias) {
  norm.eps = shape_.eps;
  norm.centred = shape_.layer_norm;
  const auto keep = [this](const float* from) {
    norms_.push_back(Buffer<float>(shape_.hidden));
    std::copy_n(from, shape_.hidden, norms_.back().get());
    return norms_.back().get();
  };
  norm.weight = keep(weight);
  norm.bias = bias ? keep(bias) : nullptr;
}

void Model::set_norm(Scale which, int layer, const float* weight, const float* bias) {
  if (which == Scale::final)
    set(final_, weight, bias);
  else
    set(which == Scale::mlp ? layers_[layer].mlp : layers_[layer].attention, weight, bias);
}

// --- Keys and values --------------------------------------------------------------------------

// A slot: [layer][kv head] keys, then values, of all positions that it has memory for.
size_t Model::cache_bytes(int positions, bool values) const {
  return (size_t)positions * (values ? head_padded_ : shape_.head_size) *
         (shape_.narrow_cache ? 2 : 4);
}

uint8_t* Model::cache(const Slot& slot, int layer, int head, bool values) const {
  const size_t keys = cache_bytes(slot.positions, false);
  const size_t each = keys + cache_bytes(slot.positions, true);
  return slot.data.get() + ((size_t)layer * shape_.kv_heads + head) * each + (values ? keys : 0);
}

// Memory for so many positions of a slot. It doubles, so that what is kept is seldom moved, and is
// never more than twice of what is needed: a long context is not taken for a few ids.
void Model::hold(int number, int positions) {
  Slot& slot = slots_[number];
  if (positions <= slot.positions) return;
  int wanted = std::max(kFirstHeld, 2 * slot.positions);
  while (wanted < positions) wanted *= 2;
  Slot larger;
  larger.positions = up_to(std::min(wanted, shape_.context), kKeyBlock);
  const size_t each = cache_bytes(larger.positions, false) + cache_bytes(larger.positions, true);
  larger.data = Buffer<uint8_t>(each * shape_.layers * shape_.kv_heads, Pages::large);
  copy(slot, larger, slot.positions);
  slot = std::move(larger);
}

// What a slot keeps of its first positions, a multiple of kKeyBlock.
void Model::copy(const Slot& from, const Slot& to, int positions) {
  if (!positions) return;
  for (int layer = 0; layer < shape_.layers; ++layer)
    for (int head = 0; head < shape_.kv_heads; ++head)
      for (bool values : {false, true})
        std::memcpy(cache(to, layer, head, values), cache(from, layer, head, values),
                    cache_bytes(positions, values));
}

void Model::copy_slot(int from, int to, int positions) {
  hold(to, positions);
  copy(slots_[from], slots_[to], up_to(positions, kKeyBlock));
}

// --- Parts of a step --------------------------------------------------------------------------

void Model::find_runs(int rows, const int32_t* slots) {
  runs_.clear();
  for (int row = 0; row < rows; ++row) {
    if (row && slots[row] == slots[row - 1])
      ++runs_.back().count;
    else
      runs_.push_back({slots[row], row, 1});
  }
}

void Model::embed(int rows, const int32_t* ids, float* x) {
  pool_.run(std::min(rows, kPartsEach * pool_.threads()), [&](int part, int) {
    const int parts = std::min(rows, kPartsEach * pool_.threads());
    for (int row = rows * part / parts; row < rows * (part + 1) / parts; ++row)
      kernels_.row(embedding_.view, ids[row], x + (size_t)row * shape_.hidden);
  });
}

// What `m` multiplies: norm(x) of every row, as its kind wants it.
Prepared Model::prepare(const Matrix& m, const Norm& norm, int rows, const float* x, int width) {
  Prepared a;
  const size_t sizes[] = {4, 2, 1, 1};
  a.row_bytes = sizes[(int)m.kind] * m.padded;
  const bool whole = m.kind == Kind::int8 || m.kind == Kind::int4;
  a.groups = whole ? m.groups() : 0;
  uint8_t* data = prepared_.of(a.row_bytes * rows);
  float* scales = scales_.of((size_t)a.groups * rows);
  int32_t* sums = sums_.of((size_t)a.groups * rows);
  const auto one = [&](int row, int thread) {
    float* wide = scratch(thread);
    kernels_.norm(norm, x + (size_t)row * width, wide, width);
    std::fill(wide + width, wide + m.padded, 0.0f);
    kernels_.prepare(m, wide, data + row * a.row_bytes, scales + (size_t)row * a.groups,
                     sums + (size_t)row * a.groups);
  };
  if (rows <= kAlone) {
    for (int row = 0; row < rows; ++row) one(row, 0);
  } else {
    const int parts = std::min(rows, 2 * pool_.threads());
    pool_.run(parts, [&](int part, int thread) {
      for (int row = rows * part / parts; row < rows * (part + 1) / parts; ++row) one(row, thread);
    });
  }
  a.data = data;
  a.scales = scales;
  a.sums = sums;
  return a;
}

// Calls `take(first, width, tile, thread)` with the outputs of one panel for all rows, 32 a row.
template <typename F>
void Model::multiply(const Matrix& m, const Prepared& a, int rows, const F& take) {
  const int panels = m.panels(), parts = std::min(panels, kPartsEach * pool_.threads());
  pool_.run(parts, [&](int part, int thread) {
    float* tile = scratch(thread);
    for (int panel = panels * part / parts; panel < panels * (part + 1) / parts; ++panel) {
      kernels_.panel(m, panel, a, rows, tile, kPanel);
      take(panel * kPanel, std::min(kPanel, m.outputs - panel * kPanel), tile, thread);
    }
  });
}

void Model::normalise(const Norm& norm, int rows, float* x) {
  for (int row = 0; row < rows; ++row) {
    float* line = x + (size_t)row * shape_.hidden;
    kernels_.norm(norm, line, scratch(0), shape_.hidden);
    std::copy_n(scratch(0), shape_.hidden, line);
  }
}

// Keeps the keys and values of all rows; mixes the values for those with a place in `to_row`.
void Model::attend(int layer, const int32_t* positions, const int32_t* to_row, const float* qkv,
                   float* mixed) {
  const int size = shape_.head_size, group = shape_.heads / shape_.kv_heads;
  const float scale = 1.0f / std::sqrt((float)size);
  const bool narrow = shape_.narrow_cache, halves = shape_.halves;
  pool_.run((int)runs_.size() * shape_.kv_heads, [&](int part, int thread) {
    const Run& run = runs_[part / shape_.kv_heads];
    const int kv = part % shape_.kv_heads;
    uint8_t* keys = cache(slots_[run.slot], layer, kv, false);
    uint8_t* values = cache(slots_[run.slot], layer, kv, true);
    float* head = scratch(thread);
    float* out = head + head_padded_;
    float* scores = out + head_padded_;
    const auto turned = [&](const float* from, int position) {
      const size_t at = (size_t)position * size / 2;
      std::copy_n(from, size, head);
      kernels_.rotate(head, cosines_.get() + at, sines_.get() + at, size, halves);
    };
    for (int row = run.first; row < run.first + run.count; ++row) {
      const float* line = qkv + (size_t)row * qkv_width_;
      turned(line + (size_t)(shape_.heads + kv) * size, positions[row]);
      kernels_.keep(narrow, keys, values, head,
                    line + (size_t)(shape_.heads + shape_.kv_heads + kv) * size, positions[row],
                    size, head_padded_);
    }
    for (int row = run.first; row < run.first + run.count; ++row) {
      if (to_row[row] < 0) continue;
      for (int q = kv * group; q < (kv + 1) * group; ++q) {
        turned(qkv + (size_t)row * qkv_width_ + (size_t)q * size, positions[row]);
        for (int d = 0; d < size; ++d) head[d] *= scale;
        kernels_.attend(narrow, head, keys, values, positions[row], size, head_padded_, scores,
                        out);
        std::copy_n(out, size, mixed + ((size_t)to_row[row] * shape_.heads + q) * size);
      }
    }
  });
}

// x += attention(x). Of the last layer only `count` rows are wanted: x is those from then on.
void Model::attention(int number, int rows, const int32_t* positions, const int32_t* to_row,
                      int count, float*& x) {
  const Layer& layer = layers_[number];
  const bool post = shape_.post_norm;
  const int hidden = shape_.hidden, mixed_width = shape_.heads * shape_.head_size;
  float* qkv = qkv_.get();
  Prepared a = prepare(layer.qkv.view, post ? Norm{} : layer.attention, rows, x, hidden);
  multiply(layer.qkv.view, a, rows, [&](int first, int width, const float* tile, int) {
    for (int row = 0; row < rows; ++row)
      std::copy_n(tile + row * kPanel, width, qkv + (size_t)row * qkv_width_ + first);
  });
  float* mixed = mixed_.get();
  attend(number, positions, to_row, qkv, mixed);
  if (!count) return;
  if (count < rows) {
    float* chosen = chosen_.of((size_t)count * hidden);
    for (int row = 0; row < rows; ++row)
      if (to_row[row] >= 0)
        std::copy_n(x + (size_t)row * hidden, hidden, chosen + (size_t)to_row[row] * hidden);
    x = chosen;
  }
  a = prepare(layer.proj.view, Norm{}, count, mixed, mixed_width);
  multiply(layer.proj.view, a, count, [&](int first, int width, const float* tile, int) {
    for (int row = 0; row < count; ++row)
      kernels_.add(x + (size_t)row * hidden + first, tile + row * kPanel, width);
  });
  if (post) normalise(layer.attention, count, x);
}

void Model::feed_forward(const Layer& layer, int rows, float* x) {
  const bool post = shape_.post_norm;
  const int hidden = shape_.hidden, width_all = shape_.inner;
  float* inner = inner_.get();
  Prepared a = prepare(layer.fc1.view, post ? Norm{} : layer.mlp, rows, x, hidden);
  multiply(layer.fc1.view, a, rows, [&](int first, int width, float* tile, int thread) {
    if (shape_.swiglu) {
      float* gate = scratch(thread) + (size_t)rows * kPanel;
      kernels_.panel(layer.gate.view, first / kPanel, a, rows, gate, kPanel);
      kernels_.silu_times(gate, tile, rows * kPanel);
      tile = gate;
    } else {
      kernels_.gelu(tile, rows * kPanel);
    }
    for (int row = 0; row < rows; ++row)
      std::copy_n(tile + row * kPanel, width, inner + (size_t)row * width_all + first);
  });
  a = prepare(layer.fc2.view, Norm{}, rows, inner, width_all);
  multiply(layer.fc2.view, a, rows, [&](int first, int width, const float* tile, int) {
    for (int row = 0; row < rows; ++row)
      kernels_.add(x + (size_t)row * hidden + first, tile + row * kPanel, width);
  });
  if (post) normalise(layer.mlp, rows, x);
}

void Model::step(int rows, const int32_t* ids, const int32_t* slots, const int32_t* positions,
                 int count, const int32_t* wanted, float* logits) {
  const size_t n = rows, hidden = shape_.hidden;
  find_runs(rows, slots);
  for (const Run& run : runs_) hold(run.slot, positions[run.first + run.count - 1] + 1);
  to_row_.assign(rows, -1);
  for (int i = 0; i < count; ++i) to_row_[wanted[i]] = i;
  std::vector<int32_t> all(rows);
  for (int row = 0; row < rows; ++row) all[row] = row;
  float* x = x_.of(n * hidden);
  qkv_.of(n * qkv_width_);
  mixed_.of(n * shape_.heads * shape_.head_size);
  inner_.of(n * shape_.inner);
  const size_t attending = 2 * head_padded_ + 2 * up_to(shape_.context, kKeyBlock);
  scratch_width_ = up_to((int)std::max({widest_row_, attending, 2 * n * kPanel}), 16);
  scratch_.of(scratch_width_ * pool_.threads());
  embed(rows, ids, x);
  for (int layer = 0; layer < shape_.layers; ++layer) {
    const bool last = layer + 1 == shape_.layers;
    const int left = last ? count : rows;
    attention(layer, rows, positions, last ? to_row_.data() : all.data(), left, x);
    if (left) feed_forward(layers_[layer], left, x);
  }
  if (!count) return;
  const Matrix& head = tied_ ? embedding_.view : head_.view;
  const Prepared a = prepare(head, final_, count, x, shape_.hidden);
  multiply(head, a, count, [&](int first, int width, const float* tile, int) {
    for (int row = 0; row < count; ++row)
      std::copy_n(tile + row * kPanel, width, logits + (size_t)row * shape_.vocab + first);
  });
}

}  // namespace tally
