// SPDX-License-Identifier: MIT
//
// The reader of the Fashion-MNIST files, on files made here: the data set itself is not needed.

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <zlib.h>
#include <fashion_mnist/dataset.hpp>

#include "support/temporary_folder.hpp"

namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::uint8_t>;

constexpr std::uint32_t images_magic = 0x00000803;
constexpr std::uint32_t labels_magic = 0x00000801;

Bytes header(std::initializer_list<std::uint32_t> numbers) {
  Bytes bytes;
  for (const std::uint32_t number : numbers) {
    for (const unsigned shift : {24U, 16U, 8U, 0U}) bytes.push_back(static_cast<std::uint8_t>(number >> shift & 0xFFU));
  }
  return bytes;
}

Bytes join(Bytes first, const Bytes& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

/// Two images of 2 x 3 pixels.
const Bytes six_pixels_twice = {0, 1, 2, 3, 4, 5, 250, 251, 252, 253, 254, 255};
const Bytes two_images = join(header({images_magic, 2, 2, 3}), six_pixels_twice);

/// A folder of its own for each test, gone at its end.
class FashionMnist : public testing::Test {
 protected:
  fs::path write(const std::string& name, const Bytes& bytes) const {
    const fs::path path = folder_ / name;
    std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
    return path;
  }

  fs::path write_gzip(const std::string& name, const Bytes& contents) const {
    const fs::path path = folder_ / name;
    const gzFile file = gzopen(path.c_str(), "wb");
    EXPECT_EQ(gzwrite(file, contents.data(), static_cast<unsigned>(contents.size())), static_cast<int>(contents.size()));
    EXPECT_EQ(gzclose(file), Z_OK);
    return path;
  }

  Bytes gzip(const Bytes& contents) const {
    std::ifstream file(write_gzip("whole.gz", contents), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  /// A training set: `images` and `labels` are the contents of its two files.
  void write_training_set(const Bytes& images, const Bytes& labels) const {
    write_gzip("train-images-idx3-ubyte.gz", images);
    write_gzip("train-labels-idx1-ubyte.gz", labels);
  }

  const support::TemporaryFolder temporary_;
  const fs::path folder_ = temporary_.path();
};

template <class Function>
std::string message_of(Function function) {
  try {
    function();
  } catch (const fashion_mnist::DataError& error) {
    return error.what();
  }
  return "no DataError";
}

std::string images_message(const fs::path& path) {
  return message_of([&] { fashion_mnist::read_images(path); });
}

std::string labels_message(const fs::path& path) {
  return message_of([&] { fashion_mnist::read_labels(path); });
}

std::string examples_message(const fs::path& folder) {
  return message_of([&] { fashion_mnist::read_examples(folder, fashion_mnist::Split::training); });
}

std::string about(const fs::path& path, const std::string& what) { return "'" + path.string() + "': " + what; }

Bytes blank_images(std::uint32_t count, std::uint32_t rows, std::uint32_t columns) {
  return join(header({images_magic, count, rows, columns}), Bytes(std::size_t{count} * rows * columns));
}

TEST_F(FashionMnist, ReadsCompressedImages) {
  const fashion_mnist::Images images = fashion_mnist::read_images(write_gzip("images.gz", two_images));
  EXPECT_EQ(images.count, 2);
  EXPECT_EQ(images.rows, 2);
  EXPECT_EQ(images.columns, 3);
  EXPECT_EQ(images.pixels_per_image(), 6);
  EXPECT_EQ(images.pixels, six_pixels_twice);
}

TEST_F(FashionMnist, ReadsImagesThatAreNotCompressed) {
  EXPECT_EQ(fashion_mnist::read_images(write("images", two_images)).pixels, six_pixels_twice);
}

TEST_F(FashionMnist, ReadsLabels) {
  const Bytes labels = {9, 0, 4};
  EXPECT_EQ(fashion_mnist::read_labels(write_gzip("labels.gz", join(header({labels_magic, 3}), labels))), labels);
}

TEST_F(FashionMnist, ReadsNoImagesAndNoLabels) {
  EXPECT_TRUE(fashion_mnist::read_images(write_gzip("images.gz", header({images_magic, 0, 28, 28}))).pixels.empty());
  EXPECT_TRUE(fashion_mnist::read_labels(write_gzip("labels.gz", header({labels_magic, 0}))).empty());
}

// The reader takes 4 MiB at a time: one byte less, as many, and one more than two such pieces.
TEST_F(FashionMnist, ReadsContentsOfSeveralPieces) {
  constexpr std::uint32_t two_pieces = 2U << 22U;
  for (const std::uint32_t size : {two_pieces - 1, two_pieces, two_pieces + 1}) {
    Bytes labels(size);
    for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::uint8_t>(i % 251);
    const fs::path path = write_gzip("labels.gz", join(header({labels_magic, size}), labels));
    EXPECT_TRUE(fashion_mnist::read_labels(path) == labels) << size;
  }
}

TEST_F(FashionMnist, SaysThatAFileIsMissing) {
  const fs::path path = folder_ / "images.gz";
  EXPECT_EQ(images_message(path), about(path, "cannot be opened: No such file or directory"));
  EXPECT_EQ(labels_message(path), about(path, "cannot be opened: No such file or directory"));
}

TEST_F(FashionMnist, SaysThatAFileIsAFolder) {
  EXPECT_EQ(images_message(folder_), about(folder_, "cannot be read: Is a directory"));
}

TEST_F(FashionMnist, RefusesAnotherMagicNumber) {
  const fs::path labels = write_gzip("labels.gz", join(header({labels_magic, 2}), {1, 2}));
  EXPECT_EQ(images_message(labels), about(labels, "the magic number is 0x00000801, that of images is 0x00000803"));
  const fs::path images = write_gzip("images.gz", two_images);
  EXPECT_EQ(labels_message(images), about(images, "the magic number is 0x00000803, that of labels is 0x00000801"));
  const fs::path text = write("text", {'H', 'e', 'l', 'l', 'o', '!'});
  EXPECT_EQ(images_message(text), about(text, "the magic number is 0x48656c6c, that of images is 0x00000803"));
}

TEST_F(FashionMnist, RefusesAHeaderThatEndsEarly) {
  for (std::ptrdiff_t size = 0; size < 16; ++size) {
    const fs::path path = write_gzip("images.gz", Bytes(two_images.begin(), two_images.begin() + size));
    EXPECT_EQ(images_message(path), about(path, "ends within its header")) << size;
  }
  const fs::path empty = write("empty", {});
  EXPECT_EQ(labels_message(empty), about(empty, "ends within its header"));
}

TEST_F(FashionMnist, RefusesFewerBytesThanAnnounced) {
  const fs::path path = write_gzip("images.gz", Bytes(two_images.begin(), two_images.end() - 1));
  EXPECT_EQ(images_message(path), about(path, "holds 11 of the 12 bytes that its header announces"));
}

TEST_F(FashionMnist, RefusesMoreBytesThanAnnounced) {
  const fs::path path = write_gzip("images.gz", join(two_images, {0}));
  EXPECT_EQ(images_message(path), about(path, "holds more than the 12 bytes that its header announces"));
}

TEST_F(FashionMnist, RefusesCountsBeyondTheAddressSpace) {
  constexpr std::uint32_t most = 0xFFFFFFFF;
  const fs::path path = write_gzip("images.gz", join(header({images_magic, most, most, most}), six_pixels_twice));
  EXPECT_EQ(images_message(path), about(path, "the header announces more than 2^63 bytes"));
}

// 2^62 bytes: an allocation of that size would fail.
TEST_F(FashionMnist, AllocatesOnlyWhatIsThere) {
  const fs::path path =
      write_gzip("images.gz", join(header({images_magic, 1U << 30U, 1U << 16U, 1U << 16U}), six_pixels_twice));
  EXPECT_EQ(images_message(path), about(path, "holds 12 of the 4611686018427387904 bytes that its header announces"));
}

TEST_F(FashionMnist, RefusesAStreamThatIsCutOff) {
  const Bytes whole = gzip(two_images);
  const fs::path path = write("images.gz", Bytes(whole.begin(), whole.begin() + std::ssize(whole) / 2));
  EXPECT_EQ(images_message(path), about(path, "the file is cut off within its gzip stream"));
}

// Also where all pixels are there and only the checksum at the end is not.
TEST_F(FashionMnist, RefusesEveryBeginningOfAFile) {
  const Bytes whole = gzip(two_images);
  for (std::ptrdiff_t size = 0; size < std::ssize(whole); ++size) {
    const fs::path path = write("images.gz", Bytes(whole.begin(), whole.begin() + size));
    EXPECT_NE(images_message(path), "no DataError") << size << " of " << whole.size() << " bytes";
  }
}

TEST_F(FashionMnist, RefusesAWrongChecksum) {
  Bytes whole = gzip(two_images);
  whole[whole.size() - 8] ^= 1U;  // the last eight bytes are the checksum and the length
  const fs::path path = write("images.gz", whole);
  EXPECT_EQ(images_message(path), about(path, "the gzip stream is damaged: incorrect data check"));
}

TEST_F(FashionMnist, RefusesADamagedStream) {
  Bytes whole = gzip(two_images);
  whole[10] = 0xFF;  // the first byte after gzip's header: a block of the type that does not exist
  const fs::path path = write("images.gz", whole);
  EXPECT_EQ(images_message(path), about(path, "the gzip stream is damaged: invalid block type"));
}

TEST_F(FashionMnist, ReadsImagesWithTheirLabels) {
  write_training_set(blank_images(2, 28, 28), join(header({labels_magic, 2}), {9, 0}));
  const fashion_mnist::Examples examples = fashion_mnist::read_examples(folder_, fashion_mnist::Split::training);
  EXPECT_EQ(examples.images.count, 2);
  EXPECT_EQ(examples.labels, (Bytes{9, 0}));
}

TEST_F(FashionMnist, NamesTheFileOfASetThatIsMissing) {
  EXPECT_EQ(message_of([&] { fashion_mnist::read_examples(folder_, fashion_mnist::Split::test); }),
            about(folder_ / "t10k-images-idx3-ubyte.gz", "cannot be opened: No such file or directory"));
  write_gzip("train-images-idx3-ubyte.gz", blank_images(1, 28, 28));
  EXPECT_EQ(examples_message(folder_),
            about(folder_ / "train-labels-idx1-ubyte.gz", "cannot be opened: No such file or directory"));
}

TEST_F(FashionMnist, RefusesImagesOfAnotherSize) {
  write_training_set(blank_images(1, 28, 27), join(header({labels_magic, 1}), {0}));
  EXPECT_EQ(examples_message(folder_), about(folder_ / "train-images-idx3-ubyte.gz",
                                             "the images have 28 x 27 pixels, those of Fashion-MNIST have 28 x 28"));
}

TEST_F(FashionMnist, RefusesASetWithoutImages) {
  write_training_set(blank_images(0, 28, 28), header({labels_magic, 0}));
  EXPECT_EQ(examples_message(folder_), about(folder_ / "train-images-idx3-ubyte.gz", "holds no images"));
}

TEST_F(FashionMnist, RefusesAnotherNumberOfLabelsThanOfImages) {
  write_training_set(blank_images(2, 28, 28), join(header({labels_magic, 3}), {0, 1, 2}));
  EXPECT_EQ(examples_message(folder_), about(folder_ / "train-labels-idx1-ubyte.gz", "holds 3 labels for 2 images"));
}

TEST_F(FashionMnist, RefusesALabelWithoutAClass) {
  write_training_set(blank_images(2, 28, 28), join(header({labels_magic, 2}), {0, 10}));
  EXPECT_EQ(examples_message(folder_), about(folder_ / "train-labels-idx1-ubyte.gz", "has a label 10, the classes are 0 to 9"));
}

TEST_F(FashionMnist, CopiesPixelsAsNumbersFromZeroToOne) {
  const fashion_mnist::Images images{3, 1, 2, {1, 2, 0, 51, 255, 4}};
  std::array<float, 4> copied{-1, -1, -1, -1};
  fashion_mnist::copy_as_float(images, 1, 1, copied.data());
  EXPECT_EQ(copied, (std::array<float, 4>{0.0F, 0.2F, -1.0F, -1.0F}));
  fashion_mnist::copy_as_float(images, 1, 2, copied.data());
  EXPECT_EQ(copied[2], 1.0F);
}

}  // namespace
