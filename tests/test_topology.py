"""Graphs between agents: known matrices, file forms, every error line."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrax.errors import FedraxError
from fedrax.topology import degree, make_graph, neighbours_of

PROPERTIES = settings(max_examples=40)


# Graphs with a name


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("complete", [[2, 1, 1, 1], [1, 2, 1, 1], [1, 1, 2, 1], [1, 1, 1, 2]]),
        ("ring", [[2, 1, 0, 1], [1, 2, 1, 0], [0, 1, 2, 1], [1, 0, 1, 2]]),
        ("star", [[2, 1, 1, 1], [1, 2, 0, 0], [1, 0, 2, 0], [1, 0, 0, 2]]),
        ("pairs", [[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 2, 1], [0, 0, 1, 2]]),
        ("none", [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 2]]),
    ],
)
def test_named_graph(name, rows):
    graph = make_graph(name, 4, 0, self_weight=2)
    assert graph.dtype == np.float32
    np.testing.assert_array_equal(graph, rows)


@pytest.mark.parametrize("name", ["complete", "pairs", "ring", "star"])
def test_small_named_graphs(name):
    np.testing.assert_array_equal(make_graph(name, 1, 0, self_weight=0.5), [[0.5]])
    np.testing.assert_array_equal(make_graph(name, 2, 0), [[1, 1], [1, 1]])


def test_random_graph_by_probability():
    np.testing.assert_array_equal(make_graph("random", 5, 0, probability=1), make_graph("complete", 5, 0))
    graph = make_graph("random", 60, 7, probability=0.3, self_weight=0)
    np.testing.assert_array_equal(graph, graph.T)
    assert not graph.diagonal().any()
    assert set(np.unique(graph)) == {0, 1}
    # 1770 pairs: the share of links has a standard deviation of 0.011.
    assert graph.mean() * 60 / 59 == pytest.approx(0.3, abs=0.05)
    np.testing.assert_array_equal(graph, make_graph("random", 60, 7, probability=0.3, self_weight=0))
    assert (graph != make_graph("random", 60, 8, probability=0.3, self_weight=0)).any()


def test_random_graph_by_degree():
    np.testing.assert_array_equal(make_graph("random", 5, 0, degree=4), make_graph("complete", 5, 0))
    degrees = np.mean([degree(make_graph("random", 40, seed, degree=8)).mean() for seed in range(10)])
    assert degrees == pytest.approx(8, abs=0.5)


@given(st.integers(1, 12), st.integers(0, 2**31), st.sampled_from([0.0, 0.1, 0.3]))
@PROPERTIES
def test_random_graph_is_connected(agents, seed, probability):
    graph = make_graph("random", agents, seed, probability=probability)
    assert (np.linalg.matrix_power(graph.astype(float), agents) > 0).all()
    if probability == 0:
        assert np.triu(graph, 1).sum() == agents - 1


def test_neighbours_and_degree():
    graph = np.array([[1, 0, 0.5], [0, 0, 0], [2, 1, 0]], np.float32)
    assert neighbours_of(graph) == [[2], [], [0, 1]]
    assert degree(graph).tolist() == [1, 0, 2]


# Graphs from files


def read(directory, text, agents=3, name="graph.toml"):
    path = directory / name
    path.write_text(text)
    return make_graph(str(path), agents, 0)


def test_toml_edges(tmp_path):
    graph = read(
        tmp_path,
        """
        agents = 3
        edge = [
            {from = 1, to = 0, weight = 2.5},
            {from = 1, to = 2, mutual = true},
            {from = 2, to = 2, weight = 3, mutual = true},
        ]
        """,
    )
    assert graph.dtype == np.float32
    np.testing.assert_array_equal(graph, [[0, 2.5, 0], [0, 0, 1], [0, 1, 3]])


def test_toml_matrix_and_edges_that_replace_its_entries(tmp_path):
    text = "matrix = [[1, 0.5], [0.25, 0]]\n"
    np.testing.assert_array_equal(read(tmp_path, text, 2), [[1, 0.5], [0.25, 0]])
    text += "[[edge]]\nfrom = 0\nto = 1\nweight = 0\n[[edge]]\nfrom = 1\nto = 1\n"
    np.testing.assert_array_equal(read(tmp_path, text, 2), [[1, 0.5], [0, 1]])


def test_json_counts_both_ways(tmp_path):
    # FedRL's 3_agents_with_self_penalty.json, with another weight.
    text = json.dumps({"comm_matrix": {"0": {"0": 1, "1": 2}, "1": {"1": 1, "0": 2.0}, "2": {"2": 1}}})
    np.testing.assert_array_equal(read(tmp_path, text, name="graph.JSON"), [[1, 2, 0], [2, 1, 0], [0, 0, 1]])


weights = st.just(0.0) | st.floats(2.0**-10, 2.0**10, width=32)


@given(st.lists(st.lists(weights, min_size=3, max_size=3), min_size=3, max_size=3))
@settings(max_examples=25)
def test_round_trip_of_every_form(tmp_path_factory, rows):
    directory, wanted = tmp_path_factory.mktemp("graphs"), np.array(rows, np.float32)
    np.testing.assert_array_equal(read(directory, f"matrix = {rows}"), wanted)
    edges = [f"[[edge]]\nfrom = {j}\nto = {i}\nweight = {rows[i][j]}\n" for i in range(3) for j in range(3)]
    np.testing.assert_array_equal(read(directory, "".join(edges)), wanted)
    table = {str(i): {str(j): rows[i][j] for j in range(i, 3)} for i in range(3)}
    both_ways = np.triu(wanted) + np.triu(wanted, 1).T
    np.testing.assert_array_equal(read(directory, json.dumps({"comm_matrix": table}), name="graph.json"), both_ways)


# Errors


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (
            "rings",
            {},
            "unknown graph 'rings' (did you mean 'ring'?); allowed: complete, none, pairs, random, ring, star, or the",
        ),
        ("graph.yaml", {}, "or the path of a .toml or .json file"),
        ("random", {}, "graph 'random' needs either a degree or a probability"),
        ("random", {"degree": 1, "probability": 0.5}, "graph 'random' needs either a degree or a probability"),
        ("random", {"probability": 1.5}, "probability = 1.5 of graph 'random' is not allowed: give 0 to 1"),
        ("random", {"probability": float("nan")}, "probability = nan of graph 'random' is not allowed"),
        ("random", {"degree": 3}, "degree = 3 of graph 'random' is not allowed: give 0 to 2 for 3 agents"),
        ("ring", {"degree": 2}, "graph 'ring' has no degree and no probability; only 'random' has"),
        ("star", {"probability": 0.0}, "graph 'star' has no degree and no probability"),
        ("ring", {"self_weight": -1.0}, "self_weight = -1.0 is not allowed: a weight is 0 (no edge) or from 1e-12 to"),
        ("missing.toml", {}, "graph file missing.toml does not exist; give an existing file or complete, none"),
    ],
)
def test_error_of_options(spec, options, message):
    assert message in error_of(lambda: make_graph(spec, 3, 0, **options))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("matrix = [", "graph.toml is not valid TOML: "),
        ("agents = 4", "says agents = 4, but the run has 3 agents; change one of them"),
        ("agents = 3", "holds no graph: give matrix, or one [[edge]] table per edge"),
        ("edges = []", "unknown key 'edges' (did you mean 'edge'?); allowed: agents, matrix, edge"),
        ("edge = 3", "edge must be a list of tables: write each under a heading [[edge]]"),
        ("edge = [3]", "edge must be a list of tables"),
        ("edge = [{from = 0, too = 1}]", "unknown key 'too' (did you mean 'to'?); allowed: from, to, weight, mutual"),
        ("edge = [{from = 0}]", "'to' is missing; an edge needs from and to"),
        ("edge = [{from = 0.5, to = 1}]", "0.5 is no agent; give agents' numbers, counted from 0"),
        ("edge = [{from = true, to = 1}]", "True is no agent"),
        ("edge = [{from = 0, to = 1, mutual = 1}]", "the edge from 0 to 1 has mutual = 1; give true or false"),
        ("edge = [{from = 0, to = 1}, {from = 0, to = 1}]", "gives the edge from 0 to 1 twice; keep one of them"),
        ("edge = [{from = 0, to = 1}, {from = 1, to = 0, mutual = true}]", "gives the edge from 0 to 1 twice"),
        ("edge = [{from = 0, to = -1}]", "agent -1 is out of range; allowed: 0 to 2 for 3 agents"),
        ("edge = [{from = 1, to = 3}]", "0 to 2 for 3 agents; the file seems to count from 1, agents count from 0"),
        (
            "edge = [{from = 0, to = 1, weight = -2.0}]",
            "the edge from 0 to 1: weight = -2.0 is not allowed: a weight is",
        ),
        ("edge = [{from = 0, to = 1, weight = nan}]", "weight = nan is not allowed"),
        ("edge = [{from = 0, to = 1, weight = inf}]", "weight = inf is not allowed"),
        ("edge = [{from = 0, to = 1, weight = 1e-40}]", "weight = 1e-40 is not allowed"),
        ("edge = [{from = 0, to = 1, weight = true}]", "weight = True is not allowed"),
        ("matrix = 3", "matrix must be a list of rows, such as [[1.0, 0.5], [0.5, 1.0]]"),
        ("matrix = [1, 2, 3]", "matrix must be a list of rows"),
        ("matrix = [[1, 2], [3, 4]]", "matrix has 2 rows of 2 entries; the run's 3 agents need 3 x 3"),
        ("matrix = [[1, 2, 3], [1, 2], [1]]", "matrix has 3 rows of 1 and 2 and 3 entries; the run's 3 agents need"),
        ("matrix = []", "matrix has 0 rows of no entries"),
        ("matrix = [[1, 0, 0], [0, 1, -1], [0, 0, 1]]", "matrix, row 1, column 2 = -1 is not allowed"),
        ("matrix = [[1, 0, 0], [0, 1, 'x'], [0, 0, 1]]", "matrix, row 1, column 2 = 'x' is not allowed"),
    ],
)
def test_error_of_toml(tmp_path, text, message):
    assert message in error_of(lambda: read(tmp_path, text))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('{"comm_matrix": ', "graph.json is not valid JSON: "),
        ("[]", 'must hold {"comm_matrix": {"0": {"1": 1.0}}}: weights by agent and agent'),
        ('{"matrix": {}}', 'must hold {"comm_matrix": '),
        ('{"comm_matrix": {"0": 1}}', 'must hold {"comm_matrix": '),
        ('{"comm_matrix": {"0": {"one": 1}}}', "'one' is no agent; give agents' numbers, counted from 0"),
        ('{"comm_matrix": {"0": {"3": 1}}}', "agent 3 is out of range; allowed: 0 to 2 for 3 agents"),
        ('{"comm_matrix": {"0": {"-1": 1}}}', "agent -1 is out of range"),
        ('{"comm_matrix": {"0": {"1": -1}}}', "comm_matrix.0.1 = -1 is not allowed"),
        ('{"comm_matrix": {"0": {"1": NaN}}}', "comm_matrix.0.1 = nan is not allowed"),
        ('{"comm_matrix": {"0": {"1": Infinity}}}', "comm_matrix.0.1 = inf is not allowed"),
        ('{"comm_matrix": {"0": {"1": null}}}', "comm_matrix.0.1 = None is not allowed"),
        ('{"comm_matrix": {"0": {"1": 1}, "1": {"0": 2}}}', "gives agents 0 and 1 both 1 and 2, but its entries count"),
    ],
)
def test_error_of_json(tmp_path, table, message):
    assert message in error_of(lambda: read(tmp_path, table, name="graph.json"))


def test_hint_that_a_file_counts_from_one(tmp_path):
    # FedRL's 4_agents.json, which its own code cannot read either.
    table = {"comm_matrix": {"1": {"2": 1}, "3": {"4": 1}}}
    message = error_of(lambda: read(tmp_path, json.dumps(table), 4, "graph.json"))
    assert "agent 4 is out of range; allowed: 0 to 3 for 4 agents; the file seems to count from 1" in message
    table["comm_matrix"]["0"] = {"1": 1}
    assert "count from 1" not in error_of(lambda: read(tmp_path, json.dumps(table), 4, "graph.json"))


def test_error_of_a_file_that_cannot_be_read(tmp_path):
    folder, latin = tmp_path / "folder.toml", tmp_path / "latin.toml"
    folder.mkdir()
    latin.write_bytes("# Erdős–Rényi".encode("utf-16"))
    assert "cannot be read: Is a directory" in error_of(lambda: make_graph(str(folder), 3, 0))
    assert "is not valid TOML: " in error_of(lambda: make_graph(str(latin), 3, 0))


def error_of(call):
    with pytest.raises(FedraxError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)
