// SPDX-License-Identifier: MIT
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "onnx/batch_normalization.hpp"
#include "onnx_batchnorm/description.hpp"
#include "onnx_batchnorm/folding.hpp"
#include "support/onnx_fold_models.hpp"
#include "support/onnx_models.hpp"

// Models that are wrong in a few bytes: each is listed and folded, or refused with a FormatError. BATCHNORM_FUZZ_MINUTES lets
// the search go on for so long.
namespace {

using namespace support;

Proto positions_model() {
  Proto graph;
  graph.bytes(graph_field::node, node_proto("BatchNormalization", "bn", {"x", "p", "p", "p", "p"}, {"y"},
                                            {int_attribute("spatial", 0), float_attribute("momentum", 2)}));
  graph.bytes(graph_field::initializer, tensor_proto("p", {2, 3}, {1, 2, 3, 4, 5, 6}));
  return model_proto(7, graph);
}

/// Version 3 of the format: initializers are inputs, too.
Proto old_model() {
  Proto graph;
  graph.bytes(graph_field::node, node_proto("Gemm", "", {"x", "w", "w"}, {"g"}, {float_attribute("beta", 2)}));
  graph.bytes(graph_field::node, node_proto("BatchNormalization", "", {"g", "p", "p", "p", "p"}, {"y"}));
  for (const std::string_view name : {"w", "p"}) {
    graph.bytes(graph_field::input, value_info(name, onnx::DataType::float32, {2}));
  }
  graph.bytes(graph_field::initializer, tensor_proto("w", {1, 2}, {1, 2}));
  graph.bytes(graph_field::initializer, tensor_head("p", onnx::DataType::float32, {2}).float32(4, 1).float32(4, 2));
  graph.bytes(13, value_info("g", onnx::DataType::float32, {-1, 2}));
  return Proto().integer(1, 3).bytes(8, opset_import(9)).bytes(7, graph);
}

class Mutator {
 public:
  explicit Mutator(std::vector<std::string> corpus, std::uint32_t seed) : corpus_(std::move(corpus)), random_(seed) {}

  /// Bytes that are changed anywhere are mostly refused; so some changes are of whole fields, with the lengths around them.
  std::string next() {
    std::string bytes = corpus_[below(corpus_.size())];
    for (std::size_t count = 1 + below(4); count > 0; --count) bytes = mutate_field(bytes);
    for (std::size_t count = below(3); count > 1; --count) mutate(bytes);
    return bytes;
  }

 private:
  std::size_t below(std::size_t end) { return std::uniform_int_distribution<std::size_t>(0, end - 1)(random_); }

  struct Place {
    std::size_t begin, end;
  };

  static std::vector<Place> fields_of(onnx::Bytes message) {
    std::vector<Place> places;
    try {
      for (onnx::Message rest(message, ""); !rest.at_end();) {
        const std::size_t begin = rest.position();
        rest.next();
        places.push_back({begin, rest.position()});
      }
    } catch (const onnx::FormatError&) {
      places.clear();
    }
    return places;
  }

  /// A field of the message, or of one that is in it.
  Place find(std::string_view file) {
    onnx::Bytes message{file};
    Place place{0, 0};
    for (std::vector<Place> places = fields_of(message); !places.empty(); places = fields_of(message)) {
      place = places[below(places.size())];
      const onnx::Field field = onnx::Message({file.substr(place.begin, place.end - place.begin), place.begin}, "").next();
      if (field.type != onnx::WireType::bytes || below(6) == 0) break;
      message = field.bytes;
    }
    return place;
  }

  /// Takes a field away, doubles it, or puts another in its place.
  std::string mutate_field(const std::string& bytes) {
    const Place place = find(bytes);
    if (place.end == 0) return bytes;
    std::string text = bytes.substr(place.begin, place.end - place.begin);
    const std::string& other = corpus_[below(corpus_.size())];
    const std::string& source = below(2) == 0 ? bytes : other;
    const Place from = find(source);
    switch (below(5)) {
      case 0: text.clear(); break;
      case 1: text += text; break;
      case 2: text = source.substr(from.begin, from.end - from.begin); break;
      case 3: text[below(text.size())] = static_cast<char>(below(256)); break;
      default: text.back() = static_cast<char>(static_cast<unsigned char>(text.back()) ^ (1U << below(8))); break;
    }
    onnx::Edits edits;
    edits.replace(place.begin, place.end, text);
    std::string result;
    for (const std::string_view piece : edits.apply({bytes})) result += piece;
    return result;
  }

  void mutate(std::string& bytes) {
    if (bytes.empty()) bytes = "x";
    const std::size_t at = below(bytes.size()), length = 1 + below(std::min<std::size_t>(bytes.size() - at, 40));
    switch (below(9)) {
      case 0: bytes[at] = static_cast<char>(below(256)); break;
      case 1: bytes[at] = static_cast<char>(static_cast<unsigned char>(bytes[at]) ^ (1U << below(8))); break;
      case 2: bytes.erase(at, length); break;
      case 3: bytes.insert(at, bytes.substr(at, length)); break;
      case 4: bytes.insert(at, 1, static_cast<char>(below(2) == 0 ? 0xFF : below(256))); break;
      case 5: bytes.replace(at, 1, std::string(1 + below(9), '\xFF') + '\x01'); break;  // a large number
      case 6: bytes.resize(at); break;
      case 7: {  // a piece of another model
        const std::string& other = corpus_[below(corpus_.size())];
        const std::size_t from = below(other.size());
        bytes.insert(at, other.substr(from, 1 + below(60)));
        break;
      }
      default: {  // a name for another
        constexpr std::string_view names[] = {"Conv", "Gemm", "Identity", "Constant", "c1", "w3", "n2", "x", "y"};
        bytes.replace(at, length, names[below(std::size(names))]);
        break;
      }
    }
  }

  std::vector<std::string> corpus_;
  std::mt19937 random_;
};

struct Outcome {
  bool is_read = false;
  std::size_t folded = 0;
};

std::size_t count_norms(std::string_view bytes) {
  const onnx::Model model = onnx::parse_model({bytes});
  onnx::Values values;
  return onnx::batch_normalizations(model, values).size();
}

/// Reads, lists and folds as the tool does. What is folded is a model again, without those batch norms.
Outcome use(std::string_view bytes) {
  try {
    const onnx::Model model = onnx::parse_model({bytes});
    onnx::Values values;
    const std::vector<onnx::BatchNormalization> norms = onnx::batch_normalizations(model, values);
    const std::string text = onnx_tool::describe(norms);
    EXPECT_LE(text.size(), 200 * bytes.size() + 1000);
    onnx_tool::Folding folding(model, values, norms);
    std::string folded;
    for (const std::string_view piece : folding.result()) folded += piece;
    EXPECT_LE(folding.report().size(), 200 * bytes.size() + 1000);
    EXPECT_LE(folded.size(), 3 * bytes.size() + 1000);
    EXPECT_EQ(count_norms(folded), norms.size() - folding.count());
    EXPECT_TRUE(folding.count() > 0 || folded == bytes);
    return {true, folding.count()};
  } catch (const onnx::FormatError&) {
    return {};
  }
}

TEST(OnnxFuzz, EveryMutationIsListedAndFoldedOrRefused) {
  const char* minutes = std::getenv("BATCHNORM_FUZZ_MINUTES");
  const std::chrono::duration<double, std::ratio<60>> extra(minutes == nullptr ? 0 : std::atof(minutes));
  const auto end = std::chrono::steady_clock::now() + extra;
  const std::vector<std::string> corpus{every_kind_of_model().text(), foldable_model<float>().text(),
                                        foldable_model<batchnorm::half>().text(), positions_model().text(), old_model().text()};
  for (const std::string& bytes : corpus) EXPECT_TRUE(use(bytes).is_read);
  Mutator mutator(corpus, 1);
  int read = 0, folded = 0;
  for (int i = 0; i < 1500 || std::chrono::steady_clock::now() < end; ++i) {
    const std::string bytes = mutator.next();
    // Memory of its own: a sanitizer sees a byte read beyond its end.
    const auto copy = std::make_unique_for_overwrite<char[]>(bytes.size());
    bytes.copy(copy.get(), bytes.size());
    Outcome outcome;
    ASSERT_NO_THROW(outcome = use({copy.get(), bytes.size()})) << "model " << i;
    ASSERT_FALSE(HasFailure()) << "model " << i;
    read += outcome.is_read ? 1 : 0;
    folded += outcome.folded > 0 ? 1 : 0;
  }
  // Mutations that are all refused at once would find nothing.
  EXPECT_GT(read, 150);
  EXPECT_GT(folded, 50);
}

}  // namespace
