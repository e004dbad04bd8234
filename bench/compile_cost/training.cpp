// SPDX-License-Identifier: MIT

// The least that a program calls to train: one format, one type, its own buffers.

#include <batchnorm/batchnorm.hpp>

struct Layer {
  const float *scale, *bias;
  float *running_mean, *running_variance;
  float *batch_mean, *batch_variance;
};

void train(const batchnorm::Shape& shape, const float* x, const Layer& layer, float* y) {
  const batchnorm::Shape channels{shape[1]};
  batchnorm::BatchNorm<float>(true)({x, shape}, {layer.scale, channels}, {layer.bias, channels}, {layer.running_mean, channels},
                                    {layer.running_variance, channels},
                                    {.output_x = {y, shape},
                                     .reserve_space_1 = {layer.batch_mean, channels},
                                     .reserve_space_2 = {layer.batch_variance, channels}});
}
