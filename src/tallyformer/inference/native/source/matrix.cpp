#include "matrix.h"

#include <algorithm>

namespace tally {

namespace {

int up_to(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

void OwnMatrix::shape(Kind kind, int outputs, int inputs, int group) {
  view = Matrix{};
  view.kind = kind;
  view.outputs = outputs;
  view.inputs = inputs;
  view.group = kind == Kind::f32 ? 1 : kind == Kind::bf16 ? kBlock : group;
  view.padded = up_to(inputs, view.group);
  data_ = Buffer<uint8_t>(view.panels() * view.panel_bytes(), Pages::large);
  // Inputs and outputs that are not there weigh nothing.
  if (kind == Kind::int8) std::fill_n(data_.get(), view.panels() * view.panel_bytes(), 0x80);
  if (kind == Kind::int4) std::fill_n(data_.get(), view.panels() * view.panel_bytes(), 0x88);
  view.data = data_.get();
  if (kind == Kind::int8 || kind == Kind::int4)
    scales_ = Buffer<uint16_t>((size_t)view.panels() * view.groups() * kPanel, Pages::large);
  view.scales = scales_.get();
}

void OwnMatrix::fill(int first, int count, const void* rows, const uint16_t* scales) {
  const int inputs = view.inputs;
  for (int i = 0; i < count; ++i) {
    const int output = first + i, inside = output % kPanel;
    const size_t panel = output / kPanel;
    uint8_t* to = data_.get() + panel * view.panel_bytes() + inside * 4;
    if (view.kind == Kind::f32) {
      const float* row = (const float*)rows + (size_t)i * inputs;
      for (int k = 0; k < inputs; ++k) std::memcpy(to + (size_t)k * kPanel * 4, row + k, 4);
    } else if (view.kind == Kind::bf16) {
      const uint16_t* row = (const uint16_t*)rows + (size_t)i * inputs;
      for (int k = 0; k < inputs; ++k)
        std::memcpy(to + (size_t)(k / 2) * kPanel * 4 + k % 2 * 2, row + k, 2);
    } else if (view.kind == Kind::int8) {
      const uint8_t* row = (const uint8_t*)rows + (size_t)i * inputs;
      int k = 0;
      for (; k + 4 <= inputs; k += 4) {
        uint32_t four;
        std::memcpy(&four, row + k, 4);
        four ^= 0x80808080u;  // + 128 in each byte
        std::memcpy(to + (size_t)k * kPanel, &four, 4);
      }
      for (; k < inputs; ++k) to[(size_t)(k / 4) * kPanel * 4 + k % 4] = row[k] ^ 0x80;
    } else {
      const int8_t* row = (const int8_t*)rows + (size_t)i * inputs;
      for (int k = 0; k < inputs; ++k) {
        uint8_t& byte = to[(size_t)(k / 8) * kPanel * 4 + k % 4];
        const uint8_t number = (uint8_t)(row[k] + 8);
        byte = k % 8 < 4 ? (byte & 0xf0) | number : (byte & 0x0f) | number << 4;
      }
    }
    if (scales)
      for (int g = 0; g < view.groups(); ++g)
        scales_[(panel * view.groups() + g) * kPanel + inside] = scales[(size_t)i * view.groups() + g];
  }
}

void OwnMatrix::set_bias(const float* bias) {
  bias_ = Buffer<float>((size_t)view.panels() * kPanel);
  std::copy_n(bias, view.outputs, bias_.get());
  view.bias = bias_.get();
}

}  // namespace tally
