#!/usr/bin/env bash
# Sets up libtorch in `.libtorch/`, where `.cargo/config.toml` looks for it: torch's wheel from PyPI
# and the two CUDA libraries its CPU build is linked to, and nothing of Python's. A LIBTORCH of your
# own is checked and used instead. To these come CUDA's headers (1 MB; without them the build has no
# CUDA graphs) and, on a machine with an NVIDIA driver, the libraries that libtorch's CUDA half
# needs; DARKROOM_CUDA=0 leaves those away, DARKROOM_CUDA=1 fetches them anyway.
#
# The folder is filled under another name and renamed when whole, so an interrupted set-up is never
# taken for a complete one; `.libtorch/complete` says what is in it. With --is-complete nothing is
# set up: the exit code is 0 where nothing needs to be.
set -euo pipefail
cd "$(dirname "$0")/.."

version=2.11.0
packages=("torch==$version" 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*')
headers=('nvidia-cuda-crt==13.0.*')
# The versions that torch's wheel asks for.
cuda=('nvidia-cublas==13.1.0.3' 'nvidia-cuda-nvrtc==13.0.*' 'nvidia-cudnn-cu13==9.19.0.56' 'nvidia-cufft==12.0.*'
    'nvidia-cufile==1.15.*' 'nvidia-curand==10.4.0.*' 'nvidia-cusparse==12.6.*' 'nvidia-cusparselt-cu13==0.8.0'
    'nvidia-nccl-cu13==2.28.9' 'nvidia-nvjitlink==13.0.*' 'nvidia-nvshmem-cu13==3.4.5')

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

has() { # has NAME PACKAGE...: whether `.libtorch` was filled with these packages under that name.
    local name=$1
    shift
    [ "$(cat ".libtorch/$name" 2>/dev/null)" = "$*" ]
}

has_gpu() {
    case "${DARKROOM_CUDA:-auto}" in
        0) false ;;
        1) true ;;
        *) [ -e /proc/driver/nvidia/version ] || command -v nvidia-smi >/dev/null ;;
    esac
}

complete() {
    has complete "${packages[@]}" && has headers "${headers[@]}" && { ! has_gpu || has cuda "${cuda[@]}"; }
}

if complete; then exit 0; fi
if [ "${1:-}" = --is-complete ]; then exit 1; fi

# One set-up at a time; a second waits and finds the work done.
exec 9>.libtorch.lock
if command -v flock >/dev/null; then flock 9; fi
if complete; then exit 0; fi

case "$(uname -s)-$(uname -m)" in
    Linux-x86_64 | Linux-aarch64) ;;
    *) fail "there is no libtorch recipe for $(uname -s) on $(uname -m); set LIBTORCH to the folder of libtorch $version." ;;
esac

# Settings by environment: a pip too old to know one ignores it, and a user's own configuration
# cannot undo it.
export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
export PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 TMPDIR="$PWD/.libtorch.partial/tmp"

fetch() { # fetch PACKAGE...: into a fresh `.libtorch.partial`.
    rm -rf .libtorch.partial
    mkdir -p .libtorch.partial/tmp
    local python=python3 progress=off
    if ! python3 -m pip --version >/dev/null 2>&1; then
        python3 -m venv .libtorch.partial/venv
        python=.libtorch.partial/venv/bin/python
    fi
    if [ -t 1 ]; then progress=on; fi
    "$python" -m pip install --quiet --progress-bar "$progress" --no-deps --only-binary=:all: \
        --target .libtorch.partial "$@" || return 1
    rm -rf .libtorch.partial/tmp .libtorch.partial/venv
}

# add NAME PACKAGE...: what the packages bring goes beside what is there. Its name is noted when all
# of it is there.
add() {
    local name=$1
    shift
    fetch "$@" || return 1
    cp -R .libtorch.partial/nvidia/. .libtorch/nvidia/ && printf '%s' "$*" >".libtorch/$name"
    rm -rf .libtorch.partial
}

if ! has complete "${packages[@]}"; then
    echo "Setting up libtorch $version in .libtorch (about 600 MB to fetch, 1.2 GB on disk, once) ..."
    fetch "${packages[@]}" || fail "pip could not fetch libtorch (its message is above); run the same command again, it starts afresh."
    [ -e .libtorch.partial/torch/lib/libtorch_cpu.so ] || fail "torch's wheel holds no lib/libtorch_cpu.so."
    printf '%s' "${packages[*]}" >.libtorch.partial/complete
    rm -rf .libtorch
    mv .libtorch.partial .libtorch
fi
if ! has headers "${headers[@]}" && ! add headers "${headers[@]}"; then
    echo "warning: pip could not fetch CUDA's headers; the build will have no CUDA graphs." >&2
fi
if has_gpu && ! has cuda "${cuda[@]}"; then
    echo "Setting up CUDA's libraries in .libtorch (about 1.5 GB to fetch, 2 GB on disk, once) ..."
    add cuda "${cuda[@]}" ||
        fail "pip could not fetch CUDA's libraries (its message is above); run the same command again, or set DARKROOM_CUDA=0 to do without the GPU."
fi
echo "libtorch $version is ready."
