// SPDX-License-Identifier: MIT
//
// The program train_mnist from outside, on a few images made here: what it writes, and what it says when it cannot work.

#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <support/run_program.hpp>
#include <support/temporary_folder.hpp>

namespace {

namespace fs = std::filesystem;
using support::read_bytes;
using support::run_program;

void write_gzip(const fs::path& path, const std::string& bytes) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "wb"), gzclose);
  if (!file || gzwrite(file.get(), bytes.data(), static_cast<unsigned>(bytes.size())) != static_cast<int>(bytes.size())) {
    throw std::runtime_error("'" + path.string() + "' cannot be written");
  }
}

std::string big_endian(std::uint32_t number) {
  std::string bytes;
  for (const unsigned shift : {24U, 16U, 8U, 0U}) bytes += static_cast<char>(number >> shift & 0xFFU);
  return bytes;
}

/// Images of noise with a bright row for each class.
void write_examples(const fs::path& folder, const std::string& prefix, std::uint32_t count) {
  std::string images = big_endian(0x803) + big_endian(count) + big_endian(28) + big_endian(28);
  std::string labels = big_endian(0x801) + big_endian(count);
  std::uint32_t noise = 1;
  for (std::uint32_t n = 0; n < count; ++n) {
    const std::uint32_t label = n % 10;
    labels += static_cast<char>(label);
    for (std::uint32_t pixel = 0; pixel < 28 * 28; ++pixel) {
      noise = noise * 1664525 + 1013904223;
      images += static_cast<char>((noise >> 25U) + (pixel / 28 / 2 == label ? 120U : 0U));
    }
  }
  write_gzip(folder / (prefix + "-images-idx3-ubyte.gz"), images);
  write_gzip(folder / (prefix + "-labels-idx1-ubyte.gz"), labels);
}

class TrainMnistProgram : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    data_ = std::make_unique<support::TemporaryFolder>();
    write_examples(data_->path(), "train", 180);
    write_examples(data_->path(), "t10k", 150);
  }
  // The sanitized builds, which take long, are those of the tests alone.
  void SetUp() override {
    if (!fs::exists(BATCHNORM_TRAIN_MNIST)) GTEST_SKIP() << BATCHNORM_TRAIN_MNIST << " is not built";
  }
  static void TearDownTestSuite() { data_.reset(); }

  /// Runs the program for a few steps, its files to `out`.
  support::ProgramResult run(const fs::path& out, std::vector<std::string> more = {},
                             const std::vector<std::string>& settings = {}) const {
    std::vector<std::string> command = {BATCHNORM_TRAIN_MNIST, "--data", data_->path(),           "--out", out,
                                        "--sigmoid-steps",     "10",     "--convolutional-steps", "5"};
    command.insert(command.end(), more.begin(), more.end());
    return run_program(command, settings);
  }

  static inline std::unique_ptr<support::TemporaryFolder> data_;
  support::TemporaryFolder out_;
};

const std::string no_gnuplot = "PATH=/nowhere";
const std::vector<std::string> written = {"train_mnist_accuracy.gp", "train_mnist_accuracy.txt", "train_mnist_distribution.gp",
                                          "train_mnist_distribution.txt"};

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

TEST_F(TrainMnistProgram, WithoutGnuplotWritesTheDataAndTheScripts) {
  const auto result = run(out_ / "new/folder", {}, {no_gnuplot});
  EXPECT_EQ(result.status, 0) << result.errors;
  EXPECT_EQ(support::names_in(out_ / "new/folder"), written);
  EXPECT_TRUE(contains(result.output, "No picture: gnuplot was not found (in Debian: gnuplot-nox)")) << result.output;
  EXPECT_TRUE(contains(result.output, "Sigmoid network         150 of 150 test images")) << result.output;
  EXPECT_TRUE(contains(result.output, "Convolutional network   150 of 150 test images")) << result.output;
  EXPECT_EQ(result.errors, "");
}

TEST_F(TrainMnistProgram, TheSameSeedGivesTheSameNumbersForAnyNumberOfThreads) {
  const auto contents = [this](const std::string& name) {
    return read_bytes(out_ / name / "train_mnist_accuracy.txt") + read_bytes(out_ / name / "train_mnist_distribution.txt");
  };
  EXPECT_EQ(run(out_ / "1", {}, {no_gnuplot, "BATCHNORM_NUM_THREADS=1"}).status, 0);
  EXPECT_EQ(run(out_ / "3", {}, {no_gnuplot, "BATCHNORM_NUM_THREADS=3"}).status, 0);
  EXPECT_EQ(run(out_ / "seed", {"--seed", "2"}, {no_gnuplot}).status, 0);
  EXPECT_EQ(contents("1"), contents("3"));
  EXPECT_NE(contents("1"), contents("seed"));
}

TEST_F(TrainMnistProgram, SaysWhichFileOfTheDataSetIsMissingAndWhereItComesFrom) {
  const auto result = run_program({BATCHNORM_TRAIN_MNIST, "--data", out_.path(), "--out", out_ / "pictures"});
  EXPECT_EQ(result.status, 2);
  EXPECT_TRUE(contains(result.errors, "train-images-idx3-ubyte.gz': cannot be opened: No such file or directory"))
      << result.errors;
  EXPECT_TRUE(contains(result.errors, "apt install dataset-fashion-mnist")) << result.errors;
  EXPECT_FALSE(fs::exists(out_ / "pictures"));
}

TEST_F(TrainMnistProgram, RefusesOptionsThatItDoesNotKnowOrCannotUse) {
  for (const std::vector<std::string>& wrong :
       {std::vector<std::string>{"--epochs", "3"}, {"--rate", "-1"}, {"--rate", "fast"}, {"--sigmoid-steps", "0"}}) {
    const auto result = run(out_ / "pictures", wrong);
    EXPECT_EQ(result.status, 2) << wrong[0];
    EXPECT_TRUE(contains(result.errors, wrong[0])) << result.errors;
  }
  EXPECT_FALSE(fs::exists(out_ / "pictures"));
}

TEST_F(TrainMnistProgram, SaysThatItsFolderCannotBeMade) {
  support::write_bytes(out_ / "file", "");
  const auto result = run(out_ / "file/pictures");
  EXPECT_EQ(result.status, 2);
  EXPECT_TRUE(contains(result.errors, (out_ / "file/pictures").string())) << result.errors;
}

TEST_F(TrainMnistProgram, FindsBeforeTrainingThatItsFilesCannotBeWritten) {
  fs::create_directory(out_ / "train_mnist_accuracy.gp");
  const auto result = run(out_.path());
  EXPECT_EQ(result.status, 2);
  EXPECT_TRUE(contains(result.errors, "train_mnist_accuracy.gp': it cannot be written: it is a directory")) << result.errors;
  EXPECT_EQ(result.output, "");
}

TEST_F(TrainMnistProgram, HelpNamesTheOptions) {
  const auto result = run_program({BATCHNORM_TRAIN_MNIST, "--help"});
  EXPECT_EQ(result.status, 0);
  EXPECT_TRUE(contains(result.output, "--full")) << result.output;
}

}  // namespace
