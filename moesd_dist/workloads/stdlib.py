"""Python's own standard library as text: what trains the embedded pair, and what it never saw.

Every installation holds this text, so a laptop without a network has real prompts. A document is
held out of training by a hash of its name, never of its content, so the split is the same for
every Python version that the text is read from.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HELD_OUT_ONE_IN = 16
# Tests are not part of every installation, codec tables are numbers, topics are read as prose.
SKIPPED_PARTS = frozenset(
    {"test", "tests", "idle_test", "site-packages", "encodings", "pydoc_data"}
)
MIN_DOCUMENT_CHARS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text and the name that decides whether it is held out."""

    name: str
    text: str

    @property
    def is_held_out(self) -> bool:
        """Kept away from training, so that prompts taken from it are unseen text."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return int.from_bytes(digest[:4], "big") % HELD_OUT_ONE_IN == 0


def code_documents(root: Path | None = None) -> Iterator[Document]:
    """Every standard-library module with some substance, in name order."""
    base = root or Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(base.rglob("*.py")):
        name = path.relative_to(base)
        if SKIPPED_PARTS.isdisjoint(name.parts):
            text = _read(path)
            if len(text) >= MIN_DOCUMENT_CHARS:
                yield Document(name=name.as_posix(), text=text)


def prose_documents(root: Path | None = None) -> Iterator[Document]:
    """The language reference's topics, then the docstrings of each module under its name."""
    yield from _topics()
    for module in code_documents(root):
        text = "\n\n".join(_docstrings(module.text))
        if len(text) >= MIN_DOCUMENT_CHARS:
            # The module's name, so that code and docstrings fall on the same side of the split.
            yield Document(name=module.name, text=text)


def _topics() -> Iterator[Document]:
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:  # some distributions package it apart; docstrings remain
        return
    for key in sorted(topics):
        if len(topics[key]) >= MIN_DOCUMENT_CHARS:
            yield Document(name=f"topic/{key}", text=topics[key])


def _docstrings(source: str) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # lib2to3 keeps Python 2 grammar samples
        return
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)) and len(text) > 80:
            yield inspect.cleandoc(text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):  # a few legacy encodings, a few broken links
        return ""
