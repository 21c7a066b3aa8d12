#pragma once

#include "kernels/kernel.h"

namespace mpq {

// The instruction set to use: `wanted`, else environment variable MPQ_ISA, else the best. Throws Fault if it is unknown
// or not there.
Isa choose_isa(const char* wanted);

}  // namespace mpq
