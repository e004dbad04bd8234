// SPDX-License-Identifier: MIT
#pragma once

#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <initializer_list>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <CLI/CLI.hpp>
#include <batchnorm/batchnorm.hpp>

#include "../output/standard_output.hpp"

// The command lines of the tools that work on files, and what their options are turned into.
namespace npy_tool {

/// The command line asks for what does not exist, or the files given do not go together.
class UsageError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline double parse_number(const std::string& option, std::string_view text) {
  double number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc::result_out_of_range) {
    throw UsageError(option + " is '" + std::string(text) + "', beyond the range of a double");
  }
  if (error != std::errc() || rest != end) throw UsageError(option + " is '" + std::string(text) + "', it must be a number");
  return number;
}

inline double parse_finite_number(const std::string& option, std::string_view text) {
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

inline batchnorm::Format parse_format(const std::string&, std::string_view text) { return batchnorm::parse_format(text); }

/// Adds an option that parse(option, text) turns into `value`.
template <class Value, class Parse>
void add_parsed(CLI::App& command, const std::string& option, const std::string& argument, const std::string& description,
                Value& value, Parse parse) {
  const auto assign = [&value, option, parse](const std::string& text) { value = parse(option, text); };
  command.add_option_function<std::string>(option, assign, description)->type_name(argument);
}

inline void add_file(CLI::App& command, const std::string& option, std::filesystem::path& path,
                     const std::string& description) {
  command.add_option(option, path, description)->type_name("FILE")->required();
}

// The two arguments that every command describes alike.
inline constexpr const char* x_description = "[N, C, ...] or [N, ..., C]: float16, float32 or float64";
inline constexpr const char* scale_description = "[C]: float16 or float32, float64 with x of float64";

/// The options that every command has.
inline void add_options(CLI::App& command, batchnorm::Format& format, batchnorm::Options& options) {
  command.add_flag("--training", options.is_training, "The statistics are those of the batch, not the running ones");
  add_parsed(command, "--epsilon", "E", "Added to the variance, in (0, 1], default 1e-5", options.epsilon, parse_number);
  add_parsed(command, "--format", "NCHW|NHWC", "Which axis holds the channels: 1 or the last, default NCHW", format,
             parse_format);
}

inline void add_folder(CLI::App& command, std::filesystem::path& path) {
  command.add_option("--out", path, "Where the results go; made if it does not exist")->type_name("DIR")->required();
}

/// What BATCHNORM_ISA and BATCHNORM_NUM_THREADS ask for. Small data needs no threads, empty data no instruction set: looked at
/// here, a mistake in them is found every time.
inline batchnorm::CallOptions call_options_of_environment() {
  batchnorm::active_isa();
  batchnorm::CallOptions call;
  call.executor = &batchnorm::default_executor();
  return call;
}

/// An application that needs one of its commands.
inline void set_up(CLI::App& app) {
  app.set_help_flag();
  app.set_help_all_flag("-h,--help", "Print this and exit");
  app.footer(
      "BATCHNORM_ISA chooses the instruction set, BATCHNORM_NUM_THREADS the number of threads.\n"
      "Exit status: 0, or 2 after any error; then no file was written.");
}

/// Runs the command that the command line asks for. Returns the exit status; an error stands on one line of standard error.
inline int run(CLI::App& app, int argc, char** argv) {
  standard_output::prepare();
  const auto report = [&](const char* message) {
    std::fprintf(stderr, "%s: %s\n", app.get_name().c_str(), message);
    return 2;
  };
  try {
    app.parse(argc, argv);
    if (app.get_subcommands().empty()) throw UsageError("a command is required; --help lists them");
    return standard_output::finish(app.get_name().c_str(), 0);
  } catch (const CLI::Success& help) {
    return standard_output::finish(app.get_name().c_str(), app.exit(help));
  } catch (const std::bad_alloc&) {
    return report("out of memory");
  } catch (const std::exception& error) {
    return report(error.what());
  }
}

}  // namespace npy_tool
