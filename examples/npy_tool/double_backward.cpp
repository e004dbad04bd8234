// SPDX-License-Identifier: MIT
#include <memory>

#include "commands.hpp"
#include "files.hpp"

namespace npy_tool {
namespace {

struct DoubleBackwardArguments {
  std::filesystem::path x, dy, scale, mean, variance, ddx, ddscale, ddbias, out;
  batchnorm::Format format = batchnorm::Format::NCHW;
  batchnorm::Options options;
};

/// The opened files: they exist, are well formed, and their types go together.
struct DoubleBackwardFiles {
  explicit DoubleBackwardFiles(const DoubleBackwardArguments& arguments)
      : x(arguments.x),
        dy(arguments.dy),
        scale(arguments.scale),
        mean(arguments.mean),
        variance(arguments.variance),
        ddx(arguments.ddx),
        ddscale(arguments.ddscale),
        ddbias(arguments.ddbias) {
    require_same_type("dy", dy, "x", x);
    require_same_type("ddx", ddx, "x", x);
    require_same_type("mean", mean, "scale", scale);
    require_same_type("variance", variance, "scale", scale);
    require_same_type("ddscale", ddscale, "scale", scale);
    require_same_type("ddbias", ddbias, "scale", scale);
  }

  npy::Reader x, dy, scale, mean, variance, ddx, ddscale, ddbias;
};

template <Element T, ParameterOf<T> P>
void double_backward(const DoubleBackwardArguments& arguments, DoubleBackwardFiles& files, const batchnorm::CallOptions& call) {
  const Tensor<T> x = npy::read_tensor<T>(files.x), dy = npy::read_tensor<T>(files.dy), ddx = npy::read_tensor<T>(files.ddx);
  const Tensor<P> scale = npy::read_tensor<P>(files.scale), mean = npy::read_tensor<P>(files.mean),
                  variance = npy::read_tensor<P>(files.variance);
  const Tensor<P> ddscale = npy::read_tensor<P>(files.ddscale), ddbias = npy::read_tensor<P>(files.ddbias);
  Tensor<T> dx(x.shape()), ddy(x.shape());
  Tensor<P> dscale(scale.shape());
  batchnorm::batch_norm_double_backward<T, P>(
      arguments.format, arguments.options,
      {.dy = dy, .x = x, .scale = scale, .mean = mean, .variance = variance, .ddx = ddx, .ddscale = ddscale, .ddbias = ddbias},
      {dx, ddy, dscale}, call);

  OutputFolder out(arguments.out);
  out.add("dx", dx);
  out.add("ddy", ddy);
  out.add("dscale", dscale);
  out.publish();
}

void double_backward(const DoubleBackwardArguments& arguments) {
  const batchnorm::CallOptions call = call_options_of_environment();
  DoubleBackwardFiles files(arguments);
  with_types(files.x.header().type, files.scale.header().type,
             [&]<class T, class P>() { double_backward<T, P>(arguments, files, call); });
}

}  // namespace

void add_double_backward(CLI::App& app) {
  CLI::App& command = *app.add_subcommand(
      "double-backward",
      "Gradients of sum(ddx * dx) + sum(ddscale * dscale) + sum(ddbias * dbias), where dx, dscale and dbias are the results of "
      "backward. Writes its derivatives by x, dy and scale: dx, ddy and dscale, each as NAME.npy.");
  const auto arguments = std::make_shared<DoubleBackwardArguments>();
  add_file(command, "--x", arguments->x, x_description);
  add_file(command, "--dy", arguments->dy, "Shape and type of x: gradient of y");
  add_file(command, "--scale", arguments->scale, scale_description);
  add_file(command, "--mean", arguments->mean, "[C], the type of scale: in training what forward saved, reserve_space_1");
  add_file(command, "--variance", arguments->variance, "[C], the type of scale: in training reserve_space_2");
  add_file(command, "--ddx", arguments->ddx, "Shape and type of x: weights of dx");
  add_file(command, "--ddscale", arguments->ddscale, "[C], the type of scale: weights of dscale");
  add_file(command, "--ddbias", arguments->ddbias, "[C], the type of scale: weights of dbias");
  add_options(command, arguments->format, arguments->options);
  add_folder(command, arguments->out);
  command.callback([arguments] { double_backward(*arguments); });
}

}  // namespace npy_tool
