// SPDX-License-Identifier: MIT
#pragma once

#include <charconv>
#include <cstddef>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "description.hpp"
#include "npy_tool/command_line.hpp"
#include "onnx/batch_normalization.hpp"
#include "onnx/file.hpp"

namespace onnx_tool {

using npy_tool::UsageError;

inline void add_model(CLI::App& command, std::filesystem::path& path) {
  command.add_option("model", path, "A model, an .onnx file")->type_name("MODEL")->required();
}

/// A model in memory, and its batch norms.
class ModelFile {
 public:
  /// @throws onnx::FileError   it cannot be read or is malformed
  explicit ModelFile(const std::filesystem::path& path)
      : file_(path),
        model_(onnx::named(path, [&] { return onnx::parse_model(file_.bytes()); })),
        norms_(onnx::named(path, [&] { return onnx::batch_normalizations(model_, values_); })) {}

  const std::filesystem::path& path() const noexcept { return file_.path(); }
  const onnx::Model& model() const noexcept { return model_; }
  onnx::Values& values() noexcept { return values_; }
  const std::vector<onnx::BatchNormalization>& norms() const noexcept { return norms_; }

  /// What call() returns; a FormatError in it becomes an error that names the file.
  template <class Call>
  auto named(Call&& call) const {
    return onnx::named(file_.path(), std::forward<Call>(call));
  }

  /// The number of the node that `choice` names or counts from 0; "" means the only one.
  /// @throws UsageError   there is no such node, or more than one
  std::size_t find(const std::string& choice) const {
    const std::string before = "'" + path().string() + "': ";
    if (norms_.empty()) throw UsageError(before + "it has no node BatchNormalization");
    if (choice.empty()) {
      if (norms_.size() == 1) return 0;
      throw UsageError(before + "it has " + std::to_string(norms_.size()) +
                       " nodes BatchNormalization; --node chooses one by its name or number, the command list shows them");
    }
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < norms_.size(); ++i) {
      if (norms_[i].node->name == choice) found.push_back(i);
    }
    if (found.size() == 1) return found[0];
    if (found.size() > 1) {
      throw UsageError(before + std::to_string(found.size()) + " nodes BatchNormalization have the name " +
                       onnx::quoted(choice) + "; --node takes a number, too, the command list shows them");
    }
    std::size_t number = 0;
    const char* end = choice.data() + choice.size();
    const auto [rest, error] = std::from_chars(choice.data(), end, number);
    if (error == std::errc() && rest == end && number < norms_.size()) return number;
    throw UsageError(before + "it has no node BatchNormalization with the name or number " + onnx::quoted(choice) +
                     "; the command list shows those that it has");
  }

 private:
  onnx::File file_;
  onnx::Model model_;
  onnx::Values values_;
  std::vector<onnx::BatchNormalization> norms_;
};

}  // namespace onnx_tool
