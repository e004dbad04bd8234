// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "ranks.hpp"
#include "support/gradient_calls.hpp"

// The gradients of a batch that is spread over the ranks, against the oracle for the whole batch; and the pieces of both
// passes.
namespace {

using namespace support;
using batchnorm::Identity;
using batchnorm::TensorView;
using batchnorm::mpi::ParameterGradients;

constexpr Sizes some_sizes[] = {{14, 5, 7}, {4, 3, 613}, {29, 33, 15}, {40, 2, 1}, {64, 67, 1}, {8, 64, 49}, {3, 2, 3001}};

template <class Both>
class SynchronisedBackward : public testing::Test {};
TYPED_TEST_SUITE(SynchronisedBackward, EveryElement, TypesNames);

/// The rank's part of a call; the statistics stay those of the whole batch.
template <class T, class P>
GradientCall<T, P> part_of_call(const GradientCall<T, P>& whole, const Part& part) {
  GradientCall<T, P> own = whole;
  own.shape = with_images(whole.shape, part.count);
  own.dy = slice(whole.dy, whole.shape, part);
  own.x = slice(whole.x, whole.shape, part);
  return own;
}

template <class T, class P>
GradientResult<T, P> run_part(const GradientCall<T, P>& own, ParameterGradients parameters,
                              MPI_Comm communicator = MPI_COMM_WORLD) {
  auto result = blank_result(own);
  batchnorm::mpi::batch_norm_backward<T, P>(
      communicator, own.format, own.options, own.dy_view(), own.x_view(), view(own.scale), own.mean, own.variance,
      {{result.dx.data(), own.shape}, result.dscale, result.dbias}, Identity{}, {}, parameters);
  return result;
}

template <class T, class P>
GradientResult<T, P> run_divided(const GradientCall<T, P>& whole, Division division,
                                 ParameterGradients parameters = ParameterGradients::of_batch) {
  auto result = run_part(part_of_call(whole, own_part(division, whole.extents().n)), parameters);
  result.dx = gathered(result.dx);
  return result;
}

template <class T, class P>
void expect_promise_kept(const GradientCall<T, P>& whole) {
  const auto wanted = rank() == 0 ? expected(whole) : std::vector<ChannelGradients>();
  for_each_isa([&](Isa isa) {
    for (const Division division : divisions) {
      SCOPED_TRACE(text_of(whole) + " " + to_string(division));
      const auto result = run_divided(whole, division);
      EXPECT_TRUE(same_on_all_ranks(result.dscale));
      EXPECT_TRUE(same_on_all_ranks(result.dbias));
      if (rank() == 0) expect_kept(errors(whole, result, wanted, isa));
    }
  });
}

TYPED_TEST(SynchronisedBackward, KeepsThePromiseForTheWholeBatch) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Sizes& sizes : some_sizes) {
    for (const Format format : formats) {
      for (const bool is_training : {true, false}) {
        expect_promise_kept(ordinary_gradient_call<T, P>(shape_of(format, 3, sizes), format, is_training));
      }
    }
  }
}

TYPED_TEST(SynchronisedBackward, OnOneRankEqualsTheOperatorBitByBit) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const auto call = ordinary_gradient_call<T, P>({6, 5, 7}, Format::NCHW, true, 3 + static_cast<std::uint64_t>(rank()));
  EXPECT_TRUE(same(run_part(call, ParameterGradients::of_batch, MPI_COMM_SELF), run(call)));
}

TEST(SynchronisedBackward, GivesTheRanksOwnParameterGradientsWhereTheyAreAskedFor) {
  for (const bool is_training : {true, false}) {
    const auto whole = ordinary_gradient_call<double, double>({14, 5, 7}, Format::NCHW, is_training);
    const auto of_batch = run_divided(whole, Division::some_empty);
    auto of_rank = run_divided(whole, Division::some_empty, ParameterGradients::of_rank);
    EXPECT_TRUE(same_bits(of_rank.dx, of_batch.dx));
    if (own_part(Division::some_empty, 14).count == 0) {
      EXPECT_EQ(of_rank.dscale, std::vector<double>(5, 0.0));
      EXPECT_EQ(of_rank.dbias, std::vector<double>(5, 0.0));
    }
    for (std::vector<double>* values : {&of_rank.dscale, &of_rank.dbias}) {
      MPI_Allreduce(MPI_IN_PLACE, values->data(), 5, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    }
    for (std::size_t c = 0; c < 5; ++c) {
      EXPECT_NEAR(of_rank.dscale[c], of_batch.dscale[c], 1e-12) << c;
      EXPECT_NEAR(of_rank.dbias[c], of_batch.dbias[c], 1e-12) << c;
    }
  }
}

TEST(SynchronisedBackward, ComputesOnlyWhatIsAskedFor) {
  for (const bool is_training : {true, false}) {
    const auto whole = ordinary_gradient_call<float, float>({14, 5, 7}, Format::NCHW, is_training);
    const auto all = run_divided(whole, Division::uneven);
    const auto own = part_of_call(whole, own_part(Division::uneven, 14));
    const batchnorm::mpi::SyncBatchNorm<float> synchronised(MPI_COMM_WORLD, whole.options);
    const auto backward = [&](const batchnorm::GradientViews<float, float>& out) {
      synchronised.backward(own.dy_view(), own.x_view(), view(own.scale), own.mean, own.variance, out);
    };
    auto result = blank_result(own);
    backward({.dx = {result.dx.data(), own.shape}});
    EXPECT_TRUE(same_bits(gathered(result.dx), all.dx));
    backward({.dscale = result.dscale});
    EXPECT_TRUE(same_bits(result.dscale, all.dscale));
    backward({.dbias = result.dbias});
    EXPECT_TRUE(same_bits(result.dbias, all.dbias));
    backward({});
  }
}

TEST(SynchronisedBackward, GoesThroughTheMaskAndReturnsTheResidualsGradient) {
  // Small integers and a mean and variance that are powers of two: every sum is exact.
  const Shape shape{16, 4, 8};
  auto whole = ordinary_gradient_call<float, float>(shape, Format::NCHW, true);
  Random random(6);
  for (float& x : whole.x) x = static_cast<float>(random.integer(-3, 4));
  for (float& dy : whole.dy) dy = static_cast<float>(random.integer(-8, 8));
  std::fill(whole.mean.begin(), whole.mean.end(), 0.5F);
  std::fill(whole.variance.begin(), whole.variance.end(), 4.0F);
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(batchnorm::mask_bytes(shape)));
  for (std::uint8_t& byte : mask) byte = static_cast<std::uint8_t>(random.bits());
  std::vector<float> dx(whole.x.size()), dz(whole.x.size()), dscale(4), dbias(4);
  batchnorm::batch_norm_backward<float>(Format::NCHW, whole.options, whole.dy_view(), whole.x_view(), view(whole.scale),
                                        whole.mean, whole.variance, {{dx.data(), shape}, dscale, dbias, {dz.data(), shape}},
                                        batchnorm::ThroughMask<batchnorm::Relu>{mask});
  const std::int64_t bytes_of_image = 4;
  for (const Division division : divisions) {
    for (const bool wants_dx : {true, false}) {
      SCOPED_TRACE(to_string(division));
      const Part part = own_part(division, 16);
      const auto own = part_of_call(whole, part);
      const auto own_mask = slice(mask, Shape{16, bytes_of_image}, part);
      auto result = blank_result(own);
      std::vector<float> own_dz(own.x.size());
      batchnorm::GradientViews<float, float> out{{}, result.dscale, result.dbias, {own_dz.data(), own.shape}};
      if (wants_dx) out.dx = {result.dx.data(), own.shape};
      batchnorm::mpi::batch_norm_backward<float>(MPI_COMM_WORLD, Format::NCHW, own.options, own.dy_view(), own.x_view(),
                                                 view(own.scale), own.mean, own.variance, out,
                                                 batchnorm::ThroughMask<batchnorm::Relu>{own_mask});
      if (wants_dx) {
        EXPECT_TRUE(same_bits(gathered(result.dx), dx));
      }
      EXPECT_TRUE(same_bits(gathered(own_dz), dz));
      EXPECT_TRUE(same_bits(result.dscale, dscale));
      EXPECT_TRUE(same_bits(result.dbias, dbias));
    }
  }
}

TEST(SynchronisedBackward, WritesZerosForAnEmptyBatch) {
  const auto whole = ordinary_gradient_call<float, float>({0, 4, 5}, Format::NCHW, true);
  const auto result = run_divided(whole, Division::even);
  EXPECT_EQ(result.dscale, std::vector<float>(4, 0.0F));
  EXPECT_EQ(result.dbias, std::vector<float>(4, 0.0F));
}

/// A statistic of random numbers; every third rank has seen no values.
template <class Statistic>
Statistic numbered(std::int64_t channels, int rank) {
  Statistic statistic(channels);
  statistic.count = rank % 3 == 1 ? 0 : 10 + rank;
  Random random(static_cast<std::uint64_t>(rank + 1));
  for (std::vector<double>* array : batchnorm::mpi::detail::arrays_of(statistic)) {
    for (double& value : *array) value = statistic.count == 0 ? 0 : random.uniform(1, 2);
  }
  return statistic;
}

template <class Statistic>
void expect_merged_in_rank_order() {
  for (const std::int64_t channels : {0, 1, 67, 291, 292, 293, 300, 511, 512, 513, 1000}) {
    SCOPED_TRACE(channels);
    Statistic wanted(channels);
    for (int r = 0; r < ranks(); ++r) batchnorm::merge(wanted, numbered<Statistic>(channels, r));
    auto statistic = numbered<Statistic>(channels, rank());
    batchnorm::mpi::merge(statistic, MPI_COMM_WORLD);
    EXPECT_EQ(statistic.count, wanted.count);
    const auto got = batchnorm::mpi::detail::arrays_of(statistic), want = batchnorm::mpi::detail::arrays_of(wanted);
    for (std::size_t k = 0; k < got.size(); ++k) EXPECT_TRUE(same_bits(*got[k], *want[k])) << "array " << k;
  }
}

// Also where the channels travel in slices that do not divide them.
TEST(SynchronisedPieces, MergeInTheOrderOfTheRanksWhateverTheNumberOfChannels) {
  expect_merged_in_rank_order<batchnorm::Moments>();
  expect_merged_in_rank_order<batchnorm::GradientSums>();
}

/// Both passes by their pieces: the moments of the whole batch keep the digits of a mean that float cannot hold.
TEST(SynchronisedPieces, KeepTheDigitsThatARoundedMeanHasLost) {
  const Shape shape{21, 3, 40};
  auto whole = ordinary_gradient_call<float, float>(shape, Format::NCHW, true);
  for (float& x : whole.x) x += 1e6F;
  const auto own = part_of_call(whole, own_part(Division::uneven, 21));
  batchnorm::Moments moments = batchnorm::moments<float>(own.x_view(), Format::NCHW);
  batchnorm::mpi::merge(moments, MPI_COMM_WORLD);
  EXPECT_EQ(moments.count, 21 * 40);
  EXPECT_TRUE(same_on_all_ranks(moments.mean));
  EXPECT_TRUE(same_on_all_ranks(moments.mean_low));
  EXPECT_TRUE(same_on_all_ranks(moments.m2));

  batchnorm::GradientSums sums =
      batchnorm::gradient_sums<float>(Format::NCHW, {.dy = own.dy_view(), .x = own.x_view()}, moments);
  batchnorm::mpi::merge(sums, MPI_COMM_WORLD);
  auto result = blank_result(own);
  batchnorm::input_gradient<float, float>(Format::NCHW, {.dy = own.dy_view(), .x = own.x_view(), .scale = view(own.scale)},
                                          sums, moments, 1e-5, {{result.dx.data(), own.shape}, result.dscale, result.dbias});
  result.dx = gathered(result.dx);
  expect_kept(errors(whole, result, expected_with(whole, moments), batchnorm::active_isa()));
}

}  // namespace
