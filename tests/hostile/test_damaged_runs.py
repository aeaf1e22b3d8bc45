"""Whatever becomes of a file in a run's directory, every command that reads it says so in a line, or does its work."""

import json
import random
import shutil

import hypothesis
import hypothesis.strategies as some
import pytest
from told import many, status_of

EXAMPLES, MORE = 50, 500
EACH = 3
"""Damages of the same file in the same way, for the same command; fewer where there are fewer."""
QUICK = [
    *[("export", "--to", "safetensors"), ("resume", "--quiet")] * 3,
    *[("evaluate", "--episodes", "2"), ("describe",)] * 2,
    ("evaluate", "--episodes", "2", "--policy", "best"),
    ("report",),
]
"""Commands, as often as they are soon done."""
EXTENDED = ("resume", "--quiet", "budget.rounds=6")
NUMBER = some.one_of(
    some.sampled_from([-1, 0, 1, 2**31, 2**63, 2**64, 10**400, -(2**63), 1e308, float("nan"), float("inf")]),
    some.integers(),
    some.floats(),
)
JSON = some.recursive(
    some.one_of(some.none(), some.booleans(), NUMBER, some.text(max_size=8), some.just("x" * 5000)),
    lambda inner: some.one_of(
        some.lists(inner, max_size=3), some.dictionaries(some.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=4,
)


def files_of(run):
    return sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file() and path.name != ".lock")


def cut(data, draw):
    return data[: draw(some.integers(0, max(len(data) - 1, 0)))]


def flipped(data, draw):
    changed = bytearray(data)
    for _ in range(draw(some.integers(1, 4))):
        if changed:
            changed[draw(some.integers(0, len(changed) - 1))] = draw(some.integers(0, 255))
    return bytes(changed)


def repeated(data, draw):
    return data * draw(some.integers(2, 3))


def other(data, draw):
    return draw(
        some.one_of(
            some.sampled_from([b"", b"\n", b"\0" * 64, b"{}", b"[]", b"null", b"\xff\xfe" + "x".encode("utf-16-le")]),
            some.binary(max_size=64),
            some.just(b"[" * 5000),
            some.just(b'{"a":' * 5000),
            JSON.map(lambda value: json.dumps(value).encode()),
        )
    )


def shuffled(data, draw):
    return b"".join(draw(some.permutations(data.splitlines(keepends=True))))


def one_value(data, draw):
    """JSON, or a line of JSON, with another value somewhere in it."""
    lines = data.splitlines() if data.count(b"\n") > 1 and not data.startswith(b"{\n") else [data]
    place = draw(some.integers(0, len(lines) - 1))
    try:
        table = json.loads(lines[place])
    except ValueError:
        return flipped(data, draw)
    inner = table
    while isinstance(inner, (dict, list)) and inner:
        keys = sorted(inner) if isinstance(inner, dict) else range(len(inner))
        key = draw(some.sampled_from(list(keys)))
        if isinstance(inner[key], (dict, list)) and inner[key] and draw(some.booleans()):
            inner = inner[key]
            continue
        if isinstance(inner, dict) and draw(some.integers(0, 4)) == 0:
            del inner[key]
        else:
            inner[key] = draw(JSON)
        break
    lines[place] = json.dumps(table).encode()
    return b"\n".join(lines) + b"\n"


DAMAGES = [cut, flipped, repeated, other, shuffled, one_value, one_value]


def check_many(count, commands, whole, tmp_path, capsys):
    files = files_of(whole)
    tried = {0: 0, 1: 0, 2: 0}

    # Hypothesis likes to draw what it has drawn before; files, ways and commands are to be met evenly.
    chance = random.Random(0)

    @many(EACH)
    @hypothesis.given(some.data())
    def damaged(data):
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)
        path = run / file
        if callable(way):
            path.write_bytes(way(path.read_bytes(), data.draw))
        else:
            path.unlink()
            if way == "folder":
                path.mkdir()
        name, *options = command
        given = run / "config.toml" if name == "describe" else run
        tried[status_of([name, str(given), *options], capsys)] += 1

    while sum(tried.values()) < count:
        file, command = chance.choice(files), chance.choice(commands)
        way = chance.choice([*DAMAGES, None, "folder"])
        damaged()
    with capsys.disabled():
        print(f" {sum(tried.values())} damaged runs read, {tried[0]} of them served ", end="")


def test_a_damaged_file_costs_a_line_and_nothing_else(whole, tmp_path, capsys):
    check_many(EXAMPLES, QUICK, whole, tmp_path, capsys)


@pytest.mark.training
def test_hundreds_of_damaged_files(whole, tmp_path, capsys):
    check_many(MORE, [*QUICK, *QUICK, EXTENDED], whole, tmp_path, capsys)
