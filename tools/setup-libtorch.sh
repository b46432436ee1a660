#!/usr/bin/env bash
# Sets up libtorch in `.libtorch/`, where `.cargo/config.toml` looks for it: torch's wheel from PyPI and the two CUDA
# libraries its CPU build is linked to, and nothing of Python's. A LIBTORCH of your own is checked and used instead.
#
# The folder is filled under another name and renamed when whole, so an interrupted set-up is never taken for a
# complete one; `.libtorch/complete` says what is in it.
set -euo pipefail
cd "$(dirname "$0")/.."

version=2.11.0
packages=("torch==$version" 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*')

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

if [ -n "${LIBTORCH:-}" ]; then
    [ -e "$LIBTORCH/lib/libtorch_cpu.so" ] ||
        fail "LIBTORCH is $LIBTORCH, which has no lib/libtorch_cpu.so; accepted: the folder of libtorch $version, or unset it."
    found=$(cat "$LIBTORCH/build-version" 2>/dev/null ||
        sed -n "s/^__version__ = '\(.*\)'/\1/p" "$LIBTORCH/version.py" 2>/dev/null || true)
    case "$found" in
        "$version"*) ;;
        *) fail "LIBTORCH is $LIBTORCH, which is version ${found:-unknown}; accepted: $version, or unset it." ;;
    esac
    exit 0
fi

complete() { [ "$(cat .libtorch/complete 2>/dev/null)" = "${packages[*]}" ]; }

if complete; then exit 0; fi

# One set-up at a time; a second waits and finds the work done.
exec 9>.libtorch.lock
if command -v flock >/dev/null; then flock 9; fi
if complete; then exit 0; fi

case "$(uname -s)-$(uname -m)" in
    Linux-x86_64 | Linux-aarch64) ;;
    *) fail "there is no libtorch recipe for $(uname -s) on $(uname -m); set LIBTORCH to the folder of libtorch $version." ;;
esac

rm -rf .libtorch.partial
mkdir -p .libtorch.partial/tmp
echo "Setting up libtorch $version in .libtorch (about 600 MB to fetch, 1.2 GB on disk, once) ..."

# Settings by environment: a pip too old to know one ignores it, and a user's own configuration cannot undo it.
export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
export PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 TMPDIR="$PWD/.libtorch.partial/tmp"
python=python3
if ! python3 -m pip --version >/dev/null 2>&1; then
    python3 -m venv .libtorch.partial/venv
    python=.libtorch.partial/venv/bin/python
fi
progress=off
if [ -t 1 ]; then progress=on; fi
"$python" -m pip install --quiet --progress-bar "$progress" --no-deps --only-binary=:all: \
    --target .libtorch.partial "${packages[@]}" ||
    fail "pip could not fetch libtorch (its message is above); run the same command again, it starts afresh."
[ -e .libtorch.partial/torch/lib/libtorch_cpu.so ] || fail "torch's wheel holds no lib/libtorch_cpu.so."

rm -rf .libtorch.partial/tmp .libtorch.partial/venv
printf '%s' "${packages[*]}" >.libtorch.partial/complete
rm -rf .libtorch
mv .libtorch.partial .libtorch
echo "libtorch $version is ready."
