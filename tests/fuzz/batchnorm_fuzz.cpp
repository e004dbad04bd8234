// SPDX-License-Identifier: MIT
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <map>

#include <CLI/CLI.hpp>

#include "kinds.hpp"
#include "support/sanitizers.hpp"

#if defined(BATCHNORM_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif

// Random calls of the library, compared with the formula in long double.
namespace {

using namespace fuzz;

/// The case that is running, for whoever ends the program in the middle of it.
std::array<char, 1024> current{};

void note_current(const Plan& plan) {
  std::snprintf(current.data(), current.size(), "batchnorm_fuzz: crashed: --seed %llu: %s\n",
                static_cast<unsigned long long>(plan.seed), text_of(plan).c_str());
}

void print_current() { static_cast<void>(!write(STDERR_FILENO, current.data(), std::strlen(current.data()))); }

void on_signal(int signal) {
  print_current();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void print_current_where_the_program_crashes() {
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) std::signal(signal, on_signal);
#if defined(BATCHNORM_ASAN)
  __sanitizer_set_death_callback(print_current);
#endif
}

/// What became of the cases of one kind.
struct Counts {
  std::int64_t cases = 0, refused = 0, failed = 0;
  std::int64_t accepted = 0, disjoint_refused = 0;  ///< of overlap: pairs that may be beside each other
};

class Fuzzer {
 public:
  /// What the case found, or nothing.
  void run(const Plan& plan) {
    note_current(plan);
    batchnorm::force_isa(plan.isa);
    Counts& counts = counts_[plan.kind];
    ++counts.cases;
    try {
      dispatch(plan, counts);
    } catch (const Failure& failure) {
      ++counts.failed;
      report(plan, failure.what());
    } catch (const std::invalid_argument& error) {
      ++counts.refused;
      report(plan, std::string("a right call was refused: ") + error.what());
    }
  }

  std::int64_t failures() const { return failures_; }

  void print_counts() const {
    std::printf("%-16s %10s %10s %10s\n", "kind", "cases", "refused", "failed");
    for (const auto& [kind, counts] : counts_) {
      std::printf("%-16s %10lld %10lld %10lld", name_of(kind), static_cast<long long>(counts.cases),
                  static_cast<long long>(counts.refused), static_cast<long long>(counts.failed));
      if (kind == Kind::overlap) {
        std::printf("   (pairs that may be beside each other: %lld accepted, %lld refused)",
                    static_cast<long long>(counts.accepted), static_cast<long long>(counts.disjoint_refused));
      }
      if (kind == Kind::refusal) std::printf("   (all of them wrong calls)");
      std::printf("\n");
    }
  }

 private:
  void dispatch(const Plan& plan, Counts& counts) {
    Random random(plan.seed + 0x5EED);
    switch (plan.kind) {
      case Kind::forward: return forward(plan, random);
      case Kind::pieces: return pieces(plan, random);
      case Kind::backward: return backward(plan, random);
      case Kind::gradient_pieces: return gradient_pieces(plan, random);
      case Kind::double_backward: return double_backward(plan, random);
      case Kind::in_place: return in_place(plan, random);
      case Kind::refusal: return refusal(plan, random);
      case Kind::overlap: {
        const Overlap result = overlap(plan, random);
        counts.accepted += result == Overlap::accepted ? 1 : 0;
        counts.disjoint_refused += result == Overlap::refused ? 1 : 0;
        return;
      }
    }
  }

  void report(const Plan& plan, const std::string& what) {
    ++failures_;
    std::cout << "FAILED --seed " << plan.seed << ": " << what << "\n       " << text_of(plan) << "\n" << std::flush;
  }

  std::map<Kind, Counts> counts_;
  std::int64_t failures_ = 0;
};

Kind kind_of(const std::string& name) {
  for (int i = 0; i < kinds; ++i) {
    if (name == name_of(static_cast<Kind>(i))) return static_cast<Kind>(i);
  }
  throw std::invalid_argument("unknown kind '" + name + "'");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Calls the library with random shapes, layouts, types, options, instruction sets, threads and tunings, between pages\n"
      "without access, and compares what it does with the formula in long double. The cases follow from their seeds alone.");
  double seconds = 0, minutes = 0;
  std::int64_t cases = 0, most_failures = 20;
  std::uint64_t first = 1, seed = 0;
  std::string isa, kind;
  app.add_option("--seconds", seconds, "stop after so many; 30 where nothing else is said");
  app.add_option("--minutes", minutes, "stop after so many");
  app.add_option("--cases", cases, "stop after so many");
  app.add_option("--first", first, "the seed of the first case; those that follow count up");
  CLI::Option* const one = app.add_option("--seed", seed, "run the case of that seed alone");
  app.add_option("--isa", isa, "only on that instruction set");
  app.add_option("--kind", kind,
                 "only forward, pieces, backward, gradient_pieces, double_backward, in_place, overlap, refusal");
  app.add_option("--failures", most_failures, "stop after so many failures");
  try {
    app.parse(argc, argv);
    Restriction restriction;
    if (!isa.empty()) restriction.isa = batchnorm::parse_isa(isa, "--isa");
    if (!kind.empty()) restriction.kind = kind_of(kind);
    if (*one) first = seed, cases = 1;
    seconds += 60 * minutes;
    if (seconds == 0 && cases == 0) seconds = 30;

    print_current_where_the_program_crashes();
    Fuzzer fuzzer;
    const auto begin = std::chrono::steady_clock::now();
    const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
    std::int64_t done = 0;
    while ((cases == 0 || done < cases) && (seconds == 0 || elapsed() < seconds) && fuzzer.failures() < most_failures) {
      fuzzer.run(draw_plan(first + static_cast<std::uint64_t>(done), restriction));
      ++done;
    }
    fuzzer.print_counts();
    std::printf("%lld cases, seeds from %llu, %lld failures, %.0f s\n", static_cast<long long>(done),
                static_cast<unsigned long long>(first), static_cast<long long>(fuzzer.failures()), elapsed());
    return fuzzer.failures() == 0 ? 0 : 1;
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const std::exception& error) {
    std::cerr << "batchnorm_fuzz: " << error.what() << "\n";
    return 2;
  }
}
