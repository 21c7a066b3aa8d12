#pragma once

#include "kernels/kernel.h"

namespace mpq {

// The instruction set to use: `wanted`, else environment variable MPQ_ISA, else the best. Throws Fault if it is unknown
// or not there.
Isa choose_isa(const char* wanted);

// Whether this CPU has the instructions for SHA-256 (and SSE 4.1).
bool has_sha();

}  // namespace mpq
