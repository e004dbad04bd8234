// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <batchnorm/call/reporter.hpp>
#include <batchnorm/errors.hpp>
#include <batchnorm/npy/convert.hpp>
#include <batchnorm/npy/npy.hpp>
#include <batchnorm/npy/tensor.hpp>
#include <batchnorm/npz/reader.hpp>
#include <batchnorm/npz/writer.hpp>
#include <batchnorm/parameter_names.hpp>
#include <batchnorm/parameters.hpp>

// The arrays of a layer, between a Parameters and files: what checkpoint.hpp is made of.
namespace batchnorm {

namespace detail {

/// Returns whether a layer can be written.
template <Element P>
bool check_parameters(const Parameters<P>& parameters, std::optional<Error>* error) {
  const arguments::Reporter report("batchnorm::Parameters", CallOptions{.error = error});
  const Shape expected{parameters.channels()};
  const auto check = [&](const char* name, const Tensor<P>& tensor) {
    if (tensor.shape() == expected) return;
    report.fail<ShapeError>(std::string(name) + " is " + to_string(tensor.shape()) + ", expected is " + to_string(expected));
  };
  check("scale", parameters.scale);
  check("bias", parameters.bias);
  check("mean", parameters.mean);
  check("variance", parameters.variance);
  if (parameters.batches < 0) {
    report.fail<ValueError>("batches is " + std::to_string(parameters.batches) + ", it must not be negative");
  }
  return !report.failed();
}

/// Calls write(arrays) with the arrays of a layer that has passed check_parameters.
template <Element P, class Write>
void write_parameters(const Parameters<P>& parameters, Write write) {
  const npy::Header header = npy::header_of(parameters.scale);
  const auto &scale = npy::as_written(parameters.scale), &bias = npy::as_written(parameters.bias),
             &mean = npy::as_written(parameters.mean), &variance = npy::as_written(parameters.variance);
  const auto bytes = [](const auto& tensor) { return std::as_bytes(std::span(tensor.begin(), tensor.end())); };
  const std::array<npz::NewArray, 5> arrays{
      {{"scale", header, bytes(scale)},
       {"bias", header, bytes(bias)},
       {"mean", header, bytes(mean)},
       {"variance", header, bytes(variance)},
       {"batches", {npy::Type::int64, {}}, std::as_bytes(std::span(&parameters.batches, 1))}}};
  write(arrays);
}

using npy::detail::FileReporter;

/// An open array as a tensor of [C]; `channels` becomes C where it is not known.
template <Element P, class Array>
Tensor<P> read_channels(Array& array, std::optional<std::int64_t>& channels, bool convert, const FileReporter& report) {
  const auto& shape = array.header().shape;
  if (shape.size() != 1 || shape[0] != channels.value_or(shape[0])) {
    report.fail("its shape is " + npy::to_string(shape) + ", expected is " +
                (channels ? npy::to_string({*channels}) : "(C,), one axis"));
    return {};
  }
  channels = shape[0];
  return convert ? npy::detail::read_converted<P>(array, report) : npy::detail::read_tensor<P>(array, report);
}

template <class Array>
std::int64_t read_batches(Array& array, const FileReporter& report) {
  const npy::Header expected{npy::Type::int64, {}};
  if (array.header() != expected) {
    report.fail("it is " + npy::type_name(array.header().type) + " of shape " + npy::to_string(array.header().shape) +
                ", expected is int64 of shape ()");
    return 0;
  }
  std::int64_t batches = 0;
  array.read(std::as_writable_bytes(std::span(&batches, 1)), report);
  if (batches < 0) report.fail("it is " + std::to_string(batches) + ", it must not be negative");
  return batches;
}

/// One number of any type.
template <class Array>
std::int64_t read_converted_batches(Array& array, const FileReporter& report) {
  const auto& shape = array.header().shape;
  if (array.header().type == npy::Type::int64 && shape.empty()) return read_batches(array, report);
  if (!shape.empty() && shape != std::vector<std::int64_t>{1}) {
    report.fail("its shape is " + npy::to_string(shape) + ", expected is () or (1,)");
    return 0;
  }
  const Tensor<double> read = npy::detail::read_converted<double>(array, report);
  if (report.failed()) return 0;
  const double batches = read[0];
  constexpr double largest = 9007199254740992;  // 2^53
  if (!(batches >= 0 && batches <= largest) || batches != std::floor(batches)) {
    report.fail("it is " + npy::detail::number_text(batches) + ", it must be a whole number from 0 to 2^53");
    return 0;
  }
  return static_cast<std::int64_t>(batches);
}

inline std::string array_name(std::string_view layer, std::string_view name) {
  return layer.empty() ? std::string(name) : std::string(layer).append(".").append(name);
}

/// The arrays of a layer in an archive.
struct ArchiveLayer {
  const npz::Reader& archive;
  std::string_view layer;

  bool contains(std::string_view name) const { return archive.contains(array_name(layer, name)); }
  npz::Array open(std::string_view name, const FileReporter& report) const {
    return archive.open(array_name(layer, name), report);
  }
  /// Where errors of an array go.
  FileReporter reporter(std::string_view name, const FileReporter& report) const {
    return report.of_array(array_name(layer, name));
  }
  void refuse(std::string_view name, const std::string& why, const FileReporter& report) const {
    report.fail("it has no array " + npz::detail::quoted(array_name(layer, name)) + why);
  }
};

/// The arrays of a layer in a folder.
struct FolderLayer {
  const std::filesystem::path& folder;

  std::filesystem::path file(std::string_view name) const { return folder / std::string(name).append(".npy"); }
  bool contains(std::string_view name) const {
    std::error_code ignored;
    return std::filesystem::exists(file(name), ignored);
  }
  npy::Reader open(std::string_view name, const FileReporter& report) const { return npy::Reader(reporter(name, report)); }
  /// Where errors of an array go.
  FileReporter reporter(std::string_view name, const FileReporter& report) const { return report.of_file(file(name)); }
  void refuse(std::string_view name, const std::string& why, const FileReporter& report) const {
    reporter(name, report).fail("there is no such file" + why);
  }
};

/// Refuses a layer that has the names of another framework.
template <class Layer>
void refuse_other_names(const Layer& layer, const std::string& missing, const FileReporter& report) {
  struct Framework {
    const char* name;
    const char* function;
    ParameterNames names;
  };
  const Framework frameworks[] = {{"PyTorch", "pytorch_names", pytorch_names()},
                                  {"Keras", "keras_names", keras_names()},
                                  {"Flax", "flax_names", flax_names()},
                                  {"ONNX", "onnx_names", onnx_names()},
                                  {"PaddlePaddle", "paddle_names", paddle_names()},
                                  {"this library", "ParameterNames", {}}};
  for (const auto& [name, function, names] : frameworks) {
    if (!layer.contains(names.mean) || !layer.contains(names.variance)) continue;
    if (missing == names.scale || missing == names.bias || missing == names.mean || missing == names.variance) continue;
    layer.refuse(missing,
                 std::string(", but the names of ").append(name).append(": LoadOptions::names = ").append(function) + "()",
                 report);
  }
}

/// Reads a layer of an archive or of a folder. Without channels after an error.
template <Element P, class Layer>
Parameters<P> read_parameters(const Layer& layer, const LoadOptions& options, const FileReporter& report) {
  const ParameterNames& names = options.names;
  std::optional<std::int64_t> channels = options.channels;
  const auto read = [&](const std::string& name) {
    if (name.empty() || report.failed()) return Tensor<P>();
    if (!layer.contains(name)) refuse_other_names(layer, name, report);
    if (report.failed()) return Tensor<P>();
    auto array = layer.open(name, report);
    if (report.failed()) return Tensor<P>();
    return read_channels<P>(array, channels, options.convert, layer.reporter(name, report));
  };
  Tensor<P> scale = read(names.scale), bias = read(names.bias), mean = read(names.mean), variance = read(names.variance);
  if (report.failed()) return Parameters<P>(0);
  if (!channels || *channels < 0) {
    const arguments::Reporter to("batchnorm::LoadOptions", CallOptions{.error = report.error()});
    to.fail<ValueError>(channels ? "channels is " + std::to_string(*channels) + ", it must not be negative"
                                 : "channels is absent, and so is every array that has C elements");
    return Parameters<P>(0);
  }
  Parameters<P> parameters(*channels);
  if (!names.scale.empty()) parameters.scale = std::move(scale);
  if (!names.bias.empty()) parameters.bias = std::move(bias);
  if (!names.mean.empty()) parameters.mean = std::move(mean);
  if (!names.variance.empty()) parameters.variance = std::move(variance);
  if (!names.batches.empty()) {
    auto array = layer.open(names.batches, report);
    if (report.failed()) return Parameters<P>(0);
    const FileReporter of_batches = layer.reporter(names.batches, report);
    parameters.batches = options.convert ? read_converted_batches(array, of_batches) : read_batches(array, of_batches);
    if (report.failed()) return Parameters<P>(0);
  }
  return parameters;
}

}  // namespace detail

}  // namespace batchnorm
