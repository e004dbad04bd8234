// SPDX-License-Identifier: MIT
#pragma once

#include <exception>
#include <string>
#include <typeinfo>

namespace support {

/// What the Error that call() throws says; text in <> where it throws another or none.
template <class Error, class Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return typeid(error) == typeid(Error) ? error.what() : "<a derived error: " + std::string(error.what()) + ">";
  } catch (const std::exception& error) {
    return "<another exception: " + std::string(error.what()) + ">";
  }
  return "<no exception>";
}

}  // namespace support
