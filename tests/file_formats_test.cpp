// SPDX-License-Identifier: MIT

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <batchnorm/checkpoint.hpp>

#include "support/allocations.hpp"
#include "support/file_errors.hpp"
#include "support/messages.hpp"
#include "support/npy_files.hpp"
#include "support/temporary_folder.hpp"
#include "support/zip_files.hpp"

// Files that other programs write, and small files that would cost much.
namespace {

namespace npy = batchnorm::npy;
namespace npz = batchnorm::npz;

using batchnorm::bfloat16;
using batchnorm::half;
using batchnorm::LoadOptions;
using batchnorm::ParameterNames;
using batchnorm::Parameters;
using support::ErrorPointer;
using support::file_error_of;
using support::message_of;
using support::TemporaryFolder;
using support::write_bytes;
using support::zip_bytes;
using support::ZipEntry;

npy::Header header_of(const std::string& order, const std::string& shape) {
  return npy::parse_header("{'descr': '<f4', 'fortran_order': " + order + ", 'shape': " + shape + ", }");
}

TEST(FileFormatsTest, AVectorInFortranOrderIsRead) {
  for (const auto& [shape, extents] : std::vector<std::pair<std::string, std::vector<std::int64_t>>>{
           {"(64,)", {64}}, {"()", {}}, {"(1, 64, 1)", {1, 64, 1}}, {"(1, 1)", {1, 1}}, {"(3, 0, 4)", {3, 0, 4}}}) {
    EXPECT_EQ(header_of("True", shape), (npy::Header{npy::Type::float32, extents})) << shape;
  }
  for (const char* shape : {"(2, 3)", "(2, 1, 2)"}) {
    EXPECT_EQ(message_of<npy::HeaderError>([&] { header_of("True", shape); }),
              "its data is in Fortran order; only C order can be read")
        << shape;
  }
}

/// What reading says of an array that could not be opened, when that was not looked at.
template <class Array>
void expect_not_open(Array& array) {
  EXPECT_FALSE(array.is_open());
  std::array<std::byte, 4> data{};
  const auto ends = [](const std::string& message) { return message.ends_with("it is not open"); };
  EXPECT_PRED1(ends, file_error_of([&](ErrorPointer error) { array.read(data, error); }));
  EXPECT_PRED1(ends, file_error_of([&](ErrorPointer error) { npy::read_tensor<float>(array, error); }));
  EXPECT_PRED1(ends, file_error_of([&](ErrorPointer error) { npy::read_converted<double>(array, error); }));
}

TEST(FileFormatsTest, AnArrayThatCouldNotBeOpenedIsNotRead) {
  const TemporaryFolder folder;
  std::optional<batchnorm::Error> error;
  const std::string fortran =
      support::npy_bytes("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", std::string(24, 'd'));
  write_bytes(folder / "x.npy", fortran);
  npy::Reader file(folder / "x.npy", &error);
  EXPECT_TRUE(error.has_value());
  expect_not_open(file);
  npy::Reader missing(folder / "missing.npy", &error);
  expect_not_open(missing);

  ZipEntry encrypted("encrypted.npy", fortran);
  encrypted.flags = 1;
  write_bytes(folder / "x.npz", zip_bytes({ZipEntry("fortran.npy", fortran), encrypted}));
  const npz::Reader archive(folder / "x.npz");
  for (const char* name : {"fortran", "encrypted", "missing"}) {
    SCOPED_TRACE(name);
    npz::Array array = archive.open(name, &error);
    EXPECT_TRUE(error.has_value());
    expect_not_open(array);
  }
}

TEST(FileFormatsTest, TheLiteralsOfPython2AreRead) {
  EXPECT_EQ(header_of("False", "(3L,)"), (npy::Header{npy::Type::float32, {3}}));
  EXPECT_EQ(header_of("False", "(3L, 4L)"), (npy::Header{npy::Type::float32, {3, 4}}));
  EXPECT_EQ(npy::parse_header("{u'descr': u'<f8', u\"fortran_order\": False, u'shape': (0L,)}"),
            (npy::Header{npy::Type::float64, {0}}));
  for (const char* shape : {"(3LL,)", "(L,)", "(3 L,)", "(3l,)"}) {
    const std::string message = message_of<npy::HeaderError>([&] { header_of("False", shape); });
    EXPECT_NE(message, "<no exception>") << shape;
    std::optional<batchnorm::Error> error;
    const std::string text = "{'descr': '<f4', 'fortran_order': False, 'shape': " + std::string(shape) + ", }";
    EXPECT_EQ(npy::parse_header(text, &error), npy::Header{});
    EXPECT_EQ(error, (batchnorm::Error{batchnorm::ErrorKind::file, message}));
  }
}

std::string array_bytes(npy::Type type, const std::vector<std::int64_t>& shape, const std::string& data) {
  return npy::format_header({type, shape}) + data;
}

/// An archive of any bytes.
class FileFormatsArchiveTest : public testing::Test {
 protected:
  std::filesystem::path write(const std::string& bytes) const {
    write_bytes(folder_ / "x.npz", bytes);
    return folder_ / "x.npz";
  }

  /// Why it is refused when it is opened, or when all arrays are read.
  std::string refusal(const std::string& bytes) const {
    const auto path = write(bytes);
    const std::string message = message_of<npy::FileError>([&] {
      const npz::Reader archive(path);
      for (const std::string& name : archive.names()) {
        npz::Array array = archive.open(name);
        std::vector<std::byte> data(static_cast<std::size_t>(array.byte_count()));
        array.read(data);
      }
    });
    const std::string begin = "'" + path.string() + "': ";
    return message.starts_with(begin) ? message.substr(begin.size()) : message;
  }

  TemporaryFolder folder_;
};

const std::string four_floats = array_bytes(npy::Type::float32, {4}, "0123456789abcdef");

TEST_F(FileFormatsArchiveTest, BytesBehindAnArchiveAreCalledSo) {
  const std::string whole = zip_bytes({ZipEntry("a.npy", four_floats)});
  EXPECT_EQ(refusal(whole + "x"), "it has 1 bytes after the end of the ZIP archive");
  EXPECT_EQ(refusal(whole + std::string(200000, '\n')), "it has 200000 bytes after the end of the ZIP archive");
  for (const std::size_t before :
       {65400U, 65500U, 65514U, 65515U, 65516U}) {  // the end lies across two pieces that are searched
    const std::string long_one = zip_bytes({ZipEntry("a", std::string(before - 120, '.'))});
    EXPECT_EQ(refusal(long_one + "xy"), "it has 2 bytes after the end of the ZIP archive") << before;
  }
  EXPECT_EQ(refusal(zip_bytes({ZipEntry("a.npy", four_floats)}, {.comment = "a comment"}) + "xyz"),
            "it has 3 bytes after the end of the ZIP archive");
  const std::string why = "it is not a .npz file or was cut short: no end of a ZIP archive is there";
  EXPECT_EQ(refusal(whole.substr(0, whole.size() - 1)), why);
  EXPECT_EQ(refusal(zip_bytes({}, {.comment = "a comment"}).substr(0, 25)), why);
}

/// Entries whose data is one and the same: each has the next ones in its extra field.
std::string overlapping_entries(int count, const std::string& content) {
  const std::string name = "0000.npy";
  const ZipEntry one = ZipEntry::compressed(name, content);
  std::vector<ZipEntry> entries;
  for (int i = 0; i < count; ++i) {
    ZipEntry entry = one;
    const std::string number = std::to_string(i);
    entry.name.replace(4 - number.size(), number.size(), number);
    entry.local_name = entry.name;
    if (i + 1 < count) entry.data = "";
    entries.push_back(entry);
  }
  std::string bytes = zip_bytes(entries);
  for (int i = 0; i < count; ++i) {  // the local header's length of the extra field
    const std::size_t header = 38, extra = header * static_cast<std::size_t>(count - 1 - i);
    bytes.replace(header * static_cast<std::size_t>(i) + 28, 2, support::little_endian(extra, 2));
  }
  return bytes;
}

TEST_F(FileFormatsArchiveTest, EntriesThatShareTheirDataAreRefused) {
  const std::string zeros = array_bytes(npy::Type::float32, {250000}, std::string(1000000, '\0'));
  EXPECT_EQ(refusal(overlapping_entries(1, zeros)), "<no exception>");
  EXPECT_EQ(refusal(overlapping_entries(1000, zeros)), "array '0000': its data overlaps what follows it in the archive");
}

TEST_F(FileFormatsArchiveTest, NoArrayReachesIntoTheDirectoryOrIntoItself) {
  ZipEntry entry("a.npy", four_floats);
  entry.data.resize(entry.data.size() - 1);  // the directory's first byte is its last
  EXPECT_EQ(refusal(zip_bytes({entry})), "array 'a': its data overlaps what follows it in the archive");
  const ZipEntry first("a.npy", four_floats);
  ZipEntry again = first, other("b.npy", four_floats);
  again.name = again.local_name = "b.npy";
  again.position = 0;
  EXPECT_EQ(refusal(zip_bytes({first, again})), "array 'a': its data overlaps what follows it in the archive");
}

TEST_F(FileFormatsArchiveTest, ALocalHeaderThatContradictsTheDirectoryIsRefused) {
  const std::string whole = zip_bytes({ZipEntry("a.npy", four_floats)});
  const auto changed = [&](std::size_t at, const std::string& bytes) {
    return std::string(whole).replace(at, bytes.size(), bytes);
  };
  const std::string why = "array 'a': its local header and the directory disagree";
  EXPECT_EQ(refusal(changed(8, "\x08")), why);                // the method
  EXPECT_EQ(refusal(changed(6, "\x01")), why);                // encrypted
  EXPECT_EQ(refusal(changed(14, "....")), why);               // the checksum
  EXPECT_EQ(refusal(changed(18, "....")), why);               // the compressed size
  EXPECT_EQ(refusal(changed(22, "....")), why);               // the size
  EXPECT_EQ(refusal(changed(4, "\x2d")), "<no exception>");   // the version
  EXPECT_EQ(refusal(changed(10, "....")), "<no exception>");  // time and date
  // Who cannot seek leaves zeros and says so.
  std::string unseekable = changed(14, std::string(12, '\0'));
  EXPECT_EQ(refusal(unseekable), why);
  unseekable[6] = '\x08';
  EXPECT_EQ(refusal(unseekable), "<no exception>");
}

TEST_F(FileFormatsArchiveTest, ManyEntriesTakeMemoryInProportionToTheFile) {
  std::vector<ZipEntry> entries;
  for (int i = 0; i < 3000; ++i) entries.emplace_back(std::to_string(i) + ".npy", "");
  const auto path = write(zip_bytes(entries));
  const support::AllocationPeak peak;
  const npz::Reader archive(path);
  EXPECT_EQ(archive.names().size(), 3000U);
  EXPECT_LE(peak.bytes(), 10 * file_size(path));
}

TEST_F(FileFormatsArchiveTest, AHeaderOfManyExtentsTakesMemoryInProportionToIt) {
  std::string shape = "(";
  for (int i = 0; i < 30000; ++i) shape += "1,";
  const std::string bytes = support::npy_bytes("{'descr': '<f4', 'fortran_order': False, 'shape': " + shape + ")}", "data", 2);
  write_bytes(folder_ / "x.npy", bytes);
  const support::AllocationPeak peak;
  EXPECT_THROW(npy::Reader(folder_ / "x.npy"), npy::FileError);
  EXPECT_LE(peak.bytes(), 20 * bytes.size());
}

// Names and types of other frameworks.

/// A folder and an archive with the same arrays.
class LoadOptionsTest : public testing::Test {
 protected:
  void add(const std::string& name, npy::Type type, const std::vector<std::int64_t>& shape, const std::vector<double>& values) {
    std::filesystem::create_directories(folder_ / "npy");
    const auto path = folder_ / "npy" / (name + ".npy");
    support::save_npy(path, type, shape, values);
    entries_.emplace_back(name + ".npy", support::read_bytes(path));
    write_bytes(folder_ / "x.npz", zip_bytes(entries_));
  }

  void add_layer(const ParameterNames& names, npy::Type type = npy::Type::float32) {
    add(names.scale, type, {3}, {1, 2, 3});
    add(names.bias, type, {3}, {4, 5, 6});
    add(names.mean, type, {3}, {7, 8, 9});
    add(names.variance, type, {3}, {10, 11, 12});
    if (!names.batches.empty()) add(names.batches, npy::Type::int64, {}, {13});
  }

  template <class P = float>
  void expect_layer(const LoadOptions& options, std::int64_t batches) {
    for (const bool as_folder : {false, true}) {
      const auto layer = as_folder ? batchnorm::load_npy_folder<P>(folder_ / "npy", options)
                                   : batchnorm::load_npz<P>(folder_ / "x.npz", options);
      ASSERT_EQ(layer.channels(), 3);
      for (int c = 0; c < 3; ++c) {
        EXPECT_EQ(static_cast<float>(layer.scale[c]), static_cast<float>(1 + c));
        EXPECT_EQ(static_cast<float>(layer.bias[c]), static_cast<float>(4 + c));
        EXPECT_EQ(static_cast<float>(layer.mean[c]), static_cast<float>(7 + c));
        EXPECT_EQ(static_cast<float>(layer.variance[c]), static_cast<float>(10 + c));
      }
      EXPECT_EQ(layer.batches, batches);
    }
  }

  template <class P = float>
  std::string refusal(const LoadOptions& options) {
    const std::string path = folder_ / "x.npz";
    const std::string message = file_error_of([&](ErrorPointer error) {
      LoadOptions reporting = options;
      reporting.error = error;
      batchnorm::load_npz<P>(path, reporting);
    });
    return message.starts_with("'" + path + "': ") ? message.substr(path.size() + 4) : message;
  }

  TemporaryFolder folder_;
  std::vector<ZipEntry> entries_;
};

TEST_F(LoadOptionsTest, LayersOfEveryFrameworkAreReadByItsNames) {
  for (const ParameterNames& names : {batchnorm::pytorch_names(), batchnorm::keras_names(), batchnorm::flax_names(),
                                      batchnorm::onnx_names(), batchnorm::paddle_names(), ParameterNames{}}) {
    std::filesystem::remove_all(folder_ / "npy");
    entries_.clear();
    add_layer(names);
    expect_layer({.names = names, .channels = 3}, names.batches.empty() ? 0 : 13);
  }
}

TEST_F(LoadOptionsTest, APrefixStandsBeforeEveryName) {
  add_layer(batchnorm::pytorch_names().with_prefix("layer1.0.bn1."));
  expect_layer({.names = batchnorm::pytorch_names().with_prefix("layer1.0.bn1.")}, 13);
  const npz::Reader archive(folder_ / "x.npz");
  const auto layer = batchnorm::read_parameters<float>(archive, "layer1.0.bn1", {.names = batchnorm::pytorch_names()});
  EXPECT_EQ(layer.variance[2], 12);
  EXPECT_EQ(batchnorm::keras_names().with_prefix("bn/").batches, "");
}

TEST_F(LoadOptionsTest, WhatAFileLacksIsAsInANewLayer) {
  add("mean", npy::Type::float32, {2}, {7, 8});
  add("variance", npy::Type::float32, {2}, {9, 10});
  const auto layer = batchnorm::load_npz<float>(folder_ / "x.npz", {.names = {.scale = "", .bias = "", .batches = ""}});
  EXPECT_EQ(layer.channels(), 2);
  EXPECT_EQ(layer.scale[1], 1);
  EXPECT_EQ(layer.bias[1], 0);
  EXPECT_EQ(layer.mean[1], 8);
  EXPECT_EQ(layer.batches, 0);
  const LoadOptions none{.names = {"", "", "", "", ""}};
  EXPECT_EQ(message_of<batchnorm::ValueError>([&] { batchnorm::load_npz<float>(folder_ / "x.npz", none); }),
            "batchnorm::LoadOptions: channels is absent, and so is every array that has C elements");
  std::optional<batchnorm::Error> error;
  batchnorm::load_npz<float>(folder_ / "x.npz", {.names = none.names, .error = &error});
  ASSERT_TRUE(error.has_value());
  EXPECT_EQ(error->kind, batchnorm::ErrorKind::value);
  EXPECT_EQ(batchnorm::load_npz<float>(folder_ / "x.npz", {.names = none.names, .channels = 5}).variance[4], 1);
  const auto layer_of_none =
      batchnorm::load_npz<float>(folder_ / "x.npz", {.names = none.names, .channels = -1, .error = &error});
  EXPECT_EQ(error,
            (batchnorm::Error{batchnorm::ErrorKind::value, "batchnorm::LoadOptions: channels is -1, it must not be negative"}));
  EXPECT_EQ(layer_of_none.channels(), 0);
}

TEST_F(LoadOptionsTest, AMissingNameMentionsTheFrameworkWhoseNamesAreThere) {
  add_layer(batchnorm::pytorch_names());
  EXPECT_EQ(refusal({}), "it has no array 'scale', but the names of PyTorch: LoadOptions::names = pytorch_names()");
  EXPECT_EQ(message_of<npy::FileError>([&] { batchnorm::load_npy_folder<float>(folder_ / "npy"); }),
            "'" + (folder_ / "npy" / "scale.npy").string() +
                "': there is no such file, but the names of PyTorch: LoadOptions::names = pytorch_names()");
  EXPECT_EQ(refusal({.names = {.scale = "x"}}),
            "it has no array 'x', but the names of PyTorch: LoadOptions::names = pytorch_names()");
  add("gamma", npy::Type::float32, {3}, {1, 2, 3});
  EXPECT_EQ(refusal({.names = batchnorm::keras_names()}),
            "it has no array 'beta', but the names of PyTorch: LoadOptions::names = pytorch_names()");
}

TEST_F(LoadOptionsTest, AMissingNameMentionsNoFrameworkThatLacksItToo) {
  add("running_mean", npy::Type::float32, {3}, {1, 2, 3});
  add("running_var", npy::Type::float32, {3}, {1, 2, 3});
  EXPECT_EQ(refusal({.names = batchnorm::pytorch_names()}), "it has no array 'weight'");
  EXPECT_EQ(refusal({.names = {.scale = "", .bias = "", .mean = "running_mean", .variance = "running_var"}}),
            "it has no array 'batches'");
}

TEST_F(LoadOptionsTest, TypesAreConvertedOnlyWhenToldTo) {
  for (const npy::Type type : {npy::Type::float64, npy::Type::float16, npy::Type::int64}) {
    std::filesystem::remove_all(folder_ / "npy");
    entries_.clear();
    add_layer({}, type);
    EXPECT_EQ(refusal({}), "array 'scale': it is " + npy::type_name(type) + ", expected is float32");
    expect_layer<float>({.convert = true}, 13);
    expect_layer<double>({.convert = true}, 13);
    expect_layer<half>({.convert = true}, 13);
    expect_layer<bfloat16>({.convert = true}, 13);
  }
}

TEST_F(LoadOptionsTest, AValueBeyondTheRangeIsNamed) {
  add_layer({}, npy::Type::float64);
  entries_.erase(entries_.begin() + 1);
  add("bias", npy::Type::float64, {3}, {0, -1e300, 1});
  EXPECT_EQ(refusal({.convert = true}), "array 'bias': its value 1 is -1e+300, beyond the range of float");
  EXPECT_EQ(refusal<double>({.convert = true}), "<no exception>");
  entries_.pop_back();
  add("bias", npy::Type::float64, {3}, {65519, 3.4e38, 65520});
  EXPECT_EQ(refusal<half>({.convert = true}), "array 'bias': its value 1 is 3.4e+38, beyond the range of half");
  EXPECT_EQ(refusal<bfloat16>({.convert = true}), "array 'bias': its value 1 is 3.4e+38, beyond the range of bfloat16");
  EXPECT_EQ(refusal<float>({.convert = true}), "<no exception>");
  entries_.pop_back();
  add("bias", npy::Type::float64, {3}, {65519, 65520, 0});
  EXPECT_EQ(refusal<half>({.convert = true}), "array 'bias': its value 1 is 65520, beyond the range of half");
  entries_.pop_back();
  write_bytes(
      folder_ / "bias.npy",
      array_bytes(npy::Type::int64, {3}, std::string(6, '\0') + '\x20' + std::string(9, '\0') + '\x7f' + std::string(7, '\0')));
  entries_.emplace_back("bias.npy",
                        array_bytes(npy::Type::int64, {3}, "\1" + std::string(5, '\0') + "\x20" + std::string(17, '\0')));
  write_bytes(folder_ / "x.npz", zip_bytes(entries_));
  EXPECT_EQ(refusal<double>({.convert = true}),
            "array 'bias': its value 0 is 9007199254740993, a whole number of more than 53 bits");
}

TEST_F(LoadOptionsTest, AConvertedValueIsRoundedOnce) {
  // Halfway between two halves, and a little more: rounding to float first would lose the little.
  const double tie = 1 + 0x1p-11, above = tie + 0x1p-40, below = tie - 0x1p-40;
  EXPECT_EQ(npy::detail::rounded<half>(tie), half(1));
  EXPECT_EQ(npy::detail::rounded<half>(above), half(1 + 0x1p-10F));
  EXPECT_EQ(npy::detail::rounded<half>(below), half(1));
  EXPECT_EQ(npy::detail::rounded<half>(-above), half(-1 - 0x1p-10F));
  EXPECT_EQ(npy::detail::rounded<bfloat16>(1 + 0x1p-8 + 0x1p-40), bfloat16(1 + 0x1p-7F));
  EXPECT_EQ(npy::detail::rounded<bfloat16>(1 + 0x1p-8), bfloat16(1));
  EXPECT_EQ(static_cast<float>(npy::detail::rounded<half>(0x1p-25 + 0x1p-60)), 0x1p-24F);
  EXPECT_EQ(static_cast<float>(npy::detail::rounded<half>(1e-300)), 0.0F);
  EXPECT_TRUE(std::signbit(static_cast<float>(npy::detail::rounded<bfloat16>(-1e-300))));
  EXPECT_EQ(npy::detail::rounded<float>(1e-300), 0.0F);
  EXPECT_TRUE(std::isnan(static_cast<float>(npy::detail::rounded<half>(std::numeric_limits<double>::quiet_NaN()))));
  EXPECT_TRUE(std::isinf(static_cast<float>(npy::detail::rounded<bfloat16>(-std::numeric_limits<double>::infinity()))));
}

TEST_F(LoadOptionsTest, BatchesOfAnyTypeAreACountWhenConverted) {
  const ParameterNames only_batches{"", "", "", "", "n"};
  const LoadOptions strict{.names = only_batches, .channels = 1},
      convert{.names = only_batches, .convert = true, .channels = 1};
  const auto with = [&](npy::Type type, const std::vector<std::int64_t>& shape, const std::vector<double>& values) {
    entries_.clear();
    add("n", type, shape, values);
  };
  for (const npy::Type type : npy::all_types) {
    for (const auto& shape : {std::vector<std::int64_t>{}, std::vector<std::int64_t>{1}}) {
      with(type, shape, {1000});
      EXPECT_EQ(batchnorm::load_npz<float>(folder_ / "x.npz", convert).batches, 1000);
      const bool is_right = type == npy::Type::int64 && shape.empty();
      EXPECT_EQ(refusal(strict) == "<no exception>", is_right);
    }
  }
  with(npy::Type::float64, {}, {0.5});
  EXPECT_EQ(refusal(convert), "array 'n': it is 0.5, it must be a whole number from 0 to 2^53");
  with(npy::Type::float64, {}, {-1});
  EXPECT_EQ(refusal(convert), "array 'n': it is -1, it must be a whole number from 0 to 2^53");
  with(npy::Type::float32, {}, {std::numeric_limits<double>::quiet_NaN()});
  EXPECT_EQ(refusal(convert), "array 'n': it is nan, it must be a whole number from 0 to 2^53");
  with(npy::Type::int64, {}, {-1});
  EXPECT_EQ(refusal(convert), "array 'n': it is -1, it must not be negative");
  with(npy::Type::float32, {2}, {1, 2});
  EXPECT_EQ(refusal(convert), "array 'n': its shape is (2,), expected is () or (1,)");
}

}  // namespace
