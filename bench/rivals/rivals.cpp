// SPDX-License-Identifier: MIT

#include "offers.hpp"

namespace bench {

std::vector<std::unique_ptr<Rival>> rivals_of(const Problem& problem, const Buffers& buffers) {
  Offers offers;
  offer_naive_loop(problem, buffers, offers);
  return offers;
}

std::vector<std::string> rival_versions() { return {"naive loop"}; }

}  // namespace bench
