// SPDX-License-Identifier: MIT
#include "plan.hpp"

#include <algorithm>
#include <array>
#include <numeric>

#include "support/tunings.hpp"

namespace fuzz {

const char* name_of(Kind kind) {
  constexpr const char* names[kinds] = {"forward",         "pieces",   "backward", "gradient_pieces",
                                        "double_backward", "in_place", "overlap",  "refusal"};
  return names[static_cast<int>(kind)];
}

const char* name_of(Data data) {
  constexpr const char* names[data_kinds] = {"normal",  "offset-1e3", "offset-1e6", "constant", "two-level",
                                             "outlier", "subnormal",  "integers",   "scaled"};
  return names[static_cast<int>(data)];
}

namespace {

const std::vector<NamedTuning>& all_tunings() {
  static const std::vector<NamedTuning> all = [] {
    auto some = tunings();
    some.push_back({"split always", split_always()});
    return some;
  }();
  return all;
}

bool happens(Random& random, double probability) { return random.uniform(0, 1) < probability; }

std::int64_t one_of(Random& random, std::initializer_list<std::int64_t> values) {
  return values.begin()[random.integer(0, static_cast<std::int64_t>(values.size()) - 1)];
}

std::int64_t draw_extent(Random& random) {
  const double u = random.uniform(0, 1);
  if (u < 0.15) return 1;
  if (u < 0.75) return random.integer(2, 9);
  return one_of(random, {11, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 257});
}

Shape draw_shape(Random& random, Format format) {
  const int rank = static_cast<int>(random.integer(2, 5));
  std::vector<std::int64_t> extents(static_cast<std::size_t>(rank));
  const bool is_large = happens(random, 0.1);
  const std::int64_t most = is_large ? 60000 : 3000;
  const auto product = [&] { return std::accumulate(extents.begin(), extents.end(), std::int64_t{1}, std::multiplies<>()); };
  do {
    for (std::int64_t& extent : extents) extent = draw_extent(random);
    // Beyond a block of sums (1024 or 8192 values per channel) or a vector's worth of channels.
    if (is_large) {
      const auto axis = static_cast<std::size_t>(random.integer(0, rank - 1));
      extents[axis] = one_of(random, {1023, 1025, 2049, 4097, 8191, 8193, 16385, 20001});
    }
  } while (product() > most);
  const std::size_t channel = format == Format::NCHW || rank == 2 ? 1 : static_cast<std::size_t>(rank) - 1;
  const double u = random.uniform(0, 1);
  if (u < 0.02) {
    extents[static_cast<std::size_t>(random.integer(0, rank - 1))] = 0;
  } else if (u < 0.06) {  // one value per channel
    for (std::size_t axis = 0; axis < extents.size(); ++axis) extents[axis] = axis == channel ? extents[axis] : 1;
  }
  return Shape(extents);
}

batchnorm::Options draw_options(Random& random) {
  batchnorm::Options options;
  options.is_training = happens(random, 0.7);
  constexpr double epsilons[] = {1e-5, 1e-5, 1e-3, 1.0, 1e-12, 0.5};
  constexpr double momenta[] = {0.1, 0.1, 0.0, 1.0, 0.37, 1e-9};
  options.epsilon = epsilons[random.integer(0, 5)];
  options.momentum = momenta[random.integer(0, 5)];
  if (happens(random, 0.3)) options.running_variance = batchnorm::RunningVariance::biased;
  if (happens(random, 0.3)) options.not_finite = batchnorm::NotFinite::keep;
  return options;
}

/// Leaves out what no document promises anything about.
void keep_within_promises(Plan& plan) {
  constexpr int of_double = 6;
  if (plan.kind == Kind::in_place) plan.types = 0;
  // Squares and products of subnormal doubles have no digits.
  if (plan.types == of_double) {
    if (plan.x == Data::subnormal) plan.x = Data::scaled;
    if (plan.dy == Data::subnormal) plan.dy = Data::scaled;
  }
  // The sums of products of dy and ddx are taken about the channel's first values: an outlier there is a factor of all terms.
  if (plan.kind == Kind::double_backward && plan.types == of_double && plan.dy == Data::outlier) plan.dy = Data::normal;
}

}  // namespace

Way draw_way(Random& random) {
  Way way;
  way.threads = static_cast<int>(random.integer(1, 4));
  way.tuning = happens(random, 0.4) ? 0 : static_cast<int>(random.integer(1, static_cast<std::int64_t>(all_tunings().size())));
  way.flush = happens(random, 0.5) ? Flush::begin : Flush::end;
  return way;
}

batchnorm::CallOptions options_of(const Way& way, std::int64_t batch_number) {
  static batchnorm::SerialExecutor serial;
  static std::array<std::unique_ptr<batchnorm::ThreadTeam>, 5> teams;
  batchnorm::Executor* executor = &serial;
  if (way.threads > 1) {
    auto& team = teams[static_cast<std::size_t>(way.threads)];
    if (team == nullptr) team = std::make_unique<batchnorm::ThreadTeam>(way.threads);
    executor = team.get();
  }
  const batchnorm::Tuning* tuning = way.tuning == 0 ? nullptr : &all_tunings()[static_cast<std::size_t>(way.tuning) - 1].tuning;
  return {.executor = executor, .batch_number = batch_number, .tuning = tuning};
}

Plan draw_plan(std::uint64_t seed, const Restriction& restriction) {
  Random random(seed * 0x2545F4914F6CDD1D + 1);
  Plan plan;
  plan.seed = seed;
  constexpr Kind weighted[] = {Kind::forward,         Kind::forward,         Kind::forward,         Kind::pieces,
                               Kind::pieces,          Kind::backward,        Kind::backward,        Kind::backward,
                               Kind::gradient_pieces, Kind::double_backward, Kind::double_backward, Kind::in_place,
                               Kind::overlap,         Kind::refusal};
  plan.kind = weighted[random.integer(0, static_cast<std::int64_t>(std::size(weighted)) - 1)];
  plan.types = static_cast<int>(random.integer(0, 6));
  const auto isas = batchnorm::available_isas();
  plan.isa = isas[static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(isas.size()) - 1))];
  plan.format = happens(random, 0.5) ? Format::NCHW : Format::NHWC;
  plan.shape = draw_shape(random, plan.format);
  plan.memory = happens(random, 0.8) == (plan.format == Format::NCHW) ? Memory::planes : Memory::rows;
  const bool is_dense = happens(random, 0.4);
  plan.natural_order = is_dense || happens(random, 0.7);
  plan.has_gaps = !is_dense && happens(random, 0.8);
  plan.runs_backwards = !is_dense && happens(random, 0.25);
  plan.broadcasts = !is_dense && happens(random, 0.06);
  plan.options = draw_options(random);
  if (happens(random, 0.1)) plan.batch_number = random.integer(1, 9);
  plan.x = static_cast<Data>(random.integer(0, data_kinds - 1));
  plan.dy = happens(random, 0.5) ? Data::normal : static_cast<Data>(random.integer(0, data_kinds - 1));
  plan.way = draw_way(random);
  plan.other_way = draw_way(random);
  if (restriction.isa) plan.isa = *restriction.isa;
  if (restriction.kind) plan.kind = *restriction.kind;
  if (restriction.types) plan.types = *restriction.types;
  keep_within_promises(plan);
  return plan;
}

std::string text_of(const Plan& plan) {
  constexpr const char* types[] = {"float",          "float/half",        "half/float", "half/half",
                                   "bfloat16/float", "bfloat16/bfloat16", "double"};
  const auto text_of_way = [](const Way& way) {
    return std::to_string(way.threads) + " threads, tuning '" +
           (way.tuning == 0 ? "of the machine" : all_tunings()[static_cast<std::size_t>(way.tuning) - 1].name) + "'";
  };
  std::string text = std::string(name_of(plan.kind)) + " of " + types[plan.types] + " " + to_string(plan.shape) + " " +
                     std::string(to_string(plan.format)) + (plan.memory == Memory::rows ? " in rows" : " in planes") +
                     (plan.natural_order ? "" : ", permuted") + (plan.has_gaps ? ", gaps" : "") +
                     (plan.runs_backwards ? ", reversed" : "") + (plan.broadcasts ? ", broadcast" : "") +
                     (plan.options.is_training ? ", training" : ", inference") + ", x " + name_of(plan.x) + ", dy " +
                     name_of(plan.dy) + ", epsilon " + std::to_string(plan.options.epsilon) + ", " +
                     std::string(to_string(plan.isa)) + ", " + text_of_way(plan.way) + " and " + text_of_way(plan.other_way);
  return text;
}

Layout draw_layout(Random& random, const Plan& plan, bool is_input) {
  const int rank = plan.shape.rank(), channel = plan.channel_axis();
  // Innermost first, as in a dense tensor of that memory.
  std::vector<int> order;
  for (int axis = rank - 1; axis >= 0; --axis) {
    if (axis != channel && axis != 0) order.push_back(axis);
  }
  if (rank == 2) {
    order = plan.memory == Memory::rows ? std::vector<int>{channel, 0} : std::vector<int>{0, channel};
  } else {
    order.insert(plan.memory == Memory::rows ? order.begin() : order.end(), channel);
    order.push_back(0);
  }
  if (!plan.natural_order) {
    for (std::size_t i = order.size() - 1; i > 1; --i) {
      std::swap(order[i], order[static_cast<std::size_t>(random.integer(1, static_cast<std::int64_t>(i)))]);
    }
  }
  Layout layout;
  const bool is_empty = batchnorm::element_count(plan.shape) == 0;
  std::int64_t span = 1;  // of the axes so far, from the first element to the last
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto axis = static_cast<std::size_t>(order[i]);
    const std::int64_t extent = plan.shape[order[i]];
    const bool has_gap = plan.has_gaps && i > 0 && happens(random, 0.4);
    std::int64_t stride = span + (has_gap ? random.integer(1, 7) : 0);
    const std::int64_t length = (extent - 1) * stride;
    // The stride of one position means nothing.
    if (extent == 1 && plan.has_gaps && happens(random, 0.3)) stride = random.integer(-3, 3) * 1000003;
    if (i > 0 && extent > 1 && plan.runs_backwards && happens(random, 0.5)) stride = -stride;
    if (is_input && i > 0 && extent > 1 && plan.broadcasts && happens(random, 0.5)) stride = 0;
    layout.strides[axis] = stride;
    if (extent <= 1) continue;
    if (stride < 0) layout.first += length;
    if (stride != 0) span += length;
  }
  layout.size = is_empty ? 0 : span;
  if (is_empty) layout.first = 0;
  return layout;
}

std::vector<std::size_t> mask_order(const Plan& plan) {
  const Extents e = plan.extents();
  const Extents in_memory{e.n, e.c, e.s, plan.memory == Memory::planes ? Format::NCHW : Format::NHWC};
  std::vector<std::size_t> order(static_cast<std::size_t>(e.n * e.c * e.s));
  for (std::int64_t n = 0; n < e.n; ++n) {
    for (std::int64_t c = 0; c < e.c; ++c) {
      for (std::int64_t s = 0; s < e.s; ++s) {
        // A matrix whose columns are dense: its images follow each other within a channel.
        const bool is_transposed = plan.shape.rank() == 2 && plan.memory == Memory::planes;
        order[e.index(n, c, s)] = is_transposed ? static_cast<std::size_t>(c * e.n + n) : in_memory.index(n, c, s);
      }
    }
  }
  return order;
}

}  // namespace fuzz
