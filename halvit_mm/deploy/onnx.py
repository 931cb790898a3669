"""ONNX files in which each shared matrix is there once."""

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

from .network import Network

# The first with GELU as an operator
OPSET = 20


def write_onnx(
    network: Network,
    images: Tensor,
    path: Path,
    dynamic_batch: bool = False,
    dynamic_size: bool = False,
    facts: Mapping[str, Any] = {},
) -> None:
    """Write a network as an ONNX graph with one initializer for each parameter.

    The tied layers multiply tokens in two dimensions, so each of their products becomes a Gemm whose transposition is
    an attribute, and W itself is the operand on both ways.

    Args:
        network (Network): The network; in half precision the file is too, with inputs and outputs in single.
        images (Tensor): An example, shape (B, 3, H, W).
        path (Path): The file.
        dynamic_batch (bool): Whether the graph takes any number of images. Defaults to False.
        dynamic_size (bool): Whether it takes images of any height and width. Defaults to False.
        facts (Mapping[str, Any]): Kept in the file's metadata, each as JSON. Defaults to none.
    """
    dims = {0: 'batch'} if dynamic_batch else {}
    if dynamic_size:
        dims |= {2: 'height', 3: 'width'}
    with _quiet():
        program = torch.onnx.export(
            network,
            (images,),
            input_names=['images'],
            output_names=network.output_names,
            opset_version=OPSET,
            dynamic_shapes=(dims,) if dims else None,
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    _split_biases(model.graph)
    _strip(model)
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    onnx.save(model, path)


def _split_biases(graph: onnx.GraphProto) -> None:
    """Split the biases of a tied layer's query, key and value, which the exporter leaves to the runtime."""
    values = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == 'Split']:
        bias = values.get(node.input[0])
        if bias is None or len(bias.dims) != 1:
            continue
        for name, part in zip(node.output, np.split(to_array(bias), len(node.output)), strict=True):
            graph.initializer.append(from_array(part, name))
        graph.node.remove(node)
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
    """Keep to errors what torch's exporter and onnxscript say of each operator and each constant."""
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
    """Turn the matrix products and convolutions of a graph into 8-bit ones, with ONNX Runtime's own quantizer.

    A shared matrix is quantized once: with one scale for all of it, since what are rows on the way in are columns on
    the way out. Activations have 8 bits without a sign, in ranges that images show.

    Args:
        source (Path): From :func:`write_onnx`, in single precision.
        path (Path): The file to write.
        images (Tensor): Images to calibrate with, shape (N, 3, H, W).
    """
    graph = onnx.load(source).graph
    # The first layer sees raw pixels, and 8 bits of them cost more than all others together.
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
                MatMulConstBOnly=True,  # of the attention's products, whose factors are both computed, none
                OpTypesToExcludeOutputQuantization=['Gemm', 'MatMul'],
            ),
        )


def move_weights_out(path: Path) -> Path:
    """Put the weights of a graph into a file of their own, which ONNX Runtime maps instead of reading.

    Args:
        path (Path): The graph's file, which is written anew.

    Returns:
        Path: The file of weights, ``path`` with ``.data`` behind; it must stay beside the graph.
    """
    data = path.with_name(path.name + '.data')
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=data.name, size_threshold=1024)
    return data


def initializer_bytes(path: Path) -> int:
    """Bytes of a graph's initializers, each counted once however often it is used.

    Args:
        path (Path): An ONNX file.

    Returns:
        int: The bytes.
    """
    return sum(to_array(tensor).nbytes for tensor in onnx.load(path).graph.initializer)
