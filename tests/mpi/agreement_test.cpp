// SPDX-License-Identifier: MIT
#include <cstdlib>
#include <thread>

#include <gtest/gtest.h>

#include "ranks.hpp"
#include "support/messages.hpp"

// What happens when ranks do not agree, or one of them cannot take part: all throw, none waits, nothing is written, and the
// next call works.
namespace {

using namespace support;
using batchnorm::Options;
using batchnorm::ShapeError;
using batchnorm::TensorView;
using batchnorm::ValueError;
using batchnorm::mpi::OtherRankError;

bool is_last() { return rank() == ranks() - 1; }

/// One call of the forward pass in training, whose arguments tests spoil.
struct Given {
  Shape shape{2, 3, 4};
  Options options{.is_training = true};
  std::int64_t length_of_scale = 3;
  std::vector<float> x = std::vector<float>(64, 1.0F), scale = std::vector<float>(16, 1.0F), y = std::vector<float>(64, 777.0F);
  std::vector<float> mean = std::vector<float>(16, 0.25F), variance = std::vector<float>(16, 0.5F);

  void forward(MPI_Comm communicator = MPI_COMM_WORLD) {
    const Shape channels{shape[1]};
    batchnorm::mpi::batch_norm<float>(communicator, Format::NCHW, options, {x.data(), shape},
                                      {scale.data(), Shape{length_of_scale}}, {}, {mean.data(), channels},
                                      {variance.data(), channels}, {.output_x = {y.data(), shape}});
  }
  void backward(batchnorm::mpi::ParameterGradients parameters = batchnorm::mpi::ParameterGradients::of_batch) {
    const Shape channels{shape[1]};
    batchnorm::mpi::batch_norm_backward<float>(
        MPI_COMM_WORLD, Format::NCHW, options, {x.data(), shape}, {x.data(), shape}, {scale.data(), Shape{length_of_scale}},
        {mean.data(), channels}, {variance.data(), channels}, {.dx = {y.data(), shape}}, batchnorm::Identity{}, {}, parameters);
  }
  bool is_untouched() const {
    const Given fresh;
    return y == fresh.y && mean == fresh.mean && variance == fresh.variance;
  }
};

void expect_next_call_works() {
  Given given;
  EXPECT_NO_THROW(given.forward());
  EXPECT_EQ(given.y[0], 0.0F);
}

/// A rank alone has nobody to disagree with.
class Agreement : public testing::Test {
 protected:
  void SetUp() override {
    if (ranks() == 1) GTEST_SKIP() << "one rank has nobody to disagree with";
  }
};

TEST_F(Agreement, ThrowsOnEveryRankWhereOnePassesAnotherC) {
  Given given;
  if (is_last()) given.shape = Shape{2, 4, 4}, given.length_of_scale = 4;
  EXPECT_EQ(message_of<ShapeError>([&] { given.forward(); }),
            std::string("batchnorm::mpi::SyncBatchNorm: the ranks of the communicator disagree on C: it is ") +
                (is_last() ? "4" : "3") + " here, and from 3 to 4 on all");
  EXPECT_TRUE(given.is_untouched());
  EXPECT_EQ(message_of<ShapeError>([&] { given.backward(); }),
            std::string("batchnorm::mpi::SyncBatchNorm::backward: the ranks of the communicator disagree on C: it is ") +
                (is_last() ? "4" : "3") + " here, and from 3 to 4 on all");
  EXPECT_TRUE(given.is_untouched());
  expect_next_call_works();
}

TEST_F(Agreement, ThrowsOnEveryRankWhereTheArgumentsOfOneAreWrong) {
  const std::string other =
      "rank " + std::to_string(ranks() - 1) + " of the communicator could not take part, its own error says why";
  Given given;
  if (is_last()) given.length_of_scale = 2;
  if (is_last()) {
    EXPECT_EQ(message_of<ShapeError>([&] { given.forward(); }),
              "batchnorm::mpi::SyncBatchNorm: scale has 2 elements, expected C = 3 (x is [2, 3, 4], NCHW)");
    EXPECT_EQ(message_of<ShapeError>([&] { given.backward(); }),
              "batchnorm::mpi::SyncBatchNorm::backward: scale has 2 elements, expected C = 3 (x is [2, 3, 4], NCHW)");
  } else {
    EXPECT_EQ(message_of<OtherRankError>([&] { given.forward(); }), "batchnorm::mpi::SyncBatchNorm: " + other);
    EXPECT_EQ(message_of<OtherRankError>([&] { given.backward(); }), "batchnorm::mpi::SyncBatchNorm::backward: " + other);
  }
  EXPECT_TRUE(given.is_untouched());
  expect_next_call_works();
}

TEST_F(Agreement, ThrowsOnEveryRankWhereAnOptionOfOneIsOutOfRange) {
  Given given;
  if (is_last()) given.options.epsilon = 2;
  if (is_last()) {
    EXPECT_THROW(given.forward(), ValueError);
    EXPECT_THROW(given.backward(), ValueError);
  } else {
    EXPECT_THROW(given.forward(), OtherRankError);
    EXPECT_THROW(given.backward(), OtherRankError);
  }
  EXPECT_TRUE(given.is_untouched());
  expect_next_call_works();
}

TEST_F(Agreement, ThrowsOnEveryRankWhereOptionsDiffer) {
  const auto message = [](auto spoil) {
    Given given;
    if (is_last()) spoil(given.options);
    const std::string text = message_of<ValueError>([&] { given.forward(); });
    EXPECT_TRUE(given.is_untouched());
    return text;
  };
  const std::string begin = "batchnorm::mpi::SyncBatchNorm: the ranks of the communicator disagree on ";
  EXPECT_EQ(message([](Options& o) { o.epsilon = 1e-3; }), begin + "epsilon");
  EXPECT_EQ(message([](Options& o) { o.momentum = 0.2; }), begin + "momentum");
  EXPECT_EQ(message([](Options& o) { o.running_variance = batchnorm::RunningVariance::biased; }), begin + "running_variance");
  EXPECT_EQ(message([](Options& o) { o.not_finite = batchnorm::NotFinite::keep; }), begin + "not_finite");
  expect_next_call_works();
}

TEST_F(Agreement, ThrowsOnEveryRankWhereParameterGradientsDiffer) {
  using batchnorm::mpi::ParameterGradients;
  for (const bool is_training : {true, false}) {
    Given given;
    given.options.is_training = is_training;
    EXPECT_EQ(
        message_of<ValueError>([&] { given.backward(is_last() ? ParameterGradients::of_rank : ParameterGradients::of_batch); }),
        "batchnorm::mpi::SyncBatchNorm::backward: the ranks of the communicator disagree on parameters "
        "(ParameterGradients)");
    EXPECT_TRUE(given.is_untouched());
  }
  expect_next_call_works();
}

TEST_F(Agreement, TakesMinusZeroForZero) {
  Given given;
  given.options.momentum = is_last() ? -0.0 : 0.0;
  EXPECT_NO_THROW(given.forward());
}

/// An instruction set that this rank cannot use, by the environment.
class UnusableInstructionSet {
 public:
  UnusableInstructionSet() : chosen_(batchnorm::detail::chosen_isa.exchange(-1)) { setenv("BATCHNORM_ISA", "6502", 1); }
  UnusableInstructionSet(const UnusableInstructionSet&) = delete;
  UnusableInstructionSet& operator=(const UnusableInstructionSet&) = delete;
  ~UnusableInstructionSet() {
    unsetenv("BATCHNORM_ISA");
    batchnorm::detail::chosen_isa = chosen_;
  }

 private:
  int chosen_;
};

TEST_F(Agreement, ThrowsOnEveryRankWhereOneCannotUseItsInstructionSet) {
  const auto expect_thrown = [](auto call) {
    if (is_last()) {
      const UnusableInstructionSet set;
      EXPECT_THROW(call(), ValueError);
    } else {
      EXPECT_THROW(call(), OtherRankError);
    }
  };
  Given given;
  batchnorm::Moments moments(3);
  moments.count = 1;
  batchnorm::GradientSums sums(3);
  expect_thrown([&] { batchnorm::mpi::merge(moments, MPI_COMM_WORLD); });
  expect_thrown([&] { batchnorm::mpi::merge(sums, MPI_COMM_WORLD); });
  expect_thrown([&] { given.forward(); });
  for (const bool is_training : {true, false}) {
    given.options.is_training = is_training;
    expect_thrown([&] { given.backward(); });
    expect_thrown([&] { given.backward(batchnorm::mpi::ParameterGradients::of_rank); });
  }
  EXPECT_TRUE(given.is_untouched());
  expect_next_call_works();
}

TEST_F(Agreement, ThrowsOnEveryRankWhereOneGoesBackwardAndOthersForward) {
  Given given;
  const std::string text = message_of<ValueError>([&] { is_last() ? given.backward() : given.forward(); });
  EXPECT_TRUE(text.ends_with("disagree on the call: some go forward, some backward")) << text;
  EXPECT_TRUE(given.is_untouched());
  expect_next_call_works();
}

TEST_F(Agreement, ThrowsOnEveryRankWhereTheMessageOfOneIsTooLong) {
  if (is_last()) {
    const Shape shape{0, 715'827'883, 1};
    const batchnorm::mpi::SyncBatchNorm<float> synchronised(MPI_COMM_WORLD);
    EXPECT_EQ(message_of<ShapeError>([&] {
                synchronised({nullptr, shape}, {}, {}, {}, {}, {.output_x = {nullptr, shape}});
              }),
              "batchnorm::mpi::SyncBatchNorm: C = 715827883 are too many for a message of MPI");
  } else {
    Given given;
    EXPECT_THROW(given.forward(), OtherRankError);
    EXPECT_TRUE(given.is_untouched());
  }
  expect_next_call_works();
}

TEST_F(Agreement, ThrowsOnEveryRankWhereMomentsHaveDifferentChannels) {
  batchnorm::Moments moments(is_last() ? 4 : 3);
  EXPECT_THROW(batchnorm::mpi::merge(moments, MPI_COMM_WORLD), ShapeError);
  batchnorm::GradientSums sums(is_last() ? 4 : 3);
  EXPECT_THROW(batchnorm::mpi::merge(sums, MPI_COMM_WORLD), ShapeError);
  expect_next_call_works();
}

TEST_F(Agreement, ThrowsOnEveryRankWhereTheVectorsOfOneDifferInLength) {
  batchnorm::Moments moments(3);
  batchnorm::GradientSums sums(3);
  if (is_last()) {
    moments.m2.pop_back();
    sums.dy_x.pop_back();
    EXPECT_THROW(batchnorm::mpi::merge(moments, MPI_COMM_WORLD), ShapeError);
    EXPECT_THROW(batchnorm::mpi::merge(sums, MPI_COMM_WORLD), ShapeError);
  } else {
    EXPECT_THROW(batchnorm::mpi::merge(moments, MPI_COMM_WORLD), OtherRankError);
    EXPECT_THROW(batchnorm::mpi::merge(sums, MPI_COMM_WORLD), OtherRankError);
  }
  expect_next_call_works();
}

TEST(Communicator, MustNotBeNull) {
  Given given;
  EXPECT_EQ(message_of<ValueError>([&] { given.forward(MPI_COMM_NULL); }),
            "batchnorm::mpi::SyncBatchNorm: the communicator is null");
}

TEST(Communicator, MustNotBeAnIntercommunicator) {
  if (ranks() == 1) GTEST_SKIP() << "one rank makes no two groups";
  const int group = rank() % 2;
  MPI_Comm own = MPI_COMM_NULL, both = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, group, rank(), &own);
  MPI_Intercomm_create(own, 0, MPI_COMM_WORLD, 1 - group, 0, &both);
  const std::string text =
      ": the communicator is an intercommunicator, expected an intracommunicator; MPI_Intercomm_merge makes one of its two "
      "groups";
  Given given;
  EXPECT_EQ(message_of<ValueError>([&] { given.forward(both); }), "batchnorm::mpi::SyncBatchNorm" + text);
  batchnorm::Moments moments(3);
  EXPECT_EQ(message_of<ValueError>([&] { batchnorm::mpi::merge(moments, both); }), "batchnorm::mpi::merge" + text);
  EXPECT_TRUE(given.is_untouched());
  MPI_Comm_free(&both);
  MPI_Comm_free(&own);
}

TEST(Communicator, MustNotBeUsedByAnotherThreadThanMpiAllows) {
  int provided = 0;
  MPI_Query_thread(&provided);
  if (provided >= MPI_THREAD_SERIALIZED) GTEST_SKIP() << "every thread may call MPI";
  std::thread([] {
    Given given;
    const std::string text = message_of<ValueError>([&] { given.forward(); });
    EXPECT_TRUE(text.starts_with("batchnorm::mpi::SyncBatchNorm: this is not the thread that initialized MPI")) << text;
    EXPECT_TRUE(given.is_untouched());
  }).join();
}

TEST(Communicator, ErrorsOfMpiCarryItsMessage) {
  const std::string text =
      message_of<batchnorm::mpi::MpiError>([] { batchnorm::mpi::detail::check(MPI_ERR_COMM, "a call", "MPI_Allgather"); });
  EXPECT_TRUE(text.starts_with("a call: MPI_Allgather failed: ")) << text;
  EXPECT_GT(text.size(), 35U);
}

}  // namespace
