#include "json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <locale>
#include <sstream>

#include "fault.h"

namespace mpq {
namespace {

constexpr int kMaxDepth = 16;
constexpr int kMaxValues = 1 << 20;  // bounds memory: a hostile header of 16 MiB would otherwise become gigabytes

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Json document() {
    space();
    Json value = parse(1);
    space();
    check(at_ == text_.size(), "text behind the end");
    return value;
  }

 private:
  std::string_view text_;
  size_t at_ = 0;
  int values_ = 0;

  void check(bool ok, const char* fault) const {
    if (!ok) throw Fault("header: " + std::string(fault) + " at byte " + std::to_string(at_));
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    at_++;
    return true;
  }
  void space() {
    while (at_ < text_.size() && (peek() == ' ' || peek() == '\n' || peek() == '\t' || peek() == '\r')) at_++;
  }
  void word(std::string_view expected) {
    check(text_.substr(at_, expected.size()) == expected, "not JSON");
    at_ += expected.size();
  }

  Json parse(int depth) {
    check(++values_ <= kMaxValues, "more than 1048576 values");
    Json value;
    switch (peek()) {
      case '{': object(value, depth); break;
      case '[': array(value, depth); break;
      case '"':
        value.kind = Json::Kind::string;
        value.string = string();
        break;
      case 't':
        word("true");
        value.kind = Json::Kind::boolean, value.integer = 1;
        break;
      case 'f':
        word("false");
        value.kind = Json::Kind::boolean;
        break;
      case 'n': word("null"); break;
      default: number(value);
    }
    return value;
  }

  void object(Json& value, int depth) {
    check(depth <= kMaxDepth, "nesting deeper than 16");
    value.kind = Json::Kind::object;
    at_++;
    space();
    if (!take('}')) {
      do {
        space();
        check(peek() == '"', "a key is missing");
        value.keys.push_back(string());
        space();
        check(take(':'), "':' is missing");
        space();
        value.items.push_back(parse(depth + 1));
        space();
      } while (take(','));
      check(take('}'), "'}' is missing");
    }
    std::vector<std::string_view> sorted(value.keys.begin(), value.keys.end());
    std::sort(sorted.begin(), sorted.end());
    check(std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end(), "a key is there twice");
  }

  void array(Json& value, int depth) {
    check(depth <= kMaxDepth, "nesting deeper than 16");
    value.kind = Json::Kind::array;
    at_++;
    space();
    if (take(']')) return;
    do {
      space();
      value.items.push_back(parse(depth + 1));
      space();
    } while (take(','));
    check(take(']'), "']' is missing");
  }

  bool digits() {
    const size_t start = at_;
    while (peek() >= '0' && peek() <= '9') at_++;
    return at_ > start;
  }

  void number(Json& value) {
    const size_t start = at_;
    take('-');
    const size_t first = at_;
    check(digits(), "not JSON");
    check(text_[first] != '0' || at_ == first + 1, "a number starts with 0");
    bool integer = true;
    if (take('.')) {
      integer = false;
      check(digits(), "a number ends in '.'");
    }
    if (peek() == 'e' || peek() == 'E') {
      integer = false;
      at_++;
      if (!take('+')) take('-');
      check(digits(), "an exponent is empty");
    }
    const std::string token(text_.substr(start, at_ - start));
    std::istringstream stream(token);  // strtod would follow the process's locale
    stream.imbue(std::locale::classic());
    stream >> value.real;
    check(std::isfinite(value.real) && (stream || value.real == 0), "a number is too large");
    value.kind = integer ? Json::Kind::integer : Json::Kind::real;
    if (!integer) return;
    const auto parsed = std::from_chars(token.data(), token.data() + token.size(), value.integer);
    check(parsed.ec == std::errc() && value.integer != INT64_MIN, "an integer does not fit into 64 bits");
  }

  unsigned hex4() {
    unsigned code = 0;
    for (int i = 0; i < 4; i++) {
      const char c = peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      check(digit >= 0, "bad \\u escape");
      code = code * 16 + static_cast<unsigned>(digit);
      at_++;
    }
    return code;
  }

  void append(std::string& out, unsigned code) {
    const auto put = [&out](unsigned byte) { out.push_back(static_cast<char>(byte)); };
    if (code < 0x80) return put(code);
    if (code < 0x800) return put(0xC0 | code >> 6), put(0x80 | (code & 63));
    if (code < 0x10000) return put(0xE0 | code >> 12), put(0x80 | (code >> 6 & 63)), put(0x80 | (code & 63));
    put(0xF0 | code >> 18), put(0x80 | (code >> 12 & 63)), put(0x80 | (code >> 6 & 63)), put(0x80 | (code & 63));
  }

  std::string string() {
    std::string out;
    for (at_++;;) {
      check(at_ < text_.size(), "a string does not end");
      const char c = text_[at_];
      check(static_cast<unsigned char>(c) >= 0x20, "a control character in a string");
      at_++;
      if (c == '"') return out;
      if (c != '\\') {
        out.push_back(c);
        continue;
      }
      const char escape = peek();
      at_++;
      switch (escape) {
        case '"':
        case '\\':
        case '/': out.push_back(escape); break;
        case 'b': out.push_back('\b'); break;
        case 'f': out.push_back('\f'); break;
        case 'n': out.push_back('\n'); break;
        case 'r': out.push_back('\r'); break;
        case 't': out.push_back('\t'); break;
        case 'u': {
          unsigned code = hex4();
          check(code < 0xDC00 || code > 0xDFFF, "half a surrogate pair");
          if (code >= 0xD800 && code <= 0xDBFF) {
            check(take('\\') && take('u'), "half a surrogate pair");
            const unsigned low = hex4();
            check(low >= 0xDC00 && low <= 0xDFFF, "half a surrogate pair");
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
          }
          append(out, code);
          break;
        }
        default: check(false, "unknown escape");
      }
    }
  }
};

}  // namespace

const Json* Json::find(std::string_view key) const {
  for (size_t i = 0; i < keys.size(); i++)
    if (keys[i] == key) return &items[i];
  return nullptr;
}

Json parse_json(std::string_view text) {
  if (!valid_utf8(text)) throw Fault("header: not UTF-8");
  return Parser(text).document();
}

bool valid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const unsigned lead = static_cast<unsigned char>(text[i++]);
    if (lead < 0x80) continue;
    const int more = lead >= 0xF0 && lead <= 0xF4 ? 3 : lead >= 0xE0 && lead < 0xF0 ? 2 : lead >= 0xC2 && lead < 0xE0 ? 1 : 0;
    if (more == 0) return false;
    unsigned code = lead & (0x3Fu >> more);
    for (int j = 0; j < more; j++, i++) {
      if (i >= text.size() || (static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) return false;
      code = code << 6 | (static_cast<unsigned char>(text[i]) & 0x3F);
    }
    if (more == 2 && (code < 0x800 || (code >= 0xD800 && code <= 0xDFFF))) return false;
    if (more == 3 && (code < 0x10000 || code > 0x10FFFF)) return false;
  }
  return true;
}

}  // namespace mpq
