"""Checkpoints and policies as safetensors files: whole or not there, and never loaded when damaged.

A leaf is stored under its path in the pytree (``.server.params['w']``). The header carries a digest of
everything else in the file, because the format itself notices a short file but not a flipped bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open

from fedrax.errors import FedraxError
from fedrax.migration import is_no_longer_stored, present_arrays, present_leaf
from fedrax.parsing import parsed_json
from fedrax.records.array_files import save_arrays
from fedrax.records.encoding import decoded, encoded

EXPORTED = "fedrax-policy-1"
"""The format, in the header of networks that are exported for other programs."""
KEPT = 2
"""Checkpoints kept: the newest, and one to fall back on should the newest prove damaged."""

STORED = (
    *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("bfloat16", "float16", "float32", "float64", "complex64"),
)
"""Types of leaves that the format holds and NumPy reads back."""

logger = logging.getLogger(__name__)


class DamagedFile(FedraxError):
    """A checkpoint or policy whose content is not what was written."""


def save_checkpoint(folder: Path, round: int, state: PyTree, meta: Mapping[str, Any]) -> Path:
    """Writes ``folder/checkpoint-<round>.safetensors`` and removes all but the last two up to that round.

    Checkpoints of later rounds are removed too: they belong to a future that a resumed run has left.

    Args:
        folder: made if it does not exist.
        round: rounds done.
        state: arrays (JAX, NumPy, typed PRNG keys) and Python numbers; other leaves, such as functions, are
            not stored. Arrays on the host are written without being copied.
        meta: what :func:`~fedrax.records.encoding.encoded` takes; ``round`` is added to it.

    Raises:
        FedraxError: the file cannot be written (the earlier ones are kept then), or a leaf's type cannot.
    """
    path = folder / f"checkpoint-{round}.safetensors"
    _write(path, state, dict(meta) | {"round": round})
    names = [f"checkpoint-{number}.safetensors" for number in _rounds(folder) if number <= round][:KEPT]
    for other in folder.glob("*checkpoint-*.safetensors*"):  # Also what a killed process left half-written.
        if other.name not in names:
            with contextlib.suppress(OSError):
                shutil.rmtree(other) if other.is_dir() else other.unlink()
    return path


def load_checkpoint(
    folder: Path, template: PyTree, accept: Callable[[Path, dict[str, Any]], bool] = lambda path, meta: True
) -> tuple[PyTree, dict[str, Any]] | None:
    """State and meta of the newest whole checkpoint in ``folder`` that is accepted, or ``None`` where there is none.

    Damaged checkpoints are passed over with a warning in the log.

    Args:
        folder: need not exist.
        template: a pytree of the state's structure, shapes and dtypes; leaves may be
            ``jax.ShapeDtypeStruct``. Leaves that are not stored are taken from it, and what is spread over
            devices there is spread again.
        accept: says of a whole checkpoint's path and meta whether it will do, or raises what is wrong with it.

    Raises:
        FedraxError: the checkpoint is whole, but not one of this template.
    """
    for number in _rounds(folder):
        path = folder / f"checkpoint-{number}.safetensors"
        try:
            arrays, implementations, meta = _read(path)
        except DamagedFile as error:
            logger.warning("%s; passing it over", error)
            continue
        if accept(path, meta):
            return _restore(path, template, arrays, implementations), meta
    return None


def latest_round(folder: Path) -> int | None:
    """Rounds done at the newest checkpoint; None where there is none. ``folder`` need not exist."""
    return next(iter(_rounds(folder)), None)


def save_policy(path: Path, params: PyTree, meta: Mapping[str, Any] | None = None) -> None:
    """Writes a policy's parameters, replacing the file as a whole; see :func:`save_checkpoint`."""
    _write(path, params, dict(meta or {}))


def load_policy(path: Path, template: PyTree) -> PyTree:
    """The parameters in ``path``; see :func:`load_checkpoint`.

    Raises:
        FedraxError: there is no such file, it is damaged, or it is not a policy of this template.
    """
    if not path.is_file():
        raise FedraxError(f"there is no policy at {path}; give a run that has finished its first checkpoint")
    arrays, implementations, _ = _read(path)
    return _restore(path, template, arrays, implementations)


def load_networks(path: Path, network: PyTree, *, partly: bool = False) -> tuple[PyTree, tuple[int, ...]]:
    """The parameters in a policy's file, whoever they are of.

    Args:
        path: what :func:`save_policy` wrote.
        network: one network as bare shapes.
        partly: the file may hold more than that.

    Returns:
        The parameters as NumPy arrays, leaves ``[*n, ...]``, and ``n``: nothing, seeds, or seeds and agents.

    Raises:
        FedraxError: there is no such file, it is damaged, or it is not a policy of such a network.
    """
    if not path.is_file():
        raise FedraxError(f"there is no policy at {path}; give a run, or the file of a policy")
    with contextlib.suppress(SafetensorError, OSError), safe_open(path, framework="numpy") as file:
        if (file.metadata() or {}).get("format") == EXPORTED:
            raise FedraxError(
                f"{path} was exported for other programs; give the run that it is of, or its policy.safetensors"
            )
    arrays, _, _ = _read(path)
    wanted = dict(_named(network))
    for name in [*wanted, *(() if partly else arrays)]:
        if name not in arrays or name not in wanted:
            raise _another_network(path, f"{name} is in {'one' if name in arrays else 'the other'} alone")
    first = next(iter(wanted))
    axes = arrays[first].shape[: arrays[first].ndim - len(wanted[first].shape)]
    for name, leaf in wanted.items():
        if arrays[name].shape != (*axes, *leaf.shape) or arrays[name].dtype != leaf.dtype:
            found = f"{arrays[name].dtype}{list(arrays[name].shape[len(axes) :])}"
            raise _another_network(path, f"{name} is {found} there and {leaf.dtype}{list(leaf.shape)} here")
    return jax.tree_util.tree_map_with_path(lambda keys, _: arrays[jax.tree_util.keystr(keys)], network), axes


def _another_network(path: Path, difference: str) -> FedraxError:
    return FedraxError(
        f"the networks in {path} are others than those of this learner in this environment: {difference}; set the "
        "learner's options as in the config.toml of the run that they are of"
    )


def _rounds(folder: Path) -> list[int]:
    """Rounds that have a checkpoint, newest first."""
    matches = [re.fullmatch(r"checkpoint-(\d+)\.safetensors", path.name) for path in folder.glob("checkpoint-*")]
    return sorted((int(match[1]) for match in matches if match), reverse=True)


def _is_key(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _named(tree: PyTree) -> Iterator[tuple[str, Any]]:
    """The leaves that are stored, by path."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if hasattr(leaf, "dtype") or isinstance(leaf, (bool, int, float)):
            yield jax.tree_util.keystr(path), leaf


def _write(path: Path, tree: PyTree, meta: dict[str, Any]) -> None:
    leaves = dict(_named(tree))
    # A typed key is stored as its integers; its implementation is needed to make a key of them again.
    implementations = {name: str(jax.random.key_impl(leaf)) for name, leaf in leaves.items() if _is_key(leaf)}
    leaves |= {name: jax.random.key_data(leaves[name]) for name in implementations}
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in jax.device_get(leaves).items()}
    for name, array in arrays.items():
        if array.dtype.name not in STORED or not array.dtype.isnative:
            raise FedraxError(f"leaf {name} of type {array.dtype} cannot be stored; allowed: {', '.join(STORED)}")
    metadata = {"meta": encoded(meta), "keys": json.dumps(implementations)}
    metadata["digest"] = _digest(arrays, metadata)
    save_arrays(path, arrays, metadata)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, Any]]:
    """Arrays by path, PRNG implementations by path, and meta; raises :class:`DamagedFile`."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        digest = metadata.pop("digest")
        if digest != _digest(arrays, metadata):
            raise DamagedFile(f"{path} is damaged: its content does not match its digest")
        implementations = parsed_json(metadata["keys"])
        implementations = {present_leaf(name): kind for name, kind in implementations.items()}
        meta = decoded(metadata["meta"])
        return present_arrays(arrays, meta), implementations, meta
    except DamagedFile:
        raise
    except (SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        # A damaged header may claim any name, type and shape, so reading it can fail in any of these ways.
        raise DamagedFile(f"{path} is damaged: {' '.join(str(error).split())}") from None


def _digest(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    digest = hashlib.blake2b(json.dumps(sorted(metadata.items())).encode(), digest_size=32)
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _restore(
    path: Path, template: PyTree, arrays: Mapping[str, np.ndarray], implementations: Mapping[str, str]
) -> PyTree:
    wanted = dict(_named(template))
    for name in [*wanted, *arrays]:
        if name not in arrays:
            raise _mismatch(path, f"it has no leaf {name}")
        if name not in wanted and not is_no_longer_stored(name):
            raise _mismatch(path, f"its leaf {name} has no place here")

    def one(keys: tuple[Any, ...], leaf: Any) -> Any:
        name = jax.tree_util.keystr(keys)
        if name not in wanted:
            return leaf
        value: Any = arrays[name]
        if name in implementations:
            value = jax.random.wrap_key_data(value, impl=implementations[name])
        is_array = hasattr(leaf, "dtype")
        expected = leaf if is_array else np.asarray(leaf)
        if (value.shape, value.dtype) != (expected.shape, expected.dtype):
            raise _mismatch(
                path,
                f"its leaf {name} is {value.dtype}{list(value.shape)}, "
                f"but {expected.dtype}{list(expected.shape)} is expected",
            )
        if not is_array:
            return value.item()
        if isinstance(leaf, (np.ndarray, np.generic)):
            return value if isinstance(leaf, np.ndarray) else value[()]
        spread = isinstance(leaf, jax.Array) and len(leaf.devices()) > 1
        return jax.device_put(value, leaf.sharding if spread else None)

    return jax.tree_util.tree_map_with_path(one, template)


def _mismatch(path: Path, difference: str) -> FedraxError:
    return FedraxError(f"{path} was written with another configuration: {difference}; use its own config.toml")
