// SPDX-License-Identifier: MIT
#include "fingerprint.hpp"

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <string_view>
#include <utility>

#include "tunings.hpp"

namespace support::fingerprint {

namespace {

/// The bits of infinity, as the lowest lane of a word.
template <class T>
constexpr std::uint64_t infinity = std::is_same_v<T, double>            ? 0x7ff0000000000000U
                                   : std::is_same_v<T, float>           ? 0x7f800000U
                                   : std::is_same_v<T, batchnorm::half> ? 0x7c00U
                                                                        : 0x7f80U;

/// A word of values side by side with every NaN replaced by one and the same.
template <class T>
std::uint64_t with_one_nan(std::uint64_t word) {
  constexpr int width = 8 * sizeof(T);
  constexpr std::uint64_t lane = ~std::uint64_t{0} >> (64 - width), sign = lane / 2 + 1, every = ~std::uint64_t{0} / lane;
  // What is above infinity carries into the place of the sign.
  const std::uint64_t nans = ((word & ~(sign * every)) + (sign - 1 - infinity<T>)*every) & (sign * every);
  if (nans == 0) return word;
  for (int shift = 0; shift < 64; shift += width) {
    if ((nans >> shift & sign) != 0) word = (word & ~(lane << shift)) | (infinity<T> + 1) << shift;
  }
  return word;
}

std::uint64_t seed_of(std::string_view name) {
  std::uint64_t seed = 0xcbf29ce484222325U;
  for (const char letter : name) seed = (seed ^ static_cast<unsigned char>(letter)) * 0x100000001b3U;
  return seed;
}

std::string hexadecimal(std::uint64_t value) {
  std::string text(16, '0');
  std::array<char, 16> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value, 16).ptr;
  std::copy(digits.data(), end, text.end() - (end - digits.data()));
  return text;
}

/// a * b + c, in two operations as the library's code has them.
struct ProductAndSum {
  double a, b, c;
  double* result;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using D = batchnorm::cpu::vec<double, Bytes>;
    (D::broadcast(a) * D::broadcast(b) + D::broadcast(c)).store(result);
  }
};

/// Whether the compiler has left products and sums apart where the instruction set has both in one: (1 + u) * (1 - u) - 1 is 0
/// where the product rounds.
bool is_uncontracted(Isa isa) {
  volatile double u = 0x1p-30;
  std::array<double, 8> result{};
  batchnorm::cpu::run(isa, ProductAndSum{1 + u, 1 - u, -1, result.data()});
  return isa != Isa::baseline && result[0] == 0;
}

/// Group and instruction set, and their hash.
using Hashes = std::map<std::pair<std::string, std::string>, std::string>;
using Key = Hashes::key_type;
constexpr const char* uncontracted = ",uncontracted";

/// The hash that this build must find; empty where none is recorded.
std::string expected_hash(const Hashes& recorded, const std::string& group, Isa isa) {
  const std::string name(batchnorm::to_string(isa));
  const auto own = recorded.find(Key(group, name + uncontracted)), usual = recorded.find(Key(group, name));
  if (is_uncontracted(isa) && own != recorded.end()) return own->second;
  return usual != recorded.end() ? usual->second : "";
}

/// An uncontracted hash gets a line only where it differs.
void record(Hashes& recorded, const std::string& group, Isa isa, const std::string& hash) {
  const std::string name(batchnorm::to_string(isa));
  if (!is_uncontracted(isa)) {
    recorded[Key(group, name)] = hash;
  } else if (recorded[Key(group, name)] == hash) {
    recorded.erase(Key(group, name + uncontracted));
  } else {
    recorded[Key(group, name + uncontracted)] = hash;
  }
}

std::filesystem::path path_of_file() { return std::filesystem::path(BATCHNORM_TEST_DATA) / "fingerprint" / "hashes.txt"; }

Hashes read_file(const std::filesystem::path& path) {
  Hashes hashes;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    std::string group, isa, hash;
    words >> group >> isa >> hash;
    hashes[{group, isa}] = hash;
  }
  return hashes;
}

void write_file(const std::filesystem::path& path, const Hashes& hashes) {
  std::ofstream file(path);
  file << "# SPDX-License-Identifier: MIT\n"
          "# Hashes of results, written and explained by tests/support/fingerprint.hpp: group, instruction set, hash.\n";
  for (const auto& [key, hash] : hashes) file << key.first << ' ' << key.second << ' ' << hash << '\n';
  ASSERT_TRUE(file.flush()) << path << " cannot be written";
}

std::string_view mode() {
  const char* text = std::getenv("BATCHNORM_FINGERPRINT");
  const std::string_view mode = text == nullptr ? "" : text;
  EXPECT_TRUE(mode.empty() || mode == "print" || mode == "record")
      << "BATCHNORM_FINGERPRINT is '" << mode << "', known are print and record";
  return mode;
}

}  // namespace

template <class T>
void Hash::add(std::span<const T> values) {
  add(static_cast<std::int64_t>(values.size()));
  constexpr std::size_t in_word = sizeof(std::uint64_t) / sizeof(T);
  for (std::size_t i = 0; i < values.size(); i += in_word) {
    std::uint64_t word = 0;
    std::memcpy(&word, values.data() + i, std::min(in_word, values.size() - i) * sizeof(T));
    if constexpr (std::is_same_v<T, std::uint8_t>) {
      add_word(word);
    } else {
      add_word(with_one_nan<T>(word));
    }
  }
}

template void Hash::add(std::span<const float>);
template void Hash::add(std::span<const double>);
template void Hash::add(std::span<const batchnorm::half>);
template void Hash::add(std::span<const batchnorm::bfloat16>);
template void Hash::add(std::span<const std::uint8_t>);

Group::Group(std::string name)
    : name_(std::move(name)), random_(seed_of(name_)), isas_(batchnorm::available_isas()), hashes_(isas_.size()) {}

void Group::call(const std::string& text, const MakeCall& make) {
  ++calls_;
  report_absent_isas();
  const IsaScope restore;
  for (std::size_t i = 0; i < isas_.size(); ++i) {
    batchnorm::force_isa(isas_[i]);
    SCOPED_TRACE(name_ + " " + std::string(batchnorm::to_string(isas_[i])));
    Hash hash;
    make({}, hash);
    if (mode() == "print") {
      std::cout << name_ << ' ' << batchnorm::to_string(isas_[i]) << ' ' << hexadecimal(hash.value()) << ' ' << text << '\n';
    }
    expect_same_with_others(text, make, hash.value());
    hashes_[i].add(static_cast<std::int64_t>(hash.value()));
  }
}

void Group::expect_same_with_others(const std::string& text, const MakeCall& make, std::uint64_t expected) {
  static const std::vector<NamedTuning> all = tunings();
  const auto expect_same = [&](batchnorm::Executor& executor, const char* name, const Tuning& tuning) {
    Hash hash;
    make({.executor = &executor, .tuning = &tuning}, hash);
    if (hash.value() == expected) return;
    is_determinate_ = false;
    ADD_FAILURE() << "the results depend on threads or tuning: others with " << executor.concurrency()
                  << " threads and tuning '" << name << "'\n"
                  << text;
  };
  const auto tuning_at = [&](std::size_t shift) -> const NamedTuning& { return all[(calls_ + shift) % all.size()]; };
  const auto split = [](Tuning tuning) {
    tuning.serial_bytes = 256;
    return tuning;
  };
  expect_same(one_, tuning_at(0).name, tuning_at(0).tuning);
  expect_same(two_, "split always", split_always());
  expect_same(three_, tuning_at(3).name, split(tuning_at(3).tuning));
  expect_same(five_, tuning_at(5).name, split(tuning_at(5).tuning));
}

void Group::finish() const {
  if (!is_determinate_ || mode() == "print") return;
  const std::filesystem::path path = path_of_file();
  Hashes recorded = read_file(path);
  for (std::size_t i = 0; i < isas_.size(); ++i) {
    const std::string found = hexadecimal(hashes_[i].value());
    if (mode() == "record") record(recorded, name_, isas_[i], found);
    const std::string expected = expected_hash(recorded, name_, isas_[i]);
    if (expected == found) continue;
    ADD_FAILURE() << "group " << name_ << " on " << batchnorm::to_string(isas_[i]) << ": "
                  << (expected.empty() ? "no hash is recorded" : "expected hash " + expected) << ", found " << found << "\n"
                  << "To see which of its calls differ, run this test with BATCHNORM_FINGERPRINT=print before and after the "
                     "change and compare the outputs (tests/support/fingerprint.hpp).";
  }
  if (mode() == "record") write_file(path, recorded);
}

bool is_recorded_build() {
#if defined(__x86_64__) && !defined(__FAST_MATH__)
  return batchnorm::compiled_isa() == Isa::baseline;
#else
  return false;
#endif
}

}  // namespace support::fingerprint
