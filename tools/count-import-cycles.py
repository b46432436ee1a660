#!/usr/bin/env python3
"""Counts cycles of imports between the files of each crate.

    tools/count-import-cycles.py [--at-most N] [--crate NAME] [ROOT]

A file imports another one where it names an item that the other file defines:

- in a `use` declaration (`use crate::a::b::Item`, `use super::Item`, `use child::Item`), or
- in a path in code that begins with `crate::`, `self::`, `super::`, `$crate::` or with the name of
  a module that the file declares (`child::item()`).

A name that a module only passes on (`pub use child::Item`, or a private `use` that its children
read through `super::Item`) counts as an import of the file that defines the item. So a module's
file that only declares and passes on is part of no cycle, and neither `mod child;` nor `pub use
child::…` is an import by itself. A parent that uses its child's items while the child uses items of
the parent's file is a cycle.

Not counted: modules and items under `#[cfg(test)]`, calls of methods (whose file a reader of the
text cannot tell), and imports between crates, which cargo keeps free of cycles.

A cycle is a strongly connected component of two files or more. Each is printed with its files, then
the number of cycles and of the files in them. The exit code is 1 if there are more cycles than
`--at-most` allows.
"""

import argparse
import pathlib
import re
import sys

STRIPPED = re.compile(
    r"""//[^\n]*                                   # a line comment
    | /\*.*?\*/                                   # a block comment
    | \bb?r(?P<hashes>\#*)"(?:.*?)"(?P=hashes)    # a raw string
    | b?"(?:\\.|[^"\\])*"                         # a string
    | b?'(?:\\(?:u\{[^}]*\}|x..|.)|[^'\\\n])'     # a character
    """,
    re.VERBOSE | re.DOTALL,
)
TEST = re.compile(r"#\[cfg\((?:test\b|all\(\s*test\b)[^\]]*\]")
ATTRIBUTE = re.compile(r"\s*#\[[^\]]*\]")
ITEM = re.compile(
    r"\b(?:fn|struct|enum|union|trait|type|const|static|macro_rules!)\s+(?:mut\s+)?([A-Za-z_]\w*)"
)
MODULE = re.compile(r"((?:#\[[^\]]*\]\s*)*)(?:pub(?:\([^)]*\))?\s+)?mod\s+([A-Za-z_]\w*)\s*([;{])")
MOVED = re.compile(r'#\[path\s*=\s*"([^"]+)"\]\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)')
USE = re.compile(r"(?:(pub)(?:\([^)]*\))?\s+)?\buse\s+([^;]+);")
VISIBILITY = re.compile(r"\bpub\(in [^)]*\)")
PATH = re.compile(r"(?<![\w:$])(\$?[A-Za-z_]\w*)((?:\s*::\s*[A-Za-z_]\w*)+)")


def end_of_item(text, start):
    """The end of the item that begins at `start`: its closing brace, or a semicolon before any."""
    depth = 0
    for position in range(start, len(text)):
        letter = text[position]
        if letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
            if depth == 0 and letter == "}":
                return position + 1
        elif letter == ";" and depth == 0:
            return position + 1
    return len(text)


def blank(match):
    """A comment or string as spaces, so that no word of it counts."""
    return re.sub(r"[^\n]", " ", match.group())


def without_tests(text):
    """The text without what is compiled for tests only."""
    while match := TEST.search(text):
        start = match.end()
        while attribute := ATTRIBUTE.match(text, start):
            start = attribute.end()
        text = text[: match.start()] + " " + text[end_of_item(text, start) :]
    return text


def leaves(tree, before=()):
    """Every path of a `use` tree: its segments and the name that it gets here."""
    tree = tree.strip()
    if not tree:
        return
    if tree.startswith("{"):
        for part in split(tree[1 : tree.rindex("}")]):
            yield from leaves(part, before)
        return
    brace = tree.find("{")
    head = tree if brace < 0 else tree[:brace]
    head, _, alias = head.partition(" as ")
    segments = before + tuple(part.strip() for part in head.split("::") if part.strip())
    if brace >= 0:
        yield from leaves(tree[brace:], segments)
        return
    if segments and segments[-1] == "self":
        segments = segments[:-1]
    if segments:
        yield segments, alias.strip() or segments[-1]


def split(list_of_trees):
    """The parts of a braced list."""
    depth, part = 0, ""
    for letter in list_of_trees:
        if letter == "," and depth == 0:
            yield part
            part = ""
            continue
        depth += {"{": 1, "}": -1}.get(letter, 0)
        part += letter
    yield part


class Module:
    """A module: its file, its own items, its children and the names that it imports."""

    def __init__(self, path, file, parent):
        self.path, self.file, self.parent = path, file, parent
        self.children, self.items, self.uses, self.text = {}, set(), {}, ""
        self.globs = []


class Crate:
    """The modules of a crate, and which file imports which."""

    def __init__(self, root):
        self.modules = []
        self.root = self.load(root, (), None, root.parent)
        self.edges = {}
        for module in self.modules:
            self.read_uses(module)
        for module in self.modules:
            self.link(module)

    def load(self, file, path, parent, folder):
        text = without_tests(STRIPPED.sub(blank, file.read_text(encoding="utf-8")))
        found = re.finditer(MOVED, file.read_text(encoding="utf-8"))
        paths = {one.group(2): one.group(1) for one in found}
        return self.add(text, file, path, parent, folder, paths)

    def add(self, text, file, path, parent, folder, paths):
        module = Module(path, file, parent)
        self.modules.append(module)
        while match := MODULE.search(text):
            name, start = match.group(2), match.start()
            if match.group(3) == "{":
                end = end_of_item(text, match.end() - 1)
                inner = text[match.end() : end - 1]
                child = self.add(inner, file, path + (name,), module, folder / name, {})
            else:
                end = match.end()
                beside = file.parent / paths[name] if name in paths else None
                places = [beside] if beside else [folder / f"{name}.rs", folder / name / "mod.rs"]
                found = next((place for place in places if place.is_file()), None)
                child = found and self.load(found, path + (name,), module, folder / name)
            if child:
                module.children[name] = child
            text = text[:start] + " " * (end - start) + text[end:]
        module.text = text
        module.items = set(ITEM.findall(text))
        return module

    def read_uses(self, module):
        module.leaves = []
        for match in USE.finditer(module.text):
            for segments, name in leaves(match.group(2)):
                passed_on = bool(match.group(1))
                if segments[-1] == "*":
                    module.globs.append(segments[:-1])
                elif name != "_":
                    module.uses[name] = segments
                module.leaves.append((segments, passed_on))
        module.code = VISIBILITY.sub(" ", USE.sub(" ", module.text))

    def start(self, module, segments):
        """Where a path begins, and what is left of it; `None` for another crate's."""
        first, rest = segments[0], segments[1:]
        if first in module.uses and first not in module.children and len(segments) > 1:
            segments = module.uses[first] + tuple(rest)
            if segments[0] == first:
                return None  # another crate's, by its own name
            return self.start(module, segments)
        if first in ("crate", "$crate"):
            return self.root, rest
        if first == "self":
            return module, rest
        if first == "super":
            while module.parent and segments and segments[0] == "super":
                module, segments = module.parent, segments[1:]
            return module, segments
        if first in module.children:
            return module, segments
        return None

    def definer(self, module, segments, seen=()):
        """The module that defines the item that a path names; `None` for a module, or another
        crate's."""
        begun = self.start(module, segments)
        if begun is None:
            return None
        module, segments = begun
        if not segments:
            return None
        while segments:
            name = segments[0]
            if name in module.children and (len(segments) > 1 or name not in module.items):
                module, segments = module.children[name], segments[1:]
            elif name == "super" and module.parent:
                module, segments = module.parent, segments[1:]
            elif name in module.items or (module, name) in seen:
                return module
            elif name in module.uses:
                seen += ((module, name),)
                path = module.uses[name] + tuple(segments[1:])
                if self.start(module, path) is None:
                    return None  # another crate's, passed on
                return self.definer(module, path, seen)
            else:
                for glob in module.globs:
                    begun = self.definer(module, glob + (name,), seen)
                    if begun and begun is not module and name in begun.items:
                        return begun
                return module
        return None

    def link(self, module):
        paths = []
        for segments, passed_on in module.leaves:
            of_child = segments[0] == "self" or segments[0] in module.children
            if not (passed_on and of_child):
                paths.append(segments)
        for match in PATH.finditer(module.code):
            paths.append((match.group(1), *re.findall(r"\w+", match.group(2))))
        for segments in paths:
            # A path ends in types, variants and functions of types; what is no module is an item.
            found = self.definer(module, segments)
            if found and found.file != module.file:
                self.edges.setdefault(module.file, {}).setdefault(found.file, "::".join(segments))

    def cycles(self):
        """Strongly connected components of two files or more (Tarjan's algorithm)."""
        index, low, stack, found = {}, {}, [], []

        def visit(file):
            index[file] = low[file] = len(index)
            stack.append(file)
            for other in self.edges.get(file, {}):
                if other not in index:
                    visit(other)
                    low[file] = min(low[file], low[other])
                elif other in stack:
                    low[file] = min(low[file], index[other])
            if low[file] == index[file]:
                component = stack[stack.index(file) :]
                del stack[stack.index(file) :]
                if len(component) > 1:
                    found.append(sorted(component))

        for file in sorted(self.edges):
            if file not in index:
                visit(file)
        return found


def roots(folder):
    """Name and root file of every crate's library and programs below a folder."""
    for manifest in sorted(folder.rglob("Cargo.toml")):
        hidden = any(part.startswith(".") or part == "target" for part in manifest.relative_to(folder).parts)
        text = manifest.read_text(encoding="utf-8")
        if hidden or "[package]" not in text:
            continue
        name = re.search(r'^name\s*=\s*"([^"]+)"', text, re.MULTILINE).group(1)
        source = manifest.parent / "src"
        for root in [source / "lib.rs", source / "main.rs", *sorted((source / "bin").glob("*.rs"))]:
            if root.is_file():
                yield name, root


def main():
    summary, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--at-most", type=int, metavar="N", help="exit with 1 above so many cycles")
    parser.add_argument("--crate", metavar="NAME", help="only crates whose name contains this")
    parser.add_argument("--why", action="store_true", help="print each import within a cycle")
    parser.add_argument("root", nargs="?", default=".", type=pathlib.Path, help="folder of the workspace")
    args = parser.parse_args()
    sys.setrecursionlimit(10_000)
    cycles = files = 0
    chosen = [(name, root) for name, root in roots(args.root) if not args.crate or args.crate in name]
    if not chosen:
        print(f"no crate has {args.crate!r} in its name", file=sys.stderr)
        return 2
    for name, root in chosen:
        crate = Crate(root)
        for cycle in crate.cycles():
            cycles, files = cycles + 1, files + len(cycle)
            shown = {file: file.relative_to(root.parent).as_posix() for file in cycle}
            print(f"{name}: {len(cycle)} files: {' '.join(shown.values())}")
            for file in cycle if args.why else []:
                for other, path in sorted(crate.edges.get(file, {}).items()):
                    if other in shown:
                        print(f"    {shown[file]} -> {shown[other]}  ({path})")
    print(f"{cycles} cycles of imports, {files} files in them")
    if args.at_most is not None and cycles > args.at_most:
        print(f"at most {args.at_most} cycles are allowed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
