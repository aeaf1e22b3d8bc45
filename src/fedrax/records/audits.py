"""What an audit found (``audit.json``), in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pydantic

from fedrax.errors import FedraxError
from fedrax.records.files import read_json

Record = dict[str, Any]
"""``attacks`` by id with ``question`` and ``headline``; ``setups`` with ``name`` and either why they are ``refused`` or
``guarantee``, ``protection`` and, by id, ``attacks`` with ``answers`` or why each is ``inapplicable``."""


class _Attack(pydantic.BaseModel):
    question: str
    headline: str


class _Result(pydantic.BaseModel):
    answers: dict[str, float | bool | None] = {}
    inapplicable: str | None = None


class _Setup(pydantic.BaseModel):
    name: str
    attacks: dict[str, _Result] = {}
    protection: dict[str, Any] | None = None
    refused: str = ""


class Audit(pydantic.BaseModel):
    """What of a record is read."""

    attacks: dict[str, _Attack]
    setups: list[_Setup]


MISSING = "–"
WORDS = {
    "auc": "AUC",
    "tpr_at_1_percent": "TPR at 1 % FPR",
    "epsilon_at_least": "epsilon at least",
    "epsilon_claimed": "epsilon claimed",
    "one_step_error": "state error of one step",
    **{
        f"{name}_{count}": f"{words} of {count} episode{'s' if count > 1 else ''}"
        for count in (1, 4, 16)
        for name, words in (("state_error", "state error"), ("action_accuracy", "actions right"))
    },
    **{f"most_common_action_{count}": "by the most common" for count in (1, 4, 16)},
    "r2": "R²",
    "ranked": "pairs in order",
}
"""What answers are called."""
SENTENCES = {
    ("as_run", True): "from the configuration the trajectories can be recomputed",
    ("as_run", False): "from the configuration the trajectories cannot be recomputed",
    ("on_nodes_with_secrets", True): "also those of nodes that draw from secrets of their own",
    (
        "on_nodes_with_secrets",
        False,
    ): "but not those of nodes that draw from secrets of their own",
    ("epsilon_claimed", None): "no epsilon is claimed",
    ("precision", None): "no word was guessed",
}
"""What an answer says that is no number."""
HEADINGS = {
    "state_error_1": "state error",
    "as_run": "trajectories equal",
}
"""What they are called in a table of setups, where that differs."""


def read_audit(path: Path) -> Record:
    """The record in ``audit.json``.

    Raises:
        FedraxError: it is missing or damaged.
    """
    record = read_json(path, "audit", Audit)
    unknown = {id for setup in record["setups"] for id in setup.get("attacks", {})} - record["attacks"].keys()
    if unknown or not record["setups"]:
        why = f"it does not say what attack {min(unknown)} asks" if unknown else "it holds no setups"
        raise FedraxError(f"the audit {path} is damaged: {why}; delete it, or audit the run again")
    return record


def setups_table(record: Record) -> tuple[list[str], list[list[str]]]:
    """Headings and a line for each setup: every attack's headline."""
    attacks = {id: attack["headline"] for id, attack in record["attacks"].items()}
    headings = ["", *(f"{id} {HEADINGS.get(name, WORDS.get(name, name))}" for id, name in attacks.items())]
    lines = []
    for setup in record["setups"]:
        found = setup.get("attacks", {})
        answers = {id: found.get(id, {}).get("answers", {}) for id in attacks}
        lines.append([setup["name"], *(text(answers[id].get(name)) for id, name in attacks.items())])
    return headings, lines


def findings(record: Record, setup: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Of each attack on a setup: its id, its question, and what it measured or why it does not apply."""
    for id, result in setup.get("attacks", {}).items():
        told = result.get("inapplicable")
        said = f"does not apply: {told}" if told else ", ".join(_answers(result.get("answers", {})))
        yield id, record["attacks"][id]["question"], said


def refusals(record: Record) -> Iterator[tuple[str, str]]:
    """Of each setup that cannot be had: its name, and why."""
    for setup in record["setups"]:
        if "refused" in setup:
            yield setup["name"], setup["refused"]


def text(value: float | bool | None) -> str:
    """``yes`` or ``no``, three digits, or a dash for what could not be had."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}"


def _answers(answers: Mapping[str, Any]) -> Iterator[str]:
    for name, value in answers.items():
        # Of nodes there is nothing to add where not even this run's can be recomputed.
        if (
            name == "releases_guaranteed"
            or name.endswith("_margin")
            or (name == "on_nodes_with_secrets" and answers.get("as_run") is False)
        ):
            continue
        sentence = SENTENCES.get((name, value)) if value is None or isinstance(value, bool) else None
        if sentence is not None:
            yield sentence
            continue
        margin = answers.get(f"{name}_margin")
        spread = "" if margin is None else f" ± {margin:.2g}"
        many = _releases(answers) if name == "epsilon_claimed" else ""
        yield f"{WORDS.get(name, name.replace('_', ' '))} {text(value)}{spread}{many}"


def _releases(answers: Mapping[str, Any]) -> str:
    """Of how many releases an epsilon is: the guarantee's is of all, and an attack is on as many as it can take."""
    attacked, guaranteed = answers.get("releases"), answers.get("releases_guaranteed")
    return "" if attacked is None or guaranteed in (None, attacked) else f" for {attacked} of {guaranteed} releases"
