// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <batchnorm/fold.hpp>

#include "affine.hpp"
#include "checks.hpp"
#include "layer.hpp"
#include "onnx/edit.hpp"
#include "onnx/model.hpp"
#include "onnx/values.hpp"
#include "uses.hpp"

namespace onnx_tool {

/// Folds the batch norms of a model into the layers before them. A layer then puts out what the last of its batch norms did,
/// under that name; these are gone, and nothing else is changed:
///
///   * weights and bias that no one else uses are changed where they stand, in the type that they have; others are copied as
///     new initializers. All copies together have at most the bytes of the model, which bounds the result.
///   * parameters of batch norms stay, even if nothing refers to them any more.
///   * what the model declares about the tensors between a layer and its batch norms goes with them.
class Folding {
 public:
  Folding(const onnx::Model& model, onnx::Values& values, const std::vector<onnx::BatchNormalization>& norms)
      : model_(model), values_(values), norms_(norms), uses_(model), budget_(model.message.text.size()) {
    reasons_.resize(norms.size());
    for (std::size_t i = 0; i < norms.size(); ++i) reasons_[i] = take(i);
    for (Plan& plan : plans_) edit(plan);
    for (auto& [graph, changes] : changes_) finish(*graph, changes);
  }

  /// The model with what could be folded; the pieces view the model and this object.
  std::vector<std::string_view> result() { return edits_.apply(model_.message); }

  std::size_t count() const noexcept { return folded_; }

  /// A line for each node.
  std::string report() const {
    std::string text =
        "folded " + std::to_string(folded_) + " of " + std::to_string(norms_.size()) + " nodes BatchNormalization\n";
    for (std::size_t i = 0; i < norms_.size(); ++i) {
      text += name_of(norms_[i], i) + ": ";
      if (reasons_[i].empty()) {
        const onnx::Node& node = *plan_of_.at(norms_[i].node)->layer.node;
        text += "folded into " + std::string(node.op_type) + " " + onnx::quoted(node.name) + "\n";
      } else {
        text += "not folded: " + reasons_[i] + "\n";
      }
    }
    return text;
  }

 private:
  struct Plan {
    const onnx::Graph* graph;
    Layer layer;
    batchnorm::AffineMap map;        ///< of all its batch norms, one after the other
    std::vector<std::size_t> norms;  ///< in the order of the data
  };

  /// What becomes of a graph beside its nodes.
  struct Changes {
    std::string inputs;                   ///< further fields
    std::set<std::string_view> vanished;  ///< names of tensors
  };

  /// Adds a batch norm to the plan of its layer, or returns why it cannot.
  std::string take(std::size_t i) {
    const onnx::BatchNormalization& norm = norms_[i];
    if (model_.has_training_info) return "the model has notes about its training, which refer to its tensors";
    if (norm.graph->is_function) return "it stands in a function, which several nodes may call";
    if (const std::string problem = problem_of(norm, known_of(norm)); !problem.empty()) return "it cannot be run: " + problem;
    if (norm.is_training) return "it trains";
    if (norm.node->has_graphs) return "it has graphs in its attributes";
    const std::vector<std::string_view>& outputs = norm.node->outputs;
    if (outputs.empty() || outputs[0].empty()) return "it has no output Y";
    for (std::size_t k = 1; k < outputs.size(); ++k) {
      if (!outputs[k].empty()) return "it has more outputs than Y";
    }
    for (std::size_t k = 1; k < norm.inputs.size(); ++k) {
      const std::string why = obstacle(model_, std::string(onnx::input_names[k]), norm.inputs[k]);
      if (!why.empty()) return why;
    }
    const std::string_view x = norm.node->inputs[0];
    const auto producer = norm.graph->producers.find(x);
    if (producer == norm.graph->producers.end() || norm.graph->initializers.contains(x)) {
      return "X is " + origin_of(norm.inputs[0]) +
             (norm.inputs[0].source == onnx::Source::computed ? " outside its graph" : "");
    }
    if (uses_.count(*norm.graph, x) != 1) return "X is also used by others";
    return take_after(*producer->second, i);
  }

  std::string take_after(const onnx::Node& node, std::size_t i) {
    const onnx::BatchNormalization& norm = norms_[i];
    const auto before = plan_of_.find(&node);
    const bool is_layer = node.is("Conv") || node.is("ConvTranspose") || node.is("Gemm");
    if (before == plan_of_.end() && !is_layer) return "X is computed by a node " + onnx::printable(node.op_type);
    Layer layer;
    if (before == plan_of_.end()) {
      detail::LayerReader reader(model_, *norm.graph, node, values_);
      layer = reader.read();
      const std::string name = "the " + std::string(node.op_type) + " before it cannot take it: ";
      if (!reader.problem.empty()) return name + reader.problem;
      if (!reserve(*norm.graph, layer)) return name + "copies of what it shares with others would double the model";
    }
    const Layer& into = before == plan_of_.end() ? layer : before->second->layer;
    for (std::size_t k = 1; k < norm.inputs.size(); ++k) {
      const batchnorm::Shape shape = onnx::shape_of(*norm.inputs[k].tensor);
      if (shape.rank() == 0 || shape[0] != into.channels() || batchnorm::element_count(shape) != into.channels()) {
        return std::string(onnx::input_names[k]) + " has shape " + to_string(shape) + ", the " +
               std::string(into.node->op_type) + " before it puts out " + std::to_string(into.channels()) + " channels";
      }
    }
    // A chain of batch norms may share its parameters.
    if (before != plan_of_.end() && !spend(static_cast<std::uint64_t>(into.channels()))) {
      return "the chain of batch norms before it is too long";
    }
    const auto parameter = [&](std::size_t k) -> const AnyTensor& { return decoded(*norm.inputs[k].tensor); };
    batchnorm::AffineMap map = map_of(parameter(1), parameter(2), parameter(3), parameter(4), norm.epsilon);
    for (std::size_t c = 0; c < map.factor.size(); ++c) {
      if (!std::isfinite(map.factor[c]) || !std::isfinite(map.shift[c])) {
        return "channel " + std::to_string(c) + " has a factor or a shift that is not finite";
      }
    }
    if (before == plan_of_.end()) {
      plans_.push_back({norm.graph, layer, std::move(map), {i}});
      plan_of_[norm.node] = &plans_.back();
      return "";
    }
    Plan& plan = *before->second;
    for (std::size_t c = 0; c < map.factor.size(); ++c) {
      plan.map.shift[c] = std::fma(map.factor[c], plan.map.shift[c], map.shift[c]);
      plan.map.factor[c] *= map.factor[c];
    }
    plan.norms.push_back(i);
    plan_of_[norm.node] = &plan;
    return "";
  }

  /// The values of a tensor that many may refer to: read once, kept.
  const AnyTensor& decoded(const onnx::TensorProto& tensor) {
    const auto [entry, is_new] = decoded_.try_emplace(&tensor);
    if (is_new) entry->second = decode(tensor);
    return entry->second;
  }

  bool spend(std::uint64_t bytes) {
    if (bytes > budget_) return false;
    budget_ -= bytes;
    return true;
  }

  /// Whether a tensor of the layer can be changed where it stands: it is the layer's alone, and has the shape that it will
  /// have.
  bool is_own(const onnx::Graph& graph, const onnx::Value& value, std::string_view input, const batchnorm::Shape& shape) const {
    return value.tensor != nullptr && value.graph == &graph && value.name == input && uses_.count(graph, input) == 1 &&
           value.tensor->storage != onnx::storages::value_float && value.tensor->storage != onnx::storages::value_floats &&
           onnx::shape_of(*value.tensor) == shape;
  }

  bool reserve(const onnx::Graph& graph, const Layer& layer) {
    const std::vector<std::string_view>& inputs = layer.node->inputs;
    const auto bytes = [&](const batchnorm::Shape& shape) {
      return static_cast<std::uint64_t>(batchnorm::element_count(shape)) *
             static_cast<std::uint64_t>(onnx::size_of(layer.weights.tensor->type));
    };
    // A shape is believed only beside the values that it claims.
    const bool is_own_weights = is_own(graph, layer.weights, inputs[1], layer.shape);
    if (is_own_weights) {
      onnx::check_values(*layer.weights.tensor);
    } else {
      decoded(*layer.weights.tensor);
    }
    if (layer.bias.tensor != nullptr) decoded(*layer.bias.tensor);
    if (!is_own_weights && !spend(bytes(layer.shape))) return false;
    // A bias of [M, channels] that is spread from [M, 1] may be larger than all that the model holds.
    const bool is_small = layer.bias_shape.rank() == 1 || is_own(graph, layer.bias, inputs[2], layer.bias_shape);
    return is_small || (batchnorm::element_count(layer.bias_shape, "the bias", "Gemm") > 0 && spend(bytes(layer.bias_shape)));
  }

  // ---- what is written

  void edit(const Plan& plan) {
    const Layer& layer = plan.layer;
    const bool is_own_weights = is_own(*plan.graph, layer.weights, layer.node->inputs[1], layer.shape);
    const FoldedTensors tensors = folded(layer, is_own_weights ? decode(*layer.weights.tensor) : decoded(*layer.weights.tensor),
                                         layer.bias.tensor == nullptr ? nullptr : &decoded(*layer.bias.tensor), plan.map);
    if (!tensors.is_finite) {
      const std::string why = "the weights would not be finite in " + onnx::to_string(layer.weights.tensor->type);
      for (const std::size_t i : plan.norms) reasons_[i] = why;
      return;
    }
    folded_ += plan.norms.size();
    std::string initializers;
    const std::string weights = place(plan, layer.weights, 1, layer.shape, tensors.weights, initializers);
    const std::string bias = place(plan, layer.bias, 2, layer.bias_shape, tensors.bias, initializers);
    edit_layer(layer, weights, bias, norms_[plan.norms.back()].node->outputs[0]);
    Changes& changes = changes_[plan.graph];
    changes.vanished.insert(layer.node->outputs[0]);
    for (const std::size_t i : plan.norms) {
      const onnx::Node& node = *norms_[i].node;
      // The new initializers stand where the first batch norm did: the order of different fields means nothing.
      edits_.replace(node.position, node.message.position + node.message.text.size(), std::exchange(initializers, {}));
      if (i != plan.norms.back()) changes.vanished.insert(node.outputs[0]);
    }
  }

  /// Replaces the values of a tensor, or adds them to `initializers` and returns the name that they have there.
  std::string place(const Plan& plan, const onnx::Value& value, std::size_t input, const batchnorm::Shape& shape,
                    const std::string& raw, std::string& initializers) {
    const std::vector<std::string_view>& inputs = plan.layer.node->inputs;
    if (input < inputs.size() && is_own(*plan.graph, value, inputs[input], shape)) {
      replace_values(*value.tensor, raw);
      return "";
    }
    const onnx::DataType type = plan.layer.weights.tensor->type;
    const std::string_view like = value.tensor != nullptr ? value.name : plan.layer.weights.name;
    const std::string name = uses_.new_name(std::string(like.substr(0, 101)) + (value.tensor != nullptr ? "" : "_bias"));
    onnx::append_initializer(initializers, name, type, shape, raw);
    // Before version 4 of the format every initializer is also an input.
    if (model_.ir_version < 4 && plan.graph->outer == nullptr)
      onnx::append_input(changes_[plan.graph].inputs, name, type, shape);
    return name;
  }

  /// The first field of values becomes raw_data, the others go.
  void replace_values(const onnx::TensorProto& tensor, const std::string& raw) {
    std::string text;
    onnx::append_bytes(text, 9, raw);
    for (onnx::Message fields(tensor.message, "TensorProto"); !fields.at_end();) {
      const onnx::Field field = fields.next();
      if (field.number != tensor.storage.field) continue;
      edits_.replace(field.position, fields.position(), std::exchange(text, {}));
    }
  }

  /// Names that are empty stay as they are.
  void edit_layer(const Layer& layer, const std::string& weights, const std::string& bias, std::string_view output) {
    std::size_t input = 0;
    const std::size_t inputs = layer.node->inputs.size();
    for (onnx::Message fields(layer.node->message, "NodeProto"); !fields.at_end();) {
      const onnx::Field field = fields.next();
      std::string text;
      if (field.number == 1) {
        const std::size_t k = input++;
        if (k == 1 && !weights.empty()) onnx::append_bytes(text, 1, weights);
        if (k == 1 && inputs == 2) {
          if (weights.empty()) onnx::append_bytes(text, 1, field.string());
          onnx::append_bytes(text, 1, bias);
        }
        if (k == 2 && !bias.empty()) onnx::append_bytes(text, 1, bias);
        if (text.empty()) continue;
      } else if (field.number == 2) {
        onnx::append_bytes(text, 2, output);
      } else if (field.number != 5 || layer.kind != Layer::Kind::gemm || onnx::parse_attribute(field.nested()).name != "beta") {
        continue;  // beta is in the bias
      }
      edits_.replace(field.position, fields.position(), std::move(text));
    }
  }

  /// Removes what is declared about tensors that are gone, and adds inputs after the existing ones.
  void finish(const onnx::Graph& graph, Changes& changes) {
    std::size_t last_begin = 0, last_end = 0;
    for (onnx::Message fields(graph.message, "GraphProto"); !fields.at_end();) {
      const onnx::Field field = fields.next();
      if (field.number == 11) {
        last_begin = field.position;
        last_end = fields.position();
      }
      if (field.number != 13) continue;
      std::string_view name;
      onnx::for_each_field(field.nested(), "ValueInfoProto", [&](const onnx::Field& part) {
        if (part.number == 1) name = part.string();
      });
      if (changes.vanished.contains(name)) edits_.replace(field.position, fields.position(), "");
    }
    if (changes.inputs.empty() || last_end == 0) return;
    const std::string_view last = model_.message.text.substr(last_begin, last_end - last_begin);
    edits_.replace(last_begin, last_end, std::string(last) + changes.inputs);
  }

  const onnx::Model& model_;
  onnx::Values& values_;
  const std::vector<onnx::BatchNormalization>& norms_;
  Uses uses_;
  std::uint64_t budget_;
  std::vector<std::string> reasons_;
  std::deque<Plan> plans_;
  std::map<const onnx::Node*, Plan*> plan_of_;  ///< by the batch norm
  std::map<const onnx::Graph*, Changes> changes_;
  std::map<const onnx::TensorProto*, AnyTensor> decoded_;
  onnx::Edits edits_;
  std::size_t folded_ = 0;
};

}  // namespace onnx_tool
