"""Who listens to whom: directed weighted graphs between agents, built when a run is configured.

A graph is a matrix ``W[n, n]``: ``W[i, j] >= 0`` is how much agent ``i`` listens to agent ``j``, its diagonal what an
agent's own word weighs, and 0 means no edge. Only ratios within a row count. Agents are counted from 0. What becomes
of the weights during a round is in :mod:`fedrax.topology_weights`.

A graph has a name (:data:`GENERATORS`) or comes from a file. A TOML file gives a matrix, edges, or edges that
replace entries of a matrix::

    agents = 3                  # may be left out; checked against the run

    matrix = [[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]

    [[edge]]                    # information flows from agent 1 to agent 0: agent 0 listens to agent 1
    from = 1
    to = 0
    weight = 2.0                # 1.0 where it is left out
    mutual = true               # the same weight the other way too; false where it is left out

A JSON file has FedRL's form (RLHF-And-Friends/FedRL), ``{"comm_matrix": {"0": {"1": 2.0}}}``, where every entry
counts both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fedrax.errors import FedraxError, nearest
from fedrax.parsing import parsed_json, parsed_toml, text_of
from fedrax.seeds import host_seeds

GENERATORS = ("complete", "none", "pairs", "random", "ring", "star")
"""Graphs with a name; every edge weighs 1."""

SMALLEST, LARGEST = 1e-12, 1e12
"""Bounds of a positive weight: within them, products with other weights are exact enough in float32."""

_EDGE_KEYS = ("from", "to", "weight", "mutual")


def is_drawn(spec: str) -> bool:
    """Whether another seed makes another graph of it."""
    return spec == "random"


def make_graph(
    spec: str,
    agents: int,
    seed: int,
    *,
    self_weight: float = 1.0,
    degree: float | None = None,
    probability: float | None = None,
) -> Float[np.ndarray, "n n"]:
    """The graph that ``spec`` names, ``float32[agents, agents]``.

    Args:
        spec: ``complete``; ``pairs`` (0 and 1, 2 and 3, ...; an odd last agent is alone); ``ring`` (both neighbours);
            ``star`` (agent 0 listens to all, all listen to it);
            ``random``; ``none``; or the path of a ``.toml`` or ``.json`` file. The random graph is Erdos and
            Renyi's: each pair of agents is linked, both ways, with the same probability. It is always connected:
            where chance left it in parts, each further part is joined to the earlier ones by one random link.
        agents: number of agents n.
        seed: the run's seed; only the random graph draws from it.
        self_weight: every agent's weight of itself in a graph with a name; a file states its own diagonal.
        degree: the random graph's expected number of neighbours, before parts are joined.
        probability: the random graph's probability of a link; give this or ``degree``.

    Raises:
        FedraxError: an unknown name, options that do not fit, a file that cannot be read, or what it holds is no
            graph of this many agents.
    """
    if spec not in GENERATORS:
        return _read_graph(spec, agents)
    if is_drawn(spec):
        linked = _random(agents, seed, _link_probability(agents, degree, probability))
    elif degree is not None or probability is not None:
        raise FedraxError(f"graph {spec!r} has no degree and no probability; only 'random' has")
    else:
        linked = _regular(spec, agents)
    np.fill_diagonal(linked, _weight(self_weight, "self_weight"))
    return linked.astype(np.float32)


def neighbours_of(W: Float[np.ndarray, "n n"]) -> list[list[int]]:
    """For every agent, the other agents that it listens to, in ascending order."""
    edges = _edges(W)
    return [np.flatnonzero(row).tolist() for row in edges]


def degree(W: Float[np.ndarray, "n n"]) -> Int[np.ndarray, " n"]:
    """How many other agents each agent listens to, ``int64[n]``: the messages it receives per exchange."""
    return _edges(W).sum(axis=1)


def _edges(W: np.ndarray) -> np.ndarray:
    """Positive entries off the diagonal, ``bool[n, n]``."""
    return (np.asarray(W) > 0) & ~np.eye(len(W), dtype=bool)


def _regular(name: str, agents: int) -> np.ndarray:
    one, other = np.indices((agents, agents))
    if name == "complete":
        return np.ones((agents, agents))
    if name == "ring":
        return np.isin((one - other) % agents, (1, agents - 1)).astype(float)
    if name == "pairs":
        return ((one // 2 == other // 2) & (one != other)).astype(float)
    if name == "star":
        return ((one == 0) | (other == 0)).astype(float)
    return np.zeros((agents, agents))


def _link_probability(agents: int, degree: float | None, probability: float | None) -> float:
    if probability is not None and degree is None:
        if not 0 <= probability <= 1:
            raise FedraxError(f"probability = {probability!r} of graph 'random' is not allowed: give 0 to 1")
        return probability
    if degree is not None and probability is None:
        if not 0 <= degree <= agents - 1:
            raise FedraxError(
                f"degree = {degree!r} of graph 'random' is not allowed: give 0 to {agents - 1} for {agents} agents"
            )
        return degree / max(agents - 1, 1)
    raise FedraxError("graph 'random' needs either a degree or a probability: give one of them")


def _random(agents: int, seed: int, probability: float) -> np.ndarray:
    generator = np.random.default_rng(int(host_seeds((), seed, "topology")))
    below = np.tril(generator.random((agents, agents)) < probability, -1)
    linked = below | below.T
    reached = _part(linked, 0)
    while not reached.all():
        one = int(generator.choice(np.flatnonzero(reached)))
        other = int(generator.choice(np.flatnonzero(~reached)))
        linked[one, other] = linked[other, one] = True
        reached |= _part(linked, other)
    return linked.astype(float)


def _part(linked: np.ndarray, agent: int) -> np.ndarray:
    """The agents that paths connect with ``agent``, itself included, ``bool[n]``."""
    reached = np.zeros(len(linked), bool)
    border = np.arange(len(linked)) == agent
    while border.any():
        reached |= border
        border = linked[border].any(axis=0) & ~reached
    return reached


def _read_graph(spec: str, agents: int) -> np.ndarray:
    path = Path(spec)
    readers: dict[str, tuple[str, Callable[[str], Any], Callable[[str, Any, int], np.ndarray]]] = {
        ".toml": ("TOML", parsed_toml, _from_toml),
        ".json": ("JSON", parsed_json, _from_json),
    }
    if path.suffix.lower() not in readers:
        raise FedraxError(
            f"unknown graph {spec!r}{nearest(spec, GENERATORS)}; "
            f"allowed: {', '.join(GENERATORS)}, or the path of a .toml or .json file"
        )
    language, parse, build = readers[path.suffix.lower()]
    try:
        content = parse(text_of(path))
    except FileNotFoundError:
        raise FedraxError(
            f"graph file {spec} does not exist; give an existing file or {', '.join(GENERATORS)}"
        ) from None
    except OSError as error:
        raise FedraxError(f"graph file {spec} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise FedraxError(f"graph file {spec} is not valid {language}: {error}") from None
    return build(f"graph file {spec}", content, agents).astype(np.float32)


def _from_toml(where: str, content: Mapping[str, Any], agents: int) -> np.ndarray:
    _check_keys(where, content, ("agents", "matrix", "edge"))
    stated = content.get("agents", agents)
    if stated != agents:
        raise FedraxError(f"{where} says agents = {stated!r}, but the run has {agents} agents; change one of them")
    if "matrix" not in content and "edge" not in content:
        raise FedraxError(f"{where} holds no graph: give matrix, or one [[edge]] table per edge")
    graph = _matrix(where, content["matrix"], agents) if "matrix" in content else np.zeros((agents, agents))
    edges = content.get("edge", [])
    if not isinstance(edges, list) or not all(isinstance(edge, Mapping) for edge in edges):
        raise FedraxError(f"{where}: edge must be a list of tables: write each under a heading [[edge]]")
    for edge in edges:
        _check_keys(f"{where}, [[edge]] {dict(edge)}", edge, _EDGE_KEYS, needed=("from", "to"))
    _check_indices(where, [edge[end] for edge in edges for end in ("from", "to")], agents)
    seen: set[tuple[int, int]] = set()
    for edge in edges:
        giver, listener, mutual = edge["from"], edge["to"], edge.get("mutual", False)
        what = f"{where}: the edge from {giver} to {listener}"
        if not isinstance(mutual, bool):
            raise FedraxError(f"{what} has mutual = {mutual!r}; give true or false")
        weight = _weight(edge.get("weight", 1.0), f"{what}: weight")
        for pair in {(listener, giver), (giver, listener)} if mutual else {(listener, giver)}:
            if pair in seen:
                raise FedraxError(f"{where} gives the edge from {pair[1]} to {pair[0]} twice; keep one of them")
            seen.add(pair)
            graph[pair] = weight
    return graph


def _matrix(where: str, rows: Any, agents: int) -> np.ndarray:
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise FedraxError(f"{where}: matrix must be a list of rows, such as [[1.0, 0.5], [0.5, 1.0]]")
    widths = sorted({len(row) for row in rows})
    if len(rows) != agents or widths != [agents]:
        shape = f"{len(rows)} rows of {' and '.join(map(str, widths)) or 'no'} entries"
        raise FedraxError(f"{where}: matrix has {shape}; the run's {agents} agents need {agents} x {agents}")
    return np.array(
        [
            [_weight(weight, f"{where}: matrix, row {i}, column {j}") for j, weight in enumerate(row)]
            for i, row in enumerate(rows)
        ]
    )


def _from_json(where: str, content: Any, agents: int) -> np.ndarray:
    table = content.get("comm_matrix") if isinstance(content, Mapping) else None
    if not isinstance(table, Mapping) or not all(isinstance(row, Mapping) for row in table.values()):
        raise FedraxError(f'{where} must hold {{"comm_matrix": {{"0": {{"1": 1.0}}}}}}: weights by agent and agent')
    numbers = {key: _number(where, key) for key in [*table, *(other for row in table.values() for other in row)]}
    _check_indices(where, numbers.values(), agents)
    graph = np.zeros((agents, agents))
    seen: dict[tuple[int, int], float] = {}
    for key, row in table.items():
        for other, value in row.items():
            pair = (min(numbers[key], numbers[other]), max(numbers[key], numbers[other]))
            weight = _weight(value, f"{where}: comm_matrix.{key}.{other}")
            if seen.setdefault(pair, weight) != weight:
                raise FedraxError(
                    f"{where} gives agents {pair[0]} and {pair[1]} both {seen[pair]:g} and {weight:g}, but its entries "
                    "count both ways; keep one of them, or write a directed graph as TOML"
                )
            graph[pair] = graph[pair[::-1]] = weight
    return graph


def _number(where: str, key: str) -> int:
    try:
        return int(key)
    except ValueError:
        raise FedraxError(f"{where}: {key!r} is no agent; give agents' numbers, counted from 0") from None


def _check_keys(where: str, table: Mapping[str, Any], allowed: Iterable[str], needed: Iterable[str] = ()) -> None:
    for key in table:
        if key not in allowed:
            raise FedraxError(f"{where}: unknown key {key!r}{nearest(key, allowed)}; allowed: {', '.join(allowed)}")
    for key in needed:
        if key not in table:
            raise FedraxError(f"{where}: {key!r} is missing; an edge needs {' and '.join(needed)}")


def _check_indices(where: str, indices: Iterable[Any], agents: int) -> None:
    """Refuses what is no agent's number. All of a file's are looked at together, to tell if they start from 1."""
    indices = list(indices)
    for index in indices:
        if isinstance(index, bool) or not isinstance(index, int):
            raise FedraxError(f"{where}: {index!r} is no agent; give agents' numbers, counted from 0")
    for index in indices:
        if not 0 <= index < agents:
            hint = "; the file seems to count from 1, agents count from 0" if _from_one(indices, agents) else ""
            raise FedraxError(
                f"{where}: agent {index} is out of range; allowed: 0 to {agents - 1} for {agents} agents{hint}"
            )


def _from_one(indices: list[int], agents: int) -> bool:
    return min(indices) == 1 and max(indices) == agents


def _weight(value: Any, where: str) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not (value == 0 or SMALLEST <= value <= LARGEST):
        raise FedraxError(
            f"{where} = {value!r} is not allowed: a weight is 0 (no edge) or from {SMALLEST:g} to {LARGEST:g}; "
            "only ratios within a row count"
        )
    return float(value)
