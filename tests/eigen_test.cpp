// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <batchnorm/eigen.hpp>

#include "support/adapters.hpp"
#include "support/messages.hpp"

// Eigen's matrices and tensors: element (i, j, ...) of a view is that of the Eigen object, row or column major.
namespace {

using namespace support;
using batchnorm::TensorView;
using batchnorm::view_of;

template <class M>
concept Viewable = requires(M&& m) {
  view_of(std::forward<M>(m));
};

using RowMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using RowTensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;

// Owners that are temporaries, expressions without memory and other element types are refused by the compiler.
static_assert(Viewable<Eigen::MatrixXf&> && Viewable<const Eigen::MatrixXd&> && Viewable<RowTensor&>);
static_assert(!Viewable<Eigen::MatrixXf> && !Viewable<const Eigen::ArrayXXf> && !Viewable<RowTensor> &&
              !Viewable<Eigen::MatrixXi&>);
static_assert(Viewable<Eigen::Map<Eigen::MatrixXf>> && Viewable<Eigen::Block<Eigen::MatrixXf>>);
static_assert(Viewable<Eigen::Ref<Eigen::MatrixXf>> && !Viewable<Eigen::Ref<const Eigen::MatrixXf>>);  // that of a + b
static_assert(!Viewable<decltype(std::declval<Eigen::MatrixXf&>() + std::declval<Eigen::MatrixXf&>())>);
static_assert(!Viewable<decltype(std::declval<RowTensor&>() + std::declval<RowTensor&>())>);

/// Expects view[i, j] to be matrix(i, j), then normalises in place.
template <class M>
void expect_same_elements(M&& matrix) {
  const auto view = view_of(matrix);
  ASSERT_EQ(view.shape(), (Shape{matrix.rows(), matrix.cols()}));
  for (Eigen::Index i = 0; i < matrix.rows(); ++i) {
    for (Eigen::Index j = 0; j < matrix.cols(); ++j) {
      ASSERT_EQ(&view.data()[i * view.strides()[0] + j * view.strides()[1]], &matrix.coeffRef(i, j));
    }
  }
  expect_normalised_in_place(view, Format::NCHW);
}

TEST(EigenAdapter, MatricesOfBothOrdersAndTheirPartsAreNormalisedInPlace) {
  Eigen::MatrixXf columns = Eigen::MatrixXf::Random(37, 9);
  RowMatrix rows = RowMatrix::Random(37, 9);
  Eigen::ArrayXXd array = Eigen::ArrayXXd::Random(37, 9);
  Eigen::Matrix<batchnorm::half, Eigen::Dynamic, 5> halves = Eigen::MatrixXf::Random(64, 5).cast<batchnorm::half>();
  expect_same_elements(columns);
  expect_same_elements(rows);
  expect_same_elements(array);
  expect_same_elements(halves);
  expect_same_elements(columns.block(3, 2, 30, 5));
  expect_same_elements(rows.block(3, 2, 30, 5));
  expect_same_elements(rows.middleRows(5, 20));
  Eigen::Ref<Eigen::MatrixXf> ref = columns.leftCols(4);
  expect_same_elements(ref);
  std::vector<float> data = uniform<float>(400, -1, 1, 2);
  expect_same_elements(Eigen::Map<Eigen::MatrixXf, 0, Eigen::OuterStride<>>(data.data(), 20, 8, Eigen::OuterStride<>(25)));
  expect_same_elements(Eigen::Map<RowMatrix>(data.data(), 20, 8));
}

TEST(EigenAdapter, VectorsAreParameters) {
  Eigen::MatrixXf x = Eigen::MatrixXf::Random(50, 3);
  const Eigen::Vector3f scale(1, 2, 3);
  const Eigen::RowVector3f bias(4, 5, 6);
  Eigen::VectorXf mean = Eigen::VectorXf::Zero(3);
  Eigen::ArrayXf variance = Eigen::ArrayXf::Ones(3);
  const batchnorm::BatchNorm<float> training(true);
  Eigen::MatrixXf y(50, 3);
  training(view_of(x), view_of(scale), view_of(bias), view_of(mean), view_of(variance), {.output_x = view_of(y)});
  EXPECT_TRUE(y.colwise().mean().isApprox(bias, 1e-5F));
  EXPECT_TRUE((10 * mean.transpose()).isApprox(x.colwise().mean(), 1e-5F));
  // A row of a column-major matrix has gaps: said, not read over.
  EXPECT_EQ(message_of<batchnorm::ValueError>(
                [&] { training(view_of(x), view_of(x.row(0)), nullptr, nullptr, nullptr, {.output_x = view_of(y)}); }),
            "batchnorm::BatchNorm: scale has stride 50, the elements of a channel vector must lie next to each other");
}

TEST(EigenAdapter, TensorsAndMapsOfRowMajorAreNormalisedInPlace) {
  RowTensor tensor(2, 3, 5, 7);
  tensor.setRandom();
  EXPECT_EQ(view_of(tensor).shape(), (Shape{2, 3, 5, 7}));
  EXPECT_EQ(&view_of(tensor).data()[1 * 105 + 2 * 35 + 3 * 7 + 4], &tensor(1, 2, 3, 4));
  expect_normalised_in_place(view_of(tensor), Format::NCHW);
  expect_normalised_in_place(view_of(tensor), Format::NHWC);
  std::vector<double> data = uniform<double>(2 * 3 * 4, -1, 1, 3);
  expect_normalised_in_place(view_of(Eigen::TensorMap<Eigen::Tensor<double, 3, Eigen::RowMajor>>(data.data(), 2, 3, 4)),
                             Format::NCHW);
  const Eigen::TensorMap<const RowTensor> constant(tensor.data(), 2, 3, 5, 7);
  static_assert(std::is_same_v<decltype(view_of(constant)), TensorView<const float>>);
  Eigen::TensorFixedSize<float, Eigen::Sizes<6, 4>, Eigen::RowMajor> fixed;
  fixed.setRandom();
  expect_normalised_in_place(view_of(fixed), Format::NCHW);
}

// Eigen's default order: read as it lies where that is a layout, refused in words where not, never transposed.
TEST(EigenAdapter, ColumnMajorTensors) {
  Eigen::Tensor<float, 2> matrix(40, 3);
  matrix.setRandom();
  expect_normalised_in_place(view_of(matrix), Format::NCHW);

  Eigen::Tensor<float, 4> tensor(2, 3, 5, 7);
  tensor.setRandom();
  const TensorView<const float> view = view_of(tensor);
  EXPECT_EQ(&view.data()[1 * view.strides()[0] + 2 * view.strides()[1] + 3 * view.strides()[2] + 4 * view.strides()[3]],
            &tensor(1, 2, 3, 4));
  EXPECT_EQ(message_of<batchnorm::ValueError>([&] { batchnorm::moments<float>(view, Format::NHWC); }),
            "batchnorm::moments: x has strides [1, 2, 6, 30]; supported are tensors where the channels of a position, or the "
            "values along the last spatial axis, lie next to each other; this one is column major (x is [2, 3, 5, 7], NHWC)");

  // (W, H, C, N) reversed is a dense [N, C, H, W].
  const auto reversed = batchnorm::reversed_view_of(tensor);
  EXPECT_EQ(reversed.shape(), (Shape{7, 5, 3, 2}));
  EXPECT_EQ(reversed.strides(), batchnorm::dense_strides(reversed.shape()));
  expect_normalised_in_place(reversed, Format::NCHW);
}

}  // namespace
