// SPDX-License-Identifier: MIT

// Synchronised batch normalization on one rank, as a program that mpirun has not started.

#include <cstdio>
#include <vector>

#include <batchnorm/mpi.hpp>

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  std::vector<float> x{1, 2, 3, 4}, y(4), mean(1), variance(1);
  const batchnorm::Shape shape{4, 1}, channels{1};
  const batchnorm::mpi::SyncBatchNorm<float> training(MPI_COMM_WORLD);
  training(
      {x.data(), shape}, {}, {}, {}, {},
      {.output_x = {y.data(), shape}, .batch_mean = {mean.data(), channels}, .batch_variance = {variance.data(), channels}});
  std::printf("batch mean %.4f, variance %.4f\n", mean[0], variance[0]);
  MPI_Finalize();
  return mean[0] == 2.5F && variance[0] == 1.25F ? 0 : 1;
}
