"""ONNX files that hold each shared matrix once."""

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.numpy_helper import from_array, to_array
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from torch import Tensor

from .detector import DetectorNetwork, onnx_translations
from .network import Network

# The first with GELU as an operator
OPSET = 20


def write_onnx(
    network: Network,
    images: Tensor,
    path: Path,
    dynamic_batch: bool = False,
    dynamic_size: bool = False,
    metadata: Mapping[str, Any] = {},
) -> None:
    """Write a network as an ONNX graph with one initializer for each parameter.

    The tied layers multiply tokens in two dimensions, so that each of their products becomes a Gemm. Transposition is
    an attribute of the Gemm, and W itself is the operand with and without it.

    Args:
        network (Network): The network. The file has its precision; inputs and outputs are in single precision.
        images (Tensor): An example, shape (B, C, H, W).
        path, dynamic_batch, dynamic_size: As in :func:`~halvit_mm.deploy.formats.write`.
        metadata (Mapping[str, Any]): Entries of the file's metadata, each kept as JSON. Defaults to none.
    """
    dims = {0: 'batch'} if dynamic_batch else {}
    if dynamic_size:
        dims |= {2: 'height', 3: 'width'}
    with _quiet():
        program = torch.onnx.export(
            network,
            (images,),
            input_names=['images'],
            output_names=network.output_names(images),
            opset_version=OPSET,
            dynamic_shapes=(dims,) if dims else None,
            dynamo=True,
            custom_translation_table=onnx_translations() if isinstance(network, DetectorNetwork) else None,
            verbose=False,
        )
    model = program.model_proto
    _split_biases(model.graph)
    _strip(model)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    onnx.save(model, path)


def _split_biases(graph: onnx.GraphProto) -> None:
    """Split the biases of query, key and value, which the exporter leaves to the runtime; parts may differ in size."""
    values = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == 'Split']:
        bias, *sizes = map(values.get, node.input)
        if bias is None or len(bias.dims) != 1 or None in sizes:
            continue
        parts = len(node.output)
        length = -(-bias.dims[0] // parts)  # of equal parts, of which the last may be shorter
        ends = np.cumsum(to_array(sizes[0])) if sizes else length * np.arange(1, parts + 1)
        for name, part in zip(node.output, np.split(to_array(bias), ends[:-1]), strict=True):
            graph.initializer.append(from_array(part, name))
        graph.node.remove(node)
        if not any(bias.name in other.input for other in graph.node):
            graph.initializer.remove(bias)


def _strip(model: onnx.ModelProto) -> None:
    """Remove the stack trace that the exporter keeps for each node, and the shapes that a runtime infers itself."""
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer, *model.graph.input):
        part.ClearField('metadata_props')
    model.graph.ClearField('value_info')
    for node in model.graph.node:
        node.ClearField('doc_string')


@contextmanager
def _quiet() -> Iterator[None]:
    """Show only errors of torch's exporter and of onnxscript, which log each operator and each constant."""
    loggers = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript', 'onnx_ir', None)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _Images(CalibrationDataReader):
    def __init__(self, images: Iterable[Tensor]) -> None:
        self._batches = ({'images': image[None].numpy()} for image in images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def quantize(source: Path, path: Path, images: Tensor) -> None:
    """Turn the matrix products and convolutions of a graph into 8-bit ones with ONNX Runtime's quantizer.

    A shared matrix is quantized once, with one scale for the whole matrix, since its rows are the columns of its
    transpose. Activations are unsigned, in ranges measured on images.

    Args:
        source (Path): From :func:`write_onnx`, in single precision.
        path (Path): The file to write.
        images (Tensor): Images to calibrate with, shape (N, C, H, W).
    """
    graph = onnx.load(source).graph
    # The first layer reads pixels; its quantization costs more accuracy than that of all other layers together.
    first = [node.name for node in graph.node if graph.input[0].name in node.input]
    with _quiet(), redirect_stdout(sys.stderr):
        quantize_static(
            source,
            path,
            _Images(images),
            op_types_to_quantize=['Gemm', 'MatMul', 'Conv', 'ConvTranspose'],
            nodes_to_exclude=first,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options=dict(
                WeightSymmetric=True,
                MatMulConstBOnly=True,  # leaves out attention's products, whose factors are both computed
                OpTypesToExcludeOutputQuantization=['Gemm', 'MatMul'],
            ),
        )


def move_weights_out(path: Path) -> None:
    """Move the weights of a graph to the file ``path`` + ``.data`` beside it, which ONNX Runtime maps."""
    location = path.name + '.data'
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=location, size_threshold=1024)
