#!/usr/bin/env bash
# Checks what must be on the machine before anything is built, and sets libtorch up. Each thing that
# is missing is named with the line that installs it. Writes only inside the project. With
# --checks-only it sets nothing up.
set -euo pipefail
cd "$(dirname "$0")/.."

rust_needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
missing=0

lacks() { # lacks WHAT LINE: names a missing thing and how to get it.
    missing=1
    printf 'error: %s\n       install it with:  %s\n' "$1" "$2" >&2
}

root() { # the prefix that makes a command run as root.
    if [ "$(id -u)" -ne 0 ]; then printf 'sudo '; fi
}

at_least() { # at_least HAVE WANT: whether version HAVE is WANT or newer.
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

rust_line="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$HOME/.cargo/env\""
if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
    lacks "Rust is not installed (cargo and rustc, version $rust_needed or newer)." "$rust_line"
else
    rust_have=$(rustc --version | cut -d' ' -f2)
    if ! at_least "$rust_have" "$rust_needed"; then
        if command -v rustup >/dev/null; then rust_line="rustup update stable && rustup default stable"; fi
        lacks "rustc is version $rust_have; version $rust_needed or newer is needed." "$rust_line"
    fi
fi

if ! command -v c++ >/dev/null || ! command -v cc >/dev/null; then
    lacks "There is no C++ compiler (c++ and cc)." "$(root)apt-get install -y build-essential"
elif ! printf '#include <vector>\nint main() { return 0; }\n' | c++ -x c++ -std=c++17 -fsyntax-only - 2>/dev/null; then
    lacks "c++ cannot compile C++17 with its standard library." "$(root)apt-get install -y build-essential"
fi

if ! command -v python3 >/dev/null; then
    lacks "Python 3 is not installed." "$(root)apt-get install -y python3 python3-pip"
elif [ -z "${LIBTORCH:-}" ] && ! python3 -m pip --version >/dev/null 2>&1 \
    && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    lacks "python3 has neither pip nor venv, which fetch libtorch." "$(root)apt-get install -y python3-pip"
fi

# A build from nothing needs this much; one that stands needs little more.
if [ ! -e .libtorch/complete ] || [ ! -d "${CARGO_TARGET_DIR:-target}/debug" ]; then
    free_mib=$(df -Pm . | awk 'NR == 2 { print $4 }')
    if [ "$free_mib" -lt 6000 ]; then
        missing=1
        printf 'error: %s has %s MiB free; libtorch and the build need about 6000 MiB.\n' "$PWD" "$free_mib" >&2
    fi
fi

if [ "$missing" -ne 0 ]; then exit 1; fi
if [ "${1:-}" != --checks-only ]; then exec tools/setup-libtorch.sh; fi
