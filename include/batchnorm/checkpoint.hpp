// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include <batchnorm/npy/npy.hpp>
#include <batchnorm/npz/layer.hpp>
#include <batchnorm/npz/reader.hpp>
#include <batchnorm/npz/writer.hpp>
#include <batchnorm/parameter_names.hpp>
#include <batchnorm/parameters.hpp>

/// @file
/// Parameters in NumPy's files. Not part of batchnorm.hpp, as it needs zlib; with CMake:
///
///     find_package(batchnorm 0.1 CONFIG REQUIRED COMPONENTS checkpoint)
///     target_link_libraries(program PRIVATE batchnorm::checkpoint)
///
/// A layer is five arrays, each an entry of a .npz file or a .npy file of its own:
///
///   scale, bias, mean, variance   (C,)   float16, float32, float64 for half, float, double; float32 for bfloat16, which NumPy
///                                        lacks and float32 holds exactly
///   batches                       ()     int64, >= 0
///
/// In an archive of several layers they are called "LAYER.scale" and so on. In Python:
///
///     np.load("layer.npz")["scale"]  # what save_npz wrote
///     np.savez("layer.npz", scale=s, bias=b, mean=m, variance=v, batches=np.int64(n))  # what load_npz reads; compressed too
///
/// Reading changes no value: the type must be the one above, to the letter, and C must be the same in all, and the one that the
/// caller expects. Values may be anything, NaN included. Files of other frameworks have other names and other types:
/// LoadOptions says which, and asks for conversion. Of PyTorch, for example:
///
///     np.savez("model.npz", **{name: tensor.numpy() for name, tensor in model.state_dict().items()})
///
///     read_parameters<float>(npz::Reader("model.npz"), "layer1.0.bn1", {.names = pytorch_names()})
///
/// A file is data from outside; whatever is in it, reading ends with the values that were written or with an error, and takes
/// no more memory than about 1032 times the file (the most that deflate saves), with a conversion five times that. Files are
/// written whole or not at all: a call that fails leaves what was there.
///
/// Errors are thrown, or stored in an std::optional<Error> that the caller names (`error`, LoadOptions::error), empty after a
/// call that succeeds:
///
///     std::optional<Error> error;
///     const auto layer = load_npz<float>("layer.npz", {.error = &error});
///     if (error) return report(error->message);

namespace batchnorm {

/// Adds a layer to an archive; "" stands for the one layer of an archive that has no other. After an error the archive is as
/// it was, as it is after npz::Writer::add.
///
///   error   if given, takes the error instead of a throw
/// @throws ShapeError       the four tensors are not all [C]
/// @throws ValueError       batches is negative
/// @throws npy::FileError   the archive has this layer already, or cannot be written
template <Element P>
void add_parameters(npz::Writer& archive, std::string_view layer, const Parameters<P>& parameters,
                    std::optional<Error>* error = nullptr);

/// Reads a layer from an archive; "" stands for names without one. Without `channels` any C will do.
/// @throws npy::FileError   an array is missing, has another type or shape than expected, or cannot be read; the message names
///                          the file, the array, and what was expected and found
/// @throws std::bad_alloc
template <Element P>
Parameters<P> read_parameters(const npz::Reader& archive, std::string_view layer = {},
                              std::optional<std::int64_t> channels = {});

/// Reads a layer whose arrays are called LAYER.NAME, or NAME where `layer` is "".
/// @throws npy::FileError   as above
/// @throws ValueError       all of the four names are "" and channels is absent or negative
/// @throws std::bad_alloc
template <Element P>
Parameters<P> read_parameters(const npz::Reader& archive, std::string_view layer, const LoadOptions& options);

/// Writes a .npz file of one layer.
///
///   error   if given, takes the error instead of a throw
/// @throws ShapeError, ValueError, npy::FileError   as add_parameters does
template <Element P>
void save_npz(const std::filesystem::path& path, const Parameters<P>& parameters,
              npz::Compression compression = npz::Compression::stored, std::optional<Error>* error = nullptr);

/// Reads a .npz file of one layer.
/// @throws npy::FileError, std::bad_alloc   as read_parameters does, or the file is not a .npz file
template <Element P>
Parameters<P> load_npz(const std::filesystem::path& path, std::optional<std::int64_t> channels = {});

/// Reads a .npz file of one layer.
/// @throws npy::FileError, ValueError, std::bad_alloc   as read_parameters does, or the file is not a .npz file
template <Element P>
Parameters<P> load_npz(const std::filesystem::path& path, const LoadOptions& options);

/// Writes scale.npy, bias.npy, mean.npy, variance.npy and batches.npy into a folder, which must exist. They appear when all are
/// written; when one cannot be, older ones are as they were.
///
///   error   if given, takes the error instead of a throw
/// @throws ShapeError, ValueError, npy::FileError   as add_parameters does
template <Element P>
void save_npy_folder(const std::filesystem::path& folder, const Parameters<P>& parameters,
                     std::optional<Error>* error = nullptr);

/// Reads the same five files.
/// @throws npy::FileError, std::bad_alloc   as read_parameters does
template <Element P>
Parameters<P> load_npy_folder(const std::filesystem::path& folder, std::optional<std::int64_t> channels = {});

/// Reads the files NAME.npy of a folder.
/// @throws npy::FileError, ValueError, std::bad_alloc   as read_parameters does
template <Element P>
Parameters<P> load_npy_folder(const std::filesystem::path& folder, const LoadOptions& options);

// ----------------------------------------------------------------------------------------------------------------------------

template <Element P>
void add_parameters(npz::Writer& archive, std::string_view layer, const Parameters<P>& parameters,
                    std::optional<Error>* error) {
  if (!detail::check_parameters(parameters, error)) return;
  detail::write_parameters(parameters, [&](auto arrays) {
    for (npz::NewArray& array : arrays) array.name = detail::array_name(layer, array.name);
    archive.add(arrays, error);
  });
}

template <Element P>
Parameters<P> read_parameters(const npz::Reader& archive, std::string_view layer, std::optional<std::int64_t> channels) {
  return read_parameters<P>(archive, layer, LoadOptions{.channels = channels});
}

template <Element P>
Parameters<P> read_parameters(const npz::Reader& archive, std::string_view layer, const LoadOptions& options) {
  return detail::read_parameters<P>(detail::ArchiveLayer{archive, layer}, options,
                                    npy::detail::FileReporter(archive.path(), options.error));
}

template <Element P>
void save_npz(const std::filesystem::path& path, const Parameters<P>& parameters, npz::Compression compression,
              std::optional<Error>* error) {
  const npy::detail::FileReporter report(path, error);
  npz::Writer archive(compression, report);
  if (!report.failed()) add_parameters(archive, "", parameters, error);
  if (!report.failed()) archive.publish(report);
}

template <Element P>
Parameters<P> load_npz(const std::filesystem::path& path, std::optional<std::int64_t> channels) {
  return load_npz<P>(path, LoadOptions{.channels = channels});
}

template <Element P>
Parameters<P> load_npz(const std::filesystem::path& path, const LoadOptions& options) {
  const npy::detail::FileReporter report(path, options.error);
  const npz::Reader archive(report);
  if (report.failed()) return Parameters<P>(0);
  return detail::read_parameters<P>(detail::ArchiveLayer{archive, ""}, options, report);
}

template <Element P>
void save_npy_folder(const std::filesystem::path& folder, const Parameters<P>& parameters, std::optional<Error>* error) {
  if (!detail::check_parameters(parameters, error)) return;
  npy::StagedFiles files;
  const npy::detail::FileReporter report(folder, error);
  detail::write_parameters(parameters, [&](const auto& arrays) {
    for (const npz::NewArray& array : arrays) {
      files.add(array.header, array.data, report.of_file(folder / (array.name + ".npy")));
      if (report.failed()) return;
    }
  });
  if (!report.failed()) files.publish(report);
}

template <Element P>
Parameters<P> load_npy_folder(const std::filesystem::path& folder, std::optional<std::int64_t> channels) {
  return load_npy_folder<P>(folder, LoadOptions{.channels = channels});
}

template <Element P>
Parameters<P> load_npy_folder(const std::filesystem::path& folder, const LoadOptions& options) {
  return detail::read_parameters<P>(detail::FolderLayer{folder}, options, npy::detail::FileReporter(folder, options.error));
}

}  // namespace batchnorm
