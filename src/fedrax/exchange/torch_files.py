"""Files of PyTorch: nested dictionaries of float32 arrays, read without running anything that is in them."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fedrax.errors import FedraxError
from fedrax.records.files import reason, replacing

LEVELS = 2
"""Of dictionaries in a file, at most: networks by name, and in each its arrays by name."""

OTHERS = (".safetensors", ".onnx", ".npz")
"""Endings of networks in other formats."""


def pytorch() -> ModuleType:
    """The package.

    Raises:
        FedraxError: it is not installed.
    """
    try:
        import torch
    except ImportError:
        raise FedraxError(
            'files of PyTorch need PyTorch itself: pip install "fedrax[torch]", or give another format'
        ) from None
    return torch


def read_torch(path: Path) -> Any:
    """What is in a file, with NumPy arrays in place of tensors.

    Only tensors, numbers, texts and containers are loaded (``weights_only=True``), wherever they were saved.

    Raises:
        FedraxError: there is no such file, it is damaged or another kind of file, it holds code, or arrays of another
            type than float32.
    """
    # Before PyTorch is asked for: nobody should install it to be told that these are other files.
    if path.is_dir():
        raise FedraxError(f"{path} is a directory; give the .pth files in it")
    if path.suffix in OTHERS:
        raise FedraxError(
            f"{path} is no .pth file, which is what is read here; networks of Fedrax's own are taken from their run, "
            "learner.initial=RUN"
        )
    try:
        path.open("rb").close()
    except OSError as error:
        raise FedraxError(f"cannot read {path}: {reason(error)}; give the path of a .pth file") from None
    torch = pytorch()
    if zipfile.is_zipfile(path):
        _check_sums(path)
    try:
        with warnings.catch_warnings(action="ignore"), path.open("rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged file can fail in any way, and what PyTorch says then is advice to programmers.
        raise FedraxError(
            f"{path} holds no weights that PyTorch loads without running code: it is damaged, or another kind of file "
            f"({type(error).__name__}); give a .pth file of state dictionaries"
        ) from None
    return _arrays(path, content, torch)


def _arrays(path: Path, content: Any, torch: ModuleType, levels: int = LEVELS) -> Any:
    if isinstance(content, Mapping) and levels:
        return {str(name): _arrays(path, value, torch, levels - 1) for name, value in content.items()}
    if not isinstance(content, torch.Tensor):
        raise FedraxError(
            f"{path} holds {type(content).__name__} where arrays are expected; give a .pth file of state dictionaries"
        )
    if content.layout != torch.strided:
        raise FedraxError(f"{path} holds sparse arrays; give networks of dense ones")
    if content.dtype != torch.float32:
        raise FedraxError(f"{path} holds arrays of {content.dtype}; give networks of float32")
    if content.untyped_storage().nbytes() < content.numel() * content.element_size():
        raise FedraxError(f"{path} says that it holds more numbers than it does; give another checkpoint")
    try:
        return content.detach().resolve_neg().numpy()
    except (TypeError, RuntimeError) as error:
        raise FedraxError(
            f"{path} holds arrays without numbers ({type(error).__name__}); give another checkpoint"
        ) from None


def _check_sums(path: Path) -> None:
    """Raises :class:`FedraxError` where the archive's own sums say that its content changed; PyTorch does not ask."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # Names, sizes and sums may all be damaged, and each fails in a way of its own.
        raise FedraxError(f"{path} is damaged: {' '.join(str(error).split())}; give another checkpoint") from None
    if damaged is not None:
        raise FedraxError(f"{path} is damaged: {damaged} is not what was written; give another checkpoint")


def write_torch(path: Path, content: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Writes dictionaries of arrays by name, as tensors.

    Raises:
        FedraxError: PyTorch is not installed, or the file cannot be written.
    """
    torch = pytorch()
    tensors = {
        name: {key: torch.from_numpy(np.array(array)) for key, array in state.items()}
        for name, state in content.items()
    }
    with replacing(path) as temporary:
        torch.save(tensors, temporary)


def write_state(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name as one state dictionary; errors as of :func:`write_torch`."""
    torch = pytorch()
    with replacing(path) as temporary:
        torch.save({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, temporary)
