"""Checkpoints: what goes in comes out, bit for bit, or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import resource
import signal
import string
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from fedrax.errors import FedraxError
from fedrax.records import checkpoint
from fedrax.records.checkpoint import DamagedFile, load_checkpoint, load_policy, save_checkpoint, save_policy

DTYPES = [np.dtype(name) for name in ("bool", "int32", "uint8", "float16", "float32", "complex64")]
DTYPES.append(np.dtype(ml_dtypes.bfloat16))


def bits(leaf: Any) -> tuple[str, tuple[int, ...], bytes]:
    """Type, shape and content: NaN equals itself, and -0.0 is not 0.0."""
    if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
        return (str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes())
    array = np.asarray(leaf)
    return (str(array.dtype), array.shape, array.tobytes())


def assert_same(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    assert [bits(leaf) for leaf in jax.tree.leaves(left)] == [bits(leaf) for leaf in jax.tree.leaves(right)]


def state(scale: float = 1.0) -> dict[str, Any]:
    return {
        "params": {"w": scale * jnp.arange(12.0).reshape(3, 4)},
        "round": jnp.int32(7),
        "key": jax.random.key(3),
    }


def blank(tree: Any) -> Any:
    """A template: the structure of ``tree`` with other content."""
    return jax.tree.map(lambda x: jax.random.key(0) if checkpoint._is_key(x) else jnp.zeros_like(x), tree)


@st.composite
def leaves(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(["jax", "numpy", "key", "number"]))
    if kind == "key":
        count = draw(st.integers(0, 3))
        implementation = draw(st.sampled_from(["threefry2x32", "rbg"]))
        key = jax.random.key(draw(st.integers(0, 99)), impl=implementation)
        return jax.random.split(key, count) if count else key
    if kind == "number":
        return draw(st.one_of(st.booleans(), st.integers(-(2**62), 2**62), st.floats()))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    dtype = draw(st.sampled_from(DTYPES))
    size = int(np.prod(shape)) * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    array = np.frombuffer(bytes(b & 1 for b in raw) if dtype.kind == "b" else raw, dtype).reshape(shape)
    return jnp.asarray(array) if kind == "jax" else array


names = st.text(string.ascii_letters + "_.'[]é ", max_size=6)
trees = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3), st.tuples(inner, st.none())
    ),
    max_leaves=8,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees)
def test_any_pytree_comes_back_bit_for_bit(tree: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder), 5, tree, {"counters": [1, 2]})
        loaded = load_checkpoint(Path(folder), tree)
    assert loaded is not None
    assert_same(loaded[0], tree)
    pairs = zip(jax.tree.leaves(loaded[0]), jax.tree.leaves(tree), strict=True)
    assert all(type(left) is type(right) for left, right in pairs)
    assert loaded[1] == {"counters": [1, 2], "round": 5}


def test_the_template_gives_structure_only_and_may_be_abstract(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, state(), {})
    for template in (blank(state()), jax.eval_shape(state)):
        loaded = load_checkpoint(tmp_path, template)
        assert loaded is not None
        assert_same(loaded[0], state())


def test_a_loaded_key_draws_the_same_numbers(tmp_path: Path) -> None:
    key = jax.random.key(11)
    save_checkpoint(tmp_path, 1, key, {})
    loaded = load_checkpoint(tmp_path, jax.random.key(0))
    assert loaded is not None
    np.testing.assert_array_equal(jax.random.normal(loaded[0], (4,)), jax.random.normal(key, (4,)))


def test_a_loaded_state_can_be_donated(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, jnp.arange(1 << 16, dtype=jnp.float32), {})
    loaded = load_checkpoint(tmp_path, jnp.zeros(1 << 16))
    assert loaded is not None
    doubled = jax.jit(lambda x: 2 * x, donate_argnums=0)(loaded[0])
    np.testing.assert_array_equal(doubled, 2 * np.arange(1 << 16, dtype=np.float32))


def test_functions_in_modules_come_from_the_template(tmp_path: Path) -> None:
    network = eqx.nn.MLP(2, 3, 4, 1, activation=jax.nn.tanh, key=jax.random.key(0))
    save_policy(tmp_path / "policy.safetensors", network, {"seed": 1})
    template = eqx.nn.MLP(2, 3, 4, 1, activation=jax.nn.tanh, key=jax.random.key(1))
    loaded = load_policy(tmp_path / "policy.safetensors", template)
    np.testing.assert_array_equal(loaded(jnp.ones(2)), network(jnp.ones(2)))


def test_other_programs_can_read_a_policy(tmp_path: Path) -> None:
    save_policy(tmp_path / "policy.safetensors", {"w": jnp.arange(3.0)}, {"seed": np.int64(4)})
    with safe_open(tmp_path / "policy.safetensors", framework="numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("['w']"), [0.0, 1.0, 2.0])
        assert json.loads(file.metadata()["meta"]) == {"seed": 4}


def test_the_last_two_are_kept_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-4.tmp.safetensors").write_bytes(b"left by a killed process")
    for number in (2, 9, 10, 11):
        save_checkpoint(tmp_path, number, state(number), {})
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-10.safetensors",
        "checkpoint-11.safetensors",
    ]
    loaded = load_checkpoint(tmp_path, state())
    assert loaded is not None
    assert loaded[1]["round"] == 11


def test_a_resumed_run_drops_the_future_it_left(tmp_path: Path) -> None:
    for number in (10, 20):
        save_checkpoint(tmp_path, number, state(), {})
    save_checkpoint(tmp_path, 12, state(2.0), {})
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-10.safetensors",
        "checkpoint-12.safetensors",
    ]


def test_nothing_to_load(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "missing", state()) is None
    assert load_checkpoint(tmp_path, state()) is None
    with pytest.raises(FedraxError, match="there is no policy at"):
        load_policy(tmp_path / "policy.safetensors", state())


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_half_written_checkpoint_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, share: float
) -> None:
    caplog.clear()
    save_checkpoint(tmp_path, 1, state(1.0), {})
    newest = save_checkpoint(tmp_path, 2, state(2.0), {})
    content = newest.read_bytes()
    newest.write_bytes(content[: int(share * len(content))])
    with caplog.at_level(logging.WARNING):
        loaded = load_checkpoint(tmp_path, state())
    assert loaded is not None
    assert loaded[1]["round"] == 1
    assert_same(loaded[0], state(1.0))
    assert [r.getMessage().startswith(f"{newest} is damaged") for r in caplog.records] == [True]
    assert "\n" not in caplog.records[0].getMessage()


def damage(path: Path, position: int, mask: int) -> bool:
    """Flips bits; says whether they lie in the header."""
    content = bytearray(path.read_bytes())
    content[position] ^= mask
    path.write_bytes(content)
    return position < 8 + int.from_bytes(content[:8], "little")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_a_flipped_byte_is_noticed_or_without_effect(tmp_path: Path, share: float, mask: int) -> None:
    path = tmp_path / "policy.safetensors"
    save_policy(path, state())
    in_header = damage(path, int(share * path.stat().st_size), mask)
    try:
        loaded = load_policy(path, state())
    except DamagedFile as error:
        message = str(error)
    else:
        assert in_header, "a flipped byte of the data went unnoticed"
        assert_same(loaded, state())
        return
    assert "\n" not in message


def test_every_flipped_byte_of_the_data_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    save_policy(path, {"w": jnp.arange(3.0)})
    content = path.read_bytes()
    for position in range(len(content) - 12, len(content)):
        damage(path, position, 1)
        with pytest.raises(FedraxError, match="does not match its digest"):
            load_policy(path, {"w": jnp.zeros(3)})
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            {"w": jnp.zeros((4, 3)), "b": jnp.zeros(2)},
            r"its leaf \['w'\] is float32\[3, 4\], but float32\[4, 3\]",
        ),
        (
            {"w": jnp.zeros((3, 4), jnp.int32), "b": jnp.zeros(2)},
            r"is float32\[3, 4\], but int32\[3, 4\] is expected",
        ),
        ({"w": jnp.zeros((3, 4))}, r"its leaf \['b'\] has no place here"),
        ({"w": jnp.zeros((3, 4)), "b": jnp.zeros(2), "c": 0}, r"it has no leaf \['c'\]"),
        (
            {"w": jnp.zeros((3, 4)), "b": jax.random.key(0)},
            r"its leaf \['b'\] is float32\[2\], but key<fry>\[\]",
        ),
    ],
)
def test_another_configuration_is_refused_by_leaf(tmp_path: Path, template: Any, message: str) -> None:
    save_checkpoint(tmp_path, 3, {"w": jnp.zeros((3, 4)), "b": jnp.zeros(2)}, {})
    with pytest.raises(FedraxError, match=message) as caught:
        load_checkpoint(tmp_path, template)
    assert "written with another configuration" in str(caught.value)
    assert "config.toml" in str(caught.value)


def test_a_type_that_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FedraxError, match=r"leaf \['z'\] of type complex128 cannot be stored; allowed: bool"):
        save_checkpoint(tmp_path, 1, {"z": np.zeros(2, np.complex128)}, {})
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """The operating system refuses to let any file grow past 4 KiB, much as a full disk does.

    Held only around the write that is to fail: the limit is the process's, so the test runner's own output, where it
    goes to a file, falls under it too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_refused_write_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    previous = save_checkpoint(tmp_path, 1, {"w": jnp.ones(8)}, {})
    refused = r"cannot write .*checkpoint-2.*File too large.* what was there before is kept"
    with small_files(), pytest.raises(FedraxError, match=refused):
        save_checkpoint(tmp_path, 2, {"w": jnp.ones(5000)}, {})
    assert list(tmp_path.iterdir()) == [previous]
    loaded = load_checkpoint(tmp_path, {"w": jnp.zeros(8)})
    assert loaded is not None
    assert loaded[1]["round"] == 1


KILLED = """
import resource, signal, sys
from pathlib import Path

import numpy as np

from fedrax.records.checkpoint import save_checkpoint, save_policy

signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
folder, what = Path(sys.argv[1]), {"w": np.ones(5000, np.float32)}
if sys.argv[2] == "policy":
    save_policy(folder / "policy.safetensors", what)
save_checkpoint(folder, int(sys.argv[2]), what, {})
"""


@pytest.mark.parametrize("writes", ["the same round", "another round", "policy"])
def test_what_a_process_that_was_killed_while_it_wrote_left_is_removed(tmp_path: Path, writes: str) -> None:
    what = "policy" if writes == "policy" else "5"
    for _ in range(2):
        killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), what], check=False)
        assert killed.returncode == -signal.SIGXFSZ
        assert any(path.is_file() for path in tmp_path.rglob("*"))
    if writes == "policy":
        save_policy(tmp_path / "policy.safetensors", {"w": jnp.ones(8)})
    else:
        save_checkpoint(tmp_path, 5 if writes == "the same round" else 4, {"w": jnp.ones(8)}, {})
    assert len(list(tmp_path.iterdir())) == 1


def test_a_disk_that_fills_while_flushing_keeps_the_previous_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "policy.safetensors"
    save_policy(path, {"w": jnp.ones(8)})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FedraxError, match="No space left on device; what was there before is kept; free space"):
        save_policy(path, {"w": jnp.zeros(8)})
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_array_equal(load_policy(path, {"w": jnp.zeros(8)})["w"], np.ones(8))


def test_state_spread_over_devices_is_spread_again(tmp_path: Path) -> None:
    program = f"""
import jax, jax.numpy as jnp, pathlib
from fedrax.records.checkpoint import load_checkpoint, save_checkpoint
mesh = jax.make_mesh((2,), ("agents",))
spread = jax.device_put(jnp.arange(4.0), jax.NamedSharding(mesh, jax.P("agents")))
folder = pathlib.Path({str(tmp_path)!r})
save_checkpoint(folder, 1, spread, {{}})
loaded, _ = load_checkpoint(folder, spread)
assert loaded.sharding == spread.sharding and loaded.tolist() == [0.0, 1.0, 2.0, 3.0]
"""
    environment = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "PATH": "",
    }
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
