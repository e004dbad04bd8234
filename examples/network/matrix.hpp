// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <batchnorm/tensor.hpp>

namespace network {

/// A tensor's memory as Eigen sees it: row by row, the last axis within a row.
template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using MatrixMap = Eigen::Map<Matrix<T>>;
template <class T>
using ConstMatrixMap = Eigen::Map<const Matrix<T>>;

/// The last axis is the columns, all others together are the rows.
template <class T>
MatrixMap<T> by_last_axis(batchnorm::Tensor<T>& tensor) {
  const std::int64_t columns = tensor.shape()[tensor.shape().rank() - 1];
  return {tensor.data(), tensor.size() / columns, columns};
}
template <class T>
ConstMatrixMap<T> by_last_axis(const batchnorm::Tensor<T>& tensor) {
  const std::int64_t columns = tensor.shape()[tensor.shape().rank() - 1];
  return {tensor.data(), tensor.size() / columns, columns};
}

/// The first axis is the rows, all others together are the columns: a row for each example.
template <class T>
MatrixMap<T> by_first_axis(batchnorm::Tensor<T>& tensor) {
  return {tensor.data(), tensor.shape()[0], tensor.size() / tensor.shape()[0]};
}
template <class T>
ConstMatrixMap<T> by_first_axis(const batchnorm::Tensor<T>& tensor) {
  return {tensor.data(), tensor.shape()[0], tensor.size() / tensor.shape()[0]};
}

/// All elements in a row, for arithmetic by element.
template <class T>
auto array(batchnorm::Tensor<T>& tensor) {
  return Eigen::Map<Eigen::Array<T, Eigen::Dynamic, 1>>(tensor.data(), tensor.size());
}
template <class T>
auto array(const batchnorm::Tensor<T>& tensor) {
  return Eigen::Map<const Eigen::Array<T, Eigen::Dynamic, 1>>(tensor.data(), tensor.size());
}

}  // namespace network
