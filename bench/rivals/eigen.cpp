// SPDX-License-Identifier: MIT

// Expressions of Eigen's arrays: each statistic one reduction, the result one expression. A tensor is seen as images of
// positions by channels, channel after channel (NCHW), or as one image of the rows of NHWC. It uses one thread and is compiled
// for the processor it is built on.

#include <Eigen/Core>

#include "offers.hpp"

namespace bench {

std::string eigen_version() {
#if defined(EIGEN_VERSION_STRING)  // from Eigen 5 on, whose world version stays 3
  return "Eigen " EIGEN_VERSION_STRING;
#else
  return "Eigen " + std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) + "." +
         std::to_string(EIGEN_MINOR_VERSION);
#endif
}

namespace {

template <class T, Eigen::StorageOptions order>
class EigenExpression final : public Rival {
 public:
  EigenExpression(const Problem& problem, const Buffers& buffers)
      : operation_(problem.operation),
        buffers_(buffers),
        images_(order == Eigen::ColMajor ? problem.n() : 1),
        rows_(order == Eigen::ColMajor ? problem.spatial() : problem.n() * problem.spatial()),
        channels_(problem.c()),
        mean_(channels_),
        variance_(channels_),
        factor_(channels_),
        slope_(channels_) {
    if (operation_ != Operation::inference_prepared) return;
    factor_ = given(buffers_.scale) * (given(buffers_.variance) + static_cast<T>(buffers_.epsilon)).rsqrt();
    slope_ = given(buffers_.bias) - given(buffers_.mean) * factor_;
  }

  std::string name() const override { return eigen_version(); }

  void run() override {
    switch (operation_) {
      case Operation::training: return train();
      case Operation::backward: return backward();
      case Operation::inference_prepared: return scale_and_shift();
      default: return normalize(given(buffers_.mean), given(buffers_.variance));
    }
  }

 private:
  using Image = Eigen::Array<T, Eigen::Dynamic, Eigen::Dynamic, order>;
  using Vector = Eigen::Array<T, 1, Eigen::Dynamic>;

  Eigen::Map<const Image> image(const void* data, Eigen::Index n) const {
    return {static_cast<const T*>(data) + n * rows_ * channels_, rows_, channels_};
  }
  Eigen::Map<Image> image(void* data, Eigen::Index n) const {
    return {static_cast<T*>(data) + n * rows_ * channels_, rows_, channels_};
  }
  Eigen::Map<const Vector> given(const void* data) const { return {static_cast<const T*>(data), channels_}; }
  Eigen::Map<Vector> result(void* data) const { return {static_cast<T*>(data), channels_}; }

  void train() {
    const T m = static_cast<T>(images_ * rows_);
    mean_.setZero();
    variance_.setZero();
    for (Eigen::Index n = 0; n < images_; ++n) mean_ += image(buffers_.x, n).colwise().sum();
    mean_ /= m;
    for (Eigen::Index n = 0; n < images_; ++n) {
      variance_ += (image(buffers_.x, n).rowwise() - mean_).square().colwise().sum();
    }
    variance_ /= m;
    const T momentum = static_cast<T>(buffers_.momentum);
    result(buffers_.out_mean) = mean_;
    result(buffers_.out_variance) = variance_;
    result(buffers_.mean) += momentum * (mean_ - given(buffers_.mean));
    result(buffers_.variance) += momentum * (variance_ * (m / std::max(m - 1, T(1))) - given(buffers_.variance));
    normalize(mean_, variance_);
  }

  template <class V>
  void normalize(const V& mean, const V& variance) {
    factor_ = given(buffers_.scale) * (variance + static_cast<T>(buffers_.epsilon)).rsqrt();
    for (Eigen::Index n = 0; n < images_; ++n) {
      image(buffers_.y, n) = ((image(buffers_.x, n).rowwise() - mean).rowwise() * factor_).rowwise() + given(buffers_.bias);
    }
  }

  void scale_and_shift() {
    for (Eigen::Index n = 0; n < images_; ++n) {
      image(buffers_.y, n) = (image(buffers_.x, n).rowwise() * factor_).rowwise() + slope_;
    }
  }

  void backward() {
    const T m = static_cast<T>(images_ * rows_);
    mean_ = given(buffers_.mean);
    factor_ = (given(buffers_.variance) + static_cast<T>(buffers_.epsilon)).rsqrt();
    auto dscale = result(buffers_.dscale), dbias = result(buffers_.dbias);
    dscale.setZero();
    dbias.setZero();
    for (Eigen::Index n = 0; n < images_; ++n) {
      dbias += image(buffers_.dy, n).colwise().sum();
      dscale += (image(buffers_.dy, n) * (image(buffers_.x, n).rowwise() - mean_)).colwise().sum();
    }
    dscale *= factor_;
    slope_ = dscale * factor_ / m;
    variance_ = dbias / m;  // the mean of dy
    factor_ *= given(buffers_.scale);
    for (Eigen::Index n = 0; n < images_; ++n) {
      image(buffers_.y, n) =
          (image(buffers_.dy, n).rowwise() - variance_ - (image(buffers_.x, n).rowwise() - mean_).rowwise() * slope_)
              .rowwise() *
          factor_;
    }
  }

  Operation operation_;
  Buffers buffers_;
  Eigen::Index images_, rows_, channels_;
  Vector mean_, variance_, factor_, slope_;
};

template <class T>
std::unique_ptr<Rival> expression(const Problem& problem, const Buffers& buffers) {
  if (problem.layout == Layout::nchw && problem.spatial() > 1) {
    return std::make_unique<EigenExpression<T, Eigen::ColMajor>>(problem, buffers);
  }
  return std::make_unique<EigenExpression<T, Eigen::RowMajor>>(problem, buffers);
}

}  // namespace

void offer_eigen(const Problem& problem, const Buffers& buffers, Offers& offers) {
  if (problem.operation != Operation::training && problem.operation != Operation::inference &&
      problem.operation != Operation::backward && problem.operation != Operation::inference_prepared) {
    return;
  }
  if (problem.type == ElementType::float32) offers.push_back(expression<float>(problem, buffers));
  if (problem.type == ElementType::float64) offers.push_back(expression<double>(problem, buffers));
}

}  // namespace bench
