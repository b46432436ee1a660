#!/usr/bin/env python3
"""Prints how many lines the same-named files of two folders have in common.

    tools/count-shared-lines.py [--at-most PERCENT] [FOLDER FOLDER]

The folders are those of the two SQL backends unless others are given. For every file that is in
both, the script counts the lines that are equal and come in the same order (the longest common
subsequence, as `diff` finds it). Indentation, blank lines, comments and lines without a letter
(brackets) do not count. The share is that of the common lines in the lines of the shorter file:
what one could take out of both. The total is over all pairs. The exit code is 1 if it is above
`--at-most`.
"""

import argparse
import pathlib
import sys

STORE = pathlib.Path(__file__).resolve().parent.parent / "coordinator/src/store"


def lines(file):
    """The lines of a file that say something."""
    stripped = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in stripped if any(map(str.isalpha, line)) and not line.startswith("//")]


def common(one, other):
    """The length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for line in one:
        diagonal = 0
        for position, against in enumerate(other, 1):
            above = row[position]
            row[position] = diagonal + 1 if line == against else max(above, row[position - 1])
            diagonal = above
    return row[-1]


def main():
    summary, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--at-most", type=float, metavar="PERCENT", help="exit with 1 above this share")
    parser.add_argument("folders", nargs="*", type=pathlib.Path, metavar="FOLDER")
    args = parser.parse_args()
    if len(args.folders) not in (0, 2):
        parser.error("give two folders, or none")
    first, second = args.folders or (STORE / "sqlite", STORE / "postgres")
    names = sorted(file.relative_to(first) for file in first.rglob("*.rs"))
    shared = shorter = 0
    for name in names:
        if not (second / name).is_file():
            continue
        one, other = lines(first / name), lines(second / name)
        equal, least = common(one, other), min(len(one), len(other))
        shared, shorter = shared + equal, shorter + least
        print(f"{name.as_posix():24} {equal:4} of {len(one):4} and {len(other):4} {share(equal, least):3.0f} %")
    print(f"{shared} of {shorter} lines are in both: {share(shared, shorter):.1f} %")
    if args.at_most is not None and share(shared, shorter) > args.at_most:
        print(f"at most {args.at_most} % are allowed", file=sys.stderr)
        return 1
    return 0


def share(part, whole):
    return 100 * part / max(whole, 1)


if __name__ == "__main__":
    sys.exit(main())
