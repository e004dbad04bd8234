// SPDX-License-Identifier: MIT
#include "data.hpp"

#include <random>

#include "support/oracle.hpp"

namespace bench {

std::vector<double> values_of(const Problem& problem, const Data& data, std::uint64_t seed) {
  std::mt19937_64 bits(seed);
  std::normal_distribution<double> normal;
  std::vector<double> values(static_cast<std::size_t>(problem.elements()));
  for (double& value : values) value = data.offset + data.deviation * normal(bits);
  const auto format = problem.layout == Layout::nchw ? batchnorm::Format::NCHW : batchnorm::Format::NHWC;
  const support::Extents extents{problem.n(), problem.c(), problem.spatial(), format};
  for (std::int64_t c = 0; data.first.has_value() && c < extents.c; ++c) values[extents.index(0, c, 0)] = *data.first;
  return values;
}

}  // namespace bench
