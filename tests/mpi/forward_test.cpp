// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "ranks.hpp"
#include "support/calls.hpp"

// The forward pass over a batch that is spread over the ranks, against the oracle for the whole batch.
namespace {

using namespace support;
using batchnorm::Identity;
using batchnorm::TensorView;

constexpr Sizes some_sizes[] = {{14, 5, 7}, {4, 3, 613}, {29, 33, 15}, {40, 2, 1}, {64, 67, 1}, {8, 64, 49}, {3, 2, 3001}};

template <class Both>
class SynchronisedForward : public testing::Test {};
TYPED_TEST_SUITE(SynchronisedForward, EveryElement, TypesNames);

/// The rank's part of a call.
template <class T, class P>
Call<T, P> part_of_call(const Call<T, P>& whole, const Part& part) {
  Call<T, P> own = whole;
  own.shape = with_images(whole.shape, part.count);
  own.x = slice(whole.x, whole.shape, part);
  return own;
}

template <class P>
std::vector<P> copy_of(const std::optional<std::vector<P>>& values) {
  return values ? *values : std::vector<P>();
}

/// This rank's part, into prefilled buffers; y is this rank's.
template <class T, class P>
Result<T, P> run_part(const Call<T, P>& own, MPI_Comm communicator = MPI_COMM_WORLD) {
  const auto channels = static_cast<std::size_t>(own.extents().c);
  const std::vector<P> blank(channels, element<P>(unwritten));
  Result<T, P> r{std::vector<T>(own.x.size(), element<T>(unwritten)),
                 blank,
                 blank,
                 blank,
                 blank,
                 copy_of(own.mean),
                 copy_of(own.variance)};
  const auto updated = [](std::vector<P>& v) { return v.empty() ? TensorView<P>() : TensorView<P>(v); };
  batchnorm::mpi::batch_norm<T, P>(
      communicator, own.format, own.options, TensorView<const T>(own.x.data(), own.shape), view(own.scale), view(own.bias),
      updated(r.mean), updated(r.variance),
      {{r.y.data(), own.shape}, r.batch_mean, r.batch_variance, r.reserve_space_1, r.reserve_space_2});
  return r;
}

/// All parts, put together.
template <class T, class P>
Result<T, P> run_divided(const Call<T, P>& whole, Division division) {
  Result<T, P> result = run_part(part_of_call(whole, own_part(division, whole.extents().n)));
  result.y = gathered(result.y);
  return result;
}

template <class T, class P>
void expect_same_statistics_on_all_ranks(const Result<T, P>& result) {
  for (const std::vector<P>* values : {&result.batch_mean, &result.batch_variance, &result.reserve_space_1,
                                       &result.reserve_space_2, &result.mean, &result.variance}) {
    EXPECT_TRUE(same_on_all_ranks(*values));
  }
}

template <class T, class P>
void expect_same(const Result<T, P>& got, const Result<T, P>& want) {
  EXPECT_TRUE(same_bits(got.y, want.y)) << "y";
  EXPECT_TRUE(same_bits(got.batch_mean, want.batch_mean)) << "batch_mean";
  EXPECT_TRUE(same_bits(got.batch_variance, want.batch_variance)) << "batch_variance";
  EXPECT_TRUE(same_bits(got.reserve_space_1, want.reserve_space_1)) << "reserve_space_1";
  EXPECT_TRUE(same_bits(got.reserve_space_2, want.reserve_space_2)) << "reserve_space_2";
  EXPECT_TRUE(same_bits(got.mean, want.mean)) << "mean";
  EXPECT_TRUE(same_bits(got.variance, want.variance)) << "variance";
}

TYPED_TEST(SynchronisedForward, KeepsThePromiseForTheWholeBatch) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Sizes& sizes : some_sizes) {
    for (const Format format : formats) {
      const auto whole = ordinary_call<T, P>(shape_of(format, 3, sizes), format, true);
      const Expected wanted = rank() == 0 ? expected(whole) : Expected();
      for_each_isa([&](Isa isa) {
        for (const Division division : divisions) {
          SCOPED_TRACE(to_string(whole.shape) + " " + std::string(batchnorm::to_string(format)) + " " + to_string(division));
          const auto result = run_divided(whole, division);
          expect_same_statistics_on_all_ranks(result);
          if (rank() == 0) expect_kept(errors(whole, result, wanted, isa));
        }
      });
    }
  }
}

TYPED_TEST(SynchronisedForward, OnOneRankEqualsTheOperatorBitByBit) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const auto call = ordinary_call<T, P>({6, 5, 7}, Format::NCHW, true, 3 + static_cast<std::uint64_t>(rank()));
  expect_same(run_part(call, MPI_COMM_SELF), run(call));
}

TYPED_TEST(SynchronisedForward, ExchangesNothingInInference) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  if (rank() % 2 == 1) return;  // nobody waits for these
  const auto call = ordinary_call<T, P>({6, 5, 7}, Format::NHWC, false);
  expect_same(run_part(call), run(call));
}

/// Small integers, so many per channel that mean and variance are exact whatever the order: every result must be that of one
/// process bit by bit.
Call<float, float> exact_call(const Shape& shape, Format format) {
  auto call = ordinary_call<float, float>(shape, format, true);
  Random random(5);
  for (float& x : call.x) x = static_cast<float>(random.integer(-3, 4));
  const auto channels = static_cast<std::size_t>(call.extents().c);
  call.mean = std::vector<float>(channels, 1.0F), call.variance = std::vector<float>(channels, 2.0F);
  return call;
}

TEST(SynchronisedForward, EqualsOneProcessBitByBitWhereSumsAreExact) {
  for (const Format format : formats) {
    const auto whole = exact_call(shape_of(format, 4, 16, 6, 64), format);
    const auto wanted = run(whole);
    for (const Division division : divisions) {
      SCOPED_TRACE(to_string(division));
      expect_same(run_divided(whole, division), wanted);
    }
  }
}

TEST(SynchronisedForward, AppliesTheEpilogueAndFillsTheMask) {
  using Residual = batchnorm::AddResidual<float, batchnorm::Relu>;
  const Shape shape{16, 6, 8, 8};
  const auto whole = exact_call(shape, Format::NCHW);
  const auto residual = uniform<float>(static_cast<std::int64_t>(whole.x.size()), -1, 1, 8);
  std::vector<float> wanted(whole.x.size());
  std::vector<std::uint8_t> wanted_mask(static_cast<std::size_t>(batchnorm::mask_bytes(shape)));
  batchnorm::batch_norm<float>(Format::NCHW, whole.options, {whole.x.data(), shape}, view(whole.scale), view(whole.bias), {},
                               {}, {.output_x = {wanted.data(), shape}, .mask = wanted_mask},
                               Residual{{residual.data(), shape}});
  for (const Division division : divisions) {
    SCOPED_TRACE(to_string(division));
    const Part part = own_part(division, 16);
    const auto own = part_of_call(whole, part);
    const auto own_residual = slice(residual, shape, part);
    std::vector<float> y(own.x.size());
    std::vector<std::uint8_t> mask(static_cast<std::size_t>(batchnorm::mask_bytes(own.shape)));
    batchnorm::mpi::SyncBatchNorm<float>(MPI_COMM_WORLD, whole.options)(
        {own.x.data(), own.shape}, view(own.scale), view(own.bias), {}, {}, {.output_x = {y.data(), own.shape}, .mask = mask},
        Residual{{own_residual.data(), own.shape}});
    EXPECT_TRUE(same_bits(gathered(y), wanted));
    EXPECT_TRUE(same_bits(gathered(mask), wanted_mask));  // images fill whole bytes
  }
}

TEST(SynchronisedForward, WritesYInThePlaceOfX) {
  auto whole = exact_call({16, 6, 8, 8}, Format::NCHW);
  const auto wanted = run(whole);
  auto own = part_of_call(whole, own_part(Division::uneven, 16));
  batchnorm::mpi::SyncBatchNorm<float>(MPI_COMM_WORLD, whole.options)(
      {own.x.data(), own.shape}, view(own.scale), view(own.bias), {}, {}, {.output_x = {own.x.data(), own.shape}});
  EXPECT_TRUE(same_bits(gathered(own.x), wanted.y));
}

TEST(SynchronisedForward, TakesAnOffsetWithoutLossOfDigits) {
  auto whole = ordinary_call<float, float>({23, 3, 50}, Format::NCHW, true);
  for (float& x : whole.x) x += 1e6F;
  for (const Division division : divisions)
    expect_kept(errors(whole, run_divided(whole, division), expected(whole), batchnorm::active_isa()));
}

TEST(SynchronisedForward, GivesBiasForAConstantChannelOfAnyMagnitude) {
  auto whole = ordinary_call<float, float>({15, 2, 3}, Format::NCHW, true);
  std::fill(whole.x.begin(), whole.x.end(), 10000.1F);
  const auto result = run_divided(whole, Division::uneven);
  for (std::size_t i = 0; i < result.y.size(); ++i) EXPECT_EQ(result.y[i], (*whole.bias)[i / 3 % 2]);
}

TEST(SynchronisedForward, LeavesAnEmptyBatchsRunningStatisticsAlone) {
  const auto whole = ordinary_call<float, float>({0, 4, 5}, Format::NCHW, true);
  const auto result = run_divided(whole, Division::even);
  EXPECT_EQ(result.batch_mean, std::vector<float>(4, 0.0F));
  EXPECT_EQ(result.batch_variance, std::vector<float>(4, 0.0F));
  EXPECT_EQ(result.mean, *whole.mean);
  EXPECT_EQ(result.variance, *whole.variance);
}

TEST(SynchronisedForward, TakesOneValuePerChannelOverAllRanks) {
  const auto whole = ordinary_call<float, float>({1, 4}, Format::NCHW, true);
  const auto result = run_divided(whole, Division::all_on_last);
  EXPECT_EQ(result.y, *whole.bias);
  EXPECT_EQ(result.batch_mean, whole.x);
  for (std::size_t c = 0; c < 4; ++c) EXPECT_FLOAT_EQ(result.variance[c], 0.9F * (*whole.variance)[c]);
}

TEST(SynchronisedForward, TakesNoChannelsAtAll) {
  const auto whole = ordinary_call<float, float>({7, 0, 5}, Format::NCHW, true);
  EXPECT_NO_THROW(run_divided(whole, Division::uneven));
}

TEST(SynchronisedForward, KeepsRunningStatisticsOfAllRanksWhereOneHasNaN) {
  auto whole = ordinary_call<float, float>({14, 3, 5}, Format::NCHW, true);
  whole.options.not_finite = batchnorm::NotFinite::keep;
  whole.x[5] = std::numeric_limits<float>::quiet_NaN();  // image 0, channel 1
  const auto result = run_divided(whole, Division::even);
  EXPECT_EQ(result.mean[1], (*whole.mean)[1]);
  EXPECT_NE(result.mean[0], (*whole.mean)[0]);
  expect_same_statistics_on_all_ranks(result);
}

TEST(SynchronisedForward, WorksInGroupsThatAreCommunicatorsOfTheirOwn) {
  MPI_Comm group = MPI_COMM_NULL;
  const int color = rank() % 2;
  MPI_Comm_split(MPI_COMM_WORLD, color, rank(), &group);
  // Each group's batch is exact and its own; its ranks hold equal parts of it.
  int members = 0, member = 0;
  MPI_Comm_size(group, &members);
  MPI_Comm_rank(group, &member);
  const std::int64_t images = 16;
  auto whole = exact_call({images, 2, 4}, Format::NCHW);
  for (float& x : whole.x) x += static_cast<float>(color);
  const std::int64_t first = images * member / members;
  const auto own = part_of_call(whole, {first, images * (member + 1) / members - first});
  const auto result = run_part(own, group);
  const auto wanted = run(whole);
  EXPECT_TRUE(same_bits(result.batch_mean, wanted.batch_mean));
  EXPECT_TRUE(same_bits(result.variance, wanted.variance));
  MPI_Comm_free(&group);
}

}  // namespace
