// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <exception>
#include <new>
#include <string_view>

#include <batchnorm/errors.hpp>

#include "batchnorm_c.h"

// Where exceptions end.
namespace c_interface {

/// The message of this thread's last failure. An array: keeping a message neither allocates nor throws.
inline thread_local char last_error[1024] = "";

inline batchnorm_status failed(batchnorm_status status, std::string_view message) noexcept {
  last_error[message.copy(last_error, sizeof last_error - 1)] = '\0';
  return status;
}

/// Runs body() and returns what became of it.
template <class Body>
batchnorm_status guarded(Body&& body) noexcept {
  try {
    body();
    return BATCHNORM_OK;
  } catch (const batchnorm::ShapeError& error) {
    return failed(BATCHNORM_SHAPE_ERROR, error.what());
  } catch (const batchnorm::ValueError& error) {
    return failed(BATCHNORM_VALUE_ERROR, error.what());
  } catch (const std::bad_alloc&) {
    return failed(BATCHNORM_OUT_OF_MEMORY, "batchnorm: out of memory");
  } catch (const std::exception& error) {
    return failed(BATCHNORM_INTERNAL_ERROR, error.what());
  } catch (...) {
    return failed(BATCHNORM_INTERNAL_ERROR, "batchnorm: an unknown exception");
  }
}

}  // namespace c_interface
