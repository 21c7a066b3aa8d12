// Strict JSON (RFC 8259) as docs/format.md narrows it: no duplicate keys, nesting at most 16, valid UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mpq {

struct Json {
  enum class Kind : uint8_t { null, boolean, integer, real, string, array, object };
  Kind kind = Kind::null;
  int64_t integer = 0;
  double real = 0;  // of integers too
  std::string string;
  std::vector<Json> items;        // of an array, or the values of an object
  std::vector<std::string> keys;  // of an object

  const Json* find(std::string_view key) const;
};

// Throws Fault with the byte offset of the fault.
Json parse_json(std::string_view text);

// Whether the bytes are well-formed UTF-8 (no overlong forms, no surrogates).
bool valid_utf8(std::string_view text);

}  // namespace mpq
