// SPDX-License-Identifier: MIT

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include <batchnorm/checkpoint.hpp>

#include "support/allocations.hpp"
#include "support/failing_system_calls.hpp"
#include "support/file_errors.hpp"
#include "support/file_size_limit.hpp"
#include "support/messages.hpp"
#include "support/temporary_folder.hpp"

// Writing that fails, at every step: what was there is still there, and nothing else is.
namespace {

namespace npy = batchnorm::npy;
namespace npz = batchnorm::npz;

using batchnorm::Parameters;
using support::ErrorPointer;
using support::file_error_of;
using support::message_of;
using support::read_bytes;
using support::TemporaryFolder;
using support::write_bytes;

using Contents = std::map<std::string, std::string>;

/// The files of a folder with their bytes; of a directory "<directory>".
Contents contents_of(const std::filesystem::path& folder) {
  Contents contents;
  for (const std::string& name : support::names_in(folder)) {
    contents[name] = is_directory(folder / name) ? "<directory>" : read_bytes(folder / name);
  }
  return contents;
}

Parameters<float> layer_of(float value) {
  Parameters<float> layer(5);
  layer.scale[0] = layer.bias[1] = layer.mean[2] = layer.variance[3] = value;
  layer.batches = static_cast<std::int64_t>(value);
  return layer;
}

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

const npy::Header two_halves{npy::Type::float16, {2}};

/// What may be in the folder when a save fails.
struct Before {
  const char* what;
  std::function<void(const std::filesystem::path&)> make;
};

const std::vector<Before> every_before{
    {"nothing", [](const auto&) {}},
    {"an older layer", [](const auto& folder) { save_npy_folder(folder, layer_of(1)); }},
    {"half an older layer, and a file of another's",
     [](const auto& folder) {
       save_npy_folder(folder, layer_of(1));
       std::filesystem::remove(folder / "mean.npy");
       std::filesystem::remove(folder / "scale.npy");
       write_bytes(folder / "bias.npy.0.older", "not ours");
       write_bytes(folder / "variance.npy.0.partial", "not ours");
     }},
    {"a symbolic link",
     [](const auto& folder) {
       save_npy_folder(folder, layer_of(1));
       std::filesystem::rename(folder / "scale.npy", folder / "elsewhere.npy");
       std::filesystem::create_symlink("elsewhere.npy", folder / "scale.npy");
     }},
};

TEST(FileFailuresTest, AFailedRenameOfAnyFileLosesNoOlderOneAndLeavesNothing) {
  for (const auto& [what, make] : every_before) {
    for (const bool without_links : {false, true}) {
      for (const bool as_value : {false, true}) {
        long k = 1;
        for (; k < 100; ++k) {
          SCOPED_TRACE(std::string(what) + ", call " + std::to_string(k) + (without_links ? ", no links" : ""));
          const TemporaryFolder folder;
          make(folder.path());
          const Contents before = contents_of(folder.path());
          bool failed = false;
          const std::string message = file_error_of(as_value, [&](ErrorPointer error) {
            const support::FailingRename failing(k, ENOSPC, without_links);
            save_npy_folder(folder.path(), layer_of(2), error);
            failed = support::FailingRename::has_failed();
          });
          if (message == "<no exception>") {
            // A link that fails is one that the file system lacks: the older file is renamed then.
            if (failed) continue;
            EXPECT_EQ(batchnorm::load_npy_folder<float>(folder.path()).batches, 2);
            break;
          }
          EXPECT_NE(message.find("it cannot be written: "), std::string::npos) << message;
          EXPECT_EQ(contents_of(folder.path()), before);
        }
        EXPECT_GE(k, 6);
        EXPECT_LT(k, 100);
      }
    }
  }
}

TEST(FileFailuresTest, ADirectoryInTheWayOfAnyFileLosesNoOlderOne) {
  for (const std::string name : {"scale", "bias", "mean", "variance", "batches"}) {
    SCOPED_TRACE(name);
    const TemporaryFolder folder;
    save_npy_folder(folder.path(), layer_of(1));
    std::filesystem::remove(folder / (name + ".npy"));
    std::filesystem::create_directory(folder / (name + ".npy"));
    const Contents before = contents_of(folder.path());
    for (const bool as_value : {false, true}) {
      EXPECT_EQ(file_error_of(as_value, [&](ErrorPointer error) { save_npy_folder(folder.path(), layer_of(2), error); }),
                "'" + (folder / (name + ".npy")).string() + "': it cannot be written: it is a directory");
      EXPECT_EQ(contents_of(folder.path()), before);
    }
  }
}

TEST(FileFailuresTest, ADirectoryThatComesBeforePublishingLosesNoOlderFile) {
  for (const bool without_links : {false, true}) {
    for (const std::string late : {"a.npy", "b.npy", "c.npy"}) {
      SCOPED_TRACE(late);
      const TemporaryFolder folder;
      for (const char* name : {"a.npy", "b.npy", "c.npy"}) write_bytes(folder / name, std::string("older ") + name);
      npy::StagedFiles files;
      for (const char* name : {"a.npy", "b.npy", "c.npy"}) files.add(folder / name, two_halves, bytes_of("abcd"));
      std::filesystem::remove(folder / late);
      std::filesystem::create_directory(folder / late);
      const support::FailingRename links(0, 0, without_links);
      EXPECT_EQ(file_error_of(without_links, [&](ErrorPointer error) { files.publish(error); }),
                "'" + (folder / late).string() + "': it cannot be written: it is a directory");
      Contents expected{{"a.npy", "older a.npy"}, {"b.npy", "older b.npy"}, {"c.npy", "older c.npy"}};
      expected[late] = "<directory>";
      EXPECT_EQ(contents_of(folder.path()), expected);
    }
  }
}

TEST(FileFailuresTest, AFileThatIsAddedTwiceFallsBackToTheOldest) {
  for (const long k : {7, 8, 9}) {  // the renamings, after 1 + 2 + 3 attempts to link
    for (const bool as_value : {false, true}) {
      const TemporaryFolder folder;
      write_bytes(folder / "a.npy", "older");
      npy::StagedFiles files;
      for (const char* data : {"abcd", "efgh", "ijkl"}) files.add(folder / "a.npy", two_halves, bytes_of(data));
      const std::string message = file_error_of(as_value, [&](ErrorPointer error) {
        const support::FailingRename failing(k, EIO);
        files.publish(error);
      });
      EXPECT_EQ(message, "'" + (folder / "a.npy").string() + "': it cannot be written: Input/output error") << k;
      EXPECT_EQ(contents_of(folder.path()), (Contents{{"a.npy", "older"}})) << k;
    }
  }
}

TEST(FileFailuresTest, FilesCanBeAddedAndPublishedAfterAFailure) {
  const TemporaryFolder folder;
  npy::StagedFiles files;
  files.add(folder / "a.npy", two_halves, bytes_of("abcd"));
  files.add(folder / "b.npy", two_halves, bytes_of("efgh"));
  {
    const support::FailingRename failing(2, EIO);
    EXPECT_THROW(files.publish(), npy::FileError);
  }
  EXPECT_EQ(contents_of(folder.path()), Contents{});
  files.add(folder / "c.npy", two_halves, bytes_of("abcd"));
  files.publish();
  EXPECT_EQ(support::names_in(folder.path()), std::vector<std::string>{"c.npy"});
}

TEST(FileFailuresTest, AFolderThatBecomesReadOnlyKeepsItsFiles) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become somebody for whom it is read-only";
  const TemporaryFolder folder;
  save_npy_folder(folder.path(), layer_of(1));
  const Contents before = contents_of(folder.path());
  ASSERT_EQ(chmod(folder.path().c_str(), 0555), 0);
  ASSERT_EQ(seteuid(65534), 0);
  const std::string folder_error =
      file_error_of(false, [&](ErrorPointer error) { save_npy_folder(folder.path(), layer_of(2), error); });
  const std::string archive_error = file_error_of(
      true, [&](ErrorPointer error) { save_npz(folder / "layer.npz", layer_of(2), npz::Compression::stored, error); });
  ASSERT_EQ(seteuid(0), 0);
  EXPECT_EQ(folder_error, "'" + (folder / "scale.npy").string() + "': it cannot be written: Permission denied");
  EXPECT_EQ(archive_error, "'" + (folder / "layer.npz").string() + "': it cannot be written: Permission denied");
  EXPECT_EQ(contents_of(folder.path()), before);
}

TEST(FileFailuresTest, NoSizeOfADiskMakesASaveLoseWhatWasThere) {
  for (rlim_t size = 0; size < 1800; size += 90) {
    const bool as_value = size >= 900;
    const TemporaryFolder folder;
    save_npy_folder(folder.path(), layer_of(1));
    for (const char* name : {"layer.npz", "small.npz"}) save_npz(folder / name, layer_of(1));
    const Contents before = contents_of(folder.path());
    std::string folder_error, archive_error, deflated_error;
    {
      const support::FileSizeLimit limit(size % 900);
      folder_error = file_error_of(as_value, [&](ErrorPointer error) { save_npy_folder(folder.path(), layer_of(2), error); });
      archive_error = file_error_of(
          as_value, [&](ErrorPointer error) { save_npz(folder / "layer.npz", layer_of(2), npz::Compression::stored, error); });
      deflated_error = file_error_of(as_value, [&](ErrorPointer error) {
        save_npz(folder / "small.npz", layer_of(2), npz::Compression::deflated, error);
      });
    }
    const Contents after = contents_of(folder.path());
    EXPECT_EQ(after.size(), before.size());
    const auto expect_same = [&](const std::string& error, const char* name) {
      EXPECT_TRUE(error == "<no exception>" || after.at(name) == before.at(name)) << name << ", " << size;
    };
    expect_same(folder_error, "scale.npy");
    expect_same(folder_error, "batches.npy");
    expect_same(archive_error, "layer.npz");
    expect_same(deflated_error, "small.npz");
  }
}

TEST(FileFailuresTest, AFailedAllocationLosesNoOlderFolder) {
  const TemporaryFolder folder;
  save_npy_folder(folder.path(), layer_of(1));
  const Contents before = contents_of(folder.path());
  const long failures = support::with_each_allocation_failing(
      [&] { save_npy_folder(folder.path(), layer_of(2)); },
      [&](long k) { ASSERT_EQ(contents_of(folder.path()), before) << "allocation " << k; });
  EXPECT_GT(failures, 20);
  EXPECT_EQ(batchnorm::load_npy_folder<float>(folder.path()).batches, 2);
}

TEST(FileFailuresTest, AFailedAllocationLosesNoOlderArchive) {
  for (const auto compression : {npz::Compression::stored, npz::Compression::deflated}) {
    const TemporaryFolder folder;
    save_npz(folder / "layer.npz", layer_of(1));
    const Contents before = contents_of(folder.path());
    const long failures = support::with_each_allocation_failing(
        [&] { save_npz(folder / "layer.npz", layer_of(2), compression); },
        [&](long k) { ASSERT_EQ(contents_of(folder.path()), before) << "allocation " << k; });
    EXPECT_GT(failures, 20);
    EXPECT_EQ(batchnorm::load_npz<float>(folder / "layer.npz").batches, 2);
  }
}

/// The bytes of an archive to which `add` added something after each of its allocations had failed once.
std::string after_failed_allocations(npz::Compression compression, const std::function<void(npz::Writer&)>& add) {
  const TemporaryFolder folder;
  long failures = 0;
  {
    npz::Writer archive(folder / "x.npz", compression);
    archive.add("first", two_halves, bytes_of("abcd"));
    failures = support::with_each_allocation_failing([&] { add(archive); }, [](long) {});
    archive.add("last", two_halves, bytes_of("efgh"));
    archive.publish();
  }
  EXPECT_GT(failures, 5);
  return read_bytes(folder / "x.npz");
}

std::string without_failures(npz::Compression compression, const std::function<void(npz::Writer&)>& add) {
  const TemporaryFolder folder;
  npz::Writer archive(folder / "x.npz", compression);
  archive.add("first", two_halves, bytes_of("abcd"));
  add(archive);
  archive.add("last", two_halves, bytes_of("efgh"));
  archive.publish();
  return read_bytes(folder / "x.npz");
}

TEST(FileFailuresTest, AnArrayThatLackedMemoryCanBeAddedAgain) {
  for (const auto compression : {npz::Compression::stored, npz::Compression::deflated}) {
    const auto add = [](npz::Writer& archive) {
      archive.add("an array whose name is no short string", two_halves, bytes_of("ijkl"));
    };
    EXPECT_EQ(after_failed_allocations(compression, add), without_failures(compression, add));
  }
}

TEST(FileFailuresTest, ALayerThatLackedMemoryCanBeAddedAgain) {
  for (const auto compression : {npz::Compression::stored, npz::Compression::deflated}) {
    const auto add = [](npz::Writer& archive) { add_parameters(archive, "layer1.0.a.longer.name", layer_of(3)); };
    EXPECT_EQ(after_failed_allocations(compression, add), without_failures(compression, add));
    const auto narrow = [](npz::Writer& archive) { add_parameters(archive, "a", Parameters<batchnorm::bfloat16>(3)); };
    EXPECT_EQ(after_failed_allocations(compression, narrow), without_failures(compression, narrow));
  }
}

TEST(FileFailuresTest, ALayerOfWhichOneArrayIsThereAlreadyAddsNone) {
  const TemporaryFolder folder;
  npz::Writer archive(folder / "x.npz");
  archive.add("a.variance", two_halves, bytes_of("abcd"));
  EXPECT_EQ(message_of<npy::FileError>([&] { add_parameters(archive, "a", layer_of(1)); }),
            "'" + (folder / "x.npz").string() + "': array 'a.variance' cannot be added: there is one of that name");
  archive.publish();
  EXPECT_EQ(npz::Reader(folder / "x.npz").names(), std::vector<std::string>{"a.variance"});
}

TEST(FileFailuresTest, AnArchiveThatCouldNotBeRenamedCanBePublishedAgain) {
  const TemporaryFolder folder;
  npz::Writer archive(folder / "x.npz");
  archive.add("a", two_halves, bytes_of("abcd"));
  std::filesystem::create_directory(folder / "x.npz");
  EXPECT_THROW(archive.publish(), npy::FileError);
  std::filesystem::remove(folder / "x.npz");
  archive.publish();
  EXPECT_EQ(npz::Reader(folder / "x.npz").names(), std::vector<std::string>{"a"});
  EXPECT_EQ(message_of<npy::FileError>([&] { archive.add("b", two_halves, bytes_of("abcd")); }),
            "'" + (folder / "x.npz").string() + "': it cannot be written: it is closed already");
}

}  // namespace
