// From a row of logits to the next id. The laws are those of tallyformer.inference.distribution.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace tally {

// One row's settings, and where its results go. Mirrored in c_functions.py.
struct Draw {
  double uniform;                      // in [0, 1)
  float temperature, top_p, min_p;     // temperature 0 is greedy
  float repetition, frequency, presence;
  int32_t top_k, independent;          // 0 keeps all; top_p of the whole distribution
  int32_t given;                       // an id to score, or -1 to choose one
  int32_t alternatives;                // whose log-probabilities are wanted; -1: nobody's
  int32_t generated_count, seen_count, bias_count;
  int32_t drawn;                       // result: a `Drawn`
  const float* processed;              // the row that is drawn from instead, or null
  const int32_t* generated;            // ids of the answer so far, each once
  const int32_t* times;                // how often each
  const int32_t* seen;                 // ids of prompt and answer, each once
  const int32_t* bias_ids;
  const float* biases;                 // added; -inf bans
  const uint32_t* allowed;             // one bit an id, or null
  int32_t* alternative_ids;            // `alternatives` places
  float* alternative_logprobs;
  float logprob;                       // result: of the chosen id, before any setting
  int32_t id;                          // result
};

// Mirrored in draws.py.
enum class Drawn : int32_t { fine, not_finite, nothing_allowed };

// Memory that one thread reuses from row to row.
class Sampler {
 public:
  explicit Sampler(const Kernels& kernels) : kernels_(kernels) {}

  // Chooses draw.id; changes the row.
  Drawn choose(float* logits, int vocab, Draw& draw);

 private:
  void change(float* logits, int vocab, const Draw& draw) const;
  int best(const float* logits, int vocab, int count);
  int plain(const float* logits, int vocab, float most, const Draw& draw);
  int filtered(const float* logits, int vocab, float most, const Draw& draw);
  int greatest(const float* logits, int vocab, float most);
  int next(const float* logits, int vocab, float most, const Draw& draw);
  double note_alternatives(const float* logits, int vocab, float most, Draw& draw);

  const Kernels& kernels_;
  std::vector<float> parts_, wide_, unchanged_;
  std::vector<double> chunks_, probs_;
  std::vector<int32_t> ids_;
};

}  // namespace tally
