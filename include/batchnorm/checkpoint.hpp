// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <batchnorm/errors.hpp>
#include <batchnorm/npy/npy.hpp>
#include <batchnorm/npy/tensor.hpp>
#include <batchnorm/npz/reader.hpp>
#include <batchnorm/npz/writer.hpp>
#include <batchnorm/parameters.hpp>

/// @file
/// Parameters in NumPy's files. Not part of batchnorm.hpp, as it needs zlib (and exceptions); with CMake:
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
/// caller expects. Values may be anything, NaN included. A file is data from outside; whatever is in it, reading ends with the
/// values that were written or with an error, and takes no more memory than about 1032 times the file (the most that deflate
/// saves). Files are written whole or not at all.

namespace batchnorm {

/// Adds a layer to an archive; "" stands for the one layer of an archive that has no other.
/// @throws ShapeError       the four tensors are not all [C]
/// @throws ValueError       batches is negative
/// @throws npy::FileError   the archive has this layer already, or cannot be written
template <Element P>
void add_parameters(npz::Writer& archive, std::string_view layer, const Parameters<P>& parameters);

/// Reads a layer from an archive; "" stands for names without one. Without `channels` any C will do.
/// @throws npy::FileError   an array is missing, has another type or shape than expected, or cannot be read; the message names
///                          the file, the array, and what was expected and found
/// @throws std::bad_alloc
template <Element P>
Parameters<P> read_parameters(const npz::Reader& archive, std::string_view layer = {},
                              std::optional<std::int64_t> channels = {});

/// Writes a .npz file of one layer.
/// @throws ShapeError, ValueError, npy::FileError   as add_parameters does
template <Element P>
void save_npz(const std::filesystem::path& path, const Parameters<P>& parameters,
              npz::Compression compression = npz::Compression::stored);

/// Reads a .npz file of one layer.
/// @throws npy::FileError, std::bad_alloc   as read_parameters does, or the file is not a .npz file
template <Element P>
Parameters<P> load_npz(const std::filesystem::path& path, std::optional<std::int64_t> channels = {});

/// Writes scale.npy, bias.npy, mean.npy, variance.npy and batches.npy into a folder, which must exist. They appear when all are
/// written.
/// @throws ShapeError, ValueError, npy::FileError   as add_parameters does
template <Element P>
void save_npy_folder(const std::filesystem::path& folder, const Parameters<P>& parameters);

/// Reads the same five files.
/// @throws npy::FileError, std::bad_alloc   as read_parameters does
template <Element P>
Parameters<P> load_npy_folder(const std::filesystem::path& folder, std::optional<std::int64_t> channels = {});

// ----------------------------------------------------------------------------------------------------------------------------

namespace detail {

template <Element P>
void check_parameters(const Parameters<P>& parameters) {
  const Shape expected{parameters.channels()};
  const auto check = [&](const char* name, const Tensor<P>& tensor) {
    if (tensor.shape() == expected) return;
    fail<ShapeError>(std::string("batchnorm::Parameters: ") + name + " is " + to_string(tensor.shape()) + ", expected is " +
                     to_string(expected));
  };
  check("scale", parameters.scale);
  check("bias", parameters.bias);
  check("mean", parameters.mean);
  check("variance", parameters.variance);
  if (parameters.batches < 0) {
    fail<ValueError>("batchnorm::Parameters: batches is " + std::to_string(parameters.batches) + ", it must not be negative");
  }
}

/// Calls write(name, header, data) for each array of a layer.
template <Element P, class Write>
void write_parameters(const Parameters<P>& parameters, Write write) {
  check_parameters(parameters);
  const auto write_one = [&](const char* name, const Tensor<P>& tensor) {
    npy::write_tensor(tensor, [&](const npy::Header& header, std::span<const std::byte> data) { write(name, header, data); });
  };
  write_one("scale", parameters.scale);
  write_one("bias", parameters.bias);
  write_one("mean", parameters.mean);
  write_one("variance", parameters.variance);
  write("batches", npy::Header{npy::Type::int64, {}}, std::as_bytes(std::span(&parameters.batches, 1)));
}

/// An open array as a tensor of [C]; `channels` becomes C where it is not known.
template <Element P, class Array>
Tensor<P> read_channels(Array array, std::optional<std::int64_t>& channels) {
  const auto& shape = array.header().shape;
  if (shape.size() != 1 || shape[0] != channels.value_or(shape[0])) {
    array.fail("its shape is " + npy::to_string(shape) + ", expected is " +
               (channels ? npy::to_string({*channels}) : "(C,), one axis"));
  }
  channels = shape[0];
  return npy::read_tensor<P>(array);
}

template <class Array>
std::int64_t read_batches(Array array) {
  const npy::Header expected{npy::Type::int64, {}};
  if (array.header() != expected) {
    array.fail("it is " + npy::type_name(array.header().type) + " of shape " + npy::to_string(array.header().shape) +
               ", expected is int64 of shape ()");
  }
  std::int64_t batches = 0;
  array.read(std::as_writable_bytes(std::span(&batches, 1)));
  if (batches < 0) array.fail("it is " + std::to_string(batches) + ", it must not be negative");
  return batches;
}

/// Reads a layer whose arrays open(name) opens, npy::Reader or npz::Array.
template <Element P, class Open>
Parameters<P> read_parameters(std::optional<std::int64_t> channels, Open open) {
  Parameters<P> parameters(0);
  parameters.scale = read_channels<P>(open("scale"), channels);
  parameters.bias = read_channels<P>(open("bias"), channels);
  parameters.mean = read_channels<P>(open("mean"), channels);
  parameters.variance = read_channels<P>(open("variance"), channels);
  parameters.batches = read_batches(open("batches"));
  return parameters;
}

inline std::string array_name(std::string_view layer, std::string_view name) {
  return layer.empty() ? std::string(name) : std::string(layer).append(".").append(name);
}

}  // namespace detail

template <Element P>
void add_parameters(npz::Writer& archive, std::string_view layer, const Parameters<P>& parameters) {
  detail::write_parameters(parameters, [&](std::string_view name, const npy::Header& header, std::span<const std::byte> data) {
    archive.add(detail::array_name(layer, name), header, data);
  });
}

template <Element P>
Parameters<P> read_parameters(const npz::Reader& archive, std::string_view layer, std::optional<std::int64_t> channels) {
  return detail::read_parameters<P>(channels,
                                    [&](std::string_view name) { return archive.open(detail::array_name(layer, name)); });
}

template <Element P>
void save_npz(const std::filesystem::path& path, const Parameters<P>& parameters, npz::Compression compression) {
  npz::Writer archive(path, compression);
  add_parameters(archive, "", parameters);
  archive.publish();
}

template <Element P>
Parameters<P> load_npz(const std::filesystem::path& path, std::optional<std::int64_t> channels) {
  return read_parameters<P>(npz::Reader(path), "", channels);
}

template <Element P>
void save_npy_folder(const std::filesystem::path& folder, const Parameters<P>& parameters) {
  npy::StagedFiles files;
  detail::write_parameters(parameters,
                           [&](const std::string& name, const npy::Header& header, std::span<const std::byte> data) {
                             files.add(folder / (name + ".npy"), header, data);
                           });
  files.publish();
}

template <Element P>
Parameters<P> load_npy_folder(const std::filesystem::path& folder, std::optional<std::int64_t> channels) {
  return detail::read_parameters<P>(channels, [&](const std::string& name) { return npy::Reader(folder / (name + ".npy")); });
}

}  // namespace batchnorm
