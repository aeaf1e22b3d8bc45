"""Text is UTF-8 whatever the locale, and names are shown as they are, by pages and pictures."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.text import Text
from told import status_of

import fedrax
from fedrax.cli import main
from fedrax.config import parse_override, resolve
from fedrax.errors import FedraxError
from fedrax.parsing import is_deep, text_of
from fedrax.report import outputs

NAME = "Zürich 東京"
ODD_NAMES = ["$x$ \\bad{", "a_b^c", "<b>bold</b>", "\"quoted\" 'too'", "$", "$\\frac{1}{2}$ & more", "100 % {x} %s"]
ELSEWHERE = """
import locale, sys
from fedrax.cli import main
assert locale.getencoding() != "utf-8", locale.getencoding()
file, run, page = sys.argv[1:]
assert main(["describe", file]) == 0
assert main(["report", run, "--out", page]) == 0
"""


def renamed(run, folder, name):
    """A copy of a run that is called otherwise."""
    shutil.copytree(run, folder)
    file = folder / "config.toml"
    config = resolve(file).model_copy(update={"name": name})
    file.write_text(config.to_toml(), encoding="utf-8")
    return folder


def test_files_are_utf_8_under_another_locale(whole, odd_files, tmp_path):
    run = renamed(whole, tmp_path / "run", NAME)
    page = tmp_path / "page.html"
    variables = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "JAX_PLATFORMS": "cpu"}
    words = [sys.executable, "-c", ELSEWHERE, odd_files / "readable.toml", run, page]
    done = subprocess.run(words, env=variables, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert NAME in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["latin-1", "binary", "utf-16", "utf-16-le", "utf-16-be"])
def test_what_is_no_utf_8_is_told_so(name, odd_files):
    with pytest.raises(ValueError, match=r"UTF-(8|16) text.*; save it as UTF-8"):
        text_of(odd_files / f"{name}.toml")


@pytest.mark.parametrize("name", ["pipe", "endless"])
def test_pipes_and_devices_are_not_opened(name, odd_files):
    with pytest.raises(OSError, match="no regular file"):
        text_of(odd_files / f"{name}.toml")


def test_a_file_that_is_too_large_is_not_read(odd_files):
    with pytest.raises(ValueError, match="104857600 bytes, and at most 16777216 are read"):
        text_of(odd_files / "huge.toml")


def test_tables_and_keys_are_at_most_so_deep():
    def nested(depth):
        value = 1
        for number in range(depth):
            value = [value] if number % 2 else {"a": value}
        return value

    assert not is_deep(nested(99))
    assert is_deep(nested(101))
    with pytest.raises(FedraxError, match="not of the form key=value"):
        parse_override(".".join(["a"] * 200) + "=1")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_and_titles_are_shown_as_they_are(name, whole, tmp_path, monkeypatch):
    drawn = []
    kept = outputs.save
    monkeypatch.setattr(outputs, "save", lambda figure, *paths: (drawn.append(figure), kept(figure, *paths)))
    run = renamed(whole, tmp_path / "run", name)
    other = renamed(whole, tmp_path / "other", f"{name} again")
    page = tmp_path / "page.html"
    assert main(["report", str(run), str(other), "--out", str(page), "--title", name]) == 0
    (figure,) = drawn
    texts = figure.findobj(Text)
    assert name in [text.get_text() for text in texts]
    assert not any(text.get_parse_math() for text in texts if text.get_text())
    assert page.with_suffix(".png").stat().st_size > 0
    assert "<b>bold" not in page.read_text(encoding="utf-8")


def test_letters_that_no_font_has_cost_no_line(whole, tmp_path, capsys, recwarn):
    assert status_of(["report", str(whole), "--out", str(tmp_path / "page.html"), "--title", NAME], capsys) == 0
    assert not [one for one in recwarn if "Glyph" in str(one.message)]


def test_every_text_file_is_opened_as_utf_8():
    """A file that is opened without saying so is read as the locale has it."""
    root = Path(fedrax.__file__).parent
    others = (root / "runtime" / "flower", root / "runtime" / "distributed")
    found = []
    for path in root.rglob("*.py"):
        if any(path.is_relative_to(folder) for folder in others):
            continue
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            said = {word.arg for word in call.keywords}
            text = name in ("read_text", "write_text") or "text" in said
            if name == "open" and isinstance(call.func, (ast.Name, ast.Attribute)):
                modes = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
                text = any(isinstance(mode, str) and re.fullmatch(r"[rwax]\+?t?", mode) for mode in modes)
            if text and "encoding" not in said:
                found.append(f"{path.relative_to(root)}:{call.lineno}")
    assert not found
