// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <batchnorm/element.hpp>
#include <batchnorm/npy/npy.hpp>

namespace support {

namespace npy = batchnorm::npy;

/// The bytes of a .npy file: any dictionary, any data, right or wrong.
inline std::string npy_bytes(std::string_view dictionary, std::string_view data, char version = 1) {
  std::string bytes = std::string("\x93NUMPY") + version + '\0';
  for (std::size_t i = 0, length = dictionary.size(); i < (version == 1 ? 2 : 4); ++i, length /= 256) {
    bytes += static_cast<char>(length % 256);
  }
  return bytes.append(dictionary).append(data);
}

/// An array of any type, its values widened without loss.
struct Array {
  npy::Header header;
  std::vector<long double> values;
};

template <class T>
std::vector<long double> widened(npy::Reader& reader) {
  std::vector<T> values(static_cast<std::size_t>(reader.byte_count()) / sizeof(T));
  reader.read(std::as_writable_bytes(std::span(values)));
  std::vector<long double> result;
  for (const T value : values) {
    if constexpr (std::is_same_v<T, batchnorm::half>) {
      result.push_back(static_cast<float>(value));
    } else {
      result.push_back(static_cast<long double>(value));
    }
  }
  return result;
}

inline Array load_npy(const std::filesystem::path& path) {
  npy::Reader reader(path);
  switch (reader.header().type) {
    case npy::Type::float16: return {reader.header(), widened<batchnorm::half>(reader)};
    case npy::Type::float32: return {reader.header(), widened<float>(reader)};
    case npy::Type::float64: return {reader.header(), widened<double>(reader)};
    case npy::Type::int64: return {reader.header(), widened<std::int64_t>(reader)};
  }
  return {};
}

template <class T>
void write_elements(const std::filesystem::path& path, const npy::Header& header, const std::vector<double>& values) {
  std::vector<T> elements;
  for (const double value : values) elements.push_back(static_cast<T>(value));
  npy::write(path, header, std::as_bytes(std::span(elements)));
}

/// Writes values, rounded to the type.
inline void save_npy(const std::filesystem::path& path, npy::Type type, const std::vector<std::int64_t>& shape,
                     const std::vector<double>& values) {
  const npy::Header header{type, shape};
  switch (type) {
    case npy::Type::float16: return write_elements<batchnorm::half>(path, header, values);
    case npy::Type::float32: return write_elements<float>(path, header, values);
    case npy::Type::float64: return write_elements<double>(path, header, values);
    case npy::Type::int64: return write_elements<std::int64_t>(path, header, values);
  }
}

}  // namespace support
