#!/usr/bin/env python3
"""Measures what a build costs: CPU seconds and wall seconds by crate, of the program that `make
render` builds.

    tools/bench-build.py [--cold] [--top N] [CARGO ARGUMENTS]

Builds into a folder that is removed afterwards, so that everything is compiled. With --cold the
registry is empty too, as on a machine that has never built anything, and libtorch is fetched as
`make render` does it. Without arguments it builds what `make render` builds. Every compiler that
cargo starts (rustc, cc, c++) goes through this file, which notes what the process took; what a
build script's compilers take is counted for the crate whose script it is.
"""

import argparse
import collections
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

NOTES = "DARKROOM_BUILD_NOTES"
INSIDE = "DARKROOM_BUILD_INSIDE"
PROJECT = pathlib.Path(__file__).resolve().parent.parent


def crate_of(arguments):
    """The crate that a compiler works for."""
    if "--crate-name" in arguments:
        name = arguments[arguments.index("--crate-name") + 1]
        if name.startswith("build_script_"):
            return os.environ.get("CARGO_PKG_NAME", name), "script"
        return os.environ.get("CARGO_PKG_NAME", name), "rust"
    return os.environ.get("CARGO_PKG_NAME", "?"), "c"


def compile_and_note(program, arguments):
    """Runs a compiler in this one's place and notes its time."""
    if os.environ.get(INSIDE):
        # The linker that rustc starts: rustc's own note has it.
        os.execvp(program, [program, *arguments])
    begun = time.monotonic()
    environment = dict(os.environ, **{INSIDE: "1"})
    # The files of the jobserver are handed on.
    code = subprocess.call([program, *arguments], env=environment, close_fds=False)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    crate, kind = crate_of(arguments)
    host = kind == "rust" and "--target" not in arguments and "proc-macro" in arguments
    note = {
        "crate": crate,
        "kind": "macro" if host else kind,
        "cpu": used.ru_utime + used.ru_stime,
        "wall": time.monotonic() - begun,
    }
    with open(os.environ[NOTES], "a", encoding="utf-8") as notes:
        notes.write(json.dumps(note) + "\n")
    return code


def shim(folder, name):
    """A compiler of this name that notes its time."""
    real = shutil.which(name)
    if real is None:
        return
    path = folder / name
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{__file__}" --compile "{real}" "$@"\n')
    path.chmod(0o755)


def table(notes, total, wall, top):
    """Prints the crates that took longest."""
    crates = collections.defaultdict(lambda: collections.Counter())
    for note in notes:
        crates[note["crate"]][note["kind"]] += note["cpu"]
        crates[note["crate"]]["times"] += 1
    ordered = sorted(crates.items(), key=lambda item: -sum(v for k, v in item[1].items() if k != "times"))
    print(f"{'crate':32} {'CPU s':>7} {'Rust':>7} {'C, C++':>7} {'share':>6}")
    noted = sum(note["cpu"] for note in notes)
    for name, kinds in ordered[:top]:
        c = kinds["c"]
        rust = kinds["rust"] + kinds["macro"] + kinds["script"]
        print(f"{name:32} {rust + c:7.1f} {rust:7.1f} {c:7.1f} {(rust + c) / total:6.1%}")
    rest = ordered[top:]
    if rest:
        left = sum(v for _, kinds in rest for k, v in kinds.items() if k != "times")
        print(f"{f'{len(rest)} others':32} {left:7.1f} {'':7} {'':7} {left / total:6.1%}")
    print(f"{'cargo, build scripts, set-up':32} {total - noted:7.1f} {'':7} {'':7} {(total - noted) / total:6.1%}")
    print(f"{'all':32} {total:7.1f}")
    print(f"\n{len(crates)} crates, {total / 60:.1f} CPU-minutes, {wall / 60:.1f} minutes of wall time on {os.cpu_count()} CPUs")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cold", action="store_true", help="with an empty registry, libtorch fetched too")
    parser.add_argument("--top", type=int, default=40, help="crates to show")
    options, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="darkroom-build-", dir=os.environ.get("TMPDIR", "/var/tmp")) as work:
        work = pathlib.Path(work)
        notes = work / "notes"
        notes.touch()
        shims = work / "compilers"
        shims.mkdir()
        for name in ("cc", "c++", "gcc", "g++", "clang", "clang++"):
            shim(shims, name)
        wrapper = work / "rustc"
        wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{__file__}" --compile "$@"\n')
        wrapper.chmod(0o755)
        environment = dict(
            os.environ,
            **{
                NOTES: str(notes),
                "RUSTC_WRAPPER": str(wrapper),
                "PATH": f"{shims}:{os.environ['PATH']}",
                "CARGO_TARGET_DIR": str(work / "target"),
                "CARGO_INCREMENTAL": os.environ.get("CARGO_INCREMENTAL", "1"),
            },
        )
        command = ["cargo", "build", "--locked", *rest] if rest else ["tools/build-render.sh"]
        if options.cold:
            environment["CARGO_HOME"] = str(work / "cargo")
            source = work / "source"
            subprocess.check_call(["git", "clone", "--quiet", "--no-hardlinks", str(PROJECT), str(source)])
            environment.pop("LIBTORCH", None)
            config = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo")) / "config.toml"
            if config.exists():
                (work / "cargo").mkdir()
                shutil.copy(config, work / "cargo" / "config.toml")
        else:
            source = PROJECT
        begun = time.monotonic()
        code = subprocess.call(command, cwd=source, env=environment)
        wall = time.monotonic() - begun
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        noted = [json.loads(line) for line in notes.read_text().splitlines()]
        table(noted, used.ru_utime + used.ru_stime, wall, options.top)
    if code != 0:
        sys.exit(f"error: the build ended with exit code {code}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--compile"]:
        sys.exit(compile_and_note(sys.argv[2], sys.argv[3:]))
    main()
