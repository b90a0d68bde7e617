"""What every recipe promises, beside what test_train, test_engine, test_run, test_parallel and test_export ask."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from edgegan import load
from edgegan.errors import ArgumentError
from edgegan.export import pipeline
from edgegan.export.cli import cli as export_cli
from edgegan.export.quality import Limit
from edgegan.model import inputs_of
from edgegan.trainer import recipes
from edgegan.trainer.cli import cli
from edgegan.trainer.config import make_config, option
from edgegan.trainer.data import Dataset, open_dataset
from edgegan.trainer.recipe import DataShape
from support import always, config_of, make_run, result_of, train

every_recipe = pytest.mark.parametrize("recipe", recipes.names())


@every_recipe
def test_help_explains_each_option_its_default_and_its_choices(recipe: str) -> None:
    shown = CliRunner().invoke(cli, [recipe, "--help"])
    assert shown.exit_code == 0
    page = " ".join(shown.output.split())
    for field in dataclasses.fields(recipes.describe(recipe).Config):
        flag, text, default = f"--{field.name.replace('_', '-')}", field.metadata["help"], field.default
        assert len(text) > 8
        choices = f" [{'|'.join(field.metadata['choices'])}]" if field.metadata["choices"] else " TEXT"
        takes = {bool: "", int: " INTEGER", float: " FLOAT", str: choices}[type(default)]
        shown_default = "" if default in ("", False) else f"[default: {default}] "
        assert f" {flag}{takes} {text[0].upper()}{text[1:]}. {shown_default}" in f"{page} "
        assert default in field.metadata["choices"] or choices == " TEXT"


@every_recipe
def test_options_out_of_their_bounds_are_refused_by_name(recipe: str) -> None:
    Config = recipes.load(recipe).Config
    for field in dataclasses.fields(Config):
        if isinstance(field.default, bool) or (isinstance(field.default, str) and not field.metadata["choices"]):
            continue
        wrong = "surprise" if isinstance(field.default, str) else -1
        with pytest.raises(ArgumentError, match=f"^{field.name} is .*; valid: "):
            make_config(Config, {field.name: wrong})


def test_a_choice_is_one_of_its_words() -> None:
    @dataclasses.dataclass(frozen=True)
    class Config:
        colour: str = option("red", "of the paint", choices=("red", "blue"))

    assert make_config(Config, {"colour": "blue"}).colour == "blue"
    with pytest.raises(ArgumentError, match=r"^colour is 'green'; valid: red, blue$"):
        make_config(Config, {"colour": "green"})
    with pytest.raises(ArgumentError, match=r"^hyper-parameter colour is 3; it takes a value of type str$"):
        make_config(Config, {"colour": 3})


@every_recipe
@pytest.mark.parametrize("shape", [DataShape(28, 28, 3, ("a", "b")), DataShape(32, 32, 1, ("a", "b"))])
def test_grey_and_colour_within_range_and_judged_one_by_one(recipe: str, shape: DataShape) -> None:
    loaded = recipes.load(recipe)
    config = config_of(recipe, shape)
    torch.manual_seed(0)
    nets, spec = loaded.build(config, shape).eval(), loaded.spec(config, shape)
    inputs = inputs_of(spec, 0, 5)
    with torch.no_grad():
        images = loaded.export_module(nets)(*(torch.tensor(value) for value in inputs.values()))
        assert images.shape == (5, shape.channels, shape.height, shape.width)
        assert images.abs().max() <= 1
        if loaded.logits is not None:
            labels = torch.tensor(inputs.get("label", np.zeros(5, np.int64)))
            logits = loaded.logits(nets, images, labels)
            assert logits.shape == (5,)
            assert logits.isfinite().all()


@every_recipe
def test_what_uses_classes_draws_another_picture_for_another_class(recipe: str) -> None:
    loaded, shape = recipes.load(recipe), DataShape(28, 28, 1, ("a", "b", "c"))
    config = config_of(recipe, shape)
    nets, spec = loaded.build(config, shape).eval(), loaded.spec(config, shape)
    if not spec.classes:
        pytest.skip("it uses no classes")
    assert spec.classes == shape.classes
    inputs = {name: torch.tensor(value[:1]).repeat_interleave(3, 0) for name, value in inputs_of(spec, 0, 1).items()}
    if "psi" in inputs:
        inputs["psi"] = inputs["psi"][:1]
    inputs["label"] = torch.tensor([0, 1, 0])
    with torch.no_grad():
        first, other, same = loaded.export_module(nets)(*inputs.values())
    assert torch.allclose(first, same, atol=1e-6)
    assert (first - other).abs().max() > 1e-4


@pytest.mark.parametrize("recipe", always("edge"))
def test_it_trains_in_mixed_precision_on_the_processor(recipe: str, dataset: Dataset, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dataset, recipe, precision="bf16")
    assert train(run, dataset)
    state, log = result_of(run)
    assert all(value.dtype != torch.bfloat16 for value in state["nets"].values())  # type: ignore[attr-defined]
    for record in log:
        assert all(math.isfinite(value) for value in record["losses"].values())  # type: ignore[attr-defined]


@pytest.mark.parametrize("recipe", always("edge"))
def test_int8_of_a_trained_generator_passes_its_limit_and_the_check(recipe: str, tmp_path: Path) -> None:
    dataset = open_dataset("digits")
    run = make_run(tmp_path / "run", dataset, recipe, "digits", config={"kimg": 0.256, "batch": 32}, sample_kimg=1.0)
    train(run, dataset)
    # After so few images pictures of stylegan still leave [-1, 1] by far, and 8 bits hold them less well.
    limit = Limit(decibels=25.0 if recipe == "stylegan" else 30.0)
    how = pipeline.How(lower="fixed", measure=False, precision="int8", max_quality_loss=limit)
    made = pipeline.export_run(run.folder, tmp_path / "int8.onnx", how=how)
    found = made.written()
    assert found.psnr is not None
    assert found.psnr >= limit.decibels
    assert load(tmp_path / "int8.onnx").spec.precision == "int8"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["int8.onnx", "run"]
    checked = CliRunner().invoke(export_cli, ["--check", str(tmp_path / "int8.onnx")])
    assert checked.exit_code == 0, checked.output
