"""A generator of lies: every field, array and byte of a node's answer, bent by its type."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from fedrax.arrays import packed, unpacked
from fedrax.runtime.distributed.envelopes import Envelope, to_bytes

OF_OTHER_TYPES = [None, [], [1], {}, {"x": 1}, True, "text", "", "[/x]", 1.5, -2, 2**31, 2**63 - 1, 2**64, -(2**70)]
NUMBERS = [math.nan, math.inf, -math.inf, 1e300, -1.0, -1e-300]
TEXTS = ["x" * 501, "x" * 10**6, "a\nb", "\x1b[2J", "\ud800", "\x00", "é" * 501, "[bold]x[/bold]"]
KINDS = [
    "worked!",
    "",
    "[/x]",
    "join",
    "joined",
    "work",
    "evaluate",
    "evaluated",
    "\x1b[2J" * 99,
    "\ud800",
    None,
    7,
    [],
]
INFORMAL = {"reason": "no space"}


def lies_about(answer: Envelope, template: Any, *, earlier: Envelope) -> Iterator[tuple[str, bytes]]:
    """Names of lies, and what is sent in place of an honest answer.

    Args:
        answer: to a round's work.
        template: of its arrays, ``(message, report)``.
        earlier: the answer to an earlier round.
    """
    yield from _of_fields(answer)
    yield from _of_arrays(answer, template)
    yield from _of_bytes(answer)
    yield "the answer to an earlier round", to_bytes(earlier)
    yield (
        "an earlier round's arrays",
        raw(answer.kind, answer.fields | {"round": earlier.fields["round"]}, answer.payload),
    )
    yield (
        "another agent's",
        raw(answer.kind, answer.fields | {"agent": int(answer.fields["agent"]) + 1}, answer.payload),
    )
    yield (
        "a later round's",
        raw(answer.kind, answer.fields | {"round": int(answer.fields["round"]) + 1}, answer.payload),
    )
    yield "another run's", raw(answer.kind, answer.fields | {"run": "0" * 32}, answer.payload)


def raw(kind: Any, fields: Any, payload: bytes = b"") -> bytes:
    """An envelope's bytes, of whatever JSON can say."""
    header = json.dumps({"kind": kind, "fields": fields}).encode()
    return len(header).to_bytes(4, "little") + header + payload


def shown(value: Any) -> str:
    """For the name of a lie."""
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}... ({len(text)} characters)"


def _of_fields(answer: Envelope) -> Iterator[tuple[str, bytes]]:
    for name, honest in answer.fields.items():
        others = {key: value for key, value in answer.fields.items() if key != name}
        yield f"no {name}", raw(answer.kind, others, answer.payload)
        yield (
            f"{name} twice, under another name",
            raw(answer.kind, answer.fields | {f"{name} ": honest}, answer.payload),
        )
        for value in [*OF_OTHER_TYPES, *(TEXTS if isinstance(honest, str) else NUMBERS)]:
            if isinstance(honest, float) and type(value) is float and 0 <= value <= 1e8:
                continue
            yield f"{name} = {shown(value)}", raw(answer.kind, answer.fields | {name: value}, answer.payload)
    for kind in KINDS:
        yield f"kind {shown(kind)}", raw(kind, answer.fields, answer.payload)
    for value in (1, "x" * 10**6, "[/x]", 2**70, None, {"x": [1]}):
        yield f"surprise = {shown(value)}", raw(answer.kind, answer.fields | {"surprise": value}, answer.payload)
    for fields in ([], None, "x", 3):
        yield f"fields {fields!r}", raw(answer.kind, fields, answer.payload)
    for fields in ({}, {"reason": 3}, {"reason": "[/x]\n"}, {"reason": "x" * 501}, INFORMAL, INFORMAL | {"more": 1}):
        yield f"a refusal of {shown(fields)}", raw("refused", fields)


def _of_arrays(answer: Envelope, template: Any) -> Iterator[tuple[str, bytes]]:
    honest = unpacked(template, answer.payload)
    leaves, structure = jax.tree.flatten(honest)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(honest)]
    for number, (path, leaf) in enumerate(zip(paths, leaves, strict=True)):
        if leaf.dtype == bool or not leaf.size:
            continue
        for value in _bent(path, leaf):
            changed = np.array(leaf)
            changed.flat[-1] = value
            content = packed(structure.unflatten([*leaves[:number], changed, *leaves[number + 1 :]]))
            yield f"{path} = {value}", to_bytes(Envelope(answer.kind, answer.fields, content))


def _bent(path: str, leaf: np.ndarray) -> list[Any]:
    """Numbers that cannot be at this place."""
    if np.issubdtype(leaf.dtype, np.integer):
        limits = np.iinfo(leaf.dtype)
        return [limits.max, limits.min, -1]
    if "learning" in path or "episode_returns" in path:
        return [np.inf, -np.inf]
    if "successes" in path:
        return [np.inf, -1, 1e9]
    if "return_sum" in path:
        return [np.nan, np.inf, -np.inf]
    return [np.nan, np.inf, -np.inf, 3e38, -3e38]


def _of_bytes(answer: Envelope) -> Iterator[tuple[str, bytes]]:
    whole, payload = to_bytes(answer), answer.payload
    for name, bent in {
        "no arrays": b"",
        "a byte less": payload[:-1],
        "four bytes less": payload[:-4],
        "a byte more": payload + b"\0",
        "twice the arrays": payload * 2,
        "a megabyte": bytes(2**20),
        "ones": b"\xff" * len(payload),
    }.items():
        yield name, to_bytes(Envelope(answer.kind, answer.fields, bent))
    nested, wide = b'{"kind": ' + b"[" * 100_000, whole[4:80].decode().encode("utf-16")
    for name, data in {
        "nothing": b"",
        "three bytes": whole[:3],
        "a header cut off": whole[:40],
        "no header": bytes(4) + whole[4:],
        "a header of 4 GB": b"\xff" * 4 + whole[4:],
        "brackets": len(nested).to_bytes(4, "little") + nested,
        "garbage": b"\xff\x00garbage\xfe" * 20,
        "a pickle": b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93.",
        "no JSON": (4).to_bytes(4, "little") + b"kind" + payload,
        "no object": (2).to_bytes(4, "little") + b"[]" + payload,
        "another encoding": len(wide).to_bytes(4, "little") + wide,
    }.items():
        yield name, data
