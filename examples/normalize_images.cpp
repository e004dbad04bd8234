// SPDX-License-Identifier: MIT
//
// Normalises the Fashion-MNIST images twice: as one channel, (N, 1, 28, 28), where all pixels share a mean and a variance, and
// as 784 features, (N, 784), where every pixel has its own. Each time one epoch in training mode gathers the running
// statistics, which then normalise images never seen, those of the test set. Every result is compared with one computed here in
// double. Exit status: 0; 1 when a result is off; 2 when the program could not do its work.

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>
#include <batchnorm/batchnorm.hpp>

#include "fashion_mnist/check.hpp"
#include "fashion_mnist/dataset.hpp"
#include "fashion_mnist/feature_moments.hpp"
#include "output/standard_output.hpp"
#include "picture/png.hpp"
#include "picture/sheet.hpp"
#include "progress/progress.hpp"

namespace {

using batchnorm::BatchNorm;
using batchnorm::Shape;
using batchnorm::TensorView;
using fashion_mnist::Check;
using fashion_mnist::Examples;
using fashion_mnist::FeatureMoments;
using fashion_mnist::image_side;
using fashion_mnist::Images;

constexpr std::int64_t pixels = image_side * image_side;

// ----------------------------------------------------------------------------------------------------------- what is computed

struct Layout {
  std::string_view name;
  std::size_t features;

  Shape shape(std::int64_t images) const {
    return features == 1 ? Shape{images, 1, image_side, image_side} : Shape{images, pixels};
  }
};

constexpr Layout one_channel{"(N, 1, 28, 28)", 1};
constexpr Layout each_pixel{"(N, 784)", pixels};

/// One pass over a set of images in one layout.
struct Pass {
  Pass(std::size_t features, std::string_view mean_name, std::string_view variance_name)
      : before(features), after(features), mean(mean_name, features), variance(variance_name, features) {}

  FeatureMoments before;  ///< of x
  FeatureMoments after;   ///< of y
  Check mean;             ///< of y, in every batch
  Check variance;
  double seconds = 0;  ///< within the operator
};

struct RunningStatistics {
  explicit RunningStatistics(std::size_t features) : mean(features, 0.0F), variance(features, 1.0F) {}

  std::vector<float> mean;
  std::vector<float> variance;
};

/// All about one layout.
struct Run {
  explicit Run(const Layout& l) : layout(l) {}

  Layout layout;
  RunningStatistics running{layout.features};
  Pass training{layout.features, "training, mean of y", "training, variance of y"};
  Pass test{layout.features, "test, mean of y", "test, variance of y"};
  Check running_mean{"running mean", layout.features};
  Check running_variance{"running variance", layout.features};

  std::array<const Check*, 6> checks() const {
    return {&training.mean, &training.variance, &running_mean, &running_variance, &test.mean, &test.variance};
  }
};

/// The mean and the variance that a batch is normalised with.
struct Normalizer {
  double mean;
  double variance;
};

/// y = (x - m) / sqrt(v + epsilon) has the mean (mean(x) - m) / sqrt(v + epsilon) and the variance variance(x) / (v + epsilon).
/// In training, m and v are those of x itself: 0, and v / (v + epsilon), which is 1 only where v is large beside epsilon.
void check_batch(Pass& pass, std::size_t feature, const FeatureMoments& x, const FeatureMoments& y, const Normalizer& n,
                 double epsilon) {
  const double mean = (x.mean(feature) - n.mean) / std::sqrt(n.variance + epsilon);
  const double variance = x.variance(feature) / (n.variance + epsilon);
  // The library promises each y to 3 ulp, each at most 2^-23 |y|. That moves the mean by no more than 3 ulp of the root mean
  // square, and the variance by no more than 4 times as much of the mean square. The rest is this program's own rounding.
  constexpr double y_error = 3 * 0x1p-23;
  constexpr double own_error = 1e-12;
  const double mean_square = variance + mean * mean;
  pass.mean.compare(feature, y.mean(feature), mean, y_error * std::sqrt(mean_square) + own_error);
  pass.variance.compare(feature, y.variance(feature), variance, 4 * y_error * mean_square + own_error);
}

/// Takes a batch and what became of it into the pass; normalizer(moments of x, feature) says what it was normalised with.
template <class NormalizerOf>
FeatureMoments record(Pass& pass, std::span<const float> x, std::span<const float> y, double epsilon, NormalizerOf normalizer) {
  const std::size_t features = pass.before.features();
  const FeatureMoments before(features, x);
  const FeatureMoments after(features, y);
  for (std::size_t f = 0; f < features; ++f) check_batch(pass, f, before, after, normalizer(before, f), epsilon);
  pass.before.merge(before);
  pass.after.merge(after);
  return before;
}

/// The plain average, over the batches, of their means and unbiased variances.
class ExpectedRunningStatistics {
 public:
  explicit ExpectedRunningStatistics(std::size_t features) : mean_(features), variance_(features) {}

  void add(const FeatureMoments& batch) {
    ++batches_;
    for (std::size_t f = 0; f < mean_.size(); ++f) {
      mean_[f].add(batch.mean(f));
      variance_[f].add(batch.unbiased_variance(f));
    }
  }

  /// Each batch rounds the running value to float, by 2^-24 of the largest value there was, and later batches shrink the error:
  /// the sum stays below 2^-24 of it per batch.
  void check(Run& run) const {
    const double allowed = batches_ * 0x1p-24;
    for (std::size_t f = 0; f < mean_.size(); ++f) {
      run.running_mean.compare(f, static_cast<double>(run.running.mean[f]), mean_[f].sum / batches_,
                               allowed * mean_[f].largest + own_error);
      run.running_variance.compare(f, static_cast<double>(run.running.variance[f]), variance_[f].sum / batches_,
                                   allowed * variance_[f].largest + own_error);
    }
  }

 private:
  static constexpr double own_error = 1e-15;

  struct Sum {
    void add(double value) {
      sum += value;
      largest = std::max(largest, std::abs(value));
    }
    double sum = 0;
    double largest = 0;
  };

  double batches_ = 0;
  std::vector<Sum> mean_;
  std::vector<Sum> variance_;
};

/// y = normalised x; returns the seconds that took. scale and bias are absent: 1 and 0.
double normalize(const BatchNorm<float>& operation, const Layout& layout, std::span<const float> x, RunningStatistics& running,
                 std::span<float> y, std::int64_t batch_number = 0) {
  const Shape shape = layout.shape(static_cast<std::int64_t>(x.size()) / pixels);
  const TensorView<const float> input(x.data(), shape);
  const batchnorm::OutputViews<float, float> output{.output_x = TensorView<float>(y.data(), shape)};
  const auto start = std::chrono::steady_clock::now();
  operation(input, nullptr, nullptr, running.mean, running.variance, output, {}, {.batch_number = batch_number});
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::size_t batch_elements(const Images& images, std::int64_t batch_size) {
  return static_cast<std::size_t>(std::min(batch_size, images.count) * pixels);
}

/// Calls step(number, x) with each batch as floats, numbers from 1; the last may be smaller.
template <class Step>
void for_each_batch(const Images& images, std::int64_t batch_size, const std::string& label, Step step) {
  progress::Line line(label, images.count);
  std::vector<float> x(batch_elements(images, batch_size));
  std::int64_t number = 1;
  for (std::int64_t first = 0; first < images.count; first += batch_size, ++number) {
    const std::int64_t count = std::min(batch_size, images.count - first);
    fashion_mnist::copy_as_float(images, first, count, x.data());
    step(number, std::span<const float>(x).first(static_cast<std::size_t>(count * pixels)));
    line.update(first + count);
  }
}

/// One epoch in training mode. With the batch's number given, the running statistics are the plain average of all batches and
/// forget none: after a single epoch that says more of the data than a momentum of 0.1, which is the last 10 or 20 batches.
void train(Run& run, const Images& images, std::int64_t batch_size) {
  const BatchNorm<float> operation({.is_training = true});
  const auto own_statistics = [](const FeatureMoments& x, std::size_t f) { return Normalizer{x.mean(f), x.variance(f)}; };
  ExpectedRunningStatistics expected(run.layout.features);
  std::vector<float> outputs(batch_elements(images, batch_size));
  const std::string label = "training " + std::string(run.layout.name);
  for_each_batch(images, batch_size, label, [&](std::int64_t number, std::span<const float> x) {
    const std::span y = std::span(outputs).first(x.size());
    run.training.seconds += normalize(operation, run.layout, x, run.running, y, number);
    expected.add(record(run.training, x, y, operation.options().epsilon, own_statistics));
  });
  expected.check(run);
}

/// Inference with the running statistics that training left.
void test(Run& run, const Images& images, std::int64_t batch_size) {
  const BatchNorm<float> operation;
  const auto running_statistics = [&](const FeatureMoments&, std::size_t f) {
    return Normalizer{static_cast<double>(run.running.mean[f]), static_cast<double>(run.running.variance[f])};
  };
  std::vector<float> outputs(batch_elements(images, batch_size));
  const std::string label = "test " + std::string(run.layout.name);
  for_each_batch(images, batch_size, label, [&](std::int64_t, std::span<const float> x) {
    const std::span y = std::span(outputs).first(x.size());
    run.test.seconds += normalize(operation, run.layout, x, run.running, y);
    record(run.test, x, y, operation.options().epsilon, running_statistics);
  });
}

// ------------------------------------------------------------------------------------------------------------ what is printed

/// One number per feature.
template <class Function>
std::vector<double> per_feature(const FeatureMoments& moments, Function function) {
  std::vector<double> values(moments.features());
  for (std::size_t f = 0; f < values.size(); ++f) values[f] = std::invoke(function, moments, f);
  return values;
}

/// 60000 as 60,000.
std::string with_commas(std::int64_t number) {
  std::string text = std::to_string(number);
  for (std::size_t at = text.size(); at > 3;) text.insert(at -= 3, 1, ',');
  return text;
}

/// Four decimals; -0.00000001 is 0.0000, as no digit of it would be seen.
std::string decimal(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.4f", std::abs(value) < 0.5e-4 ? 0.0 : value);
  return text.data();
}

void print_statistics_row(const std::string& label, const std::array<std::string, 6>& cells) {
  constexpr std::array<std::size_t, 6> cell_ends = {36, 46, 56, 72, 82, 92};
  std::string row = "  " + label;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    if (cells[i].empty()) continue;
    const std::size_t end = row.size() + cells[i].size();
    row += std::string(end < cell_ends[i] ? cell_ends[i] - end : 1, ' ') + cells[i];
  }
  std::printf("%s\n", row.c_str());
}

void print_spread(const std::string& label, std::vector<double> means, std::vector<double> variances) {
  std::ranges::sort(means);
  std::ranges::sort(variances);
  const std::size_t middle = means.size() / 2;
  std::array<std::string, 6> cells;
  cells[1] = decimal(means[middle]);
  cells[4] = decimal(variances[middle]);
  if (means.size() > 1) {
    cells[0] = decimal(means.front());
    cells[2] = decimal(means.back());
    cells[3] = decimal(variances.front());
    cells[5] = decimal(variances.back());
  }
  print_statistics_row(label, cells);
}

void print_moments(const std::string& label, const FeatureMoments& moments) {
  print_spread(label, per_feature(moments, &FeatureMoments::mean), per_feature(moments, &FeatureMoments::variance));
}

void print_statistics(const Run& run) {
  const std::string name(run.layout.name);
  if (run.layout.features == 1) {
    std::printf("\n%s: one channel, all pixels share one mean and one variance\n", name.c_str());
    print_statistics_row("", {"", "mean", "", "", "variance", ""});
  } else {
    std::printf("\n%s: %zu features, each pixel has its own mean and variance\n", name.c_str(), run.layout.features);
    print_statistics_row("", {"mean from", "median", "to", "variance from", "median", "to"});
  }
  print_moments("training images, before", run.training.before);
  print_moments("training images, after", run.training.after);
  print_spread("running statistics", {run.running.mean.begin(), run.running.mean.end()},
               {run.running.variance.begin(), run.running.variance.end()});
  print_moments("test images, before", run.test.before);
  print_moments("test images, after", run.test.after);
}

std::int64_t distance_to_border(std::size_t pixel) {
  const std::int64_t row = static_cast<std::int64_t>(pixel) / image_side;
  const std::int64_t column = static_cast<std::int64_t>(pixel) % image_side;
  return std::min({row, column, image_side - 1 - row, image_side - 1 - column});
}

/// Says why the variance of some features is less than 1 after training, and of which.
void print_nearly_constant_features(const FeatureMoments& before, const FeatureMoments& after, double epsilon) {
  constexpr double visible = 1e-3;
  std::size_t nearly_constant = 0;
  std::size_t lowest = 0;
  std::int64_t farthest = 0;
  for (std::size_t f = 0; f < after.features(); ++f) {
    if (after.variance(f) < after.variance(lowest)) lowest = f;
    if (after.variance(f) >= 1 - visible) continue;
    ++nearly_constant;
    farthest = std::max(farthest, distance_to_border(f));
  }
  std::printf("  %zu of %zu features end within %g of variance 1.\n", after.features() - nearly_constant, after.features(),
              visible);
  if (nearly_constant == 0) return;
  std::printf(
      "  The other %zu, all within %d pixels of the border, are nearly constant in many batches: epsilon = %g is not small\n"
      "  beside their variance v there, and v / (v + epsilon) is what is to come out. Least: row %d, column %d, v = %.1e over\n"
      "  the epoch, after %.4f.\n",
      nearly_constant, static_cast<int>(farthest + 1), epsilon, static_cast<int>(lowest) / static_cast<int>(image_side),
      static_cast<int>(lowest) % static_cast<int>(image_side), before.variance(lowest), after.variance(lowest));
}

void print_checks(std::span<const Run> runs) {
  std::printf("\n%-28s%-24s%18s%18s%12s\n", "Checks, against double", "", "features within", "worst deviation", "allowed");
  for (const Run& run : runs) {
    for (const Check* check : run.checks()) {
      const std::string within = std::to_string(check->features_within()) + " of " + std::to_string(check->features());
      std::printf("  %-26.*s%-24s%18s%18.1e%12.1e%s\n", static_cast<int>(run.layout.name.size()), run.layout.name.data(),
                  check->name().c_str(), within.c_str(), check->worst().deviation, check->worst().allowed,
                  check->passed() ? "" : "  WRONG");
    }
  }
}

/// The operator alone: x read once, y written once, both of float.
void print_throughput(std::span<const Run> runs, std::int64_t training_images, std::int64_t test_images,
                      std::int64_t batch_size) {
  std::printf("\n%-28s%-24s%18s%18s%12s\n", "Time in the operator", "", "milliseconds", "images/s", "GB/s");
  const auto print = [](std::string_view layout, const char* pass, std::int64_t images, double seconds) {
    const double rate = static_cast<double>(images) / seconds;
    std::printf("  %-26.*s%-24s%18.1f%18s%12.1f\n", static_cast<int>(layout.size()), layout.data(), pass, seconds * 1e3,
                with_commas(std::llround(rate)).c_str(), rate * 2 * pixels * sizeof(float) * 1e-9);
  };
  for (const Run& run : runs) {
    print(run.layout.name, "training", training_images, run.training.seconds);
    print(run.layout.name, "inference", test_images, run.test.seconds);
  }
  std::printf("  (x read and y written, a batch of each is %.2f MB: from and to the cache where that holds them)\n",
              static_cast<double>(std::min(batch_size, training_images) * pixels) * sizeof(float) * 1e-6);
}

void print_introduction(const Images& training, const Images& test, std::int64_t batch_size) {
  std::printf("Fashion-MNIST: %s training and %s test images of 28 x 28 pixels from 0 to 1, in batches of %s\n",
              with_commas(training.count).c_str(), with_commas(test.count).c_str(), with_commas(batch_size).c_str());
  std::printf("Running statistics: the plain average of the %s batches of one epoch (cumulative option)\n",
              with_commas((training.count + batch_size - 1) / batch_size).c_str());
  std::printf("batchnorm %d.%d.%d on %s, %d threads\n", BATCHNORM_VERSION_MAJOR, BATCHNORM_VERSION_MINOR,
              BATCHNORM_VERSION_PATCH, std::string(to_string(batchnorm::active_isa())).c_str(),
              batchnorm::default_executor().concurrency());
}

// -------------------------------------------------------------------------------------------------------------- what is drawn

constexpr std::size_t samples_per_class = 2;

/// The first images of each class, side by side: all classes once, then all classes again.
std::vector<float> choose_samples(const Examples& examples) {
  std::vector<float> samples(samples_per_class * fashion_mnist::class_names.size() * pixels);
  std::array<std::size_t, fashion_mnist::class_names.size()> found{};
  for (std::int64_t i = 0; i < examples.images.count; ++i) {
    const std::size_t label = examples.labels[static_cast<std::size_t>(i)];
    if (found[label] == samples_per_class) continue;
    const std::size_t tile = found[label]++ * found.size() + label;
    fashion_mnist::copy_as_float(examples.images, i, 1, samples.data() + tile * pixels);
  }
  return samples;
}

std::vector<float> normalize_samples(Run& run, std::span<const float> samples) {
  std::vector<float> y(samples.size());
  normalize(BatchNorm<float>(), run.layout, samples, run.running, y);
  return y;
}

std::vector<std::span<const float>> split_into_tiles(std::span<const float> images) {
  std::vector<std::span<const float>> tiles;
  for (std::size_t at = 0; at < images.size(); at += pixels) tiles.push_back(images.subspan(at, pixels));
  return tiles;
}

template <class Function>
std::vector<float> pixel_map(const FeatureMoments& moments, Function function) {
  const std::vector<double> values = per_feature(moments, function);
  return {values.begin(), values.end()};
}

void write_picture(Run& channel, Run& features, const Examples& examples, const std::filesystem::path& path) {
  const std::vector<float> x = choose_samples(examples);
  const std::vector<float> y_channel = normalize_samples(channel, x);
  const std::vector<float> y_features = normalize_samples(features, x);
  const std::vector<float> mean = pixel_map(features.training.before, &FeatureMoments::mean);
  const std::vector<float> deviation =
      pixel_map(features.training.before, [](const FeatureMoments& m, std::size_t f) { return std::sqrt(m.variance(f)); });
  const std::vector<float> after = pixel_map(features.training.after, &FeatureMoments::variance);
  const std::vector<float> test =
      pixel_map(features.test.after, [](const FeatureMoments& m, std::size_t f) { return std::log2(m.variance(f)); });

  const picture::Legend brightness{{picture::grey, 0, 1}, "0", "", "1"};
  const picture::Legend deviations{{picture::blue_white_red, -3, 3}, "-3", "0", "3"};
  const picture::Sheet sheet{
      .title = "Batch normalization of Fashion-MNIST",
      .subtitle =
          "Images of the test set, normalised with the running statistics of one epoch over the training set: "
          "y = (x - mean) / sqrt(variance + epsilon)",
      .side = static_cast<int>(image_side),
      .headings = {fashion_mnist::class_names.begin(), fashion_mnist::class_names.end()},
      .bands = {{{"x, as it comes", "brightness of each pixel"}, brightness, split_into_tiles(x)},
                {{"y of (N, 1, 28, 28)", "one mean and one variance", "shared by all pixels:", "the same image, centred"},
                 deviations,
                 split_into_tiles(y_channel)},
                {{"y of (N, 784)", "a mean and a variance", "for each pixel: what sets", "this image apart from",
                  "the average one"},
                 deviations,
                 split_into_tiles(y_features)}},
      .maps_text = {"The 784 features", "statistics of each pixel", "over all training images,", "and, at the right, how well",
                    "they fit the test images"},
      .maps = {{"mean of x", {{picture::grey, 0, 0.75}, "0", "", "0.75"}, mean},
               {"deviation of x", {{picture::grey, 0, 0.5}, "0", "", "0.5"}, deviation},
               {"variance of y", {{picture::grey, 0, 1}, "0", "", "1"}, after},
               {"variance of y, test", {{picture::blue_white_red, -2, 2}, "1/4", "1", "4"}, test}}};
  picture::write_png(picture::draw(sheet), path);
}

// ------------------------------------------------------------------------------------------------------------------- the whole

struct Arguments {
  std::filesystem::path data{fashion_mnist::default_directory};
  std::filesystem::path out{"."};
  std::int64_t batch_size = 250;
};

/// Returns the exit status.
int normalize_images(const Arguments& arguments) {
  const Examples training = read_examples(arguments.data, fashion_mnist::Split::training);
  const Examples test_examples = read_examples(arguments.data, fashion_mnist::Split::test);
  std::filesystem::create_directories(arguments.out);
  print_introduction(training.images, test_examples.images, arguments.batch_size);

  std::array<Run, 2> runs{Run(one_channel), Run(each_pixel)};
  for (Run& run : runs) {
    train(run, training.images, arguments.batch_size);
    test(run, test_examples.images, arguments.batch_size);
    print_statistics(run);
  }
  print_nearly_constant_features(runs[1].training.before, runs[1].training.after, batchnorm::Options().epsilon);
  print_checks(runs);
  print_throughput(runs, training.images.count, test_examples.images.count, arguments.batch_size);

  const std::filesystem::path picture = arguments.out / "normalize_images.png";
  write_picture(runs[0], runs[1], test_examples, picture);
  std::printf("\nPicture: %s\n", picture.lexically_normal().c_str());

  const bool passed = std::ranges::all_of(runs, [](const Run& run) {
    return std::ranges::all_of(run.checks(), [](const Check* check) { return check->passed(); });
  });
  if (!passed) std::fprintf(stderr, "normalize_images: results are not what they should be, see WRONG above\n");
  return passed ? 0 : 1;
}

/// Returns the exit status.
int run(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Batch normalization of the Fashion-MNIST images: statistics, checks, throughput and a picture.");
  app.add_option("--data", arguments.data, "Folder of the data set's four .gz files")->capture_default_str();
  app.add_option("--out", arguments.out, "Folder for normalize_images.png")->capture_default_str();
  app.add_option("--batch", arguments.batch_size, "Images per batch; 250 divides both sets")
      ->check(CLI::Range(2, 1'000'000))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
    return normalize_images(arguments);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const fashion_mnist::DataError& error) {
    std::fprintf(stderr,
                 "normalize_images: %s\n"
                 "The files are those of the Debian package %s (apt install %s); --data names another folder.\n",
                 error.what(), fashion_mnist::debian_package.data(), fashion_mnist::debian_package.data());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "normalize_images: %s\n", error.what());
  }
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  standard_output::prepare();
  return standard_output::finish("normalize_images", run(argc, argv));
}
