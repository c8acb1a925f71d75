#!/usr/bin/env python3
"""Compares what a judge of frozen models found with what was right before.

    python tools/compare_judged.py RESULTS.json EXPECTED.txt [--update]

EXPECTED.txt lists the cases that are right, one a line. What has become right stays right: a listed
case that is not ok any more is a failure (exit code 1). Cases that have become right are named, so
that they can be added; --update writes them into the list.
"""

import argparse
import json
import pathlib
import sys


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("expected", type=pathlib.Path)
    parser.add_argument("--update", action="store_true", help="add what has become right")
    return parser.parse_args()


def listed_in(path):
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {line for line in lines if line and not line.startswith("#")}


def main():
    arguments = parse_arguments()
    cases = {case["name"]: case for case in json.loads(arguments.results.read_text())["cases"]}
    right = {name for name, case in cases.items() if case["ok"]}
    expected = listed_in(arguments.expected)
    lost = sorted(expected - right)
    for name in lost:
        found = cases.get(name, {"outcome": "not judged", "detail": ""})
        print(f"was right and is not: {name}: {found['outcome']} {found['detail']}")
    gained = sorted(right - expected)
    if gained:
        print(f"right, and not in {arguments.expected}: {', '.join(gained)}")
    if arguments.update:
        text = "# Cases that the judge finds right. What has become right stays right.\n"
        arguments.expected.write_text(text + "".join(f"{n}\n" for n in sorted(expected | right)))
    print(f"{len(expected) - len(lost)} of {len(expected)} cases that were right still are")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
