// SPDX-License-Identifier: MIT

#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include <batchnorm/npy/npy.hpp>

#include "support/file_errors.hpp"
#include "support/file_size_limit.hpp"
#include "support/npy_files.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace npy = batchnorm::npy;

using support::ErrorPointer;
using support::file_error_of;
using support::npy_bytes;
using support::read_bytes;
using support::TemporaryFolder;
using support::write_bytes;

// What NumPy wrote (tests/data/npy); the elements are 0, 1, 2, ...
struct Stored {
  const char* file;
  npy::Header header;
};

const std::vector<Stored> stored_files{
    {"scalar_float64.npy", {npy::Type::float64, {}}},
    {"scalar_int64.npy", {npy::Type::int64, {}}},
    {"vector_float16.npy", {npy::Type::float16, {3}}},
    {"matrix_float32.npy", {npy::Type::float32, {2, 3}}},
    {"rank5_float64.npy", {npy::Type::float64, {2, 1, 3, 1, 2}}},
    {"rank8_float32.npy", {npy::Type::float32, {1, 2, 1, 2, 1, 1, 1, 1}}},
    {"empty_float32.npy", {npy::Type::float32, {0, 3, 2, 2}}},
    {"longest_header_float32.npy", {npy::Type::float32, {0, 1000000, 1000000, 10000, 1, 1, 1, 1}}},
};

const std::filesystem::path stored_folder = std::filesystem::path(BATCHNORM_TEST_DATA) / "npy";

std::vector<long double> counting(std::size_t size) {
  std::vector<long double> values(size);
  std::iota(values.begin(), values.end(), 0.0L);
  return values;
}

const std::string matrix_data(24, '\0');  // a float32 matrix of 2 x 3

std::string matrix_file() { return npy_bytes("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", matrix_data); }

/// Why the file is refused: the message after its name. Empty when it is not refused.
std::string refusal(const std::filesystem::path& path) {
  const std::string message = file_error_of([&](ErrorPointer error) { npy::Reader reader(path, error); });
  if (message == "<no exception>") return "";
  const std::string begin = "'" + path.string() + "': ";
  EXPECT_EQ(message.substr(0, begin.size()), begin);
  return message.substr(std::min(begin.size(), message.size()));
}

std::string refusal_of_bytes(std::string_view bytes) {
  const TemporaryFolder folder;
  write_bytes(folder / "array.npy", bytes);
  return refusal(folder / "array.npy");
}

std::string refusal_of_dictionary(std::string_view dictionary) { return refusal_of_bytes(npy_bytes(dictionary, matrix_data)); }

npy::Header header_of_dictionary(std::string_view dictionary, char version = 1) {
  const TemporaryFolder folder;
  write_bytes(folder / "array.npy", npy_bytes(dictionary, matrix_data, version));
  return npy::Reader(folder / "array.npy").header();
}

struct Refused {
  std::string what;
  std::string why;
};

void expect_dictionaries_refused(const std::vector<Refused>& cases) {
  for (const auto& [dictionary, why] : cases) {
    SCOPED_TRACE(dictionary);
    EXPECT_EQ(refusal_of_dictionary(dictionary), why);
  }
}

TEST(NpyReaderTest, ReadsWhatNumPyWrote) {
  for (const auto& [file, header] : stored_files) {
    SCOPED_TRACE(file);
    const support::Array array = support::load_npy(stored_folder / file);
    EXPECT_EQ(array.header, header);
    EXPECT_EQ(array.values, counting(static_cast<std::size_t>(npy::byte_count(header) / npy::size_of(header.type))));
  }
}

TEST(NpyReaderTest, ReadsVersions2And3OfTheFormat) {
  for (const char* file : {"version2_float32.npy", "version3_float32.npy"}) {
    SCOPED_TRACE(file);
    const support::Array array = support::load_npy(stored_folder / file);
    EXPECT_EQ(array.header, (npy::Header{npy::Type::float32, {2, 3}}));
    EXPECT_EQ(array.values, counting(6));
  }
}

TEST(NpyReaderTest, ReadsTheDictionaryAsFreelyAsPythonDoes) {
  for (const char* dictionary : {
           "{'descr':'<f4','fortran_order':False,'shape':(2,3)}",
           "{'shape': (2, 3), 'fortran_order': False, 'descr': '<f4'}",
           "{\"descr\": \"<f4\", \"fortran_order\": False, \"shape\": (2, 3), }",
           " \t{ 'descr' :\n'<f4' ,\r\n'fortran_order' : False , 'shape' : ( 2 , 3 , ) , } \n \n",
           "{'descr': '=f4', 'fortran_order': False, 'shape': (2, 3), }",
           "{'descr': 'f4', 'fortran_order': False, 'shape': (2, 3), }",
       }) {
    SCOPED_TRACE(dictionary);
    EXPECT_EQ(header_of_dictionary(dictionary), (npy::Header{npy::Type::float32, {2, 3}}));
    EXPECT_EQ(header_of_dictionary(dictionary, 2), (npy::Header{npy::Type::float32, {2, 3}}));
  }
}

TEST(NpyReaderTest, ReadsEveryTypeAndTheShapesThatPythonWritesSpecially) {
  for (const auto& [descriptor_and_shape, header] :
       std::vector<std::pair<std::string, npy::Header>>{{"'descr': '<f2', 'shape': (12,)", {npy::Type::float16, {12}}},
                                                        {"'descr': '<f4', 'shape': ( 6 ,)", {npy::Type::float32, {6}}},
                                                        {"'descr': '<f8', 'shape': (3, 1)", {npy::Type::float64, {3, 1}}},
                                                        {"'descr': '<i8', 'shape': (1, 3)", {npy::Type::int64, {1, 3}}}}) {
    SCOPED_TRACE(descriptor_and_shape);
    EXPECT_EQ(header_of_dictionary("{" + descriptor_and_shape + ", 'fortran_order': False}"), header);
  }
  EXPECT_EQ(npy::parse_header("{'descr': '<f8', 'fortran_order': False, 'shape': ()}"), (npy::Header{npy::Type::float64, {}}));
}

TEST(NpyReaderTest, RefusesWhatIsNotAnNpyFile) {
  const std::string why = "it is not a .npy file: its first bytes are not those of NumPy";
  EXPECT_EQ(refusal_of_bytes(""), why);
  EXPECT_EQ(refusal_of_bytes("\x93NUMP"), why);
  EXPECT_EQ(refusal_of_bytes("PK\x03\x04 the beginning of a .npz file"), why);
}

TEST(NpyReaderTest, RefusesOtherVersionsOfTheFormat) {
  const std::string end = " of the .npy format; only 1.0, 2.0 and 3.0 can be read";
  EXPECT_EQ(refusal_of_bytes(npy_bytes("{}", "", 4)), "it has version 4.0" + end);
  EXPECT_EQ(refusal_of_bytes(npy_bytes("{}", "", 0)), "it has version 0.0" + end);
  EXPECT_EQ(refusal_of_bytes(npy_bytes("{}", "", '\xff')), "it has version 255.0" + end);
  EXPECT_EQ(refusal_of_bytes("\x93NUMPY\x01\x07"), "it has version 1.7" + end);
}

TEST(NpyReaderTest, RefusesEveryFileThatWasCutShort) {
  const std::string whole = matrix_file();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    SCOPED_TRACE(size);
    EXPECT_NE(refusal_of_bytes(whole.substr(0, size)), "");
  }
  EXPECT_EQ(refusal_of_bytes(whole), "");
  EXPECT_EQ(refusal_of_bytes(whole.substr(0, 7)), "it ends within its header");
  EXPECT_EQ(refusal_of_bytes(whole.substr(0, 9)), "it ends within its header");
  EXPECT_EQ(refusal_of_bytes(whole.substr(0, 20)), "its header claims a length of 60 bytes, the file has 10 more");
  EXPECT_EQ(refusal_of_bytes(whole.substr(0, whole.size() - 1)),
            "its data is truncated: shape (2, 3) of float32 takes 24 bytes, the file has 23 after its header");
}

TEST(NpyReaderTest, RefusesAHeaderOfAnAbsurdLength) {
  EXPECT_EQ(refusal_of_bytes(std::string("\x93NUMPY\x02\x00\xff\xff\xff\xff{}", 14)),
            "its header claims a length of 4294967295 bytes, the file has 2 more");
  EXPECT_EQ(refusal_of_bytes(npy_bytes(std::string(65537, ' '), "", 2)),
            "its header is 65537 bytes long, more than the 65536 allowed");
}

TEST(NpyReaderTest, RefusesWhatFollowsTheData) {
  EXPECT_EQ(refusal_of_bytes(matrix_file() + "x"),
            "it goes on after its data: shape (2, 3) of float32 takes 24 bytes, the file has 25 after its header");
  EXPECT_EQ(refusal_of_bytes(npy_bytes("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3)}", "x")),
            "it goes on after its data: shape (0, 3) of float32 takes 0 bytes, the file has 1 after its header");
}

TEST(NpyReaderTest, RefusesAHeaderThatIsNoDictionary) {
  const std::string begin = "its header is not a dictionary as NumPy writes it: expected ";
  expect_dictionaries_refused({
      {"", begin + "'{' at its beginning, found its end"},
      {"[1, 2]", begin + "'{' at its beginning, found '[1, 2]'"},
      {"{", begin + "a key in quotation marks, found its end"},
      {"{,}", begin + "a key in quotation marks, found ',}'"},
      {"{descr: '<f4'}", begin + "a key in quotation marks, found 'descr: '<f4'}'"},
      {"{'descr'= '<f4'}", begin + "':' after the key 'descr', found '= '<f4'}'"},
      {"{'descr': <f4}", begin + "the element type in quotation marks, found '<f4}'"},
      {"{'descr': '<f4}", "its header ends within quotation marks"},
      {"{'descr': '<f4' 'shape': (2, 3)}", begin + "'}' or ',' after a value, found ''shape': (2, 3)}'"},
      {"{'fortran_order': 0}", begin + "True or False as 'fortran_order', found '0}'"},
      {"{'fortran_order': Falsehood}", begin + "'}' or ',' after a value, found 'hood}'"},
      {"{'shape': [2, 3]}", begin + "'(' before the extents of 'shape', found '[2, 3]}'"},
      {"{'shape': (2 3)}", begin + "',' (a tuple of one extent ends with a comma), found '3)}'"},
      {"{'shape': (6)}", begin + "',' (a tuple of one extent ends with a comma), found ')}'"},
      {"{'shape': (2, 3 4)}", begin + "')' or ',' after an extent, found '4)}'"},
      {"{'shape': (2.0, 3)}", begin + "',' (a tuple of one extent ends with a comma), found '.0, 3)}'"},
      {"{'shape': (x,)}", begin + "a whole number as an extent, found 'x,)}'"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)} x", "its header goes on after the closing brace with 'x'"},
  });
}

TEST(NpyReaderTest, RefusesADictionaryWithoutExactlyItsThreeKeys) {
  expect_dictionaries_refused({
      {"{'fortran_order': False, 'shape': (2, 3)}", "its header lacks the key 'descr'"},
      {"{'descr': '<f4', 'shape': (2, 3)}", "its header lacks the key 'fortran_order'"},
      {"{'descr': '<f4', 'fortran_order': False}", "its header lacks the key 'shape'"},
      {"{'descr': '<f4', 'descr': '<f4'}", "its header has the key 'descr' twice"},
      {"{'fortran_order': False, 'fortran_order': False}", "its header has the key 'fortran_order' twice"},
      {"{'shape': (2, 3), 'shape': (2, 3)}", "its header has the key 'shape' twice"},
      {"{'order': 'C'}", "its header has the unknown key 'order'"},
  });
}

TEST(NpyReaderTest, RefusesFortranOrder) {
  expect_dictionaries_refused(
      {{"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3)}", "its data is in Fortran order; only C order can be read"}});
}

TEST(NpyReaderTest, RefusesOtherElementTypes) {
  const std::string only = "only '<f2', '<f4', '<f8' and '<i8' can be read";
  for (const char* descriptor : {"<i4", "|u1", "<c8", "<f16", "<U3", "|O", "f", "", "<f4 "}) {
    const std::string dictionary = "{'descr': '" + std::string(descriptor) + "', 'fortran_order': False, 'shape': (2, 3)}";
    EXPECT_EQ(refusal_of_dictionary(dictionary), "its elements are '" + std::string(descriptor) + "'; " + only);
  }
  expect_dictionaries_refused({
      {"{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3)}", "its elements are '>f4', big-endian; " + only},
      {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,)}", "its elements are structured; " + only},
  });
}

TEST(NpyReaderTest, RefusesShapesThatNoArrayHas) {
  const std::string begin = "{'descr': '<f4', 'fortran_order': False, 'shape': ";
  expect_dictionaries_refused({
      {begin + "(2, -3)}", "its extent -3 is negative"},
      {begin + "(2, 03)}", "its extent '03' begins with 0"},
      {begin + "(9223372036854775808,)}", "its extent '9223372036854775808' does not fit 64 bits"},
      {begin + "(4294967296, 4294967296)}", "its shape (4294967296, 4294967296) has more than 2^63 - 1 bytes"},
      {begin + "(2305843009213693952,)}", "its shape (2305843009213693952,) has more than 2^63 - 1 bytes"},
      {begin + "(0, 4294967296, 4294967296)}", "its shape (0, 4294967296, 4294967296) has more than 2^63 - 1 bytes"},
      {begin + "(1, 1, 1, 1, 1, 1, 1, 2, 3)}", "its rank is 9, the largest that can be read is 8"},
  });
}

TEST(NpyReaderTest, ComparesAHugeShapeWithTheFileBeforeAnyoneAllocates) {
  expect_dictionaries_refused({{"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1024)}",
                                "its data is truncated: shape (1099511627776, 1024) of float32 takes 4503599627370496 bytes, "
                                "the file has 24 after its header"}});
}

TEST(NpyReaderTest, KeepsControlCharactersAndLongTextsOutOfItsMessages) {
  expect_dictionaries_refused({
      {"{'\x1b[31m\n': 1}", "its header has the unknown key '?[31m?'"},
      {"{'" + std::string(100, 'k') + "': 1}", "its header has the unknown key '" + std::string(40, 'k') + "...'"},
  });
}

TEST(NpyReaderTest, SaysWhyAFileCannotBeOpened) {
  const TemporaryFolder folder;
  EXPECT_EQ(refusal(folder / "missing.npy"), "there is no such file");
  EXPECT_EQ(refusal(folder.path()), "it is a directory");
  std::filesystem::create_symlink("loop.npy", folder / "loop.npy");
  EXPECT_EQ(refusal(folder / "loop.npy"), "it cannot be read: Too many levels of symbolic links");
}

TEST(NpyReaderTest, DoesNotWaitForAPipe) {
  const TemporaryFolder folder;
  ASSERT_EQ(mkfifo((folder / "pipe.npy").c_str(), 0600), 0);
  EXPECT_EQ(refusal(folder / "pipe.npy"), "it is not a regular file");
}

TEST(NpyReaderTest, NoticesThatAFileBecameShorter) {
  const TemporaryFolder folder;
  const auto path = folder / "array.npy";
  write_bytes(path, npy_bytes("{'descr': '<f4', 'fortran_order': False, 'shape': (65536,)}", std::string(262144, '\0')));
  npy::Reader reader(path);
  std::filesystem::resize_file(path, 100000);
  std::vector<std::byte> data(262144);
  EXPECT_THROW(reader.read(data), npy::FileError);
}

/// Everything but the terminating zero: what is written as the data of a file.
std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

const npy::Header two_halves{npy::Type::float16, {2}};

TEST(NpyWriterTest, WritesTheBytesThatNumPyWrites) {
  const TemporaryFolder folder;
  for (const auto& [file, header] : stored_files) {
    SCOPED_TRACE(file);
    const std::string stored = read_bytes(stored_folder / file);
    const auto data_size = static_cast<std::size_t>(npy::byte_count(header));
    npy::write(folder / file, header, bytes_of(std::string_view(stored).substr(stored.size() - data_size)));
    EXPECT_EQ(read_bytes(folder / file), stored);
  }
}

TEST(NpyWriterTest, ReplacesAnOlderFile) {
  const TemporaryFolder folder;
  write_bytes(folder / "array.npy", "older and longer than any header of a .npy file could be" + std::string(1000, '.'));
  npy::write(folder / "array.npy", two_halves, bytes_of("abcd"));
  EXPECT_EQ(read_bytes(folder / "array.npy"), npy::format_header(two_halves) + "abcd");
  EXPECT_EQ(support::names_in(folder.path()), std::vector<std::string>{"array.npy"});
}

TEST(NpyWriterTest, ShowsNoFileUnderItsNameBeforeAllArePublished) {
  const TemporaryFolder folder;
  npy::StagedFiles files;
  files.add(folder / "a.npy", two_halves, bytes_of("abcd"));
  files.add(folder / "b.npy", two_halves, bytes_of("efgh"));
  EXPECT_FALSE(exists(folder / "a.npy"));
  EXPECT_FALSE(exists(folder / "b.npy"));
  files.publish();
  EXPECT_EQ(support::names_in(folder.path()), (std::vector<std::string>{"a.npy", "b.npy"}));
}

TEST(NpyWriterTest, RemovesWhatWasNotPublished) {
  const TemporaryFolder folder;
  write_bytes(folder / "a.npy", "older");
  {
    npy::StagedFiles files;
    files.add(folder / "a.npy", two_halves, bytes_of("abcd"));
    EXPECT_EQ(support::names_in(folder.path()).size(), 2U);
  }
  EXPECT_EQ(support::names_in(folder.path()), std::vector<std::string>{"a.npy"});
  EXPECT_EQ(read_bytes(folder / "a.npy"), "older");
}

TEST(NpyWriterTest, PublishesNothingWhenOneFileCannotBe) {
  const TemporaryFolder folder;
  {
    npy::StagedFiles files;
    files.add(folder / "a.npy", two_halves, bytes_of("abcd"));
    files.add(folder / "b.npy", two_halves, bytes_of("efgh"));
    std::filesystem::create_directory(folder / "b.npy");
    EXPECT_THROW(files.publish(), npy::FileError);
  }
  EXPECT_EQ(support::names_in(folder.path()), std::vector<std::string>{"b.npy"});
}

TEST(NpyWriterTest, LeavesTheUnfinishedFileOfAnotherWriterAlone) {
  const TemporaryFolder folder;
  npy::StagedFiles first, second;
  first.add(folder / "a.npy", two_halves, bytes_of("abcd"));
  second.add(folder / "a.npy", two_halves, bytes_of("efgh"));
  second.publish();
  EXPECT_EQ(read_bytes(folder / "a.npy"), npy::format_header(two_halves) + "efgh");
  first.publish();
  EXPECT_EQ(read_bytes(folder / "a.npy"), npy::format_header(two_halves) + "abcd");
  EXPECT_EQ(support::names_in(folder.path()), std::vector<std::string>{"a.npy"});
}

/// What the FileError of writing to that path says.
std::string write_refusal(const std::filesystem::path& path, std::span<const std::byte> data) {
  return file_error_of([&](ErrorPointer error) {
    npy::write(path, {npy::Type::float16, {static_cast<std::int64_t>(data.size() / 2)}}, data, error);
  });
}

TEST(NpyWriterTest, SaysWhyAFileCannotBeWritten) {
  const TemporaryFolder folder;
  EXPECT_EQ(write_refusal(folder.path(), bytes_of("abcd")),
            "'" + folder.path().string() + "': it cannot be written: it is a directory");
  const std::string orphan = folder / "missing" / "a.npy";
  EXPECT_EQ(write_refusal(orphan, bytes_of("abcd")), "'" + orphan + "': it cannot be written: No such file or directory");
}

TEST(NpyWriterTest, LeavesNothingWhenTheDiskIsFull) {
  const TemporaryFolder folder;
  for (const std::size_t size : {2000U, 2000000U}) {  // fails when the buffer is written at the end; fails on the way
    const std::string data(size, 'x'), path = folder / "a.npy";
    std::string why;
    {
      const support::FileSizeLimit limit(1000);
      why = write_refusal(path, bytes_of(data));
    }
    EXPECT_EQ(why, "'" + path + "': it cannot be written: File too large");
    EXPECT_EQ(support::names_in(folder.path()), std::vector<std::string>{});
  }
}

}  // namespace
