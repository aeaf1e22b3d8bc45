"""MkDocs' hooks: pages generated from the program, the benchmarks and the examples; links; and no foreign addresses.

``mkdocs.yml`` names this file. A value of its navigation that ends with ``/`` stands for all generated pages there.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from examples import example_pages
from reference import reference_pages
from results import benchmark_pages

PROJECT = Path(__file__).parents[2]
ROLE = re.compile(r":(?:class|func|meth|data|mod|attr|exc):<code>~?(?:[\w.]+\.)?(\w+)</code>")
LINK = re.compile(r"\]\(((?:\.\./)+)([\w./-]+)\)")
LOADED = re.compile(r"<(?:script|img|iframe)\b[^>]*\bsrc=\"(?:https?:)?//|<link\b[^>]*\brel=\"stylesheet\"[^>]*//")
"""What a browser would fetch from elsewhere when it opens a page."""

pages: dict[str, str] = {}
"""The generated pages' Markdown, by path below ``docs``."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Generates the pages, and puts them into the navigation."""
    pages.clear()
    pages.update(reference_pages() | benchmark_pages(PROJECT) | example_pages(PROJECT))
    config.nav = _expanded(config.nav)
    return config


def _expanded(nav: Any) -> Any:
    """The navigation with every folder of generated pages spelt out."""
    if isinstance(nav, list):
        return [_expanded(item) for item in nav]
    if isinstance(nav, dict):
        return {title: _expanded(item) for title, item in nav.items()}
    if isinstance(nav, str) and nav.endswith("/"):
        return [path for path in pages if PurePosixPath(path).parent == PurePosixPath(nav)]
    return nav


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages to those of ``docs``."""
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links from ``docs`` to the project's other files lead to the pages that are generated of them."""
    here = PurePosixPath(page.file.src_uri).parent

    def changed(match: re.Match[str]) -> str:
        ups, rest = match[1].count("../"), match[2]
        if ups != len(here.parts) + 1:
            return match[0]
        target = (
            "benchmarks/index.md" if rest == "benchmarks/README.md" else f"{PurePosixPath(rest).with_suffix('')}.md"
        )
        return f"]({'../' * len(here.parts)}{target})" if target in pages else match[0]

    return LINK.sub(changed, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Roles of docstrings (``:class:``) are shown as the names they refer to."""
    return ROLE.sub(r"<code>\1</code>", html)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Refuses a page that a browser could not show without a network.

    Raises:
        PluginError: the page loads something from another address.
    """
    if found := LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} loads {found[0]}...: the site must work without a network")
    return output
