// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/allocations.hpp"

// What a call must keep to when an allocation fails.
namespace fuzz {

/// The bytes of values, so that states can be compared.
template <class Values>
std::string bytes_of(const Values& values) {
  return {reinterpret_cast<const char*>(std::data(values)), std::size(values) * sizeof(*std::data(values))};
}

/// A call with all that it is given. Both live as long as the subject.
struct Subject {
  std::function<void()> call;
  std::function<std::string()> state;  ///< all that the call may write, as bytes
};

/// No call throws it.
struct NoOther {};

/// Makes the call again and again, its first, second, ... allocation failing, until it succeeds. Each that fails must throw
/// std::bad_alloc, or `Other` where the call has another name for it, must release what it has allocated and leave the state as
/// it was; the one that succeeds must leave the state that the same call of a fresh subject leaves.
template <class Other = NoOther>
void expect_failures_harmless(const std::function<Subject()>& make, int least_allocations = 1) {
  const Subject reference = make();
  reference.call();  // also makes what is made once in a program
  const std::string want = reference.state();
  const Subject subject = make();
  const std::string before = subject.state();
  for (std::int64_t number = 1; number < 2000; ++number) {
    const std::int64_t live = support::live_allocations();
    bool thrown = false;
    try {
      const support::FailingAllocation failing(number);
      subject.call();
    } catch (const std::bad_alloc&) {
      thrown = true;
    } catch (const Other&) {
      thrown = true;
    }
    if (!support::FailingAllocation::has_failed()) {
      EXPECT_FALSE(thrown) << "the call threw though no allocation failed";
      EXPECT_EQ(subject.state(), want) << "after " << number - 1 << " failures the call gives another result";
      EXPECT_GT(number, least_allocations) << "the call allocates less than was thought";
      return;
    }
    ASSERT_TRUE(thrown) << "allocation " << number << " failed and the call did not say so";
    ASSERT_EQ(support::live_allocations(), live) << "memory leaked when allocation " << number << " failed";
    ASSERT_EQ(subject.state(), before) << "something was written though allocation " << number << " failed";
  }
  FAIL() << "the call does not succeed";
}

}  // namespace fuzz
