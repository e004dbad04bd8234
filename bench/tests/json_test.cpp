// SPDX-License-Identifier: MIT
#include "../suite/json.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

#include "json_reader.hpp"

namespace {

using bench::Json;
using bench::JsonObject;

TEST(Json, EscapesWhatAStringMayNotHold) {
  EXPECT_EQ(Json("a \"b\" \\ c").text(), R"("a \"b\" \\ c")");
  EXPECT_EQ(Json(std::string("line\nend\x01")).text(), R"("line\u000aend\u0001")");
  EXPECT_EQ(Json("Größe").text(), "\"Größe\"");
}

TEST(Json, NumbersReadBackAsTheyWere) {
  for (const double number : {0.0, 1.0 / 3, 1e300, 5e-324, -12.5, 123456789.0}) {
    EXPECT_EQ(bench_tests::JsonReader::read(Json(number).text()).number, number);
  }
  EXPECT_EQ(Json(std::int64_t{1} << 62).text(), "4611686018427387904");
}

TEST(Json, NumbersAreFinite) {
  EXPECT_THROW(Json{std::numeric_limits<double>::infinity()}, std::domain_error);
  EXPECT_THROW(Json{std::numeric_limits<double>::quiet_NaN()}, std::domain_error);
}

TEST(Json, ObjectsKeepTheOrderOfTheirMembers) {
  const Json value = JsonObject().add("b", 1).add("a", Json::array(std::vector{2, 3})).add("c", JsonObject());
  EXPECT_EQ(value.text(), R"({"b": 1, "a": [2, 3], "c": {}})");
}

}  // namespace
