// SPDX-License-Identifier: MIT

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include <batchnorm/checkpoint.hpp>

#include "support/allocations.hpp"
#include "support/npy_files.hpp"
#include "support/temporary_folder.hpp"
#include "support/zip_files.hpp"

// Files from a corpus, changed at random: each is read or refused by the library's own error, within bounded memory, and what
// is read is read the same twice. BATCHNORM_FUZZ_MINUTES sets how long each test goes on; without it they take about a second.
namespace {

namespace npy = batchnorm::npy;
namespace npz = batchnorm::npz;

using support::TemporaryFolder;
using support::ZipEntry;

/// What zlib's window, the buffers and the messages take, whatever the file is.
constexpr std::size_t constant_memory = 1 << 18;
/// The most that deflate saves.
constexpr std::size_t deflate_ratio = 1032;

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  /// In [0, count).
  std::size_t below(std::size_t count) { return static_cast<std::size_t>(engine_() % count); }

 private:
  std::mt19937_64 engine_;
};

const std::vector<std::string>& words() {
  static const std::vector<std::string> all{"(",
                                            ")",
                                            ",",
                                            "'",
                                            "\"",
                                            "{",
                                            "}",
                                            ":",
                                            "L",
                                            "u'",
                                            "-1",
                                            "0",
                                            "(3L,)",
                                            "True",
                                            "False",
                                            "'descr'",
                                            "'shape'",
                                            "'fortran_order'",
                                            "<f2",
                                            "<f4",
                                            "<f8",
                                            "<i8",
                                            ">f4",
                                            "9223372036854775807",
                                            "4294967296",
                                            "\x93NUMPY",
                                            "PK\x01\x02",
                                            "PK\x03\x04",
                                            "PK\x05\x06",
                                            "PK\x06\x06",
                                            "PK\x06\x07",
                                            ".npy",
                                            "scale.npy",
                                            std::string(8, '\0'),
                                            std::string(8, '\xff'),
                                            std::string("\x08\0", 2),
                                            std::string("\1\0\x18\0", 4),
                                            std::string(2, '\xff'),
                                            std::string("\0\1", 2),
                                            "((((((((",
                                            "1,1,1,1,1,1,1,1,1,"};
  return all;
}

/// One to six changes. `other` is another file of the corpus, from which pieces come.
std::string mutated(std::string bytes, const std::string& other, Random& random) {
  for (std::size_t changes = 1 + random.below(6); changes > 0; --changes) {
    const std::size_t at = random.below(bytes.size() + 1), size = random.below(1 + random.below(64));
    const std::size_t in_bytes = (std::min)(size, bytes.size() - at);
    switch (random.below(8)) {
      case 0:
        if (at < bytes.size()) bytes[at] = static_cast<char>(bytes[at] ^ 1 << random.below(8));
        break;
      case 1:
        if (at < bytes.size()) bytes[at] = static_cast<char>(random.below(256));
        break;
      case 2: bytes.erase(at, in_bytes); break;
      case 3: bytes.insert(at, bytes.substr(at, in_bytes)); break;
      case 4: bytes.insert(at, words()[random.below(words().size())]); break;
      case 5: {
        const std::string& word = words()[random.below(words().size())];
        bytes.replace(at, (std::min)(word.size(), bytes.size() - at), word);
        break;
      }
      case 6: {
        const std::size_t from = random.below(other.size() + 1);
        bytes.replace(at, in_bytes, other.substr(from, size));
        break;
      }
      case 7: bytes.resize(random.below(8) == 0 ? at : bytes.size()); break;
    }
  }
  return bytes;
}

/// How many files a test tries, or how long.
class Budget {
 public:
  explicit Budget(long files) : files_(files) {
    const char* minutes = std::getenv("BATCHNORM_FUZZ_MINUTES");
    if (minutes == nullptr || std::atof(minutes) <= 0) return;
    end_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(60 * std::atof(minutes)));
  }

  bool goes_on() {
    ++tried_;
    return end_ ? Clock::now() < *end_ : tried_ <= files_;
  }
  long tried() const { return tried_; }

 private:
  using Clock = std::chrono::steady_clock;
  long files_;
  long tried_ = 0;
  std::optional<Clock::time_point> end_;
};

/// What reading a file gives: bytes that stand for all that was read, or nothing where it is refused.
using Outcome = std::optional<std::string>;

/// Reads changed files by read(path, error), which returns what it read; errors are thrown where `error` is null. Both ways of
/// reporting an error must agree.
template <class Read>
void fuzz(const std::vector<std::string>& corpus, std::size_t bytes_per_byte, long files, Read read) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder / "fuzzed";
  Random random(20240229);
  Budget budget(files);
  long accepted = 0;
  std::string bytes;
  const auto outcome_of = [&](bool must_be_right) -> Outcome {
    std::optional<batchnorm::Error> error{{batchnorm::ErrorKind::shape, "that of an earlier call"}};
    const std::string as_value = read(path, &error);
    try {
      Outcome outcome = read(path, nullptr);
      EXPECT_EQ(error, std::nullopt) << error->message;
      EXPECT_EQ(outcome, as_value);
      return outcome;
    } catch (const npy::FileError& thrown) {
      EXPECT_FALSE(must_be_right) << thrown.what();
      EXPECT_EQ(error, (batchnorm::Error{batchnorm::ErrorKind::file, thrown.what()}));
      return {};
    }
  };
  for (const std::string& right : corpus) {
    support::write_bytes(path, right);
    EXPECT_TRUE(outcome_of(true));
  }
  while (budget.goes_on() && !testing::Test::HasFailure()) {
    bytes = mutated(corpus[random.below(corpus.size())], corpus[random.below(corpus.size())], random);
    std::filesystem::remove(path);  // a new file each time: some file systems write one that is overwritten to the disk at once
    support::write_bytes(path, bytes);
    const std::size_t before = support::allocated();
    try {
      std::size_t peak = 0;
      {
        const support::AllocationPeak memory;
        const Outcome first = outcome_of(false);
        peak = memory.bytes();
        accepted += first ? 1 : 0;
        EXPECT_TRUE(!first || first == outcome_of(true)) << "the second reading gives something else";
      }
      EXPECT_LE(peak, constant_memory + bytes_per_byte * bytes.size());
      EXPECT_EQ(support::allocated(), before) << "memory leaked";
    } catch (const std::exception& error) {
      ADD_FAILURE() << "not an error of the library's: " << error.what();
    }
  }
  if (testing::Test::HasFailure()) {
    support::write_bytes(std::filesystem::temp_directory_path() / "batchnorm_fuzzed_file", bytes);
    ADD_FAILURE() << "file number " << budget.tried() << ", kept as batchnorm_fuzzed_file in the temporary folder";
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, budget.tried());
}

/// The files of tests/data that end so.
std::vector<std::string> stored_files(const std::string& folder, const std::string& ending) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(BATCHNORM_TEST_DATA) / folder)) {
    if (entry.path().extension() == ending) paths.push_back(entry.path());
  }
  std::ranges::sort(paths);
  std::vector<std::string> files;
  for (const auto& path : paths) files.push_back(support::read_bytes(path));
  return files;
}

using Error = std::optional<batchnorm::Error>;

bool has_failed(const Error* error) { return error != nullptr && error->has_value(); }

template <class Array>
std::string read_all(Array& array, Error* error) {
  std::string data(static_cast<std::size_t>(array.byte_count()), '\0');
  array.read(std::as_writable_bytes(std::span(data)), error);
  return npy::format_header(array.header()) + data;
}

TEST(FileFuzzTest, ChangedNpyFilesAreReadOrRefused) {
  std::vector<std::string> corpus = stored_files("npy", ".npy");
  const std::string data(24, 'd');
  for (const char* shape : {"(6,)", "(6L,)", "(2, 3)", "( 6 , )", "(1, 6, 1)"}) {
    const std::string order = std::string_view(shape) == "(2, 3)" ? "False" : "True";
    corpus.push_back(support::npy_bytes("{'descr': '<f4', 'fortran_order': " + order + ", 'shape': " + shape + ", }", data));
  }
  fuzz(corpus, 64, 2000, [](const std::filesystem::path& path, Error* error) {
    npy::Reader reader(path, error);
    return has_failed(error) ? "" : read_all(reader, error);
  });
}

/// Archives with one layer, in every way of writing them.
std::vector<std::string> archives() {
  std::vector<std::string> corpus;
  const std::vector<std::string> files = stored_files("npz", ".npz");
  std::ranges::copy_if(files, std::back_inserter(corpus), [](const std::string& file) { return file.size() < 10000; });
  const std::string zeros = npy::format_header({npy::Type::float32, {5000}}) + std::string(20000, '\0');
  ZipEntry wide = ZipEntry::compressed("b.npy", zeros);
  wide.extra = support::zip64_extra({wide.size, wide.compressed_size});
  wide.size = wide.compressed_size = 0xFFFFFFFF;
  corpus.push_back(support::zip_bytes({ZipEntry::compressed("a.npy", zeros), wide, ZipEntry("notes.txt", "text")}));
  corpus.push_back(
      support::zip_bytes({ZipEntry("a.npy", zeros.substr(0, 128) + std::string(20000, 'x'))}, {.comment = "a comment"}));
  return corpus;
}

TEST(FileFuzzTest, ChangedNpzFilesAreReadOrRefused) {
  fuzz(archives(), deflate_ratio + 20, 1200, [](const std::filesystem::path& path, Error* error) {
    const npz::Reader archive(path, error);
    std::string all;
    for (const std::string& name : archive.names()) {
      npz::Array array = archive.open(name, error);
      if (has_failed(error)) break;
      all += std::to_string(name.size()) + name + std::to_string(std::hash<std::string>()(read_all(array, error)));
      if (has_failed(error)) break;
    }
    return all;
  });
}

template <class P>
std::string text_of(const batchnorm::Parameters<P>& layer) {
  std::string text = std::to_string(layer.batches);
  for (const auto* tensor : {&layer.scale, &layer.bias, &layer.mean, &layer.variance}) {
    for (const P& value : *tensor) text.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  return text;
}

std::vector<std::string> layers() {
  std::vector<std::string> corpus;
  const TemporaryFolder folder;
  for (const auto compression : {npz::Compression::stored, npz::Compression::deflated}) {
    for (const std::int64_t channels : {0, 3, 300}) {
      save_npz(folder / "x.npz", batchnorm::Parameters<float>(channels), compression);
      corpus.push_back(support::read_bytes(folder / "x.npz"));
    }
  }
  return corpus;
}

TEST(FileFuzzTest, ChangedCheckpointsAreReadOrRefused) {
  fuzz(layers(), deflate_ratio + 20, 1000, [](const std::filesystem::path& path, Error* error) {
    return text_of(batchnorm::load_npz<float>(path, {.error = error}));
  });
}

TEST(FileFuzzTest, ChangedCheckpointsAreConvertedOrRefused) {
  fuzz(layers(), 5 * deflate_ratio + 20, 600, [](const std::filesystem::path& path, Error* error) {
    const std::string wide = text_of(batchnorm::load_npz<double>(path, {.convert = true, .error = error}));
    if (has_failed(error)) return wide;
    return wide + text_of(batchnorm::load_npz<batchnorm::half>(path, {.convert = true, .error = error}));
  });
}

}  // namespace
