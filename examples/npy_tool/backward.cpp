// SPDX-License-Identifier: MIT
#include <memory>

#include "commands.hpp"
#include "files.hpp"

namespace npy_tool {
namespace {

struct BackwardArguments {
  std::filesystem::path dy, x, scale, mean, variance, out;
  batchnorm::Format format = batchnorm::Format::NCHW;
  batchnorm::Options options;
};

/// The opened files: they exist, are well formed, and their types go together.
struct BackwardFiles {
  explicit BackwardFiles(const BackwardArguments& arguments)
      : dy(arguments.dy), x(arguments.x), scale(arguments.scale), mean(arguments.mean), variance(arguments.variance) {
    require_same_type("dy", dy, "x", x);
    require_same_type("mean", mean, "scale", scale);
    require_same_type("variance", variance, "scale", scale);
  }

  npy::Reader dy, x, scale, mean, variance;
};

template <Element T, ParameterOf<T> P>
void backward(const BackwardArguments& arguments, BackwardFiles& files, const batchnorm::CallOptions& call) {
  const Tensor<T> dy = npy::read_tensor<T>(files.dy), x = npy::read_tensor<T>(files.x);
  const Tensor<P> scale = npy::read_tensor<P>(files.scale), mean = npy::read_tensor<P>(files.mean),
                  variance = npy::read_tensor<P>(files.variance);
  Tensor<T> dx(x.shape());
  Tensor<P> dscale(scale.shape()), dbias(scale.shape());
  batchnorm::batch_norm_backward<T, P>(arguments.format, arguments.options, dy, x, scale, mean, variance, {dx, dscale, dbias},
                                       batchnorm::Identity{}, call);

  OutputFolder out(arguments.out);
  out.add("dx", dx);
  out.add("dscale", dscale);
  out.add("dbias", dbias);
  out.publish();
}

void backward(const BackwardArguments& arguments) {
  const batchnorm::CallOptions call = call_options_of_environment();
  BackwardFiles files(arguments);
  with_types(files.x.header().type, files.scale.header().type,
             [&]<class T, class P>() { backward<T, P>(arguments, files, call); });
}

}  // namespace

void add_backward(CLI::App& app) {
  CLI::App& command = *app.add_subcommand(
      "backward", "Gradients of x, scale and bias from the gradient dy of y. Writes dx, dscale and dbias, each as NAME.npy.");
  const auto arguments = std::make_shared<BackwardArguments>();
  add_file(command, "--dy", arguments->dy, "Shape and type of x: gradient of y");
  add_file(command, "--x", arguments->x, x_description);
  add_file(command, "--scale", arguments->scale, scale_description);
  add_file(command, "--mean", arguments->mean, "[C], the type of scale: in training what forward saved, reserve_space_1");
  add_file(command, "--variance", arguments->variance, "[C], the type of scale: in training reserve_space_2");
  add_options(command, arguments->format, arguments->options);
  add_folder(command, arguments->out);
  command.callback([arguments] { backward(*arguments); });
}

}  // namespace npy_tool
