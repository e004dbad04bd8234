// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Every public header but the adapters, files, MPI and CUDA, and reference.hpp, which no program needs to run. Files are a
/// matter of their own: checkpoint.hpp (with zlib), npy/npy.hpp.

/// @namespace batchnorm
/// Batch normalization: the operator, its gradients, and what training and shipping a network needs beside them.

#include <batchnorm/activation.hpp>
#include <batchnorm/batch_norm.hpp>
#include <batchnorm/conventions.hpp>
#include <batchnorm/element.hpp>
#include <batchnorm/errors.hpp>
#include <batchnorm/executor.hpp>
#include <batchnorm/fold.hpp>
#include <batchnorm/format.hpp>
#include <batchnorm/gradients.hpp>
#include <batchnorm/in_place.hpp>
#include <batchnorm/isa.hpp>
#include <batchnorm/moments.hpp>
#include <batchnorm/normalize.hpp>
#include <batchnorm/options.hpp>
#include <batchnorm/parameters.hpp>
#include <batchnorm/prepared.hpp>
#include <batchnorm/tensor.hpp>
#include <batchnorm/thread_team.hpp>
#include <batchnorm/version.hpp>
