// SPDX-License-Identifier: MIT
#include "failing_allocations.hpp"

#include <algorithm>

#include <batchnorm/checkpoint.hpp>

#include "support/temporary_folder.hpp"

// Every allocation of reading and writing files fails once: older files stay, and no partial one does.
namespace {

using batchnorm::Parameters;
using fuzz::bytes_of;
using fuzz::Subject;
using support::TemporaryFolder;

Parameters<float> some_parameters(float first) {
  Parameters<float> parameters(5);
  for (std::int64_t c = 0; c < 5; ++c) {
    parameters.scale[c] = first + static_cast<float>(c);
    parameters.mean[c] = 2 * parameters.scale[c];
  }
  parameters.batches = 3;
  return parameters;
}

std::string bytes_of_parameters(const Parameters<float>& p) {
  return bytes_of(std::span(p.scale.data(), 5)) + bytes_of(std::span(p.bias.data(), 5)) +
         bytes_of(std::span(p.mean.data(), 5)) + bytes_of(std::span(p.variance.data(), 5)) + std::to_string(p.batches);
}

/// The names and the bytes of all files.
std::string content_of(const TemporaryFolder& folder) {
  std::string all;
  for (const std::string& name : support::names_in(folder.path())) all += name + "\n" + support::read_bytes(folder / name);
  return all;
}

void expect_harmless(const std::function<void(const TemporaryFolder&)>& prepare,
                     const std::function<void(const TemporaryFolder&)>& call) {
  fuzz::expect_failures_harmless<batchnorm::npy::FileError>([&] {
    auto folder = std::make_shared<TemporaryFolder>();
    prepare(*folder);
    return Subject{[folder, &call] { call(*folder); }, [folder] { return content_of(*folder); }};
  });
}

constexpr batchnorm::npz::Compression compressions[] = {batchnorm::npz::Compression::stored,
                                                        batchnorm::npz::Compression::deflated};

TEST(FailedAllocation, OfSavingAnArchiveLeavesTheOlderOne) {
  const Parameters<float> older = some_parameters(1), newer = some_parameters(7);
  for (const auto compression : compressions) {
    expect_harmless([&](const TemporaryFolder& folder) { batchnorm::save_npz(folder / "layer.npz", older); },
                    [&](const TemporaryFolder& folder) { batchnorm::save_npz(folder / "layer.npz", newer, compression); });
  }
}

TEST(FailedAllocation, OfSavingAFolderLeavesTheOlderFiles) {
  const Parameters<float> older = some_parameters(1), newer = some_parameters(7);
  expect_harmless([&](const TemporaryFolder& folder) { batchnorm::save_npy_folder(folder.path(), older); },
                  [&](const TemporaryFolder& folder) { batchnorm::save_npy_folder(folder.path(), newer); });
}

TEST(FailedAllocation, OfAddingAnArrayToAnArchiveLeavesRoomForIt) {
  const std::vector<float> values(40, 1.5F);
  const batchnorm::npy::Header header{batchnorm::npy::Type::float32, {40}};
  for (const auto compression : compressions) {
    const TemporaryFolder folder;
    batchnorm::npz::Writer archive(folder / "a.npz", compression), without_failures(folder / "b.npz", compression);
    std::int64_t failures = 0;
    for (const char* name :
         {"first", "an array with a name that is longer than what a string holds without memory of its own"}) {
      without_failures.add(name, header, std::as_bytes(std::span(values)));
      for (bool done = false; !done;) {
        std::string error_of_file;
        try {
          const support::FailingAllocation failing(++failures);
          archive.add(name, header, std::as_bytes(std::span(values)));
          done = true;
        } catch (const std::bad_alloc&) {
        } catch (const batchnorm::npy::FileError& error) {
          error_of_file = error.what();
        }
        ASSERT_EQ(error_of_file, "") << "allocation " << failures;
      }
      failures = 0;
    }
    archive.publish(), without_failures.publish();
    EXPECT_EQ(support::read_bytes(folder / "a.npz"), support::read_bytes(folder / "b.npz"));
  }
}

TEST(FailedAllocation, OfReadingAFileLeaksNothing) {
  const TemporaryFolder folder;
  const Parameters<float> parameters = some_parameters(1);
  batchnorm::save_npz(folder / "stored.npz", parameters);
  batchnorm::save_npz(folder / "deflated.npz", parameters, batchnorm::npz::Compression::deflated);
  batchnorm::save_npy_folder(folder.path(), parameters);
  const auto expect_read = [&](const std::function<Parameters<float>()>& read) {
    fuzz::expect_failures_harmless<batchnorm::npy::FileError>([&] {
      auto result = std::make_shared<std::string>();
      return Subject{[result, &read] { *result = bytes_of_parameters(read()); }, [result] { return *result; }};
    });
  };
  expect_read([&] { return batchnorm::load_npz<float>(folder / "stored.npz"); });
  expect_read([&] { return batchnorm::load_npz<float>(folder / "deflated.npz"); });
  expect_read([&] { return batchnorm::load_npy_folder<float>(folder.path()); });
}

}  // namespace
