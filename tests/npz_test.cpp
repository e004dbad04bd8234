// SPDX-License-Identifier: MIT

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <batchnorm/npz/reader.hpp>
#include <batchnorm/npz/writer.hpp>

#include "support/file_errors.hpp"
#include "support/file_size_limit.hpp"
#include "support/messages.hpp"
#include "support/npy_files.hpp"
#include "support/temporary_folder.hpp"
#include "support/zip_files.hpp"

// Archives of arrays: what NumPy writes, what is malformed, what we write.
namespace {

namespace npy = batchnorm::npy;
namespace npz = batchnorm::npz;

using support::ErrorPointer;
using support::file_error_of;
using support::little_endian;
using support::message_of;
using support::read_bytes;
using support::TemporaryFolder;
using support::write_bytes;
using support::zip_bytes;
using support::ZipEnd;
using support::ZipEntry;

const std::filesystem::path stored_folder = std::filesystem::path(BATCHNORM_TEST_DATA) / "npz";

const npy::Header three_floats{npy::Type::float32, {3}};
const npy::Header whole_number{npy::Type::int64, {}};

std::string read_array(npz::Array& array, ErrorPointer error = nullptr) {
  std::string data(static_cast<std::size_t>(array.byte_count()), '\0');
  array.read(std::as_writable_bytes(std::span(data)), error);
  return data;
}

std::string read_array(const npz::Reader& archive, const std::string& name) {
  npz::Array array = archive.open(name);
  return read_array(array);
}

template <class T>
std::vector<T> values_of(const npz::Reader& archive, const std::string& name, const npy::Header& header) {
  EXPECT_EQ(archive.open(name).header(), header) << name;
  const std::string data = read_array(archive, name);
  std::vector<T> values(data.size() / sizeof(T));
  std::memcpy(static_cast<void*>(values.data()), data.data(), data.size());
  return values;
}

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

/// A .npy file of float16: the numbers' bits are in `data`.
std::string array_file(const std::string& data) {
  return npy::format_header({npy::Type::float16, {static_cast<std::int64_t>(data.size() / 2)}}) + data;
}

const std::string a_data = "0123456789", b_data(600, 'b');

// Reading what is well formed.

TEST(NpzReaderTest, ReadsWhatNumPyWrote) {
  for (const char* file : {"savez.npz", "savez_compressed.npz", "unseekable.npz", "written.npz"}) {
    SCOPED_TRACE(file);
    const npz::Reader archive(stored_folder / file);
    EXPECT_EQ(archive.path(), stored_folder / file);
    EXPECT_EQ(archive.names(), (std::vector<std::string>{"scale", "bias", "mean", "variance", "batches"}));
    EXPECT_EQ(values_of<float>(archive, "scale", three_floats), (std::vector<float>{1.5F, -2, 0.25F}));
    EXPECT_EQ(values_of<float>(archive, "bias", three_floats), (std::vector<float>{0, 1, -1}));
    EXPECT_EQ(values_of<float>(archive, "mean", three_floats), (std::vector<float>{0.5F, 0, -3}));
    EXPECT_EQ(values_of<float>(archive, "variance", three_floats), (std::vector<float>{1, 4, 0.0625F}));
    EXPECT_EQ(values_of<std::int64_t>(archive, "batches", whole_number), std::vector<std::int64_t>{7});
  }
}

TEST(NpzReaderTest, KeepsSeveralArraysOpenAtOnceAndLongerThanItself) {
  const TemporaryFolder folder;
  write_bytes(folder / "x.npz",
              zip_bytes({ZipEntry::compressed("a.npy", array_file(a_data)), ZipEntry::compressed("b.npy", array_file(b_data)),
                         ZipEntry("c.npy", array_file(a_data))}));
  std::vector<npz::Array> arrays;
  {
    const npz::Reader archive(folder / "x.npz");
    for (const std::string& name : archive.names()) arrays.push_back(archive.open(name));
  }
  std::string a(a_data.size(), '\0'), b(b_data.size(), '\0'), c(a_data.size(), '\0');
  arrays[2].read(std::as_writable_bytes(std::span(c)));
  arrays[0].read(std::as_writable_bytes(std::span(a)));
  arrays[1].read(std::as_writable_bytes(std::span(b)));
  EXPECT_EQ(a, a_data);
  EXPECT_EQ(b, b_data);
  EXPECT_EQ(c, a_data);
}

/// An archive whose bytes are given.
class NpzBytesTest : public testing::Test {
 protected:
  npz::Reader open(const std::string& bytes, ErrorPointer error = nullptr) {
    // A new file each time: some file systems write a file that is overwritten to the disk at once, which takes its time.
    std::filesystem::remove(path());
    write_bytes(path(), bytes);
    return npz::Reader(path(), error);
  }

  /// Why the archive is refused when it is opened and its arrays are read: the message after the file's name, empty when it is
  /// not refused.
  std::string refusal(const std::string& bytes) {
    const std::string message = file_error_of([&](ErrorPointer error) {
      const auto failed = [&] { return error != nullptr && error->has_value(); };
      const npz::Reader archive = open(bytes, error);
      for (const std::string& name : archive.names()) {
        npz::Array array = archive.open(name, error);
        if (!failed()) read_array(array, error);
        if (failed()) return;
      }
    });
    if (message == "<no exception>") return "";
    const std::string begin = "'" + path().string() + "': ";
    EXPECT_EQ(message.substr(0, begin.size()), begin);
    return message.substr((std::min)(begin.size(), message.size()));
  }

  std::string refusal(const ZipEntry& entry) { return refusal(zip_bytes({entry})); }

  std::filesystem::path path() const { return folder_ / "archive.npz"; }

  TemporaryFolder folder_;
};

TEST_F(NpzBytesTest, WhatIsRightIsRead) {
  const npz::Reader archive =
      open(zip_bytes({ZipEntry("a.npy", array_file(a_data)), ZipEntry::compressed("b.npy", array_file(b_data))}));
  EXPECT_EQ(read_array(archive, "a"), a_data);
  EXPECT_EQ(read_array(archive, "b"), b_data);
  EXPECT_TRUE(archive.contains("a"));
  EXPECT_FALSE(archive.contains("a.npy"));
  EXPECT_EQ(message_of<npy::FileError>([&] { archive.open("c"); }), "'" + path().string() + "': it has no array 'c'");
}

TEST_F(NpzBytesTest, AnArchiveOfNothingHasNoArrays) { EXPECT_EQ(open(zip_bytes({})).names(), std::vector<std::string>{}); }

TEST_F(NpzBytesTest, EntriesThatAreNoArraysArePassedOver) {
  ZipEntry strange("notes.txt", "text");
  strange.method = 12;
  EXPECT_EQ(open(zip_bytes({strange, ZipEntry("a.npy", array_file(a_data)), ZipEntry("a", "text")})).names(),
            std::vector<std::string>{"a"});
}

TEST_F(NpzBytesTest, APathIsAKeyLikeAnyOther) {
  const std::string up = "../up", root = "/usr/name", zero("with\0zero", 9), empty;
  std::vector<ZipEntry> entries;
  for (const std::string& name : {up, root, zero, empty}) entries.emplace_back(name + ".npy", array_file(name + a_data + name));
  const npz::Reader archive = open(zip_bytes(entries));
  EXPECT_EQ(archive.names(), (std::vector<std::string>{up, root, zero, empty}));
  EXPECT_EQ(read_array(archive, up), up + a_data + up);
  EXPECT_EQ(read_array(archive, zero), zero + a_data + zero);
  EXPECT_EQ(support::names_in(folder_.path()), std::vector<std::string>{"archive.npz"});
}

TEST_F(NpzBytesTest, ACommentMayEndTheArchiveAndEvenLookLikeItsEnd) {
  ZipEnd end;
  end.comment = "a comment, PK\x05\x06 and what else";
  EXPECT_EQ(read_array(open(zip_bytes({ZipEntry("a.npy", array_file(a_data))}, end)), "a"), a_data);
  end.comment = std::string(65535, '.');
  EXPECT_EQ(read_array(open(zip_bytes({ZipEntry("a.npy", array_file(a_data))}, end)), "a"), a_data);
}

TEST_F(NpzBytesTest, CompressedDataMayEndLongAfterTheContent) {
  const std::string content = array_file(a_data), not_last("\0", 1), last("\1", 1), no_bytes("\0\0\xff\xff", 4);
  ZipEntry entry("a.npy", content);
  entry.method = 8;
  entry.data = not_last + little_endian(content.size(), 2) + little_endian(~content.size(), 2) + content;
  for (int i = 0; i < 10000; ++i) entry.data += not_last + no_bytes;  // more than is read at once
  entry.data += last + no_bytes;
  entry.compressed_size = entry.data.size();
  EXPECT_EQ(read_array(open(zip_bytes({entry})), "a"), a_data);
}

constexpr std::uint64_t elsewhere = 0xFFFFFFFF;

/// An entry whose sizes and position stand in a zip64 field, after another extra field.
ZipEntry zip64_entry(const std::string& data, std::uint64_t size, std::uint64_t compressed_size, std::uint64_t position) {
  ZipEntry entry("a.npy", array_file(data));
  entry.size = entry.compressed_size = elsewhere;
  entry.position = elsewhere;
  entry.extra =
      little_endian(0x5455, 2) + little_endian(3, 2) + "..." + support::zip64_extra({size, compressed_size, position});
  return entry;
}

TEST_F(NpzBytesTest, Zip64FieldsReplaceThoseThatAreTooNarrow) {
  const std::uint64_t size = array_file(a_data).size();
  EXPECT_EQ(read_array(open(zip_bytes({zip64_entry(a_data, size, size, 0)})), "a"), a_data);
  ZipEntry only_size = ZipEntry::compressed("a.npy", array_file(a_data));
  only_size.size = elsewhere;
  only_size.extra = support::zip64_extra({size});
  EXPECT_EQ(read_array(open(zip_bytes({only_size})), "a"), a_data);
}

/// zip_bytes with the numbers of its end in a zip64 end record, which `change` may make wrong.
std::string zip64_bytes(const std::vector<ZipEntry>& entries,
                        const std::function<void(std::vector<std::uint64_t>& numbers, std::uint64_t& position)>& change = {}) {
  const std::string narrow = zip_bytes(entries);
  const std::size_t at = narrow.size() - 22;
  const auto u32 = [&](std::size_t position) {
    std::uint64_t value = 0;
    for (std::size_t i = 4; i-- > 0;) value = value << 8 | static_cast<unsigned char>(narrow[position + i]);
    return value;
  };
  std::vector<std::uint64_t> numbers{entries.size(), entries.size(), u32(at + 12), u32(at + 16)};
  std::uint64_t position = at;
  if (change) change(numbers, position);
  ZipEnd end{.entries = 0xFFFF, .directory_size = elsewhere, .directory_position = elsewhere};
  end.between = "PK\x06\x06" + little_endian(44, 8) + little_endian(45, 2) + little_endian(45, 2) + std::string(8, '\0');
  for (const std::uint64_t number : numbers) end.between += little_endian(number, 8);
  end.between += "PK\x06\x07" + std::string(4, '\0') + little_endian(position, 8) + little_endian(1, 4);
  return zip_bytes(entries, end);
}

TEST_F(NpzBytesTest, AZip64EndReplacesAnEndThatIsTooNarrow) {
  EXPECT_EQ(read_array(open(zip64_bytes({ZipEntry("a.npy", array_file(a_data))})), "a"), a_data);
}

// Refusing what is malformed.

TEST_F(NpzBytesTest, RefusesWhatIsNoArchive) {
  const std::string why = "it is not a .npz file or was cut short: no end of a ZIP archive is there";
  EXPECT_EQ(refusal(""), why);
  EXPECT_EQ(refusal(array_file(a_data)), why);
  EXPECT_EQ(refusal(std::string(100000, 'P')), why);
  std::filesystem::remove(path());
  EXPECT_EQ(message_of<npy::FileError>([&] { npz::Reader archive(path()); }),
            "'" + path().string() + "': there is no such file");
}

TEST_F(NpzBytesTest, RefusesEveryArchiveThatWasCutShort) {
  const std::string whole =
      zip64_bytes({ZipEntry("a.npy", array_file(a_data)), ZipEntry::compressed("b.npy", array_file(b_data))});
  for (std::size_t size = 0; size < whole.size(); ++size) {
    SCOPED_TRACE(size);
    EXPECT_NE(refusal(whole.substr(0, size)), "");
  }
  EXPECT_EQ(refusal(whole), "");
}

TEST_F(NpzBytesTest, NoFlippedByteChangesAnArrayUnnoticed) {
  std::vector<ZipEntry> entries{ZipEntry("a.npy", array_file(a_data)), ZipEntry::compressed("b.npy", array_file(b_data))};
  entries[1].extra = "\x55\x54\x02" + std::string(1, '\0') + "..";
  const std::string whole = zip64_bytes(entries);
  int noticed = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const int flip : {0x01, 0x20, 0x80, 0xFF}) {
      SCOPED_TRACE(std::to_string(at) + " ^ " + std::to_string(flip));
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ flip);
      try {
        const npz::Reader archive = open(damaged);
        EXPECT_EQ(read_array(archive, "a"), a_data);
        EXPECT_EQ(read_array(archive, "b"), b_data);
      } catch (const npy::FileError&) {
        ++noticed;
      }
    }
  }
  EXPECT_GT(noticed, 0);
}

TEST_F(NpzBytesTest, RefusesADirectoryThatIsNotWhereItShouldBe) {
  const std::vector<ZipEntry> entries{ZipEntry("a.npy", array_file(a_data))};
  const std::string why = "its directory is not where its end record says";
  EXPECT_EQ(refusal("stub" + zip_bytes(entries)), why);
  EXPECT_EQ(refusal(zip_bytes(entries, {.directory_position = 0})), why);
  EXPECT_EQ(refusal(zip_bytes(entries, {.directory_size = 0xFFFFFFFE})), why);
  EXPECT_EQ(refusal(zip_bytes(entries, {.directory_size = elsewhere, .directory_position = elsewhere})), why);
  EXPECT_EQ(refusal(zip_bytes(entries, {.between = "."})), why);
  const std::uint64_t size = zip_bytes(entries).size() - 22;
  EXPECT_EQ(refusal(zip_bytes(entries, {.directory_size = size, .directory_position = 0})),
            "its directory is not one of a ZIP archive");
}

TEST_F(NpzBytesTest, RefusesADirectoryOfAnotherLength) {
  const std::vector<ZipEntry> entries{ZipEntry("a.npy", array_file(a_data)), ZipEntry("b.npy", array_file(b_data))};
  EXPECT_EQ(refusal(zip_bytes(entries, {.entries = 1})), "its directory goes on after its 1 entries");
  EXPECT_EQ(refusal(zip_bytes({entries[0]}, {.entries = 2})), "its directory claims 2 entries, it has only 51 bytes");
  EXPECT_EQ(refusal(zip_bytes(entries, {.entries = 65535})), "its directory claims 65535 entries, it has only 102 bytes");
  ZipEntry long_name("a.npy", array_file(a_data));
  long_name.name = std::string(100, 'n');
  EXPECT_EQ(refusal(zip_bytes({long_name}, {.entries = 2})), "a record of its directory is cut short");
}

TEST_F(NpzBytesTest, RefusesAPartOfADividedArchive) {
  const std::vector<ZipEntry> entries{ZipEntry("a.npy", array_file(a_data))};
  EXPECT_EQ(refusal(zip_bytes(entries, {.entries_here = 2})), "it is one part of a divided archive");
  EXPECT_EQ(refusal(zip64_bytes(entries, [](auto& numbers, auto&) { numbers[0] = 2; })), "it is one part of a divided archive");
}

TEST_F(NpzBytesTest, RefusesAZip64EndThatLies) {
  const std::vector<ZipEntry> entries{ZipEntry("a.npy", array_file(a_data))};
  const std::string nowhere = "its zip64 end record is not where its locator says";
  for (const std::uint64_t wrong : {std::uint64_t{0}, std::uint64_t{1} << 40, ~std::uint64_t{0}}) {
    EXPECT_EQ(refusal(zip64_bytes(entries, [&](auto&, auto& position) { position = wrong; })), nowhere);
  }
  const std::string misplaced = "its directory is not where its end record says";
  for (const std::size_t field : {2U, 3U}) {
    EXPECT_EQ(refusal(zip64_bytes(entries, [&](auto& numbers, auto&) { numbers[field] = ~std::uint64_t{0}; })), misplaced);
    EXPECT_EQ(refusal(zip64_bytes(entries, [&](auto& numbers, auto&) { ++numbers[field]; })), misplaced);
  }
  EXPECT_EQ(refusal(zip64_bytes(entries, [](auto& numbers, auto&) { numbers[0] = numbers[1] = std::uint64_t{1} << 60; })),
            "its directory claims 1152921504606846976 entries, it has only 51 bytes");
}

TEST_F(NpzBytesTest, RefusesZip64FieldsThatAreMissingOrLie) {
  const std::uint64_t size = array_file(a_data).size(), huge = ~std::uint64_t{0};
  const auto refusal_of = [&](std::uint64_t all, std::uint64_t compressed, std::uint64_t position) {
    return refusal(zip64_entry(a_data, all, compressed, position));
  };
  EXPECT_EQ(refusal_of(huge, huge, 0), "array 'a': its data is not where the directory says");
  EXPECT_EQ(refusal_of(size, size, huge), "array 'a': its data is not where the directory says");
  EXPECT_EQ(refusal_of(huge, size, 0), "array 'a': it claims 18446744073709551615 bytes, it has 138");
  ZipEntry entry = zip64_entry(a_data, size, size, 0);
  entry.extra.resize(entry.extra.size() - 8);
  entry.extra[9] = 16;  // the length of the zip64 field
  EXPECT_EQ(refusal(entry), "a record of its directory is cut short");
  entry.extra = "";
  EXPECT_EQ(refusal(entry), "array 'a': its data is not where the directory says");
  entry.extra = "abc";
  EXPECT_EQ(refusal(entry), "a record of its directory is cut short");
}

TEST_F(NpzBytesTest, RefusesTwoArraysOfOneName) {
  EXPECT_EQ(refusal(zip_bytes({ZipEntry("a.npy", array_file(a_data)), ZipEntry("b.npy", array_file(b_data)),
                               ZipEntry("a.npy", array_file(a_data))})),
            "it has two arrays 'a'");
}

TEST_F(NpzBytesTest, RefusesEncryptedArrays) {
  ZipEntry entry("a.npy", array_file(a_data));
  entry.flags = 1;
  EXPECT_EQ(refusal(entry), "array 'a': it is encrypted");
  entry.flags = 1 | 64;
  EXPECT_EQ(refusal(entry), "array 'a': it is encrypted");
  entry.flags = 8192;
  EXPECT_EQ(refusal(entry), "array 'a': it has the flags 8192, of which some are unknown here");
  entry.flags = 1 << 11 | 1 << 3 | 1 << 2 | 1 << 1;
  EXPECT_EQ(refusal(entry), "");
}

TEST_F(NpzBytesTest, RefusesOtherMethodsOfCompressionOnlyWhereTheyAreUsed) {
  ZipEntry entry("a.npy", array_file(a_data));
  entry.method = 12;
  const npz::Reader archive = open(zip_bytes({entry, ZipEntry("b.npy", array_file(b_data))}));
  EXPECT_EQ(read_array(archive, "b"), b_data);
  EXPECT_EQ(
      message_of<npy::FileError>([&] { archive.open("a"); }),
      "'" + path().string() + "': array 'a': it is compressed by method 12; only 0 (stored) and 8 (deflated) can be read");
}

TEST_F(NpzBytesTest, RefusesSizesThatLieBeforeAnyoneAllocates) {
  ZipEntry entry("a.npy", array_file(a_data));
  entry.size = 4000000000;
  EXPECT_EQ(refusal(entry), "array 'a': it claims 4000000000 bytes, it has 138");
  entry.compressed_size = 4000000000;
  EXPECT_EQ(refusal(entry), "array 'a': its data is not where the directory says");
  entry = ZipEntry::compressed("a.npy", array_file(b_data));
  const std::string compressed_size = std::to_string(entry.compressed_size);
  entry.size = 4000000000;
  EXPECT_EQ(refusal(entry), "array 'a': it claims 4000000000 bytes, it has " + compressed_size + " compressed ones");
  entry.size = entry.compressed_size * 1032;  // that could be true; the array's header says that it is not
  EXPECT_EQ(refusal(entry), "array 'a': it goes on after its data: shape (300,) of float16 takes 600 bytes, the file has " +
                                std::to_string(entry.size - 128) + " after its header");
}

TEST_F(NpzBytesTest, RefusesAnArrayWhoseHeaderClaimsMoreThanTheEntryHas) {
  const std::string header = npy::format_header({npy::Type::float64, {1099511627776, 1024}});
  for (const ZipEntry& entry : {ZipEntry("a.npy", header + a_data), ZipEntry::compressed("a.npy", header + a_data)}) {
    EXPECT_EQ(refusal(entry),
              "array 'a': its data is truncated: shape (1099511627776, 1024) of float64 takes "
              "9007199254740992 bytes, the file has 10 after its header");
  }
  const ZipEntry no_array("a.npy", "PK is not NumPy");
  EXPECT_EQ(refusal(no_array), "array 'a': it is not a .npy file: its first bytes are not those of NumPy");
  const ZipEntry empty("a.npy", "");
  EXPECT_EQ(refusal(empty), "array 'a': it is not a .npy file: its first bytes are not those of NumPy");
}

TEST_F(NpzBytesTest, RefusesAnArrayThatIsNotWhereTheDirectorySays) {
  const std::string why = "array 'a': its data is not where the directory says";
  const ZipEntry right("a.npy", array_file(a_data));
  const auto refusal_of = [&](auto change) {
    ZipEntry entry = right;
    change(entry);
    return refusal(entry);
  };
  EXPECT_EQ(refusal_of([](ZipEntry& entry) { entry.position = 1; }), why);
  EXPECT_EQ(refusal_of([](ZipEntry& entry) { entry.position = 0xFFFFFFFE; }), why);
  EXPECT_EQ(refusal_of([](ZipEntry& entry) { entry.local_signature = "PK\x01\x02"; }), why);
  EXPECT_EQ(refusal_of([](ZipEntry& entry) { entry.local_name = "b.npy"; }), why);
  EXPECT_EQ(refusal_of([](ZipEntry& entry) { entry.local_name = "a.npyy"; }), why);
  EXPECT_EQ(refusal_of([](ZipEntry& entry) { entry.compressed_size = entry.size = 100000; }), why);
  std::string bytes = zip_bytes({right});
  bytes[28] = bytes[29] = '\xff';  // the length of the local extra field
  EXPECT_EQ(refusal(bytes), why);
  const std::uint64_t size = bytes.size();
  EXPECT_EQ(refusal_of([&](ZipEntry& entry) { entry.position = size - 30; }), why);
  EXPECT_EQ(refusal_of([&](ZipEntry& entry) { entry.position = size - 29; }), why);
}

TEST_F(NpzBytesTest, RefusesDamagedData) {
  const std::string damaged = "array 'a': its checksum (CRC-32) does not fit: the data is damaged";
  ZipEntry stored("a.npy", array_file(a_data)), compressed = ZipEntry::compressed("a.npy", array_file(a_data));
  ZipEntry wrong_data = stored;
  wrong_data.data.back() = '!';
  EXPECT_EQ(refusal(wrong_data), damaged);
  ++stored.crc;
  EXPECT_EQ(refusal(stored), damaged);
  ++compressed.crc;
  EXPECT_EQ(refusal(compressed), damaged);
  compressed.data[0] = '\xff';  // a block of a kind that does not exist
  EXPECT_EQ(refusal(compressed), "array 'a': its compressed data is damaged");
}

TEST_F(NpzBytesTest, RefusesCompressedDataOfAnotherLength) {
  const ZipEntry right = ZipEntry::compressed("a.npy", array_file(b_data));
  ZipEntry entry = right;
  entry.data.pop_back();
  --entry.compressed_size;
  EXPECT_EQ(refusal(entry), "array 'a': its compressed data ends early");
  entry.data = support::deflated(array_file(b_data).substr(0, 200));
  entry.compressed_size = entry.data.size();
  EXPECT_EQ(refusal(entry), "array 'a': its compressed data ends early");
  const std::string goes_on = "array 'a': its compressed data does not end with the 728 bytes that it claims";
  entry.data = support::deflated(array_file(b_data) + "x");
  entry.compressed_size = entry.data.size();
  EXPECT_EQ(refusal(entry), goes_on);
  entry = right;
  entry.data += "x";
  ++entry.compressed_size;
  EXPECT_EQ(refusal(entry), goes_on);
  entry = right;  // the last block is not marked as such
  entry.data = support::deflated(array_file(b_data));
  entry.data[0] = static_cast<char>(entry.data[0] & ~1);
  EXPECT_NE(refusal(entry), "");
}

TEST_F(NpzBytesTest, KeepsControlCharactersAndLongTextsOutOfItsMessages) {
  ZipEntry entry("\x1b[31m" + std::string(1000, 'n') + ".npy", array_file(a_data));
  ++entry.crc;
  EXPECT_EQ(refusal(entry),
            "array '?[31m" + std::string(195, 'n') + "...': its checksum (CRC-32) does not fit: the data is damaged");
}

TEST_F(NpzBytesTest, NoticesThatAFileBecameShorter) {
  const npz::Reader archive = open(zip_bytes({ZipEntry("a.npy", array_file(std::string(100000, 'a')))}));
  npz::Array array = archive.open("a");
  std::filesystem::resize_file(path(), 50000);
  std::string data(100000, '\0');
  EXPECT_EQ(message_of<npy::FileError>([&] { array.read(std::as_writable_bytes(std::span(data))); }),
            "'" + path().string() + "': array 'a': its data ends early");
}

// Writing.

using npz::Compression;

TEST(NpzWriterTest, WritesTheBytesThatNumPyRead) {
  const TemporaryFolder folder;
  const npz::Reader numpys(stored_folder / "savez.npz");
  npz::Writer archive(folder / "x.npz");
  for (const std::string& name : numpys.names()) {
    archive.add(name, numpys.open(name).header(), bytes_of(read_array(numpys, name)));
  }
  archive.publish();
  EXPECT_EQ(read_bytes(folder / "x.npz"), read_bytes(stored_folder / "written.npz"));
}

/// Numbers without a pattern that deflate could find (xorshift64).
std::string noise(std::size_t size) {
  std::string text;
  for (std::uint64_t state = 88172645463325252; text.size() < size;) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    text += little_endian(state, 8);
  }
  return text.substr(0, size);
}

class NpzRoundTripTest : public testing::TestWithParam<Compression> {};

TEST_P(NpzRoundTripTest, GivesBackEveryArrayOfEverySize) {
  const TemporaryFolder folder;
  std::vector<std::string> contents;
  for (const std::size_t size : {0U, 2U, 64U, 16384U - 128, 16384U, 16386U, 1000000U}) {
    contents.push_back(noise(size));
    contents.emplace_back(size, 'x');
  }
  npz::Writer writer(folder / "x.npz", GetParam());
  for (std::size_t i = 0; i < contents.size(); ++i) {
    writer.add("array " + std::to_string(i), {npy::Type::float16, {static_cast<std::int64_t>(contents[i].size() / 2)}},
               bytes_of(contents[i]));
  }
  writer.publish();
  const npz::Reader reader(folder / "x.npz");
  ASSERT_EQ(reader.names().size(), contents.size());
  for (std::size_t i = 0; i < contents.size(); ++i)
    EXPECT_EQ(read_array(reader, "array " + std::to_string(i)), contents[i]) << i;
  const auto size = std::filesystem::file_size(folder / "x.npz");
  const auto total = std::accumulate(contents.begin(), contents.end(), std::size_t{0},
                                     [](std::size_t sum, const std::string& content) { return sum + content.size(); });
  if (GetParam() == Compression::stored) {
    EXPECT_GT(size, total);
  } else {
    EXPECT_LT(size, total / 2 + 10000);  // the noise stays, the pattern goes
  }
}

TEST_P(NpzRoundTripTest, NoDataNeedsNoPointer) {
  const TemporaryFolder folder;
  npz::Writer writer(folder / "x.npz", GetParam());
  writer.add("empty", {npy::Type::float16, {0}}, {});
  writer.publish();
  const npz::Reader reader(folder / "x.npz");
  npz::Array array = reader.open("empty");
  EXPECT_EQ(array.header(), (npy::Header{npy::Type::float16, {0}}));
  EXPECT_EQ(message_of<npy::FileError>([&] { array.read({}); }), "<no exception>");
}

TEST_P(NpzRoundTripTest, GivesTheSameBytesEveryTime) {
  const TemporaryFolder folder;
  for (const char* file : {"a.npz", "b.npz"}) {
    npz::Writer archive(folder / file, GetParam());
    archive.add("first", three_floats, bytes_of("0123456789ab"));
    archive.add("second", whole_number, bytes_of("01234567"));
    archive.publish();
  }
  EXPECT_EQ(read_bytes(folder / "a.npz"), read_bytes(folder / "b.npz"));
}

INSTANTIATE_TEST_SUITE_P(Either, NpzRoundTripTest, testing::Values(Compression::stored, Compression::deflated),
                         [](const auto& either) { return either.param == Compression::stored ? "stored" : "deflated"; });

TEST(NpzWriterTest, AnArchiveWithoutArraysIsOneToo) {
  const TemporaryFolder folder;
  npz::Writer(folder / "x.npz").publish();
  EXPECT_EQ(npz::Reader(folder / "x.npz").names(), std::vector<std::string>{});
}

TEST(NpzWriterTest, TheFileAppearsWhenItIsPublished) {
  const TemporaryFolder folder;
  write_bytes(folder / "x.npz", "older");
  {
    npz::Writer archive(folder / "x.npz");
    archive.add("a", three_floats, bytes_of("0123456789ab"));
    EXPECT_EQ(read_bytes(folder / "x.npz"), "older");
  }
  EXPECT_EQ(support::names_in(folder.path()), std::vector<std::string>{"x.npz"});
  EXPECT_EQ(read_bytes(folder / "x.npz"), "older");
  npz::Writer archive(folder / "x.npz");
  archive.add("a", three_floats, bytes_of("0123456789ab"));
  archive.publish();
  EXPECT_EQ(read_array(npz::Reader(folder / "x.npz"), "a"), "0123456789ab");
  EXPECT_EQ(support::names_in(folder.path()), std::vector<std::string>{"x.npz"});
}

TEST(NpzWriterTest, RefusesWhatCannotBeAddedAndGoesOn) {
  const TemporaryFolder folder;
  npz::Writer archive(folder / "x.npz");
  const auto refusal = [&](std::string_view name, const npy::Header& header, std::span<const std::byte> data) {
    return file_error_of([&](ErrorPointer error) { archive.add(name, header, data, error); });
  };
  const std::string begin = "'" + (folder / "x.npz").string() + "': array ";
  const auto number = bytes_of("01234567");
  archive.add("a", whole_number, number);
  EXPECT_EQ(refusal("a", whole_number, number), begin + "'a' cannot be added: there is one of that name");
  const std::string bad_name = " cannot be added: its name must have 1 to 65531 printable characters of ASCII";
  EXPECT_EQ(refusal("", whole_number, number), begin + "''" + bad_name);
  EXPECT_EQ(refusal("new\nline", whole_number, number), begin + "'new?line'" + bad_name);
  EXPECT_EQ(refusal("\xc3\xa4", whole_number, number), begin + "'?\?'" + bad_name);
  EXPECT_EQ(refusal(std::string(65532, 'n'), whole_number, number), begin + "'" + std::string(200, 'n') + "...'" + bad_name);
  EXPECT_EQ(refusal("b", {npy::Type::float64, {std::int64_t{1} << 62}}, number),
            begin + "'b': its shape (4611686018427387904,) has more than 2^63 - 1 bytes");
  EXPECT_EQ(refusal("b", three_floats, number),
            begin + "'b' cannot be added: shape (3,) of float32 takes 12 bytes, given are 8");
  archive.add(std::string(65531, 'n'), whole_number, number);
  archive.publish();
  EXPECT_EQ(npz::Reader(folder / "x.npz").names(), (std::vector<std::string>{"a", std::string(65531, 'n')}));
}

/// Memory that is there but takes none: nobody reads or writes it.
class AddressSpace {
 public:
  explicit AddressSpace(std::size_t size)
      : size_(size), data_(mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;
  ~AddressSpace() { munmap(data_, size_); }

  bool present() const { return data_ != MAP_FAILED; }
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }

 private:
  std::size_t size_;
  void* data_;
};

TEST(NpzWriterTest, RefusesAnArrayThatWouldNeedZip64) {
  const TemporaryFolder folder;
  const AddressSpace space(std::size_t{1} << 32);
  ASSERT_TRUE(space.present());
  npz::Writer archive(folder / "x.npz");
  EXPECT_EQ(message_of<npy::FileError>([&] {
              archive.add("a", {npy::Type::float32, {1 << 30}}, space.bytes());
            }),
            "'" + (folder / "x.npz").string() + "': array 'a' cannot be added: it is larger than 4 GiB");
}

TEST(NpzWriterTest, RefusesMoreArraysThanTheDirectoryCanCount) {
  const TemporaryFolder folder;
  npz::Writer archive(folder / "x.npz");
  for (int i = 0; i < 65535; ++i) archive.add(std::to_string(i), whole_number, bytes_of("01234567"));
  EXPECT_EQ(file_error_of([&](ErrorPointer error) { archive.add("one more", whole_number, bytes_of("01234567"), error); }),
            "'" + (folder / "x.npz").string() + "': array 'one more' cannot be added: there are 65535 already");
  archive.publish();
  const npz::Reader reader(folder / "x.npz");
  EXPECT_EQ(reader.names().size(), 65535U);
  EXPECT_EQ(read_array(reader, "65534"), "01234567");
}

TEST(NpzWriterTest, SaysWhyAFileCannotBeWritten) {
  const TemporaryFolder folder;
  const auto refusal = [](const std::filesystem::path& path) {
    return file_error_of([&](ErrorPointer error) { npz::Writer archive(path, npz::Compression::stored, error); });
  };
  EXPECT_EQ(refusal(folder.path()), "'" + folder.path().string() + "': it cannot be written: it is a directory");
  const std::string orphan = folder / "missing" / "x.npz";
  EXPECT_EQ(refusal(orphan), "'" + orphan + "': it cannot be written: No such file or directory");
}

TEST(NpzWriterTest, LeavesNothingWhenTheDiskIsFull) {
  const TemporaryFolder folder;
  const std::string begin = "'" + (folder / "x.npz").string() + "': it cannot be written: ";
  std::string at_end, on_the_way, afterwards;
  {
    const support::FileSizeLimit limit(100);
    at_end = message_of<npy::FileError>([&] {
      npz::Writer archive(folder / "x.npz");
      archive.add("a", three_floats, bytes_of("0123456789ab"));  // fits the buffer
      archive.publish();
    });
    npz::Writer archive(folder / "x.npz");
    const std::string data = noise(1000000);
    on_the_way = file_error_of(true, [&](ErrorPointer error) {
      archive.add("a", {npy::Type::float16, {500000}}, bytes_of(data), error);
    });
    afterwards = file_error_of([&](ErrorPointer error) { archive.publish(error); });
  }
  EXPECT_EQ(at_end, begin + "File too large");
  EXPECT_EQ(on_the_way, begin + "File too large");
  EXPECT_NE(afterwards, "<no exception>");
  EXPECT_EQ(support::names_in(folder.path()), std::vector<std::string>{});
}

TEST(NpzWriterTest, AWriterThatCouldNotWriteOnceNeverPublishes) {
  const TemporaryFolder folder;
  npz::Writer archive(folder / "x.npz");
  {
    const support::FileSizeLimit limit(100);
    const std::string data = noise(1000000);
    EXPECT_THROW(archive.add("a", {npy::Type::float16, {500000}}, bytes_of(data)), npy::FileError);
  }
  EXPECT_EQ(message_of<npy::FileError>([&] { archive.publish(); }),
            "'" + (folder / "x.npz").string() + "': it cannot be written: an earlier part of it could not be written");
  EXPECT_FALSE(exists(folder / "x.npz"));
}

}  // namespace
