// SPDX-License-Identifier: MIT
//
// Trains the convolutional network of train_mnist by several processes, each with its share of every batch:
//
//     mpirun -n 4 mpi_training
//
// Three networks see the same batches. One is trained by the first process alone. The second is spread over all processes with
// synchronised batch normalization: it stays the same network, to rounding. The third is spread as well, but each process
// normalises with the statistics of its own share: it becomes another network. Exit status: 0; 1 when the synchronised network
// parts from that of one process; 2 when the program could not do its work.

#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>

#include <CLI/CLI.hpp>
#include <batchnorm/batchnorm.hpp>
#include <batchnorm/mpi.hpp>

#include "fashion_mnist/dataset.hpp"
#include "mpi_training/data_parallel.hpp"
#include "output/standard_output.hpp"
#include "train_mnist/architectures.hpp"
#include "train_mnist/training.hpp"

namespace {

using namespace mpi_training;
using train_mnist::Examples;

struct Arguments {
  std::filesystem::path data{fashion_mnist::default_directory};
  std::uint64_t seed = 1;
  std::int64_t steps = 200;
  std::int64_t batch = 60;
  double rate = 0.1;
};

/// What rounding may do to the parameters in some hundred steps of double.
constexpr double tolerance = 1e-9;

template <class Operator>
train_mnist::Architecture<double> make_network(const Arguments& arguments, const Operator& training) {
  return train_mnist::convolutional_network<double>({.side = fashion_mnist::image_side, .channels = {8, 16}, .classes = 10},
                                                    train_mnist::Normalize::yes, arguments.seed, training);
}

void print_header(const Ranks& ranks, const Arguments& arguments) {
  std::printf(
      "Fashion-MNIST, a convolutional network in double, batches of %lld images over %d processes (%lld to %lld each)\n\n",
      static_cast<long long>(arguments.batch), ranks.count, static_cast<long long>(arguments.batch / ranks.count),
      static_cast<long long>((arguments.batch + ranks.count - 1) / ranks.count));
  std::printf("%8s%16s%32s%36s\n", "", "one process", "synchronised statistics", "each process its own statistics");
  std::printf("%8s%16s%16s%16s%20s%16s\n", "step", "loss", "loss", "parameters*", "loss", "parameters*");
}

/// Returns the exit status; the same on every rank.
int train(const Arguments& arguments, const Examples& examples, const Ranks& ranks) {
  using OneProcess = batchnorm::BatchNorm<double, batchnorm::Format::NHWC>;
  using Synchronised = batchnorm::mpi::SyncBatchNorm<double, batchnorm::Format::NHWC>;
  // The training loop sums the gradients of all parameters over the ranks; scale and bias are among them.
  const Synchronised synchronised(ranks.communicator, {.is_training = true}, batchnorm::mpi::ParameterGradients::of_rank);
  auto alone = make_network(arguments, OneProcess(true));
  auto together = make_network(arguments, synchronised);
  auto apart = make_network(arguments, OneProcess(true));
  DataParallel of_alone(alone.layers, Ranks(MPI_COMM_SELF));
  DataParallel of_together(together.layers, ranks), of_apart(apart.layers, ranks);
  train_mnist::Shuffled order(examples.images.count, arguments.seed);

  const bool prints = ranks.rank == 0;
  if (prints) print_header(ranks, arguments);
  double parted = 0;
  for (std::int64_t step = 1; step <= arguments.steps; ++step) {
    const auto batch = order.next(arguments.batch);
    const double loss_alone = prints ? of_alone.step(examples, batch, arguments.rate) : 0;
    const double loss_together = of_together.step(examples, batch, arguments.rate);
    const double loss_apart = of_apart.step(examples, batch, arguments.rate);
    const bool is_printed = step == 1 || step % (arguments.steps < 10 ? 1 : arguments.steps / 10) == 0;
    if (!prints || !is_printed) continue;
    parted = difference(together.layers, alone.layers);
    std::printf("%8lld%16.9f%16.9f%16.1e%20.9f%16.1e\n", static_cast<long long>(step), loss_alone, loss_together, parted,
                loss_apart, difference(apart.layers, alone.layers));
    standard_output::flush();
  }
  if (prints) std::printf("\n* largest difference from those of one process, as a share of the largest of their layer\n");
  MPI_Bcast(&parted, 1, MPI_DOUBLE, 0, ranks.communicator);
  if (parted <= tolerance) return 0;
  if (prints) std::fprintf(stderr, "mpi_training: the synchronised network has parted from that of one process\n");
  return 1;
}

void add_options(CLI::App& app, Arguments& arguments, int ranks) {
  app.add_option("--data", arguments.data, "Folder of the data set's four .gz files")->capture_default_str();
  app.add_option("--seed", arguments.seed, "Of the weights and of the order of the images")->capture_default_str();
  app.add_option("--steps", arguments.steps, "Steps of training")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{100'000}))
      ->capture_default_str();
  app.add_option("--batch", arguments.batch, "Images of a batch, at least one for each process")
      ->check(CLI::Range(std::int64_t{ranks}, std::int64_t{10'000}))
      ->capture_default_str();
  app.add_option("--rate", arguments.rate, "Learning rate")->check(CLI::Range(1e-6, 1.0))->capture_default_str();
}

/// Reads the data on every rank; false on all where one has none.
bool read(const Arguments& arguments, const Ranks& ranks, Examples& examples) {
  int can_read = 1;
  try {
    examples = fashion_mnist::read_examples(arguments.data, fashion_mnist::Split::training);
  } catch (const fashion_mnist::DataError& error) {
    can_read = 0;
    std::fprintf(stderr,
                 "mpi_training, process %d: %s\n"
                 "The files are those of the Debian package %s (apt install %s); --data names another folder.\n",
                 ranks.rank, error.what(), fashion_mnist::debian_package.data(), fashion_mnist::debian_package.data());
  }
  MPI_Allreduce(MPI_IN_PLACE, &can_read, 1, MPI_INT, MPI_MIN, ranks.communicator);
  return can_read == 1;
}

int run(int argc, char** argv, const Ranks& ranks) {
  Arguments arguments;
  CLI::App app("Trains a network by several processes (mpirun -n 4 mpi_training): the same as by one, to rounding.");
  add_options(app, arguments, ranks.count);
  try {
    app.parse(argc, argv);
    Examples examples;
    return read(arguments, ranks, examples) ? train(arguments, examples, ranks) : 2;
  } catch (const CLI::ParseError& error) {  // the same on every rank
    const int status = ranks.rank == 0 ? app.exit(error) : error.get_exit_code();
    return status == 0 ? 0 : 2;
  } catch (const std::exception& error) {  // the others would wait
    std::fprintf(stderr, "mpi_training, process %d: %s\n", ranks.rank, error.what());
    return MPI_Abort(ranks.communicator, 2);
  }
}

}  // namespace

int main(int argc, char** argv) {
  standard_output::prepare();
  MPI_Init(&argc, &argv);
  const int status = run(argc, argv, Ranks(MPI_COMM_WORLD));
  MPI_Finalize();
  return standard_output::finish("mpi_training", status);
}
