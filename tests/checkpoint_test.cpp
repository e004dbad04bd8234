// SPDX-License-Identifier: MIT

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

#include <batchnorm/checkpoint.hpp>

#include "support/buffers.hpp"
#include "support/file_errors.hpp"
#include "support/file_size_limit.hpp"
#include "support/messages.hpp"
#include "support/npy_files.hpp"
#include "support/run_program.hpp"
#include "support/temporary_folder.hpp"
#include "support/zip_files.hpp"

// Layers on their way through NumPy's files.
namespace {

namespace npy = batchnorm::npy;
namespace npz = batchnorm::npz;

using batchnorm::bfloat16;
using batchnorm::half;
using batchnorm::Parameters;
using batchnorm::Tensor;
using npz::Compression;
using support::ErrorPointer;
using support::file_error_of;
using support::message_of;
using support::read_bytes;
using support::TemporaryFolder;
using support::write_bytes;

const std::filesystem::path stored_folder = std::filesystem::path(BATCHNORM_TEST_DATA) / "npz";

/// Every value has bits of its own, among them those of NaNs, infinities, subnormal numbers and -0.
template <class P>
Parameters<P> strange_layer(std::int64_t channels) {
  Parameters<P> layer(channels);
  std::uint64_t state = 0x9E3779B97F4A7C15;
  for (Tensor<P>* tensor : {&layer.scale, &layer.bias, &layer.mean, &layer.variance}) {
    for (P& value : *tensor) {
      state = state * 6364136223846793005 + 1442695040888963407;
      const std::uint64_t bits = state >> (64 - 8 * sizeof(P));
      std::memcpy(static_cast<void*>(&value), &bits, sizeof(P));
    }
  }
  using Limits = std::numeric_limits<P>;
  const P special[] = {Limits::quiet_NaN(),  Limits::infinity(), -Limits::infinity(),
                       Limits::denorm_min(), P(-0.0F),           Limits::lowest()};
  for (std::int64_t c = 0; c < channels && c < std::ssize(special); ++c) layer.mean[c] = special[c];
  layer.batches = std::numeric_limits<std::int64_t>::max();
  return layer;
}

template <class P>
void expect_equal(const Parameters<P>& got, const Parameters<P>& expected) {
  const auto expect_same = [](const char* name, const Tensor<P>& a, const Tensor<P>& b) {
    EXPECT_EQ(a.shape(), b.shape()) << name;
    EXPECT_TRUE(support::same_bits(support::values_of(a), support::values_of(b))) << name;
  };
  expect_same("scale", got.scale, expected.scale);
  expect_same("bias", got.bias, expected.bias);
  expect_same("mean", got.mean, expected.mean);
  expect_same("variance", got.variance, expected.variance);
  EXPECT_EQ(got.batches, expected.batches);
}

/// The layer that NumPy wrote (tests/data/npz/write.py).
template <class P>
Parameters<P> numpys_layer() {
  Parameters<P> layer(3);
  const auto fill = [](Tensor<P>& tensor, std::vector<double> values) {
    std::ranges::transform(values, tensor.begin(), [](double value) { return P(value); });
  };
  fill(layer.scale, {1.5, -2, 0.25});
  fill(layer.bias, {0, 1, -1});
  fill(layer.mean, {0.5, 0, -3});
  fill(layer.variance, {1, 4, 0.0625});
  layer.batches = 7;
  return layer;
}

template <class P>
class CheckpointOf : public testing::Test {};
using EveryParameter = testing::Types<float, double, half, bfloat16>;
TYPED_TEST_SUITE(CheckpointOf, EveryParameter);

TYPED_TEST(CheckpointOf, ANpzFileGivesBackEveryBit) {
  const TemporaryFolder folder;
  for (const std::int64_t channels : {0, 1, 7, 20000}) {
    for (const Compression compression : {Compression::stored, Compression::deflated}) {
      const auto layer = strange_layer<TypeParam>(channels);
      save_npz(folder / "layer.npz", layer, compression);
      expect_equal(batchnorm::load_npz<TypeParam>(folder / "layer.npz"), layer);
      expect_equal(batchnorm::load_npz<TypeParam>(folder / "layer.npz", channels), layer);
    }
  }
  EXPECT_EQ(support::names_in(folder.path()), std::vector<std::string>{"layer.npz"});
}

TYPED_TEST(CheckpointOf, AFolderGivesBackEveryBit) {
  const TemporaryFolder folder;
  for (const std::int64_t channels : {0, 1, 7, 20000}) {
    const auto layer = strange_layer<TypeParam>(channels);
    save_npy_folder(folder.path(), layer);
    expect_equal(batchnorm::load_npy_folder<TypeParam>(folder.path()), layer);
    expect_equal(batchnorm::load_npy_folder<TypeParam>(folder.path(), channels), layer);
  }
  EXPECT_EQ(support::names_in(folder.path()),
            (std::vector<std::string>{"batches.npy", "bias.npy", "mean.npy", "scale.npy", "variance.npy"}));
}

TYPED_TEST(CheckpointOf, TheTypesInTheFileAreNumPys) {
  const TemporaryFolder folder;
  save_npy_folder(folder.path(), Parameters<TypeParam>(3));
  const npy::Type type = sizeof(TypeParam) == 8            ? npy::Type::float64
                         : std::is_same_v<TypeParam, half> ? npy::Type::float16
                                                           : npy::Type::float32;
  for (const char* name : {"scale.npy", "bias.npy", "mean.npy", "variance.npy"}) {
    EXPECT_EQ(npy::Reader(folder / name).header(), (npy::Header{type, {3}})) << name;
  }
  EXPECT_EQ(npy::Reader(folder / "batches.npy").header(), (npy::Header{npy::Type::int64, {}}));
}

TEST(CheckpointTest, LoadsWhatNumPyWrote) {
  for (const char* file : {"savez.npz", "savez_compressed.npz", "unseekable.npz"}) {
    SCOPED_TRACE(file);
    expect_equal(batchnorm::load_npz<float>(stored_folder / file, 3), numpys_layer<float>());
  }
  const npz::Reader archive(stored_folder / "two_layers.npz");
  expect_equal(batchnorm::read_parameters<double>(archive, "a"), numpys_layer<double>());
  expect_equal(batchnorm::read_parameters<half>(archive, "b"), numpys_layer<half>());
}

TEST(CheckpointTest, WritesTheBytesThatNumPyRead) {
  const TemporaryFolder folder;
  save_npz(folder / "layer.npz", numpys_layer<float>());
  EXPECT_EQ(read_bytes(folder / "layer.npz"), read_bytes(stored_folder / "written.npz"));
}

TEST(CheckpointTest, NumPyOfThisMachineReadsBothKindsOfArchives) {
  const std::string python = "/usr/bin/python3", script = stored_folder / "read.py";
  if (!std::filesystem::exists(python) || support::run_program({python, "-c", "import numpy"}).status != 0) {
    GTEST_SKIP() << "Debian's python3-numpy is not here";
  }
  const TemporaryFolder folder;
  for (const Compression compression : {Compression::stored, Compression::deflated}) {
    save_npz(folder / "layer.npz", numpys_layer<float>(), compression);
    const auto result = support::run_program({python, "-B", script, folder / "layer.npz"});
    EXPECT_EQ(result.output, "as it should be\n") << result.errors;
  }
}

TEST(CheckpointTest, AnArchiveHoldsManyLayersOfManyTypes) {
  const TemporaryFolder folder;
  const auto first = strange_layer<float>(64);
  const auto second = strange_layer<half>(3);
  const auto third = strange_layer<bfloat16>(5);
  npz::Writer writer(folder / "model.npz", Compression::deflated);
  add_parameters(writer, "layer1.0", first);
  add_parameters(writer, "layer1.1", second);
  add_parameters(writer, "", third);
  writer.publish();

  const npz::Reader reader(folder / "model.npz");
  EXPECT_EQ(reader.names()[0], "layer1.0.scale");
  EXPECT_EQ(reader.names().size(), 15U);
  expect_equal(batchnorm::read_parameters<half>(reader, "layer1.1", 3), second);
  expect_equal(batchnorm::read_parameters<float>(reader, "layer1.0", 64), first);
  expect_equal(batchnorm::read_parameters<bfloat16>(reader), third);
}

TEST(CheckpointTest, ALayerCanBeAddedOnce) {
  const TemporaryFolder folder;
  npz::Writer archive(folder / "model.npz");
  add_parameters(archive, "a", Parameters<float>(2));
  EXPECT_EQ(message_of<npy::FileError>([&] { add_parameters(archive, "a", Parameters<float>(2)); }),
            "'" + (folder / "model.npz").string() + "': array 'a.scale' cannot be added: there is one of that name");
}

/// A layer of two channels as a folder of files, each of which may be replaced.
class CheckpointFilesTest : public testing::Test {
 protected:
  CheckpointFilesTest() { save_npy_folder(folder_.path(), Parameters<float>(2)); }

  std::string file(const std::string& name) const { return folder_ / (name + ".npy"); }

  template <class P = float>
  std::string refusal(std::optional<std::int64_t> channels = {}) const {
    return file_error_of([&](ErrorPointer error) {
      const auto layer = batchnorm::load_npy_folder<P>(folder_.path(), {.channels = channels, .error = error});
      EXPECT_TRUE(error == nullptr || !*error || layer.channels() == 0);
    });
  }

  /// What load_npz says of the same files in an archive.
  template <class P = float>
  std::string archive_refusal(std::optional<std::int64_t> channels = {}) const {
    std::vector<support::ZipEntry> entries;
    for (const std::string& name : support::names_in(folder_.path())) entries.emplace_back(name, read_bytes(folder_ / name));
    const TemporaryFolder other;
    write_bytes(other / "x.npz", support::zip_bytes(entries));
    const std::string begin = "'" + (other / "x.npz").string() + "': ";
    const std::string message = file_error_of([&](ErrorPointer error) {
      const auto layer = batchnorm::load_npz<P>(other / "x.npz", {.channels = channels, .error = error});
      EXPECT_TRUE(error == nullptr || !*error || layer.channels() == 0);
    });
    EXPECT_EQ(message.substr(0, begin.size()), begin);
    return message.substr((std::min)(begin.size(), message.size()));
  }

  /// Both refuse, the one naming the file, the other the array.
  template <class P = float>
  void expect_refusal(const std::string& name, const std::string& why, std::optional<std::int64_t> channels = {}) const {
    EXPECT_EQ(refusal<P>(channels), "'" + file(name) + "': " + why);
    EXPECT_EQ(archive_refusal<P>(channels), "array '" + name + "': " + why);
  }

  void restore() const { save_npy_folder(folder_.path(), Parameters<float>(2)); }

  TemporaryFolder folder_;
};

TEST_F(CheckpointFilesTest, WhatIsRightIsRead) {
  EXPECT_EQ(refusal(), "<no exception>");
  EXPECT_EQ(refusal(2), "<no exception>");
}

TEST_F(CheckpointFilesTest, RefusesAnotherNumberOfChannelsThanExpected) {
  expect_refusal("scale", "its shape is (2,), expected is (3,)", 3);
  for (const char* name : {"bias", "mean", "variance"}) {
    support::save_npy(file(name), npy::Type::float32, {3}, {1, 2, 3});
    expect_refusal(name, "its shape is (3,), expected is (2,)");
    restore();
  }
}

TEST_F(CheckpointFilesTest, RefusesAnythingButOneAxis) {
  support::save_npy(file("scale"), npy::Type::float32, {}, {1});
  expect_refusal("scale", "its shape is (), expected is (C,), one axis");
  support::save_npy(file("scale"), npy::Type::float32, {2, 1}, {1, 2});
  expect_refusal("scale", "its shape is (2, 1), expected is (C,), one axis");
  expect_refusal("scale", "its shape is (2, 1), expected is (2,)", 2);
  restore();
  support::save_npy(file("mean"), npy::Type::float32, {1, 2}, {1, 2});
  expect_refusal("mean", "its shape is (1, 2), expected is (2,)");
}

TEST_F(CheckpointFilesTest, RefusesAnotherTypeEvenAWiderOne) {
  expect_refusal<double>("scale", "it is float32, expected is float64");
  expect_refusal<half>("scale", "it is float32, expected is float16");
  for (const char* name : {"scale", "bias", "mean", "variance"}) {
    support::save_npy(file(name), npy::Type::float64, {2}, {1, 2});
    expect_refusal(name, "it is float64, expected is float32");
    support::save_npy(file(name), npy::Type::int64, {2}, {1, 2});
    expect_refusal(name, "it is int64, expected is float32");
    restore();
  }
  support::save_npy(file("bias"), npy::Type::float16, {2}, {1, 2});
  expect_refusal<bfloat16>("bias", "it is float16, expected is float32, as which a file holds bfloat16");
}

TEST_F(CheckpointFilesTest, RefusesAValueThatBfloat16Lacks) {
  EXPECT_EQ(refusal<bfloat16>(), "<no exception>");
  support::save_npy(file("mean"), npy::Type::float32, {2}, {0.5, 0.1});
  expect_refusal<bfloat16>("mean", "its value 1 is not one of bfloat16's");
  EXPECT_EQ(refusal(), "<no exception>");
}

TEST_F(CheckpointFilesTest, RefusesBatchesThatAreNoCount) {
  support::save_npy(file("batches"), npy::Type::int64, {}, {-1});
  expect_refusal("batches", "it is -1, it must not be negative");
  support::save_npy(file("batches"), npy::Type::int64, {1}, {1});
  expect_refusal("batches", "it is int64 of shape (1,), expected is int64 of shape ()");
  support::save_npy(file("batches"), npy::Type::float64, {}, {1});
  expect_refusal("batches", "it is float64 of shape (), expected is int64 of shape ()");
}

TEST_F(CheckpointFilesTest, RefusesALayerThatLacksAnArray) {
  for (const char* name : {"scale", "bias", "mean", "variance", "batches"}) {
    std::filesystem::remove(file(name));
    EXPECT_EQ(refusal(), "'" + file(name) + "': there is no such file");
    EXPECT_EQ(archive_refusal(), "it has no array '" + std::string(name) + "'");
    restore();
  }
}

TEST_F(CheckpointFilesTest, NamesTheLayerThatIsNotThere) {
  const std::filesystem::path path = stored_folder / "two_layers.npz";
  const npz::Reader archive(path);
  EXPECT_EQ(message_of<npy::FileError>([&] { batchnorm::read_parameters<half>(archive, "c"); }),
            "'" + path.string() + "': it has no array 'c.scale'");
  EXPECT_EQ(message_of<npy::FileError>([&] { batchnorm::read_parameters<half>(archive, "a"); }),
            "'" + path.string() + "': array 'a.scale': it is float64, expected is float16");
}

TEST_F(CheckpointFilesTest, RefusesDamagedData) {
  write_bytes(file("variance"), "not an array");
  expect_refusal("variance", "it is not a .npy file: its first bytes are not those of NumPy");
}

/// A small archive, compressed and not.
class CheckpointBytesTest : public testing::TestWithParam<Compression> {
 protected:
  CheckpointBytesTest() {
    save_npz(path(), layer_, GetParam());
    whole_ = read_bytes(path());
  }

  std::filesystem::path path() const { return folder_ / "layer.npz"; }

  /// A new file each time: some file systems write a file that is overwritten to the disk at once, which takes its time.
  void replace(std::string_view bytes) const {
    std::filesystem::remove(path());
    write_bytes(path(), bytes);
  }

  TemporaryFolder folder_;
  Parameters<float> layer_ = strange_layer<float>(7);
  std::string whole_;
};

TEST_P(CheckpointBytesTest, RefusesEveryArchiveThatWasCutShort) {
  for (std::size_t size = 0; size < whole_.size(); ++size) {
    replace(std::string_view(whole_).substr(0, size));
    EXPECT_THROW(batchnorm::load_npz<float>(path()), npy::FileError) << size;
  }
}

TEST_P(CheckpointBytesTest, NoFlippedByteChangesALayerUnnoticed) {
  int noticed = 0;
  for (std::size_t at = 0; at < whole_.size(); ++at) {
    for (const int flip : {0x01, 0x80, 0xFF}) {
      SCOPED_TRACE(std::to_string(at) + " ^ " + std::to_string(flip));
      std::string damaged = whole_;
      damaged[at] = static_cast<char>(damaged[at] ^ flip);
      replace(damaged);
      try {
        expect_equal(batchnorm::load_npz<float>(path()), layer_);
      } catch (const npy::FileError&) {
        ++noticed;
      }
    }
  }
  EXPECT_GT(noticed, 0);
}

INSTANTIATE_TEST_SUITE_P(Either, CheckpointBytesTest, testing::Values(Compression::stored, Compression::deflated),
                         [](const auto& either) { return either.param == Compression::stored ? "stored" : "deflated"; });

TEST(CheckpointTest, WritesNoLayerThatItWouldNotRead) {
  const TemporaryFolder folder;
  Parameters<float> layer(4);
  layer.mean = Tensor<float>(batchnorm::Shape{3});
  const auto as_npz = [&](const Parameters<float>& parameters, ErrorPointer error) {
    save_npz(folder / "layer.npz", parameters, Compression::stored, error);
  };
  const auto as_folder = [&](const Parameters<float>& parameters, ErrorPointer error) {
    save_npy_folder(folder.path(), parameters, error);
  };
  const auto refusal = [&](auto save) {
    const std::string message = message_of<batchnorm::ShapeError>([&] { save(layer, nullptr); });
    std::optional<batchnorm::Error> error;
    save(layer, &error);
    EXPECT_EQ(error, (batchnorm::Error{batchnorm::ErrorKind::shape, message}));
    return message;
  };
  EXPECT_EQ(refusal(as_npz), "batchnorm::Parameters: mean is [3], expected is [4]");
  EXPECT_EQ(refusal(as_folder), "batchnorm::Parameters: mean is [3], expected is [4]");
  layer = Parameters<float>(4);
  layer.scale = Tensor<float>(batchnorm::Shape{2, 2});
  EXPECT_EQ(refusal(as_npz), "batchnorm::Parameters: scale is [2, 2], expected is [4]");
  layer = Parameters<float>(4);
  layer.batches = -1;
  EXPECT_EQ(message_of<batchnorm::ValueError>([&] { as_npz(layer, nullptr); }),
            "batchnorm::Parameters: batches is -1, it must not be negative");
  EXPECT_EQ(support::names_in(folder.path()), std::vector<std::string>{});
}

TEST(CheckpointTest, AnErrorLeavesNothingBehindAndTheOlderFileAsItWas) {
  const TemporaryFolder folder;
  save_npz(folder / "layer.npz", Parameters<float>(3));
  const std::string before = read_bytes(folder / "layer.npz");
  std::string archive_error, folder_error;
  {
    const support::FileSizeLimit limit(3000);  // enough for the small ones of the five files
    archive_error = message_of<npy::FileError>([&] { save_npz(folder / "layer.npz", Parameters<float>(1000)); });
    folder_error = message_of<npy::FileError>([&] { save_npy_folder(folder.path(), Parameters<float>(1000)); });
  }
  EXPECT_EQ(archive_error, "'" + (folder / "layer.npz").string() + "': it cannot be written: File too large");
  EXPECT_EQ(folder_error, "'" + (folder / "scale.npy").string() + "': it cannot be written: File too large");
  EXPECT_EQ(support::names_in(folder.path()), std::vector<std::string>{"layer.npz"});
  EXPECT_EQ(read_bytes(folder / "layer.npz"), before);

  std::filesystem::create_directory(folder / "variance.npy");  // the last but one that is written
  EXPECT_EQ(message_of<npy::FileError>([&] { save_npy_folder(folder.path(), Parameters<float>(3)); }),
            "'" + (folder / "variance.npy").string() + "': it cannot be written: it is a directory");
  EXPECT_EQ(support::names_in(folder.path()), (std::vector<std::string>{"layer.npz", "variance.npy"}));
  const std::string missing = folder / "missing";
  EXPECT_EQ(message_of<npy::FileError>([&] { save_npy_folder(missing, Parameters<float>(3)); }),
            "'" + missing + "/scale.npy': it cannot be written: No such file or directory");
}

}  // namespace
