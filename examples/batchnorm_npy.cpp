// SPDX-License-Identifier: MIT

// Batch normalization on .npy files: how any framework can be compared with the library. --help says how to call it.

#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <CLI/CLI.hpp>
#include <batchnorm/batchnorm.hpp>
#include <batchnorm/npy/npy.hpp>
#include <batchnorm/npy/tensor.hpp>

namespace {

namespace npy = batchnorm::npy;

using batchnorm::Element;
using batchnorm::ParameterOf;
using batchnorm::Tensor;

/// The command line asks for what does not exist, or the files given do not go together.
class UsageError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The command line.

double parse_number(const std::string& option, std::string_view text) {
  double number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc::result_out_of_range) {
    throw UsageError(option + " is '" + std::string(text) + "', beyond the range of a double");
  }
  if (error != std::errc() || rest != end) throw UsageError(option + " is '" + std::string(text) + "', it must be a number");
  return number;
}

double parse_finite_number(const std::string& option, std::string_view text) {
  const double number = parse_number(option, text);
  if (!std::isfinite(number)) throw UsageError(option + " is '" + std::string(text) + "', it must be finite");
  return number;
}

/// The value that has the name `text`.
template <class Value>
Value parse_name(const std::string& option, std::string_view text,
                 std::initializer_list<std::pair<std::string_view, Value>> names) {
  std::string known;
  for (const auto& [name, value] : names) {
    if (name == text) return value;
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  throw UsageError(option + " is '" + std::string(text) + "', known are " + known);
}

batchnorm::Format parse_format(const std::string&, std::string_view text) { return batchnorm::parse_format(text); }

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

/// An activation of our own: chosen at run time, so that the kernels are compiled once for all of them.
struct ChosenActivation {
  ActivationKind kind = ActivationKind::none;
  batchnorm::LeakyRelu leaky_relu;

  template <class V>
  BATCHNORM_INLINE V operator()(const V& z) const {
    if (kind == ActivationKind::relu) return batchnorm::Relu()(z);
    if (kind == ActivationKind::leaky_relu) return leaky_relu(z);
    return z;
  }
};

/// Adds an option that parse(option, text) turns into `value`.
template <class Value, class Parse>
void add_parsed(CLI::App& command, const std::string& option, const std::string& argument, const std::string& description,
                Value& value, Parse parse) {
  const auto assign = [&value, option, parse](const std::string& text) { value = parse(option, text); };
  command.add_option_function<std::string>(option, assign, description)->type_name(argument);
}

void add_file(CLI::App& command, const std::string& option, std::filesystem::path& path, const std::string& description) {
  command.add_option(option, path, description)->type_name("FILE")->required();
}

/// The options that every command has.
void add_options(CLI::App& command, batchnorm::Format& format, batchnorm::Options& options) {
  command.add_flag("--training", options.is_training, "Normalize with the statistics of the batch, not with the running ones");
  add_parsed(command, "--epsilon", "E", "Added to the variance, in (0, 1], default 1e-5", options.epsilon, parse_number);
  add_parsed(command, "--format", "NCHW|NHWC", "Which axis holds the channels: 1 or the last, default NCHW", format,
             parse_format);
}

void add_folder(CLI::App& command, std::filesystem::path& path) {
  command.add_option("--out", path, "Where the results go; made if it does not exist")->type_name("DIR")->required();
}

/// What BATCHNORM_ISA and BATCHNORM_NUM_THREADS ask for. Small data needs no threads, empty data no instruction set: looked at
/// here, a mistake in them is found every time.
batchnorm::CallOptions call_options_of_environment() {
  batchnorm::active_isa();
  batchnorm::CallOptions call;
  call.executor = &batchnorm::default_executor();
  return call;
}

// The files.

/// Calls body<T>() with the C++ type T of the elements of the file given as `name`.
/// @throws UsageError   they are not floating-point numbers
template <class Body>
void with_type(const std::string& name, npy::Type type, Body body) {
  switch (type) {
    case npy::Type::float16: return body.template operator()<batchnorm::half>();
    case npy::Type::float32: return body.template operator()<float>();
    case npy::Type::float64: return body.template operator()<double>();
    case npy::Type::int64: throw UsageError(name + " is int64, it must be float16, float32 or float64");
  }
}

/// Calls body<T, P>() with the types of x and of the parameters.
/// @throws UsageError   they do not go together
template <class Body>
void with_types(npy::Type x, npy::Type parameters, Body body) {
  with_type("x", x, [&]<class T>() {
    with_type("scale", parameters, [&]<class P>() {
      if constexpr (ParameterOf<P, T>) {
        body.template operator()<T, P>();
      } else {
        throw UsageError("x is " + npy::type_name(x) + " and scale is " + npy::type_name(parameters) +
                         "; x of float16 or float32 takes parameters of float16 or float32, x of float64 takes float64");
      }
    });
  });
}

void require_same_type(const std::string& name, const npy::Reader& file, const std::string& other_name,
                       const npy::Reader& other) {
  if (file.header().type == other.header().type) return;
  throw UsageError(name + " ('" + file.path().string() + "') is " + npy::type_name(file.header().type) +
                   ", it must have the type of " + other_name + ", " + npy::type_name(other.header().type));
}

/// The results of a command: they are written when all are there, and appear together.
class OutputFolder {
 public:
  explicit OutputFolder(std::filesystem::path path) : path_(std::move(path)) {
    std::error_code error;
    create_directories(path_, error);
    if (error) throw UsageError("--out '" + path_.string() + "' cannot be created: " + error.message());
  }

  template <Element T>
  void add(const std::string& name, const Tensor<T>& tensor) {
    npy::write_tensor(tensor, [&](const npy::Header& header, std::span<const std::byte> data) {
      files_.add(path_ / (name + ".npy"), header, data);
    });
  }

  void publish() { files_.publish(); }

 private:
  std::filesystem::path path_;
  npy::StagedFiles files_;
};

// The command forward.

struct ForwardArguments {
  std::filesystem::path x, scale, bias, mean, variance, out;
  std::optional<std::filesystem::path> residual;
  batchnorm::Format format = batchnorm::Format::NCHW;
  batchnorm::Options options;
  ChosenActivation activation;
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
  if (!residual_file) return body(arguments.activation);
  const Tensor<T> residual = npy::read_tensor<T>(*residual_file);
  body(batchnorm::AddResidual<T, ChosenActivation>{residual, arguments.activation});
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

void add_forward(CLI::App& app) {
  CLI::App& command = *app.add_subcommand(
      "forward",
      "Normalizes x. Writes output_x, batch_mean, batch_variance, reserve_space_1, reserve_space_2 and, in training, the "
      "updated running statistics mean and variance, each as NAME.npy.");
  const auto arguments = std::make_shared<ForwardArguments>();
  add_file(command, "--x", arguments->x, "[N, C, ...] or [N, ..., C]: float16, float32 or float64");
  add_file(command, "--scale", arguments->scale, "[C]: float16 or float32, float64 with x of float64");
  add_file(command, "--bias", arguments->bias, "[C], the type of scale");
  add_file(command, "--mean", arguments->mean, "[C], the type of scale: running mean");
  add_file(command, "--variance", arguments->variance, "[C], the type of scale: running variance");
  add_options(command, arguments->format, arguments->options);
  add_parsed(command, "--momentum", "P", "Weight of the new running statistic, in [0, 1], default 0.1",
             arguments->options.momentum, parse_number);
  add_parsed(command, "--running-variance", "unbiased|biased", "Variance that enters the running one, default unbiased",
             arguments->options.running_variance, parse_running_variance);
  add_parsed(command, "--activation", "none|relu|leaky_relu", "Applied last, default none", arguments->activation.kind,
             parse_activation);
  add_parsed(command, "--slope", "A", "Factor of negative values in leaky_relu, default 0.01",
             arguments->activation.leaky_relu.slope, parse_finite_number);
  command.add_option("--residual", arguments->residual, "Added before the activation: shape and type of x")->type_name("FILE");
  add_folder(command, arguments->out);
  command.callback([arguments] { forward(*arguments); });
}

int report(const char* message) {
  std::fprintf(stderr, "batchnorm_npy: %s\n", message);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Batch normalization of NumPy files", "batchnorm_npy");
  app.set_help_flag();
  app.set_help_all_flag("-h,--help", "Print this and exit");
  app.footer(
      "BATCHNORM_ISA chooses the instruction set, BATCHNORM_NUM_THREADS the number of threads.\n"
      "Exit status: 0, or 2 after any error; then no file was written.");
  add_forward(app);
  try {
    app.parse(argc, argv);
    if (app.get_subcommands().empty()) throw UsageError("a command is required; --help lists them");
    return 0;
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const std::bad_alloc&) {
    return report("out of memory");
  } catch (const std::exception& error) {
    return report(error.what());
  }
}
