// SPDX-License-Identifier: MIT
// Compiled with -fno-exceptions -fno-rtti: an error is a value where the call is asked for one, otherwise it calls the handler,
// which does not return.
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <batchnorm/batchnorm.hpp>

namespace {

std::jmp_buf back;
char said[200];

[[noreturn]] void remember(const char* message) {
  std::strncpy(said, message, sizeof said - 1);
  std::longjmp(back, 1);
}

void expect_error(const char* expected, void (*call)()) {
  if (setjmp(back) == 0) {
    call();
    std::printf("no error, expected '%s'\n", expected);
    std::exit(1);
  }
  if (std::strcmp(said, expected) == 0) return;
  std::printf("'%s', expected '%s'\n", said, expected);
  std::exit(1);
}

}  // namespace

int main() {
  using namespace batchnorm;
  Tensor<float> x(Shape{2, 3, 4, 5});
  for (std::int64_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7);
  std::vector<float> mean(3), variance(3, 1.0F);
  const BatchNorm<float> training(true);
  const auto out = training(x, nullptr, nullptr, mean, variance);
  const auto gradients = training.backward(out.output_x, x, nullptr, out.reserve_space_1, out.reserve_space_2);
  if (!(std::abs(out.output_x[0]) < 3 && std::abs(gradients.dx[0]) < 1 && mean[0] > 0)) return 1;

  Tensor<float> y(x.shape());
  const InputViews<float> in{.x = x, .mean = mean, .variance = variance};
  const auto expect_value = [](const char* expected, const std::optional<Error>& error) {
    if (std::strcmp(error ? error->message.c_str() : "", expected) == 0) return;
    std::printf("'%s', expected '%s'\n", error ? error->message.c_str() : "", expected);
    std::exit(1);
  };
  expect_value("", training.check(in, {.output_x = y}));
  const char* const absent = "batchnorm::BatchNorm: output_x is absent";
  expect_value(absent, training.check(in, {.output_x = {}}));
  std::optional<Error> error;
  training(in, {.output_x = {}}, Identity{}, {.error = &error});
  expect_value(absent, error);
  training(in, {.output_x = y}, Identity{}, {.error = &error});
  expect_value("", error);
  if (!(std::abs(y[0]) < 3 && y[0] != 0)) return 1;
  expect_value("batchnorm::moments: x has rank 1, expected 2 to 5 (x is [3], NCHW)",
               check([&](const CallOptions& call) { moments(mean, Format::NCHW, call); }));
  expect_value("batchnorm::BatchNorm: epsilon is 2, it must be in (0, 1]", check(Options{.epsilon = 2}));

  set_error_handler(remember);
  expect_error("batchnorm::BatchNorm: epsilon is 2, it must be in (0, 1]", [] { BatchNorm<float>(true, 2.0); });
  expect_error("batchnorm::BatchNorm: x has rank 1, expected 2 to 5 (x is [3], NCHW)", [] {
    std::vector<float> vector(3);
    BatchNorm<float>(true).output_x(vector, nullptr, nullptr, nullptr, nullptr);
  });
  expect_error("batchnorm: unknown format 'NCWH', known are NCHW and NHWC", [] { parse_format("NCWH"); });
  std::puts("errors are values, or reach the handler");
}
