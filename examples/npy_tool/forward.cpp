// SPDX-License-Identifier: MIT
#include <memory>
#include <optional>
#include <type_traits>

#include "commands.hpp"
#include "files.hpp"

namespace npy_tool {
namespace {

batchnorm::RunningVariance parse_running_variance(const std::string& option, std::string_view text) {
  using batchnorm::RunningVariance;
  return parse_name<RunningVariance>(option, text,
                                     {{"unbiased", RunningVariance::unbiased}, {"biased", RunningVariance::biased}});
}

enum class ActivationKind { none, relu, leaky_relu };

ActivationKind parse_activation(const std::string& option, std::string_view text) {
  return parse_name<ActivationKind>(
      option, text,
      {{"none", ActivationKind::none}, {"relu", ActivationKind::relu}, {"leaky_relu", ActivationKind::leaky_relu}});
}

struct ForwardArguments {
  std::filesystem::path x, scale, bias, mean, variance, out;
  std::optional<std::filesystem::path> residual;
  batchnorm::Format format = batchnorm::Format::NCHW;
  batchnorm::Options options;
  ActivationKind activation = ActivationKind::none;
  batchnorm::LeakyRelu leaky_relu;
};

/// The opened files: they exist, are well formed, and their types go together.
struct ForwardFiles {
  explicit ForwardFiles(const ForwardArguments& arguments)
      : x(arguments.x), scale(arguments.scale), bias(arguments.bias), mean(arguments.mean), variance(arguments.variance) {
    require_same_type("bias", bias, "scale", scale);
    require_same_type("mean", mean, "scale", scale);
    require_same_type("variance", variance, "scale", scale);
    if (!arguments.residual) return;
    residual.emplace(*arguments.residual);
    require_same_type("residual", *residual, "x", x);
  }

  npy::Reader x, scale, bias, mean, variance;
  std::optional<npy::Reader> residual;
};

/// Calls body(epilogue) with what the command line wants done after scale and bias.
template <Element T, class Body>
void with_epilogue(const ForwardArguments& arguments, std::optional<npy::Reader>& residual_file, Body body) {
  const auto with_residual = [&](const auto& activation) {
    if (!residual_file) return body(activation);
    const Tensor<T> residual = npy::read_tensor<T>(*residual_file);
    body(batchnorm::AddResidual<T, std::remove_cvref_t<decltype(activation)>>{residual, activation});
  };
  switch (arguments.activation) {
    case ActivationKind::none: return with_residual(batchnorm::Identity());
    case ActivationKind::relu: return with_residual(batchnorm::Relu());
    case ActivationKind::leaky_relu: return with_residual(arguments.leaky_relu);
  }
}

template <Element T, ParameterOf<T> P>
void forward(const ForwardArguments& arguments, ForwardFiles& files, const batchnorm::CallOptions& call) {
  const Tensor<T> x = npy::read_tensor<T>(files.x);
  const Tensor<P> scale = npy::read_tensor<P>(files.scale), bias = npy::read_tensor<P>(files.bias);
  Tensor<P> mean = npy::read_tensor<P>(files.mean), variance = npy::read_tensor<P>(files.variance);
  Tensor<T> output_x(x.shape());
  Tensor<P> batch_mean(scale.shape()), batch_variance(scale.shape());
  Tensor<P> reserve_space_1(scale.shape()), reserve_space_2(scale.shape());
  with_epilogue<T>(arguments, files.residual, [&](const auto& epilogue) {
    batchnorm::batch_norm<T, P>(arguments.format, arguments.options, x, scale, bias, mean, variance,
                                {output_x, batch_mean, batch_variance, reserve_space_1, reserve_space_2}, epilogue, call);
  });

  OutputFolder out(arguments.out);
  out.add("output_x", output_x);
  out.add("batch_mean", batch_mean);
  out.add("batch_variance", batch_variance);
  out.add("reserve_space_1", reserve_space_1);
  out.add("reserve_space_2", reserve_space_2);
  if (arguments.options.is_training) {
    out.add("mean", mean);
    out.add("variance", variance);
  }
  out.publish();
}

void forward(const ForwardArguments& arguments) {
  const batchnorm::CallOptions call = call_options_of_environment();
  ForwardFiles files(arguments);
  with_types(files.x.header().type, files.scale.header().type,
             [&]<class T, class P>() { forward<T, P>(arguments, files, call); });
}

}  // namespace

void add_forward(CLI::App& app) {
  CLI::App& command = *app.add_subcommand(
      "forward",
      "Normalizes x. Writes output_x, batch_mean, batch_variance, reserve_space_1, reserve_space_2 and, in training, the "
      "updated running statistics mean and variance, each as NAME.npy.");
  const auto arguments = std::make_shared<ForwardArguments>();
  add_file(command, "--x", arguments->x, x_description);
  add_file(command, "--scale", arguments->scale, scale_description);
  add_file(command, "--bias", arguments->bias, "[C], the type of scale");
  add_file(command, "--mean", arguments->mean, "[C], the type of scale: running mean");
  add_file(command, "--variance", arguments->variance, "[C], the type of scale: running variance");
  add_options(command, arguments->format, arguments->options);
  add_parsed(command, "--momentum", "P", "Weight of the new running statistic, in [0, 1], default 0.1",
             arguments->options.momentum, parse_number);
  add_parsed(command, "--running-variance", "unbiased|biased", "Variance that enters the running one, default unbiased",
             arguments->options.running_variance, parse_running_variance);
  add_parsed(command, "--activation", "none|relu|leaky_relu", "Applied last, default none", arguments->activation,
             parse_activation);
  add_parsed(command, "--slope", "A", "Factor of negative values in leaky_relu, default 0.01", arguments->leaky_relu.slope,
             parse_finite_number);
  command.add_option("--residual", arguments->residual, "Added before the activation: shape and type of x")->type_name("FILE");
  add_folder(command, arguments->out);
  command.callback([arguments] { forward(*arguments); });
}

}  // namespace npy_tool
