#!/usr/bin/env python3
"""Sums up what `llvm-cov export` says of each program of the suite: .ci/coverage.py DIRECTORY [PATTERN]

In DIRECTORY there are N.lcov and N.text for each program. A line, a region or a way of a branch (each has two) is
covered where one program covers it: llvm-cov, given all programs at once, takes what the first says of a function, also
where that one does not have it. Branches are there if the compiler counted them. Unit tests do not count. With a PATTERN, the lines that are not covered are listed, in the files whose names match.
"""

import collections
import glob
import json
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PARTS = [
    ("command line", "src/bin/"),
    ("workloads, grid, torture, simulator", "src/workload/"),
    ("library", "src/"),
]


def name_of(path):
    """Within the package, if it counts: not tests, and not what is only there for tests."""
    name = os.path.relpath(path, ROOT)
    is_test = re.search(r"(^|/)tests(\.rs$|/)|^src/fuzzing", name)
    return name if name.startswith("src/") and not is_test else None


known = {}


def source(name):
    """The lines before the unit tests."""
    if name not in known:
        with open(os.path.join(ROOT, name)) as file:
            lines = file.read().split("\n")
        for number, line in enumerate(lines):
            if line == "#[cfg(test)]" and re.match(r"(#\[|mod \w+ \{)", lines[number + 1]):
                lines = lines[:number]
                break
        known[name] = lines
    return known[name]


def merged(directory):
    """By file: the counts of lines, of regions, and of ways of branches."""
    lines, regions, branches = (collections.defaultdict(dict) for _ in range(3))

    def add(counts, name, line, key, count):
        if name and line <= len(source(name)):
            counts[name][key] = max(counts[name].get(key, 0), count)

    for path in glob.glob(os.path.join(directory, "*.lcov")):
        name = None
        with open(path) as file:
            for text in file:
                kind, _, rest = text.rstrip().partition(":")
                if kind == "SF":
                    name = name_of(rest)
                elif kind == "DA":
                    line, count = map(int, rest.split(",")[:2])
                    add(lines, name, line, line, count)
    for path in glob.glob(os.path.join(directory, "*.text")):
        with open(path) as file:
            functions = json.load(file)["data"][0]["functions"]
        for function in functions:
            for *place, count, file, _, kind in function["regions"]:
                if kind == 0:
                    add(regions, name_of(function["filenames"][file]), place[0], tuple(place), count)
            for *place, taken, passed, file, _, _ in function.get("branches", []):
                for way, count in enumerate((taken, passed)):
                    add(branches, name_of(function["filenames"][file]), place[0], (*place, way), count)
    return lines, regions, branches


def share(counts):
    if not counts:
        return "not counted"
    covered = sum(count > 0 for count in counts)
    return f"{covered:,} of {len(counts):,} ({100 * covered / len(counts):.1f} %)"


def main():
    lines, regions, branches = merged(sys.argv[1])
    if not lines or not regions:
        sys.exit("nothing was measured")
    left = set(lines)
    print("| part | lines | regions | ways of branches |\n|---|---|---|---|")
    for part, prefix in PARTS + [("in all", "")]:
        names = {name for name in left if name.startswith(prefix)}
        if prefix:
            left -= names
        else:
            names = set(lines)
        shares = [share([n for name in names for n in counts[name].values()]) for counts in (lines, regions, branches)]
        print(f"| {part} | {' | '.join(shares)} |")
    if len(sys.argv) > 2:
        for name in sorted(name for name in lines if re.search(sys.argv[2], name)):
            missed = sorted(line for line, count in lines[name].items() if count == 0)
            for line in missed:
                print(f"{name}:{line}: {source(name)[line - 1]}")


main()
