// SPDX-License-Identifier: MIT

#include "offers.hpp"

namespace bench {

std::vector<std::unique_ptr<Rival>> rivals_of(const Problem& problem, const Buffers& buffers) {
  Offers offers;
  offer_naive_loop(problem, buffers, offers);
  offer_eigen(problem, buffers, offers);
#if defined(BATCHNORM_BENCH_HAS_ONEDNN)
  offer_one_dnn(problem, buffers, offers);
#endif
#if defined(BATCHNORM_BENCH_HAS_TORCH)
  offer_torch(problem, buffers, offers);
#endif
  return offers;
}

std::vector<std::string> rival_versions() {
  std::vector<std::string> versions{"naive loop", eigen_version()};
#if defined(BATCHNORM_BENCH_HAS_ONEDNN)
  versions.push_back(one_dnn_version());
#endif
#if defined(BATCHNORM_BENCH_HAS_TORCH)
  if (!torch_version().empty()) versions.push_back(torch_version());
#endif
  return versions;
}

}  // namespace bench
