// The one exception of the engine: a fault in a file or a call, as one line for the user. It never crosses the C API.
#pragma once

#include <stdexcept>
#include <string>

namespace mpq {

struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void need(bool ok, const char* fault) {
  if (!ok) throw Fault(fault);
}

inline void need(bool ok, const std::string& where, const char* fault) {
  if (!ok) throw Fault(where + ": " + fault);
}

}  // namespace mpq
