"""Hyper-parameters as data: the fields of a recipe's Config, and a Config from plain values (no torch)."""

import dataclasses
import math
from typing import Any

from edgegan.errors import ArgumentError


def option(
    default: bool | int | float | str,
    help: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    choices: tuple[str, ...] = (),
    file: bool = False,
) -> Any:
    """A field of a Config: its default, the help text of the flag that is made from it, and its valid values.

    A number has a least and a greatest one, a word its `choices`. These are there so that a slip of the finger fails at
    once and not deep inside torch. A word without choices is free; file: it may name a file. False makes a flag.
    """
    valid = {"range": (low, high), "choices": choices, "file": file}
    return dataclasses.field(default=default, metadata={"help": help, **valid})


def make_config(config_class: type, values: dict[str, Any]) -> Any:
    """A Config from plain values; those left out keep their defaults.

    Raises ArgumentError for an unknown name, a value of another type than the default's, or one that is not valid.
    """
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    for name, value in values.items():
        if name not in fields:
            raise ArgumentError(f"there is no hyper-parameter {name!r}; there are: {', '.join(fields)}")
        default: Any = fields[name].default
        wanted = type(default)
        if type(value) is not wanted and (wanted, type(value)) != (float, int):
            raise ArgumentError(f"hyper-parameter {name} is {value!r}; it takes a value of type {wanted.__name__}")
        if wanted is str:
            if choices := fields[name].metadata["choices"]:
                check_choice(name, value, choices)
        elif wanted is not bool:
            check_number(name, value, *fields[name].metadata["range"])
    return config_class(**values)


def check_number(name: str, value: float, low: float, high: float) -> None:
    """Raise ArgumentError unless `value` is a number from `low` to `high`."""
    if not low <= value <= high:  # false for NaN too
        raise ArgumentError(f"{name} is {value}; valid: {low} to {high}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ArgumentError unless `value` is one of `choices`."""
    if value not in choices:
        raise ArgumentError(f"{name} is {value!r}; valid: {', '.join(choices)}")
