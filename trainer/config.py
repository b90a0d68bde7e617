"""Hyper-parameters as data: the fields of a recipe's Config, and a Config from plain values (no torch)."""

import dataclasses
import math
from typing import Any

from edgegan.errors import ArgumentError


def option(default: bool | int | float | str, help: str, *, minimum: float | None = None) -> Any:
    """A field of a Config: its default, the help text of the flag that is made from it, and the least valid value."""
    return dataclasses.field(default=default, metadata={"help": help, "minimum": minimum})


def make_config(config_class: type, values: dict[str, Any]) -> Any:
    """A Config from plain values; those left out keep their defaults.

    Raises ArgumentError for an unknown name, a value of another type than the default's, or one out of range.
    """
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    for name, value in values.items():
        if name not in fields:
            raise ArgumentError(f"there is no hyper-parameter {name!r}; there are: {', '.join(fields)}")
        wanted = type(fields[name].default)
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise ArgumentError(f"hyper-parameter {name} is {value!r}; it takes a value of type {wanted.__name__}")
        check_number(name, value, fields[name].metadata["minimum"])
    return config_class(**values)


def check_number(name: str, value: Any, minimum: float | None = None) -> None:
    """Raise ArgumentError for a number that is not finite or below `minimum`."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ArgumentError(f"{name} is {value}; valid: a finite number")
    if minimum is not None and value < minimum:
        raise ArgumentError(f"{name} is {value}; valid: {minimum} or more")
