"""Arrays in a file of the safetensors format, of which a killed process leaves no part for ever."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from fedrax.records.files import replacing

FOLDER = ".parts"
"""How the name of the folder ends in which the library writes."""


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes contiguous arrays by name, and texts; ``path`` is there whole or as it was.

    Raises:
        FedraxError: as :func:`~fedrax.records.files.replacing`.
    """
    with replacing(path) as temporary, _folder(temporary) as folder:
        part = folder / path.name
        try:
            save_file(dict(arrays), part, dict(metadata))
        except SafetensorError as error:
            # The library turns the operating system's refusals into its own type.
            raise OSError(str(error)) from error
        os.replace(part, temporary)


@contextlib.contextmanager
def _folder(temporary: Path) -> Iterator[Path]:
    """An empty folder of a name that is always the same.

    The library writes to a new file of a random name beside the one it is asked for, and a killed process would leave
    one more each time.
    """
    folder = temporary.with_name(f"{temporary.name}{FOLDER}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
