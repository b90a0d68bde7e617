"""`edgegan verify`: draw a model's golden samples on this device."""

import sys

import click

import edgegan
from edgegan._cli import debug_option
from edgegan.commands import device_options, model_argument, name_of


@click.command(short_help="Check that a model works on this device.")
@model_argument
@device_options
@debug_option
def verify(model: str | None, provider: str, threads: int | None) -> None:
    """Draw MODEL's golden samples again, and compare them with those that its exporter put into the file.

    Exit status 0 if no pixel differs by more than the file allows, else 1.

    \b
    edgegan verify faces.onnx
    edgegan verify faces.onnx --provider cuda
    """
    generator = edgegan.load(model, provider, threads)
    difference = generator.check_golden()
    golden = generator.spec.golden
    assert golden is not None  # or check_golden would have raised
    passed = difference <= golden.tolerance
    click.echo(
        f"{'pass' if passed else 'fail'}: {name_of(model)} on {generator.provider}: the largest difference of a pixel "
        f"in {golden.count} golden samples is {difference} of 255, allowed are {golden.tolerance}"
    )
    sys.exit(0 if passed else 1)
