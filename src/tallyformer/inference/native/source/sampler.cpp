#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tally {

namespace {

constexpr int kFirstWidth = 1024;
constexpr float kNever = -std::numeric_limits<float>::infinity();

float inverse(float temperature) {
  return std::min(1.0f / temperature, std::numeric_limits<float>::max());
}

bool changes(const Draw& d) {
  return d.processed || d.repetition != 1 || d.frequency != 0 || d.presence != 0 || d.bias_count || d.allowed;
}

}  // namespace

// A hook's row first; then in the order of transformers: repetition (Keskar et al. 2019), then what is subtracted or added,
// then what is not allowed.
void Sampler::change(float* logits, int vocab, const Draw& d) const {
  if (d.processed) std::copy(d.processed, d.processed + vocab, logits);
  if (d.repetition != 1)
    for (int i = 0; i < d.seen_count; ++i) {
      float& logit = logits[d.seen[i]];
      logit = logit < 0 ? logit * d.repetition : logit / d.repetition;
    }
  if (d.frequency != 0 || d.presence != 0)
    for (int i = 0; i < d.generated_count; ++i)
      logits[d.generated[i]] -= d.frequency * (float)d.times[i] + d.presence;
  for (int i = 0; i < d.bias_count; ++i) logits[d.bias_ids[i]] += d.biases[i];
  if (d.allowed)
    for (int i = 0; i < vocab; ++i)
      if (!(d.allowed[i / 32] >> i % 32 & 1)) logits[i] = kNever;
}

// Places of the `count` greatest numbers, the greatest first, equal ones in the order of their
// places, to ids_. parts_ holds the row's maxima.
int Sampler::best(const float* logits, int vocab, int count) {
  count = std::min(count, vocab);
  ids_.resize(vocab);
  float threshold = kNever;
  if (count * 2 <= (int)parts_.size()) {
    // At least `count` numbers are as great as the count-th greatest maximum.
    wide_.assign(parts_.begin(), parts_.end());
    std::nth_element(wide_.begin(), wide_.begin() + count - 1, wide_.end(), std::greater<float>());
    threshold = wide_[count - 1];
  } else if (count < vocab) {
    wide_.assign(logits, logits + vocab);
    std::nth_element(wide_.begin(), wide_.begin() + count - 1, wide_.end(), std::greater<float>());
    threshold = wide_[count - 1];
  }
  const int found = kernels_.at_least(logits, vocab, threshold, ids_.data());
  const auto before = [&](int32_t a, int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  if (found > count) std::nth_element(ids_.begin(), ids_.begin() + count, ids_.begin() + found, before);
  std::sort(ids_.begin(), ids_.begin() + count, before);
  return count;
}

int Sampler::greatest(const float* logits, int vocab, float most) {
  ids_.resize(vocab);
  kernels_.at_least(logits, vocab, most, ids_.data());
  return ids_[0];
}

// Every id may follow: by the sums of chunks to the chunk, and by its numbers to the id.
int Sampler::plain(const float* logits, int vocab, float most, const Draw& d) {
  const float factor = inverse(d.temperature);
  chunks_.resize((vocab + kChunk - 1) / kChunk);
  double left = d.uniform * kernels_.sum_exp(logits, vocab, most, factor, chunks_.data());
  size_t chunk = 0;
  while (chunk + 1 < chunks_.size() && left >= chunks_[chunk]) left -= chunks_[chunk++];
  const int first = (int)chunk * kChunk, count = std::min(kChunk, vocab - first);
  float weights[kChunk];
  kernels_.exp_all(logits + first, count, most, factor, weights);
  int chosen = -1;
  for (int i = 0; i < count && left >= 0; ++i) {
    if (!(weights[i] > 0)) continue;
    chosen = first + i;
    left -= weights[i];
  }
  // The sums before this chunk may have been rounded so far up that it weighs nothing.
  return chosen >= 0 ? chosen : greatest(logits, vocab, most);
}

int Sampler::filtered(const float* logits, int vocab, float most, const Draw& d) {
  const double temperature = d.temperature;
  const auto weight = [&](int32_t id) {
    return std::exp(((double)logits[id] - most) / temperature);
  };
  const int limit = d.top_k > 0 ? std::min(d.top_k, vocab) : vocab;
  const bool of_all = d.independent || d.top_k == 0;
  double whole = 0;
  if (of_all && d.top_p < 1)
    whole = kernels_.sum_exp(logits, vocab, most, inverse(d.temperature), nullptr);
  int width = d.top_k > 0 ? limit : std::min(kFirstWidth, vocab);
  for (;;) {
    width = best(logits, vocab, width);
    probs_.resize(width);
    double inside = 0;
    for (int i = 0; i < width; ++i) inside += probs_[i] = weight(ids_[i]);
    const double reach = d.top_p * (of_all ? whole : inside);
    double before = 0;
    int kept = 0;
    for (; kept < width; ++kept) {
      if (d.top_p < 1 && kept && before >= reach) break;
      if (probs_[kept] < (double)d.min_p || !(probs_[kept] > 0)) break;
      before += probs_[kept];
    }
    if (kept == width && width < limit) {
      width = std::min(8 * width, limit);
      continue;
    }
    double target = d.uniform * before;
    for (int i = 0; i < kept; ++i)
      if ((target -= probs_[i]) < 0) return ids_[i];
    return ids_[std::max(kept - 1, 0)];
  }
}

double Sampler::note_alternatives(const float* logits, int vocab, float most, Draw& d) {
  const double log_sum = most + std::log(kernels_.sum_exp(logits, vocab, most, 1, nullptr));
  const int count = best(logits, vocab, d.alternatives);
  for (int i = 0; i < count; ++i) {
    d.alternative_ids[i] = ids_[i];
    d.alternative_logprobs[i] = (float)(logits[ids_[i]] - log_sum);
  }
  for (int i = count; i < d.alternatives; ++i) d.alternative_ids[i] = -1;
  return log_sum;
}

int Sampler::next(const float* logits, int vocab, float most, const Draw& d) {
  if (d.temperature == 0) return greatest(logits, vocab, most);
  if (d.top_k == 0 && d.top_p == 1 && d.min_p == 0) return plain(logits, vocab, most, d);
  return filtered(logits, vocab, most, d);
}

Drawn Sampler::choose(float* logits, int vocab, Draw& d) {
  parts_.assign(vocab / kStripe, kNever);
  float most = kernels_.maxima(logits, vocab, parts_.data());
  if (!std::isfinite(most)) return Drawn::not_finite;
  const bool scored = d.alternatives >= 0, changed = d.given < 0 && changes(d);
  const double log_sum = scored ? note_alternatives(logits, vocab, most, d) : 0;
  if (scored && changed) unchanged_.assign(logits, logits + vocab);
  if (changed) {
    change(logits, vocab, d);
    kernels_.maxima(logits, vocab, parts_.data());
    most = *std::max_element(logits, logits + vocab);
    if (most == kNever) return Drawn::nothing_allowed;
    if (!std::isfinite(most)) return Drawn::not_finite;
  }
  d.id = d.given >= 0 ? d.given : next(logits, vocab, most, d);
  if (scored) d.logprob = (float)((changed ? unchanged_.data() : logits)[d.id] - log_sum);
  return Drawn::fine;
}

}  // namespace tally
