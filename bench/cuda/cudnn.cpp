// SPDX-License-Identifier: MIT
#include "cudnn.hpp"

#if defined(BATCHNORM_BENCH_CUDNN)

#include <cmath>
#include <memory>
#include <stdexcept>

#include <cudnn.h>

namespace bench {
namespace {

constexpr double epsilon = 1e-5, momentum = 0.1;

void require(cudnnStatus_t status, const char* call) {
  if (status != CUDNN_STATUS_SUCCESS) throw std::runtime_error(std::string(call) + ": " + cudnnGetErrorString(status));
}

class Descriptor {
 public:
  Descriptor() { require(cudnnCreateTensorDescriptor(&descriptor_), "cudnnCreateTensorDescriptor"); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { cudnnDestroyTensorDescriptor(descriptor_); }
  operator cudnnTensorDescriptor_t() const { return descriptor_; }

 private:
  cudnnTensorDescriptor_t descriptor_ = nullptr;
};

class Handle {
 public:
  Handle() { require(cudnnCreate(&handle_), "cudnnCreate"); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() { cudnnDestroy(handle_); }
  operator cudnnHandle_t() const { return handle_; }

 private:
  cudnnHandle_t handle_ = nullptr;
};

cudnnDataType_t type_of(ElementType type) {
  switch (type) {
    case ElementType::float64: return CUDNN_DATA_DOUBLE;
    case ElementType::half: return CUDNN_DATA_HALF;
    case ElementType::bfloat16: return CUDNN_DATA_BFLOAT16;
    default: return CUDNN_DATA_FLOAT;
  }
}

/// One operation in one mode. Volumes are given as planes of more rows, matrices as planes of one value.
class Cudnn {
 public:
  Cudnn(const Problem& problem, const DeviceBuffers& buffers, cudnnBatchNormMode_t mode)
      : problem_(problem), buffers_(buffers), mode_(mode) {
    const auto format = problem.layout == Layout::nchw ? CUDNN_TENSOR_NCHW : CUDNN_TENSOR_NHWC;
    const int height = problem.extents.size() > 2 ? static_cast<int>(problem.extents[2]) : 1;
    const int width = static_cast<int>(problem.spatial() / height);
    require(cudnnSetTensor4dDescriptor(x_, format, type_of(problem.type), static_cast<int>(problem.n()),
                                       static_cast<int>(problem.c()), height, width),
            "cudnnSetTensor4dDescriptor");
    require(cudnnDeriveBNTensorDescriptor(channels_, x_, mode_), "cudnnDeriveBNTensorDescriptor");
    if (problem.operation == Operation::inference) return;
    std::size_t workspace = 0, reserve = 0;
    require(cudnnGetBatchNormalizationTrainingExReserveSpaceSize(handle_, mode_, CUDNN_BATCHNORM_OPS_BN, nullptr, x_, &reserve),
            "cudnnGetBatchNormalizationTrainingExReserveSpaceSize");
    reserve_ = std::make_unique<DeviceMemory>(reserve);
    if (is_backward(problem)) {
      require(cudnnGetBatchNormalizationBackwardExWorkspaceSize(handle_, mode_, CUDNN_BATCHNORM_OPS_BN, x_, nullptr, x_,
                                                                nullptr, x_, channels_, nullptr, &workspace),
              "cudnnGetBatchNormalizationBackwardExWorkspaceSize");
      inverse_deviation_ = std::make_unique<DeviceMemory>(buffers.variance.bytes());
      fill_inverse_deviation();
    } else {
      require(cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(handle_, mode_, CUDNN_BATCHNORM_OPS_BN, x_, nullptr, x_,
                                                                       channels_, nullptr, &workspace),
              "cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize");
    }
    workspace_ = std::make_unique<DeviceMemory>(workspace);
  }

  void operator()(cudaStream_t stream, std::size_t number) const {
    require(cudnnSetStream(handle_, stream), "cudnnSetStream");
    const DeviceBuffers::Set& set = buffers_.sets[number];
    if (problem_.type == ElementType::float64) {
      run<double>(set);
    } else {
      run<float>(set);
    }
  }

 private:
  static bool is_backward(const Problem& problem) { return problem.operation == Operation::backward; }

  void fill_inverse_deviation() const {
    const auto fill = [&]<class P>(P) {
      std::vector<P> values(buffers_.variance.bytes() / sizeof(P));
      buffers_.variance.download(values.data(), buffers_.variance.bytes());
      for (P& value : values) value = static_cast<P>(1 / std::sqrt(static_cast<double>(value) + epsilon));
      inverse_deviation_->upload(values.data(), inverse_deviation_->bytes());
    };
    if (problem_.type == ElementType::float64) {
      fill(double{});
    } else {
      fill(float{});
    }
  }

  template <class P>
  void run(const DeviceBuffers::Set& set) const {
    const P one = 1, zero = 0;
    const DeviceBuffers& b = buffers_;
    if (problem_.operation == Operation::inference) {
      require(
          cudnnBatchNormalizationForwardInference(handle_, mode_, &one, &zero, x_, set.x.data(), x_, set.y.data(), channels_,
                                                  b.scale.data(), b.bias.data(), b.mean.data(), b.variance.data(), epsilon),
          "cudnnBatchNormalizationForwardInference");
    } else if (is_backward(problem_)) {
      require(cudnnBatchNormalizationBackwardEx(handle_, mode_, CUDNN_BATCHNORM_OPS_BN, &one, &zero, &one, &zero, x_,
                                                set.x.data(), nullptr, nullptr, x_, set.dy.data(), nullptr, nullptr, x_,
                                                set.y.data(), channels_, b.scale.data(), nullptr, b.dscale.data(),
                                                b.dbias.data(), epsilon, b.mean.data(), inverse_deviation_->data(), nullptr,
                                                workspace_->data(), workspace_->bytes(), reserve_->data(), reserve_->bytes()),
              "cudnnBatchNormalizationBackwardEx");
    } else {
      require(cudnnBatchNormalizationForwardTrainingEx(
                  handle_, mode_, CUDNN_BATCHNORM_OPS_BN, &one, &zero, x_, set.x.data(), nullptr, nullptr, x_, set.y.data(),
                  channels_, b.scale.data(), b.bias.data(), momentum, b.mean.data(), b.variance.data(), epsilon,
                  b.saved_mean.data(), b.saved_variance.data(), nullptr, workspace_->data(), workspace_->bytes(),
                  reserve_->data(), reserve_->bytes()),
              "cudnnBatchNormalizationForwardTrainingEx");
    }
  }

  Problem problem_;
  const DeviceBuffers& buffers_;
  cudnnBatchNormMode_t mode_;
  Handle handle_;
  Descriptor x_, channels_;
  std::unique_ptr<DeviceMemory> workspace_, reserve_, inverse_deviation_;
};

}  // namespace

std::string cudnn_version() {
  const std::size_t version = cudnnGetVersion();
  return "cuDNN " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

std::vector<CudnnCall> cudnn_calls(const Problem& problem, const DeviceBuffers& buffers) {
  std::vector<CudnnCall> calls;
  const auto add = [&](const char* name, cudnnBatchNormMode_t mode) {
    // Descriptors are made at the first call, so that a refusal is that call's.
    const auto made = std::make_shared<std::unique_ptr<Cudnn>>();
    calls.push_back({name, [made, problem, &buffers, mode](cudaStream_t stream, std::size_t number) {
                       if (*made == nullptr) *made = std::make_unique<Cudnn>(problem, buffers, mode);
                       (**made)(stream, number);
                     }});
  };
  add("cudnn_spatial", CUDNN_BATCHNORM_SPATIAL);
  if (problem.operation != Operation::inference) add("cudnn_persistent", CUDNN_BATCHNORM_SPATIAL_PERSISTENT);
  return calls;
}

}  // namespace bench

#else

namespace bench {

std::string cudnn_version() { return {}; }
std::vector<CudnnCall> cudnn_calls(const Problem&, const DeviceBuffers&) { return {}; }

}  // namespace bench

#endif
