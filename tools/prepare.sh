#!/usr/bin/env bash
# A virtual environment, after a look at what it needs: prepare.sh PYTHON FOLDER
set -euo pipefail
python=$1 folder=$2

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "needs Python 3.11 or later; name it: make ... PYTHON=/path/to/python3" >&2
  exit 1
fi

missing() { ! command -v "$1" >/dev/null; }
install() { # the Debian packages $@, if this is root on such a machine; else say what is needed
  if [ "$(id -u)" = 0 ] && ! missing apt-get; then
    echo "installing $* ..."
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  else
    echo "please install: $*" >&2
    exit 1
  fi
}

# clang makes the engine 1.1 to 1.5 times faster than gcc does; either will do.
if missing clang++ && missing g++ && missing c++; then install clang libc6-dev libstdc++-12-dev; fi
"$python" -c 'import ensurepip, venv' 2>/dev/null || install python3-venv
"$python" -m venv "$folder"
