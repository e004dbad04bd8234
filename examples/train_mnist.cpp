// SPDX-License-Identifier: MIT
//
// Trains on Fashion-MNIST, with and without batch normalization, the network of the first experiment of the paper on batch
// normalization (Ioffe and Szegedy 2015, section 4.1), and a small convolutional one; shows how fast they learn, and folds the
// normalization into the weights of the trained networks. Exit status: 0; 1 when a folded network does not predict what it
// did before; 2 when the program could not do its work.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <utility>

#include <CLI/CLI.hpp>
#include <batchnorm/batchnorm.hpp>

#include "fashion_mnist/dataset.hpp"
#include "output/standard_output.hpp"
#include "progress/progress.hpp"
#include "train_mnist/architectures.hpp"
#include "train_mnist/folding.hpp"
#include "train_mnist/pictures.hpp"
#include "train_mnist/relu_layer.hpp"
#include "train_mnist/runs.hpp"
#include "train_mnist/training.hpp"

namespace {

using namespace train_mnist;

struct Arguments {
  std::filesystem::path data{fashion_mnist::default_directory};
  std::filesystem::path out{"."};
  bool full = false;
  std::uint64_t seed = 1;
  double rate = 0.1;
  std::int64_t sigmoid_steps = 10'000;
  std::int64_t convolutional_steps = 2'000;
};

constexpr std::int64_t batch_size = 60;

struct Data {
  Examples training;
  Examples test;
};

// ------------------------------------------------------------------------------------------------------------------- training

/// How often the networks are tested while they learn; steps between tests are a whole number.
struct Plan {
  Schedule schedule;
  std::int64_t tests;

  std::int64_t steps_between_tests() const { return std::max<std::int64_t>(schedule.steps / tests, 1); }
};

std::string describe(const Progress& progress) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "loss %.3f, accuracy %.1f %%", progress.loss, 100 * progress.accuracy);
  return text.data();
}

/// Tests the network, and looks at what enters its last sigmoids.
void test(Architecture<float>& architecture, const Examples& examples, std::int64_t step, Run& run) {
  const std::size_t sigmoid = architecture.last_sigmoid;
  const double share = accuracy(architecture.layers, examples, [&] {
    if (sigmoid > 0) run.last_sigmoid_inputs.take_in(architecture.layers.output(sigmoid - 1));
  });
  if (sigmoid > 0) run.last_sigmoid_inputs.finish(step);
  run.test.push_back({step, share});
}

void print_test(const Progress& progress, double test_accuracy) {
  std::printf("  %8lld%12.3f%18.1f %%%16.1f %%\n", static_cast<long long>(progress.step), progress.loss,
              100 * progress.accuracy, 100 * test_accuracy);
  standard_output::flush();
}

Run train(std::string name, Normalize normalize, Architecture<float> architecture, const Data& data, const Plan& plan) {
  Run run{.network = std::move(name), .normalize = normalize};
  std::printf("\n%s\n  %8s%12s%20s%18s\n", full_name(run).c_str(), "step", "loss", "training accuracy", "test accuracy");
  Training<float> training(architecture.layers, data.training, plan.schedule);
  const std::int64_t steps = plan.schedule.steps;
  const std::int64_t steps_between_lines = std::max<std::int64_t>(steps / 5, 1);
  test(architecture, data.test, 0, run);
  {
    progress::Line line(full_name(run), steps);
    for (std::int64_t step = 1; step <= steps; ++step) {
      training.step();
      line.update(step, describe(training.progress()));
      const bool prints = step % steps_between_lines == 0 || step == steps;
      if (prints || step % plan.steps_between_tests() == 0) test(architecture, data.test, step, run);
      if (!prints) continue;
      line.clear();
      print_test(training.progress(), run.test.back().accuracy);
    }
  }
  run.seconds_per_epoch = training.seconds_per_epoch();
  if (normalize == Normalize::yes) {
    network::Network<float> without = folded(architecture.layers);
    run.folded = compare(architecture.layers, without, data.test);
  }
  return run;
}

std::array<Run, 4> train_all(const Arguments& arguments, const Data& data) {
  const auto sigmoid = [&](Normalize normalize) {
    constexpr double deviation = 0.1;  // of the weights: 1 / sqrt(inputs) of a hidden layer
    auto architecture =
        sigmoid_network<float>({.inputs = data.training.images.pixels_per_image(), .hidden = {100, 100, 100}, .classes = 10},
                               normalize, deviation, arguments.seed);
    const Schedule schedule{arguments.sigmoid_steps, batch_size, arguments.rate, arguments.seed};
    return train("Sigmoid network", normalize, std::move(architecture), data, {schedule, 50});
  };
  const auto convolutional = [&](Normalize normalize) {
    auto architecture = convolutional_network<float>({.side = fashion_mnist::image_side, .channels = {8, 16}, .classes = 10},
                                                     normalize, arguments.seed);
    const Schedule schedule{arguments.convolutional_steps, batch_size, arguments.rate, arguments.seed, 0.3};
    return train("Convolutional network", normalize, std::move(architecture), data, {schedule, 10});
  };
  return {sigmoid(Normalize::no), sigmoid(Normalize::yes), convolutional(Normalize::no), convolutional(Normalize::yes)};
}

// ------------------------------------------------------------------------------------------------------------ what is printed

void print_introduction(const Arguments& arguments, const Data& data) {
  std::printf("Fashion-MNIST: %lld training and %lld test images; plain gradient descent, rate %g, batches of %d, seed %llu\n",
              static_cast<long long>(data.training.images.count), static_cast<long long>(data.test.images.count),
              arguments.rate, static_cast<int>(batch_size), static_cast<unsigned long long>(arguments.seed));
  std::printf("batchnorm %d.%d.%d on %s, %d threads\n", BATCHNORM_VERSION_MAJOR, BATCHNORM_VERSION_MINOR,
              BATCHNORM_VERSION_PATCH, std::string(to_string(batchnorm::active_isa())).c_str(),
              batchnorm::default_executor().concurrency());
}

void print_table(const std::array<Run, 4>& runs) {
  std::printf("\n%-24s%-22s%16s%18s\n", "Network", "batch normalization", "time per epoch", "test accuracy");
  for (const Run& run : runs) {
    std::printf("%-24s%-22s%14.2f s%16.2f %%\n", run.network.c_str(), run.normalize == Normalize::yes ? "yes" : "no",
                run.seconds_per_epoch, 100 * run.test.back().accuracy);
  }
}

/// Returns whether all is well.
bool print_folding(const std::array<Run, 4>& runs) {
  std::printf("\nBatch normalization folded into the weights before it: the same predictions?\n");
  bool complete = true;
  for (const Run& run : runs) {
    if (run.normalize == Normalize::no) continue;
    const Agreement& folded = run.folded;
    std::printf("%-24s%lld of %lld test images", run.network.c_str(), static_cast<long long>(folded.same),
                static_cast<long long>(folded.examples));
    if (folded.ties > 0) std::printf(", %lld ties within %g", static_cast<long long>(folded.ties), Agreement::tie);
    std::printf("; logits differ by %.1e at most%s\n", folded.largest_difference, folded.complete() ? "" : "  WRONG");
    complete = complete && folded.complete();
  }
  std::printf("\n");
  return complete;
}

// ------------------------------------------------------------------------------------------------------------------- the whole

/// Returns the exit status.
int train_mnist_networks(const Arguments& arguments) {
  const Data data{read_examples(arguments.data, fashion_mnist::Split::training),
                  read_examples(arguments.data, fashion_mnist::Split::test)};
  std::filesystem::create_directories(arguments.out);
  write_scripts(arguments.out);
  print_introduction(arguments, data);
  const std::array<Run, 4> runs = train_all(arguments, data);
  print_table(runs);
  const bool passed = print_folding(runs);
  draw_pictures(runs, arguments.out);
  if (!passed) std::fprintf(stderr, "train_mnist: a folded network predicts other classes, see WRONG above\n");
  return passed ? 0 : 1;
}

void add_options(CLI::App& app, Arguments& arguments) {
  constexpr std::int64_t most_steps = 10'000'000;
  app.add_option("--data", arguments.data, "Folder of the data set's four .gz files")->capture_default_str();
  app.add_option("--out", arguments.out, "Folder for the pictures, their data and gnuplot's scripts")->capture_default_str();
  app.add_flag("--full", arguments.full, "Five times as many steps: 50,000 (as in the paper) and 10,000");
  app.add_option("--seed", arguments.seed, "Of the weights and of the order of the images")->capture_default_str();
  app.add_option("--rate", arguments.rate,
                 "Learning rate; the convolutional network's falls to 0 in the last 30 % of the steps")
      ->check(CLI::Range(1e-6, 100.0))
      ->capture_default_str();
  app.add_option("--sigmoid-steps", arguments.sigmoid_steps, "Steps of the sigmoid network; 1,000 are an epoch")
      ->check(CLI::Range(std::int64_t{1}, most_steps))
      ->capture_default_str();
  app.add_option("--convolutional-steps", arguments.convolutional_steps, "Steps of the convolutional network")
      ->check(CLI::Range(std::int64_t{1}, most_steps))
      ->capture_default_str();
}

/// Returns the exit status.
int run(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Trains two networks on Fashion-MNIST with and without batch normalization; draws how they learn.");
  add_options(app, arguments);
  try {
    app.parse(argc, argv);
    if (arguments.full && app.count("--sigmoid-steps") == 0) arguments.sigmoid_steps *= 5;
    if (arguments.full && app.count("--convolutional-steps") == 0) arguments.convolutional_steps *= 5;
    return train_mnist_networks(arguments);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const fashion_mnist::DataError& error) {
    std::fprintf(stderr,
                 "train_mnist: %s\n"
                 "The files are those of the Debian package %s (apt install %s); --data names another folder.\n",
                 error.what(), fashion_mnist::debian_package.data(), fashion_mnist::debian_package.data());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "train_mnist: %s\n", error.what());
  }
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  standard_output::prepare();
  return standard_output::finish("train_mnist", run(argc, argv));
}
