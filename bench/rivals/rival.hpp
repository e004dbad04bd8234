// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../suite/row.hpp"

namespace bench {

/// The buffers that the library and its rivals work on. Parameters are float beside float, half and bfloat16, double beside
/// double. A rival reads the inputs and writes y (forward) or dx, dscale, dbias (backward); it may overwrite the statistics
/// `out_mean`, `out_variance` and, in training, the running ones.
struct Buffers {
  const void* x;
  const void* dy;
  void* y;  // forward; in backward dx
  const void* scale;
  const void* bias;
  void* mean;      // training: running; inference: given; backward: the saved mean
  void* variance;  // the same; in backward the saved biased variance
  void* out_mean;
  void* out_variance;
  void* dscale;
  void* dbias;
  double epsilon;
  double momentum;  // weight of the batch: running = (1 - momentum) * running + momentum * batch
};

/// Another implementation of a problem, ready to run. Nothing is allocated or compiled in `run`.
class Rival {
 public:
  virtual ~Rival() = default;
  /// As printed: "oneDNN 2.6.3 nchw".
  virtual std::string name() const = 0;
  /// What inside it does the work, where it says so: "bnorm_jit:avx2".
  virtual std::string implementation() const { return {}; }
  virtual void run() = 0;
  /// After `run` in backward: copies dscale and dbias to the buffers where `run` leaves them in memory of its own.
  virtual void fetch_sums() {}
  /// Whether its result lies in y (or dx) in the problem's own layout and can be compared with the library's.
  virtual bool has_plain_result() const { return true; }
  /// Seconds to wait until its idle threads no longer spin; 0 for one without threads.
  virtual double seconds_to_sleep() const { return 0; }
};

/// The rivals of this build that offer the problem.
std::vector<std::unique_ptr<Rival>> rivals_of(const Problem& problem, const Buffers& buffers);

/// Names and versions of the rivals of this build.
std::vector<std::string> rival_versions();

}  // namespace bench
