/* SPDX-License-Identifier: MIT */

/* A training step, its gradient and an inference from C; the shape of an error. */

#include <stdio.h>

#include "batchnorm_c.h"

enum { N = 8, C = 3, H = 14, W = 14, SIZE = N * C * H * W };

static const int64_t shape[] = {N, C, H, W};
static float x[SIZE], y[SIZE], dy[SIZE], dx[SIZE];
static float scale[C] = {1, 2, 3}, bias[C] = {0.5F, 0.25F, 0}, mean[C], variance[C] = {1, 1, 1};
static float saved_mean[C], saved_variance[C], dscale[C], dbias[C];

/* Says what went wrong, if something did. */
static int is_ok(batchnorm_status status) {
  if (status == BATCHNORM_OK) return 1;
  fprintf(stderr, "error %d: %s\n", (int)status, batchnorm_last_error());
  return 0;
}

static int train(void) {
  batchnorm_options options = batchnorm_default_options();
  options.is_training = 1;

  batchnorm_forward_arguments forward = batchnorm_no_forward_arguments();
  forward.type = BATCHNORM_FLOAT;
  forward.format = BATCHNORM_NCHW;
  forward.rank = 4;
  forward.shape = shape;
  forward.x = x;
  forward.scale = scale;
  forward.bias = bias;
  forward.mean = mean; /* the running statistics, updated in place */
  forward.variance = variance;
  forward.output_x = y;
  forward.reserve_space_1 = saved_mean; /* for the gradient */
  forward.reserve_space_2 = saved_variance;
  if (!is_ok(batchnorm_forward(&options, &forward))) return 0;

  /* The other way to fill a structure. */
  const batchnorm_backward_arguments backward = {.size = sizeof backward,
                                                 .type = BATCHNORM_FLOAT,
                                                 .format = BATCHNORM_NCHW,
                                                 .rank = 4,
                                                 .shape = shape,
                                                 .dy = dy,
                                                 .x = x,
                                                 .scale = scale,
                                                 .mean = saved_mean,
                                                 .variance = saved_variance,
                                                 .dx = dx,
                                                 .dscale = dscale,
                                                 .dbias = dbias};
  return is_ok(batchnorm_backward(&options, &backward));
}

static batchnorm_status infer(int32_t rank) {
  batchnorm_forward_arguments forward = batchnorm_no_forward_arguments();
  forward.type = BATCHNORM_FLOAT;
  forward.rank = rank;
  forward.shape = shape;
  forward.x = x;
  forward.mean = mean;
  forward.variance = variance;
  forward.output_x = y;
  return batchnorm_forward(NULL, &forward);
}

int main(void) {
  for (int i = 0; i < SIZE; ++i) {
    x[i] = (float)(i % 7);
    dy[i] = (float)(i % 5);
  }
  const char* isa = NULL;
  if (!is_ok(batchnorm_active_isa(&isa))) return 1;
  printf("batchnorm %s on %s\n", batchnorm_version(), isa);

  if (!train()) return 1;
  printf("batch mean %.4f, variance %.4f, y %.4f, dx %.4f, dbias %.1f\n", saved_mean[0], saved_variance[0], y[0], dx[0],
         dbias[0]);
  if (!is_ok(infer(4))) return 1;
  printf("running mean %.4f, variance %.4f, y %.4f\n", mean[0], variance[0], y[0]);

  if (infer(1) != BATCHNORM_SHAPE_ERROR) return 1;
  printf("of rank 1: %s\n", batchnorm_last_error());
  return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
