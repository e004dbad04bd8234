/* SPDX-License-Identifier: MIT */

/* A training step, its gradient and an inference from C; what an error looks like. */

#include <stdio.h>

#include "batchnorm_c.h"

enum { N = 8, C = 3, H = 14, W = 14, SIZE = N * C * H * W };

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

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
  forward.rank = LENGTH(shape);
  forward.shape = shape;
  forward.x = (batchnorm_const_tensor){.data = x, .length = LENGTH(x)};
  forward.scale = (batchnorm_const_vector){scale, LENGTH(scale)};
  forward.bias = (batchnorm_const_vector){bias, LENGTH(bias)};
  forward.mean = (batchnorm_vector){mean, LENGTH(mean)}; /* the running statistics, updated in place */
  forward.variance = (batchnorm_vector){variance, LENGTH(variance)};
  forward.output_x = (batchnorm_tensor){.data = y, .length = LENGTH(y)};
  forward.reserve_space_1 = (batchnorm_vector){saved_mean, LENGTH(saved_mean)}; /* for the gradient */
  forward.reserve_space_2 = (batchnorm_vector){saved_variance, LENGTH(saved_variance)};
  if (!is_ok(batchnorm_forward(&options, &forward))) return 0;

  /* The other way to fill a structure. */
  const batchnorm_backward_arguments backward = {.struct_size = sizeof backward,
                                                 .type = BATCHNORM_FLOAT,
                                                 .format = BATCHNORM_NCHW,
                                                 .rank = LENGTH(shape),
                                                 .shape = shape,
                                                 .dy = {.data = dy, .length = LENGTH(dy)},
                                                 .x = {.data = x, .length = LENGTH(x)},
                                                 .scale = {scale, LENGTH(scale)},
                                                 .mean = {saved_mean, LENGTH(saved_mean)},
                                                 .variance = {saved_variance, LENGTH(saved_variance)},
                                                 .dx = {.data = dx, .length = LENGTH(dx)},
                                                 .dscale = {dscale, LENGTH(dscale)},
                                                 .dbias = {dbias, LENGTH(dbias)}};
  return is_ok(batchnorm_backward(&options, &backward));
}

/* With that many of the elements of variance. */
static batchnorm_status infer(int64_t length_of_variance) {
  batchnorm_forward_arguments forward = batchnorm_no_forward_arguments();
  forward.type = BATCHNORM_FLOAT;
  forward.rank = LENGTH(shape);
  forward.shape = shape;
  forward.x = (batchnorm_const_tensor){.data = x, .length = LENGTH(x)};
  forward.mean = (batchnorm_vector){mean, LENGTH(mean)};
  forward.variance = (batchnorm_vector){variance, length_of_variance};
  forward.output_x = (batchnorm_tensor){.data = y, .length = LENGTH(y)};
  return batchnorm_forward(NULL, &forward);
}

/* The same, prepared once: y, and then y after ReLU. */
static int infer_prepared(void) {
  batchnorm_prepare_arguments prepare = batchnorm_no_prepare_arguments();
  prepare.type = BATCHNORM_FLOAT;
  prepare.mean = (batchnorm_const_vector){mean, LENGTH(mean)};
  prepare.variance = (batchnorm_const_vector){variance, LENGTH(variance)};
  batchnorm_prepared* prepared = NULL;
  if (!is_ok(batchnorm_prepare(&prepare, &prepared))) return 0;
  batchnorm_infer_arguments arguments = batchnorm_no_infer_arguments();
  arguments.rank = LENGTH(shape);
  arguments.shape = shape;
  arguments.x = (batchnorm_const_tensor){.data = x, .length = LENGTH(x)};
  arguments.output_x = (batchnorm_tensor){.data = y, .length = LENGTH(y)};
  int all_ok = is_ok(batchnorm_infer(prepared, &arguments));
  printf("prepared: y %.4f", y[0]);
  arguments.activation = BATCHNORM_RELU;
  all_ok = is_ok(batchnorm_infer(prepared, &arguments)) && all_ok;
  printf(", with ReLU %.4f\n", y[0]);
  batchnorm_destroy_prepared(prepared);
  return all_ok;
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
  if (!is_ok(infer(C))) return 1;
  printf("running mean %.4f, variance %.4f, y %.4f\n", mean[0], variance[0], y[0]);

  if (!infer_prepared()) return 1;

  if (infer(C - 1) != BATCHNORM_SHAPE_ERROR) return 1;
  printf("too short: %s\n", batchnorm_last_error());
  return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
