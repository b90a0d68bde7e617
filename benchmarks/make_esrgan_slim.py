"""The small super-resolution networks of UpscalerJS as ONNX: what benchmarks/superres.py compares with.

    python benchmarks/make_esrgan_slim.py rivals                    # needs npm; esrgan-slim-x2.onnx, -x3, -x4 and -x8
    python benchmarks/make_esrgan_slim.py rivals --check            # and node: says how far they are from TensorFlow.js
    python benchmarks/make_esrgan_slim.py rivals --network thick    # 7 million parameters instead of a quarter of one
    edgegan translate rivals/esrgan-slim-x2.onnx photo.jpg -o larger.png --range 0,255

npm downloads a fixed version of the packages @upscalerjs/esrgan-slim and -thick (MIT licence; trained on DIV2K). They
hold models of Keras in the layers format of TensorFlow.js: the graph as JSON, the weights as one run of float32, all of
it channels last. What is written takes and gives [N, 3, H, W] of free sides; the pixels are those of the original, 0 to
255 for slim and 0 to 1 for thick. "slim" is a residual dense network (Zhang et al. 2018), "thick" one of residual in
residual dense blocks, as ESRGAN's (Wang et al. 2018).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from common import say
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgegan._files import atomic_write

F32 = NDArray[np.float32]
SCALES = (2, 3, 4, 8)
RANGES = {"slim": (0, 255), "thick": (0, 1)}  # what black and white are; --check asks the package
PACKAGE, VERSION, TFJS = "@upscalerjs/esrgan-{}", "1.0.0", "@tensorflow/tfjs@4.11.0"  # tfjs as the packages want it
OPSET = 17
CLOSE = 1e-3  # in the model's own units
# The only kind of convolution that these networks have; what differs from it is refused.
CONVOLUTION = {
    "strides": [1, 1],
    "dilation_rate": [1, 1],
    "groups": 1,
    "activation": "linear",
    "use_bias": True,
    "data_format": "channels_last",
}
RUN = """
const tf = require('@tensorflow/tfjs');
const fs = require('fs');
const [name, scale, height, width] = process.argv.slice(2);
const definition = require(name)['x' + scale];
const folder = 'node_modules/' + name + '/models/x' + scale + '/';
const { modelTopology, weightsManifest } = JSON.parse(fs.readFileSync(folder + 'model.json'));
const paths = weightsManifest.flatMap((group) => group.paths);
const weightData = new Uint8Array(Buffer.concat(paths.map((path) => fs.readFileSync(folder + path)))).buffer;
const weightSpecs = weightsManifest.flatMap((group) => group.weights);
(async () => {
    await tf.setBackend('cpu');
    if (definition.setup) definition.setup(tf);
    const model = await tf.loadLayersModel(tf.io.fromMemory({ modelTopology, weightSpecs, weightData }));
    const given = new Float32Array(new Uint8Array(fs.readFileSync('given')).buffer);
    const made = model.predict(tf.tensor4d(given, [1, Number(height), Number(width), 3]));
    fs.writeFileSync('made', new Uint8Array(made.dataSync().buffer));
    console.log(JSON.stringify({ shape: made.shape, ranges: [definition.inputRange, definition.outputRange] }));
})();
"""


def install(folder: Path, *packages: str) -> None:
    """What npm downloads into folder/node_modules, without what the packages want beside them."""
    quiet = ("--silent", "--no-fund", "--no-audit", "--legacy-peer-deps")
    subprocess.run(("npm", "install", *quiet, *packages), cwd=folder, check=True, stdout=sys.stderr)


def weights_of(manifest: list[dict[str, Any]], folder: Path) -> dict[str, F32]:
    """The tensors of model.json's weightsManifest by name, "layer/kernel" and "layer/bias"."""
    found = {}
    for group in manifest:
        data, start = b"".join((folder / path).read_bytes() for path in group["paths"]), 0
        for weight in group["weights"]:
            if weight["dtype"] != "float32" or "quantization" in weight:
                raise SystemExit(f"{folder}: the weight {weight['name']} is not of plain float32")
            size = int(np.prod(weight["shape"]))
            found[weight["name"]] = np.frombuffer(data, "<f4", size, start).reshape(weight["shape"])
            start += 4 * size
    return found


def convolution(config: dict[str, Any], name: str, inputs: list[str]) -> onnx.NodeProto:
    """At a stride of 1, "same" adds k - 1 rows and columns of zeros, of an odd number more at the end."""
    for key, value in CONVOLUTION.items():
        if config.get(key, value) != value:
            raise SystemExit(f"{name}: a convolution with {key} {config[key]}; known is {value}")
    added = [k - 1 if config["padding"] == "same" else 0 for k in config["kernel_size"]]
    pads = [n // 2 for n in added] + [n - n // 2 for n in added]
    return helper.make_node("Conv", [*inputs, f"{name}/kernel", f"{name}/bias"], [name], name, pads=pads)


def node_of(layer: dict[str, Any]) -> tuple[onnx.NodeProto, dict[str, F32]]:
    """A layer as a node that writes the tensor of its name, and constants that it needs beside its weights."""
    kind, config, name = layer["class_name"], layer["config"], layer["name"]
    (call,) = layer["inbound_nodes"]  # no layer is used twice
    inputs = [source for source, *_ in call]
    match kind:
        case "Conv2D":
            return convolution(config, name, inputs), {}
        case "Activation" if config["activation"] == "relu":
            return helper.make_node("Relu", inputs, [name], name), {}
        case "Add":
            return helper.make_node("Add", inputs, [name], name), {}
        case "Concatenate" if config["axis"] in (3, -1):
            return helper.make_node("Concat", inputs, [name], name, axis=1), {}
        case "MultiplyBeta":
            beta = f"{name}/beta"
            return helper.make_node("Mul", [*inputs, beta], [name], name), {beta: np.float32(config["beta"])}
        case "UpSampling2D" if config["interpolation"] == "nearest":
            sizes = f"{name}/scales"
            how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            node = helper.make_node("Resize", [*inputs, "", sizes], [name], name, **how)
            return node, {sizes: np.array([1, 1, *config["size"]], np.float32)}
        case _ if kind.startswith("PixelShuffle"):
            node = helper.make_node("DepthToSpace", inputs, [name], name, blocksize=config["scale"], mode="DCR")
            return node, {}
    raise SystemExit(f"{name}: no translation for a layer {kind} with {config}")


def convert(folder: Path) -> onnx.ModelProto:
    """The model.json in a folder, channels first."""
    stored = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    topology = stored["modelTopology"]["model_config"]["config"]
    # HWIO -> OIHW
    constants = {
        name: value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        for name, value in weights_of(stored["weightsManifest"], folder).items()
    }
    nodes = []
    for layer in topology["layers"]:
        if layer["class_name"] != "InputLayer":
            node, more = node_of(layer)
            nodes.append(node)
            constants |= more
    ends = {topology["input_layers"][0][0]: "source", topology["output_layers"][0][0]: "image"}
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = [ends.get(name, name) for name in names]
    source = helper.make_tensor_value_info("source", TensorProto.FLOAT, ["N", 3, "H", "W"])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "scale*H", "scale*W"])
    tensors = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "esrgan", [source], [image], tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def difference(model: onnx.ModelProto, name: str, scale: int, span: tuple[int, int], folder: Path) -> float:
    """How far onnxruntime is from TensorFlow.js on a small picture of noise, in the model's own units."""
    height, width = 10, 12
    low, high = span
    given = np.random.default_rng(0).uniform(low, high, (1, height, width, 3)).astype(np.float32)
    (folder / "given").write_bytes(given.astype("<f4").tobytes())
    (folder / "run.js").write_text(RUN, encoding="utf-8")
    command = ("node", "run.js", name, str(scale), str(height), str(width))
    said = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
    answer = json.loads(said.splitlines()[-1])
    if answer["ranges"] != [list(span)] * 2:
        raise SystemExit(f"{name}: its ranges are {answer['ranges']}, not {list(span)}")
    theirs = np.frombuffer((folder / "made").read_bytes(), "<f4").reshape(answer["shape"])
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (ours,) = session.run(None, {"source": given.transpose(0, 3, 1, 2)})
    return float(np.abs(ours.transpose(0, 2, 3, 1) - theirs).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the .onnx files go")
    parser.add_argument("--network", choices=tuple(RANGES), default="slim")
    parser.add_argument("--check", action="store_true", help="run the originals in node, too, and compare")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    package, span = PACKAGE.format(options.network), RANGES[options.network]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        install(folder, f"{package}@{VERSION}", *[TFJS] * options.check)
        for scale in SCALES:
            model = convert(folder / "node_modules" / package / "models" / f"x{scale}")
            said = ""
            if options.check:
                far = difference(model, package, scale, span, folder)
                said = f", at most {far:.1e} from TensorFlow.js with pixels of {span[0]} to {span[1]}"
                if not far <= CLOSE:
                    raise SystemExit(f"{package} x{scale}: {far:.1e} from TensorFlow.js; valid: at most {CLOSE}")
            path = options.folder / f"esrgan-{options.network}-x{scale}.onnx"
            with atomic_write(path) as file:
                file.write(model.SerializeToString())
            say(f"{path}: {os.path.getsize(path) / 1e6:.2f} MB{said}")


if __name__ == "__main__":
    main()
