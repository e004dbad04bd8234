/* SPDX-License-Identifier: MIT */
#ifndef BATCHNORM_C_H
#define BATCHNORM_C_H

/*
 * Batch normalization in terms of C99: the operator of batchnorm/batch_norm.hpp, its gradients and theirs.
 *
 *   y[n,c,s] = activation(scale[c] * (x[n,c,s] - mean[c]) / sqrt(variance[c] + epsilon) + bias[c] [+ residual[n,c,s]])
 *
 * Shapes.   Tensors (x, y and their gradients) have rank 2 to 5: NCHW means (N, C, spatial...), NHWC means (N, spatial..., C);
 *           rank 2 is (N, C) in both. shape holds the extents in that order. Everything else is a vector [C].
 * Types.    Tensors have the type `type`, all vectors of a call the type `parameter_type`: float or half beside float or half,
 *           float or bfloat16 beside bfloat16, double beside double.
 * Lengths.  Every array comes with the number of its elements (not bytes), and nothing outside it is read or written. A vector
 *           has C elements, no more and no less. Of a tensor, `length` says how much memory there is at `data`: more than the
 *           shape needs is allowed, less is refused. It is the length of the memory, not the number of the tensor's elements:
 *           where strides leave gaps, the memory is longer; where they repeat elements (a stride of 0), shorter.
 * Strides.  How many elements (not bytes) neighbours along each axis are apart, one for each axis; NULL where the tensor is
 *           dense. Element (i, j, ...) is data[offset + i * strides[0] + j * strides[1] + ...], and each of them must lie in
 *           [0, length). Slices of larger tensors are read and written in place, as long as either the channels of a position,
 *           or the values along the last spatial axis, lie next to each other, the same in all tensors of a call. Vectors are
 *           dense.
 * Absent.   An optional argument is absent when its data is NULL; its length is 0 then. What is absent is not computed. x, dy
 *           and output_x are always needed, and may be NULL only where the shape holds no elements. Where C is 0 the length of
 *           every vector is 0.
 * Aliasing. output_x may be x or the residual, dx or dresidual may be dy, with the same strides. No other output may share an
 *           element with anything.
 * Mask.     One bit for each element of x, in the order in which they lie in memory: which of them pass the activation. It is
 *           bytes, as many as batchnorm_mask_length() says. Training and inference write it, backward reads it.
 * Errors.   Every argument is checked before anything is written: on any status but BATCHNORM_OK all outputs and running
 *           statistics are as they were, and batchnorm_last_error() says what is wrong. Nothing is printed, nothing aborts, no
 *           C++ exception leaves the library.
 * Threads.  Every function may be called from several threads at once, as long as their outputs differ. The number of threads
 *           a call uses changes its time, never its result.
 * Environment. BATCHNORM_NUM_THREADS: threads of a call that names no team (default: all); BATCHNORM_ISA: the instruction set;
 *           BATCHNORM_TUNING: numbers that change the time of calls. What cannot be used fails every call.
 *
 * Binary interface. The shared library is called libbatchnorm_c.so.1; its functions carry the version BATCHNORM_C_1, and it
 * exports nothing else. As long as the 1 stands, functions and fields are only added: a structure that begins with struct_size
 * grows at its end, and a new field means by 0 what its absence meant. So a library takes the structures of older programs,
 * and those of newer programs as long as the fields that it does not know are 0. No structure exceeds
 * BATCHNORM_LARGEST_STRUCT_SIZE bytes: a larger struct_size was never set, and is refused before anything after it is read.
 * Tensors and vectors are parts of other structures and never grow. Codes keep their numbers. A loaded library stays:
 * dlclose() does not unload it, since thread teams may still run in it. (libbatchnorm_c.so.0 took pointers without lengths.)
 */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#define BATCHNORM_C_API __attribute__((visibility("default")))
#else
#define BATCHNORM_C_API
#endif

#if defined(__cplusplus) && __cplusplus >= 201103L
#define BATCHNORM_C_NOEXCEPT noexcept
#else
#define BATCHNORM_C_NOEXCEPT
#endif

#if defined(__cplusplus)
extern "C" {
#endif

/* What a function returns. */
typedef enum batchnorm_status {
  BATCHNORM_OK = 0,
  BATCHNORM_SHAPE_ERROR = 1, /* a rank, an extent or a length does not fit */
  BATCHNORM_VALUE_ERROR = 2, /* an option, a code or a size out of range, null or misaligned data, strides, overlap, absence */
  BATCHNORM_OUT_OF_MEMORY = 3, /* no room for the temporary vectors of a call */
  BATCHNORM_INTERNAL_ERROR = 4 /* anything else; a defect of the library */
} batchnorm_status;

/* Element types: IEEE 754 binary32, binary64 and binary16, and the upper half of a binary32. */
enum {
  BATCHNORM_DEFAULT_PARAMETERS = 0, /* as parameter_type only: double beside double, otherwise float */
  BATCHNORM_FLOAT = 1,
  BATCHNORM_DOUBLE = 2,
  BATCHNORM_HALF = 3,
  BATCHNORM_BFLOAT16 = 4
};

/* Which axis holds the channels. */
enum { BATCHNORM_NCHW = 0, BATCHNORM_NHWC = 1 };

/* Which variance enters the running variance: divided by max(m - 1, 1) or by m (m values per channel). */
enum { BATCHNORM_UNBIASED = 0, BATCHNORM_BIASED = 1 };

/* What a channel whose batch mean or variance is NaN or infinite does to its running statistics: they take it in, or keep. */
enum { BATCHNORM_NOT_FINITE_UPDATES = 0, BATCHNORM_NOT_FINITE_KEEPS = 1 };

/* What is done to the normalised value: nothing, max(0, .), or a factor (slope) where it is negative. */
enum { BATCHNORM_NO_ACTIVATION = 0, BATCHNORM_RELU = 1, BATCHNORM_LEAKY_RELU = 2 };

/* The most that struct_size may be. */
enum { BATCHNORM_LARGEST_STRUCT_SIZE = 4096 };

/* Threads that calls share; a call that finds them busy runs on its own thread. */
typedef struct batchnorm_thread_team batchnorm_thread_team;

/* An inference with fixed statistics: what does not depend on x was computed once. */
typedef struct batchnorm_prepared batchnorm_prepared;

/* How to compute. Begin with batchnorm_default_options(). */
typedef struct batchnorm_options {
  size_t struct_size;       /* sizeof(batchnorm_options) */
  int32_t is_training;      /* 1: the statistics of the batch normalise x and update the running ones; 0: those given do */
  int32_t running_variance; /* BATCHNORM_UNBIASED, BATCHNORM_BIASED */
  int32_t not_finite;       /* BATCHNORM_NOT_FINITE_UPDATES, BATCHNORM_NOT_FINITE_KEEPS */
  int32_t reserved;         /* 0 */
  double epsilon;           /* added to the variance under the root; in (0, 1] */
  double momentum;          /* weight of the new statistic: running = (1 - momentum) * running + momentum * batch; in [0, 1] */
  int64_t batch_number;     /* not 0: counted from 1, the momentum of this call is 1 / batch_number (cumulative average) */
  batchnorm_thread_team* team; /* NULL: the threads of the library */
} batchnorm_options;

/* A vector that is read: one element for each channel. */
typedef struct batchnorm_const_vector {
  const void* data; /* aligned as its type; NULL: absent */
  int64_t length;   /* C, or 0 where it is absent */
} batchnorm_const_vector;

/* A vector that is written. */
typedef struct batchnorm_vector {
  void* data;
  int64_t length;
} batchnorm_vector;

/* A tensor that is read, of the shape of the call: {data, length} where it is dense and begins at data. */
typedef struct batchnorm_const_tensor {
  const void* data;       /* the memory that it lies in, aligned as its type; NULL: absent */
  int64_t length;         /* the number of elements of that memory, or 0 where it is absent */
  int64_t offset;         /* where in that memory the element is whose indices are all 0; in [0, length] */
  const int64_t* strides; /* [strides_length]; NULL: dense */
  int64_t strides_length; /* the rank, or 0 where strides is NULL */
} batchnorm_const_tensor;

/* A tensor that is written. */
typedef struct batchnorm_tensor {
  void* data;
  int64_t length;
  int64_t offset;
  const int64_t* strides;
  int64_t strides_length;
} batchnorm_tensor;

/* Arguments of batchnorm_forward. */
typedef struct batchnorm_forward_arguments {
  size_t struct_size; /* sizeof(batchnorm_forward_arguments) */
  int32_t type, parameter_type, format, rank;
  const int64_t* shape; /* [rank] */
  batchnorm_const_tensor x;
  batchnorm_const_vector scale, bias; /* each optional: 1 and 0 */
  batchnorm_vector mean, variance;    /* the running statistics: read in inference, where constants may be cast to void*,
                                         updated in place in training, where both may be absent together */
  batchnorm_tensor output_x;          /* y */
  batchnorm_vector batch_mean, batch_variance;       /* optional: training: mean and biased variance of the batch; inference: */
  batchnorm_vector reserve_space_1, reserve_space_2; /* copies of mean and variance. The reserve spaces hold the same for the
                                                        gradient */
  /* Since the second version of this structure: */
  int32_t activation;              /* BATCHNORM_NO_ACTIVATION, BATCHNORM_RELU, BATCHNORM_LEAKY_RELU */
  int32_t reserved;                /* 0 */
  double slope;                    /* of BATCHNORM_LEAKY_RELU, otherwise 0 */
  batchnorm_const_tensor residual; /* optional: added before the activation */
  batchnorm_vector mask;           /* optional, with an activation: for backward; its length is in bytes */
} batchnorm_forward_arguments;

/* Arguments of batchnorm_backward. */
typedef struct batchnorm_backward_arguments {
  size_t struct_size; /* sizeof(batchnorm_backward_arguments) */
  int32_t type, parameter_type, format, rank;
  const int64_t* shape; /* [rank] */
  batchnorm_const_tensor dy, x;
  batchnorm_const_vector scale;          /* optional: 1 */
  batchnorm_const_vector mean, variance; /* training: reserve_space_1 and _2 of the forward pass; inference: the running ones */
  batchnorm_tensor dx;                   /* optional */
  batchnorm_vector dscale, dbias;        /* each optional */
  /* Since the second version of this structure: */
  int32_t activation;              /* that of the forward pass */
  int32_t reserved;                /* 0 */
  double slope;                    /* of BATCHNORM_LEAKY_RELU, at least 0 then; otherwise 0 */
  batchnorm_const_vector mask;     /* with an activation: the mask of the forward pass (its length is in bytes), */
  batchnorm_const_tensor output_x; /* or its output. One of the two; without an activation neither */
  batchnorm_tensor dresidual;      /* optional: the gradient of the residual */
} batchnorm_backward_arguments;

/* Arguments of batchnorm_double_backward. */
typedef struct batchnorm_double_backward_arguments {
  size_t struct_size; /* sizeof(batchnorm_double_backward_arguments) */
  int32_t type, parameter_type, format, rank;
  const int64_t* shape; /* [rank] */
  batchnorm_const_tensor x, dy;
  batchnorm_const_vector scale;           /* optional: 1 */
  batchnorm_const_vector mean, variance;  /* as in the gradient */
  batchnorm_const_tensor ddx;             /* optional: 0 */
  batchnorm_const_vector ddscale, ddbias; /* each optional: 0 */
  batchnorm_tensor dx, ddy;               /* each optional */
  batchnorm_vector dscale;                /* optional */
} batchnorm_double_backward_arguments;

/* Arguments of batchnorm_forward_in_place. */
typedef struct batchnorm_forward_in_place_arguments {
  size_t struct_size; /* sizeof(batchnorm_forward_in_place_arguments) */
  int32_t type, parameter_type, format, rank;
  const int64_t* shape;                        /* [rank] */
  batchnorm_tensor x;                          /* y takes its place */
  batchnorm_const_vector scale, bias;          /* each optional: 1 and 0 */
  batchnorm_vector mean, variance;             /* the running statistics: updated, or both absent */
  batchnorm_vector batch_mean, batch_variance; /* each optional; backward needs the variance */
  double slope;                                /* of the leaky ReLU, above 0; 1 for none */
  double largest_ratio;                        /* of |bias| to |scale|; 0 for the usual one: 1024, of the 16-bit types 8 */
} batchnorm_forward_in_place_arguments;

/* Arguments of batchnorm_backward_in_place. */
typedef struct batchnorm_backward_in_place_arguments {
  size_t struct_size; /* sizeof(batchnorm_backward_in_place_arguments) */
  int32_t type, parameter_type, format, rank;
  const int64_t* shape; /* [rank] */
  batchnorm_const_tensor dy, y;
  batchnorm_const_vector scale, bias; /* those of the forward pass */
  batchnorm_const_vector variance;    /* batch_variance of the forward pass */
  batchnorm_tensor dx;                /* optional */
  batchnorm_vector dscale, dbias;     /* each optional */
  double slope, largest_ratio;        /* those of the forward pass */
} batchnorm_backward_in_place_arguments;

/* Arguments of batchnorm_prepare and batchnorm_refresh. C is the length of mean. */
typedef struct batchnorm_prepare_arguments {
  size_t struct_size; /* sizeof(batchnorm_prepare_arguments) */
  int32_t type, parameter_type, format, rank;
  const int64_t* shape;                  /* [rank] of x, where it is known; x may have another one with C channels. Otherwise
                                            NULL, and rank is 0 */
  batchnorm_const_vector scale, bias;    /* each optional: 1 and 0 */
  batchnorm_const_vector mean, variance; /* the running statistics */
  double epsilon;                        /* in (0, 1] */
} batchnorm_prepare_arguments;

/* Arguments of batchnorm_infer. */
typedef struct batchnorm_infer_arguments {
  size_t struct_size; /* sizeof(batchnorm_infer_arguments) */
  int32_t rank, activation;
  const int64_t* shape; /* [rank] */
  batchnorm_const_tensor x;
  batchnorm_const_tensor residual; /* optional: added before the activation */
  batchnorm_tensor output_x;       /* y; may be x or the residual, with the same strides */
  double slope;                    /* of BATCHNORM_LEAKY_RELU, otherwise 0 */
  batchnorm_thread_team* team;     /* NULL: the threads of the library */
} batchnorm_infer_arguments;

/* Inference with epsilon 1e-5, momentum 0.1. */
static inline batchnorm_options batchnorm_default_options(void) {
  batchnorm_options options;
  memset(&options, 0, sizeof options);
  options.struct_size = sizeof options;
  options.epsilon = 1e-5;
  options.momentum = 0.1;
  return options;
}

/* Arguments that are all absent; {.struct_size = sizeof(batchnorm_forward_arguments), .x = ...} does the same. */
static inline batchnorm_forward_arguments batchnorm_no_forward_arguments(void) {
  batchnorm_forward_arguments arguments;
  memset(&arguments, 0, sizeof arguments);
  arguments.struct_size = sizeof arguments;
  return arguments;
}

static inline batchnorm_backward_arguments batchnorm_no_backward_arguments(void) {
  batchnorm_backward_arguments arguments;
  memset(&arguments, 0, sizeof arguments);
  arguments.struct_size = sizeof arguments;
  return arguments;
}

static inline batchnorm_double_backward_arguments batchnorm_no_double_backward_arguments(void) {
  batchnorm_double_backward_arguments arguments;
  memset(&arguments, 0, sizeof arguments);
  arguments.struct_size = sizeof arguments;
  return arguments;
}

static inline batchnorm_forward_in_place_arguments batchnorm_no_forward_in_place_arguments(void) {
  batchnorm_forward_in_place_arguments arguments;
  memset(&arguments, 0, sizeof arguments);
  arguments.struct_size = sizeof arguments;
  return arguments;
}

static inline batchnorm_backward_in_place_arguments batchnorm_no_backward_in_place_arguments(void) {
  batchnorm_backward_in_place_arguments arguments;
  memset(&arguments, 0, sizeof arguments);
  arguments.struct_size = sizeof arguments;
  return arguments;
}

/* An inference with epsilon 1e-5, of a shape that is not known. */
static inline batchnorm_prepare_arguments batchnorm_no_prepare_arguments(void) {
  batchnorm_prepare_arguments arguments;
  memset(&arguments, 0, sizeof arguments);
  arguments.struct_size = sizeof arguments;
  arguments.epsilon = 1e-5;
  return arguments;
}

static inline batchnorm_infer_arguments batchnorm_no_infer_arguments(void) {
  batchnorm_infer_arguments arguments;
  memset(&arguments, 0, sizeof arguments);
  arguments.struct_size = sizeof arguments;
  return arguments;
}

/*
 * The operator. options == NULL means batchnorm_default_options(), here and below.
 *
 *   y[n,c,s] = activation(scale[c] * (x[n,c,s] - mean[c]) / sqrt(variance[c] + epsilon) + bias[c] [+ residual[n,c,s]])
 *
 * Training reads x once (twice where a channel does not fit the cache), writes y once; statistics are carried in double.
 * m == 1 value per channel: y == bias, the running variance stays finite. Empty batch: outputs empty or zero, running
 * statistics untouched. A constant channel gives exactly bias. NaN and Inf stay within their channel.
 */
BATCHNORM_C_API batchnorm_status batchnorm_forward(const batchnorm_options* options,
                                                   const batchnorm_forward_arguments* arguments) BATCHNORM_C_NOEXCEPT;

/*
 * Its gradients by x, scale and bias. With xh = (x - mean) * r and r = 1 / sqrt(variance + epsilon):
 *
 *   dz = dy, through the activation where there is one        dresidual = dz
 *   dbias = sum(dz)        dscale = sum(dz * xh)
 *   training:  dx = scale * r * (dz - dbias / m - xh * dscale / m)
 *   inference: dx = scale * r * dz
 *
 * Of the options, is_training, epsilon and team count; the others are checked all the same.
 * Empty batch: dx empty, dscale = dbias = 0.
 */
BATCHNORM_C_API batchnorm_status batchnorm_backward(const batchnorm_options* options,
                                                    const batchnorm_backward_arguments* arguments) BATCHNORM_C_NOEXCEPT;

/*
 * The gradients of sum(ddx * dx) + sum(ddscale * dscale) + sum(ddbias * dbias) by x, dy and scale, where dx, dscale and dbias
 * are those of batchnorm_backward. With g = ddx and M[.] the mean over a channel:
 *
 *   training:  ddy    = scale * r * (g - M[g] - xh * M[g xh]) + ddscale * xh + ddbias
 *              dx     = scale * r^2 * (xh * (M[g] M[dy] - M[dy g] + 3 M[dy xh] M[g xh]) + M[g xh] (M[dy] - dy)
 *                                      + M[dy xh] (M[g] - g)) + ddscale * r * (dy - M[dy] - xh M[dy xh])
 *              dscale = sum(g * r * (dy - M[dy] - xh M[dy xh]))
 *   inference: ddy = g * r * scale + ddscale * xh + ddbias        dx = ddscale * r * dy        dscale = sum(g * dy * r)
 *
 * No output may share an element with anything. The options as in batchnorm_backward.
 */
BATCHNORM_C_API batchnorm_status batchnorm_double_backward(
    const batchnorm_options* options, const batchnorm_double_backward_arguments* arguments) BATCHNORM_C_NOEXCEPT;

/* Bytes of the mask of a tensor of that shape. */
BATCHNORM_C_API batchnorm_status batchnorm_mask_length(int32_t rank, const int64_t* shape,
                                                       int64_t* length) BATCHNORM_C_NOEXCEPT;

/*
 * Training that keeps one buffer instead of two: y = leaky ReLU of the normalised x takes the place of x, and the gradients
 * come from y alone. Each channel must have |scale| >= |bias| / largest_ratio, and |scale| * min(1, slope) must be a normal
 * number of the type, otherwise x could not be recovered: BATCHNORM_VALUE_ERROR, and x is as it was. It is always in training:
 * is_training does not count, but is checked.
 */
BATCHNORM_C_API batchnorm_status batchnorm_forward_in_place(
    const batchnorm_options* options, const batchnorm_forward_in_place_arguments* arguments) BATCHNORM_C_NOEXCEPT;

/* The gradients of batchnorm_forward_in_place by x, scale and bias. dx may be dy. */
BATCHNORM_C_API batchnorm_status batchnorm_backward_in_place(
    const batchnorm_options* options, const batchnorm_backward_in_place_arguments* arguments) BATCHNORM_C_NOEXCEPT;

/*
 * Inference with fixed statistics, prepared once for any number of calls:
 *
 *   y[n,c,s] = activation(scale[c] * (x[n,c,s] - mean[c]) / sqrt(variance[c] + epsilon) + bias[c] [+ residual[n,c,s]])
 *
 * The bits are those of batchnorm_forward on the instruction set that was active when it was prepared. It keeps a copy of what
 * it needs: the vectors may change or go. A call computes no root and no quotient, and allocates only where planes of less than
 * 64 bytes do not lie as those of a dense tensor of the shape that it was prepared for.
 */
BATCHNORM_C_API batchnorm_status batchnorm_prepare(const batchnorm_prepare_arguments* arguments,
                                                   batchnorm_prepared** prepared) BATCHNORM_C_NOEXCEPT;

/*
 * Takes other vectors, of as many channels. type, parameter_type and format must be those that it was prepared with; rank,
 * shape and epsilon are not looked at, and stay. No call may be using it.
 */
BATCHNORM_C_API batchnorm_status batchnorm_refresh(batchnorm_prepared* prepared,
                                                   const batchnorm_prepare_arguments* arguments) BATCHNORM_C_NOEXCEPT;

/* y from x. Several threads may call it at once. */
BATCHNORM_C_API batchnorm_status batchnorm_infer(const batchnorm_prepared* prepared,
                                                 const batchnorm_infer_arguments* arguments) BATCHNORM_C_NOEXCEPT;

/* No call may be using it. NULL is let pass. */
BATCHNORM_C_API void batchnorm_destroy_prepared(batchnorm_prepared* prepared) BATCHNORM_C_NOEXCEPT;

/*
 * What the last call of this thread that returned another status than BATCHNORM_OK had to say; "" when there was none. Cut
 * after 1023 bytes. It lives until this thread's next such call.
 */
BATCHNORM_C_API const char* batchnorm_last_error(void) BATCHNORM_C_NOEXCEPT;

/* "0.1.0", the version of the library that is loaded. */
BATCHNORM_C_API const char* batchnorm_version(void) BATCHNORM_C_NOEXCEPT;

/* The name of the instruction set with that index among those that run on this processor, ascending ("baseline", "x86-64-v3",
 * "x86-64-v4"); NULL past the last. */
BATCHNORM_C_API const char* batchnorm_available_isa(int32_t index) BATCHNORM_C_NOEXCEPT;

/* The one that calls run on: the forced one, that of BATCHNORM_ISA, or the fastest here for float and double; without one of the
 * first two, calls on half and bfloat16 may run on a larger one. BATCHNORM_VALUE_ERROR where BATCHNORM_ISA names none that is
 * available, or name is NULL. */
BATCHNORM_C_API batchnorm_status batchnorm_active_isa(const char** name) BATCHNORM_C_NOEXCEPT;

/* From now on every call runs on that one. BATCHNORM_VALUE_ERROR where it is unknown or not available. */
BATCHNORM_C_API batchnorm_status batchnorm_force_isa(const char* name) BATCHNORM_C_NOEXCEPT;

/* A team of concurrency - 1 threads beside the caller's; concurrency in [1, 1024]. A forked child cannot use its parent's. */
BATCHNORM_C_API batchnorm_status batchnorm_create_thread_team(int32_t concurrency,
                                                              batchnorm_thread_team** team) BATCHNORM_C_NOEXCEPT;

/* Ends its threads; no call may be using it. NULL is let pass. */
BATCHNORM_C_API void batchnorm_destroy_thread_team(batchnorm_thread_team* team) BATCHNORM_C_NOEXCEPT;

#if defined(__cplusplus)
}
#endif

#endif
