"""One readable file per GAN. A file in this folder is a recipe, found by its name; there is no other register."""

import ast
import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegan.errors import ArgumentError
from edgegan.trainer.config import option


def names() -> list[str]:
    """The recipes there are, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Any:
    """The `Recipe` called `name`; imports torch. Raises ArgumentError for a name that is not there."""
    if name not in names():
        raise ArgumentError(f"there is no recipe {name!r}; recipes: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}").RECIPE


@dataclass(frozen=True)
class About:
    """What a recipe's source says of it."""

    summary: str  # the first line of its docstring, without the full stop
    paper: str  # the paragraph after that
    Config: type
    takes_source: bool  # whether it learns from a second set of pictures, too
    translates: bool  # whether it makes pictures of others


def describe(name: str) -> About:
    """About the recipe, read from its source, so that --help need not import torch.

    A Config may therefore use nothing but `dataclass`, `option` and builtins.
    """
    tree = ast.parse((Path(__path__[0]) / f"{name}.py").read_text(encoding="utf-8"))
    body: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Config"]
    found: dict[str, Any] = {"dataclass": dataclass, "option": option, "__name__": __name__}
    exec(compile(ast.Module(body, []), name, "exec"), found)
    summary, _, rest = (ast.get_docstring(tree) or "").partition("\n")
    given = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    takes_source, translates = "takes_source" in given, bool(given & {"takes_source", "degrade"})
    return About(summary.rstrip("."), rest.strip().partition("\n\n")[0], found["Config"], takes_source, translates)
