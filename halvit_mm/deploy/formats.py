"""File formats of other runtimes: writing and running them."""

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from halvit_mm._torch import require
from halvit_mm.errors import UserError
from halvit_mm.io.weights import shared_matrices
from halvit_mm.layers import EncoderLayer

from .network import Network, drop_idle_parts, make_exportable

FORMATS = {
    '.onnx': 'ONNX',
    '.pt2': 'torch.export',
    '.pt': 'TorchScript',
    '.xml': 'OpenVINO',
}
PRECISIONS = ('fp32', 'fp16', 'int8')
Outputs = tuple[Tensor, ...]


def check_target(
    path: Path,
    precision: str,
    dynamic_batch: bool,
    dynamic_size: bool,
    external_data: bool,
    boxes: bool = False,
    attention: bool = False,
) -> None:
    """Refuse a file that cannot be written, before anything is computed.

    Arguments are those of :func:`write`, and of :func:`~halvit_mm.deploy.export.export`.

    Raises:
        UserError: If the suffix is unknown, if torch is too old for the format, if the format lacks the precision or
            its package, or if the folder cannot be written to.
    """
    if path.suffix not in FORMATS:
        known = ', '.join(f'{suffix} ({name})' for suffix, name in FORMATS.items())
        raise UserError(f'--out {path} is not a file of a known format; expected {known}')
    if path.suffix != '.pt':
        # torch 2.6 writes an ONNX graph of a fixed shape only, whatever it is asked for.
        open_onnx = path.suffix != '.pt2' and (dynamic_batch or dynamic_size)
        require('2.7' if open_onnx else '2.6', f'--out {path} ({FORMATS[path.suffix]})')
    if boxes and (path.suffix != '.onnx' or precision != 'fp32' or dynamic_batch or dynamic_size):
        raise UserError(
            '--boxes writes a file for one image of one size; expected .onnx and fp32, without --dynamic-batch and '
            '--dynamic-size'
        )
    if precision == 'int8' and path.suffix not in ('.onnx', '.xml'):
        raise UserError(
            f'--precision int8 is not a precision of {FORMATS[path.suffix]}; expected fp32 or fp16, or .onnx or .xml'
        )
    if dynamic_size and path.suffix == '.pt':
        raise UserError(
            '--dynamic-size: a TorchScript trace keeps the size of its example; write .onnx or .pt2 instead'
        )
    if external_data and path.suffix != '.onnx':
        raise UserError(f'--external-data is for ONNX files; {path} is not one')
    if path.suffix == '.xml':
        if attention:
            raise UserError(f'--out {path} is not a file that OpenVINO computes right with --attention; expected .onnx')
        for name, package in (('OpenVINO', 'openvino'), *([('NNCF', 'nncf')] if precision == 'int8' else [])):
            if find_spec(package) is None:
                raise UserError(f'--out {path}: {name} is not installed; pip install {package}')
    folder = path.parent
    if not folder.is_dir():
        raise UserError(f'--out {path}: folder {folder} does not exist')
    if path.is_dir():
        raise UserError(f'--out {path} is a folder')
    if not os.access(folder, os.W_OK):
        raise UserError(f'--out {path}: folder {folder} cannot be written to')


def check_network(network: Network, path: Path, precision: str, dynamic_batch: bool, dynamic_size: bool) -> None:
    """Refuse a file that would be wrong for this network. Arguments are those of :func:`write`.

    Raises:
        UserError: If the format cannot hold the network for open sizes, or its shared matrices in this precision.
    """
    if path.suffix == '.pt2' and dynamic_size and (size := _largest_window(network)):
        raise UserError(
            f'--dynamic-size: torch.export keeps the number of windows of its example, and this model has '
            f'window_size={size}; write .onnx instead'
        )
    if path.suffix == '.xml' and (precision == 'fp16' or dynamic_batch or dynamic_size) and shared_matrices(network):
        # Seen with OpenVINO 2026.4, whose own converter is right but writes each matrix twice.
        raise UserError(
            f'--out {path} is not a file that OpenVINO computes right in fp16, or with an open size, where a '
            'matrix is shared; expected fp32 or int8, and a fixed shape'
        )


def write(
    network: Network,
    example: Tensor,
    path: Path,
    precision: str = 'fp32',
    dynamic_batch: bool = False,
    dynamic_size: bool = False,
    external_data: bool = False,
    calibration: Tensor | None = None,
    metadata: Mapping[str, Any] = {},
) -> None:
    """Write a network in the format of the file's suffix.

    Args:
        network (Network): In single precision. It is changed: with ``'fp16'`` to half precision, to modules that
            compute the same, and to those that the outputs need; see
            :func:`~halvit_mm.deploy.network.make_exportable` and :func:`~halvit_mm.deploy.network.drop_idle_parts`.
        example (Tensor): Images, shape (B, C, H, W).
        path (Path): The file.
        precision (str): ``'fp32'``, ``'fp16'`` or ``'int8'``. Defaults to ``'fp32'``.
        dynamic_batch (bool): Whether the file takes any number of images. Defaults to False.
        dynamic_size (bool): Whether the file takes images of any size. Defaults to False.
        external_data (bool): Whether an ONNX graph's weights go into a file beside it. Defaults to False.
        calibration (Tensor, optional): Images whose activations set the ranges of ``'int8'``. Defaults to None.
        metadata (Mapping[str, Any]): Entries of an ONNX file's metadata. Defaults to none.
    """
    if path.suffix == '.xml':
        import openvino

        with tempfile.TemporaryDirectory() as folder:
            graph = Path(folder, 'graph.onnx')
            write(network, example, graph, 'fp32', dynamic_batch, dynamic_size)
            # convert_model would write the transpose of each matrix too.
            model = openvino.Core().read_model(graph)
            if precision == 'int8':
                model = _quantize_openvino(model, network, calibration)
            openvino.save_model(model, path, compress_to_fp16=precision == 'fp16')
        return
    drop_idle_parts(network, example)
    if precision == 'fp16':
        network.half()
    make_exportable(network, flat=path.suffix == '.onnx', open_size=dynamic_size)
    if path.suffix == '.onnx':
        from .onnx import move_weights_out, quantize, write_onnx

        write_onnx(network, example, path, dynamic_batch, dynamic_size, metadata)
        if precision == 'int8':
            quantize(path, path, calibration)
        if external_data:
            move_weights_out(path)
    elif path.suffix == '.pt2':
        open_dims = ([0] if dynamic_batch else []) + ([2, 3] if dynamic_size else [])
        dims = dict.fromkeys(open_dims, torch.export.Dim.DYNAMIC)
        torch.export.save(torch.export.export(network, (example,), dynamic_shapes=(dims,) if dims else None), path)
    else:
        torch.jit.trace(network, example, check_trace=False).save(path)


def _quantize_openvino(model: Any, network: Network, calibration: Tensor) -> Any:
    """Quantize an OpenVINO model with NNCF, which keeps one 8-bit copy of a shared matrix."""
    import nncf

    logging.getLogger('nncf').setLevel(logging.ERROR)
    transformer = any(isinstance(module, torch.nn.LayerNorm) for module in network.modules())
    images = nncf.Dataset(calibration.split(1), lambda image: image.numpy())
    with redirect_stdout(sys.stderr):
        return nncf.quantize(model, images, model_type=nncf.ModelType.TRANSFORMER if transformer else None)


def _largest_window(network: Network) -> int:
    return max((m.window_size for m in network.modules() if isinstance(m, EncoderLayer)), default=0)


def open_size(path: Path) -> str:
    """Say which sizes a file of torch.export takes, such as ``heights of 17 or more and widths of 17 or more``."""
    program = torch.export.load(path)
    [images] = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]

    def taken(size: torch.SymInt) -> str:
        limits = program.range_constraints[size.node.expr]
        return f'{limits.lower} or more' if limits.upper >= 2**31 else f'{limits.lower} to {limits.upper}'

    height, width = map(taken, images.meta['val'].shape[2:])
    return f'heights of {height} and widths of {width} pixels'


def read(path: Path) -> Callable[[Tensor], Outputs]:
    """Open a file of :func:`write` with its runtime.

    Returns:
        Callable[[Tensor], tuple[Tensor]]: Computes the outputs for images of shape (B, C, H, W).
    """
    if path.suffix == '.onnx':
        from .session import create_session

        session = create_session(path)
        return lambda images: tuple(map(torch.from_numpy, session.run(None, {'images': images.numpy()})))
    if path.suffix == '.xml':
        import openvino

        # By default OpenVINO computes in bfloat16 if the processor can.
        compiled = openvino.compile_model(path, 'CPU', dict(INFERENCE_PRECISION_HINT='f32'))
        return lambda images: tuple(torch.from_numpy(out) for out in compiled(images.numpy()).values())
    module = torch.export.load(path).module() if path.suffix == '.pt2' else torch.jit.load(path)

    def run(images: Tensor) -> Outputs:
        with torch.no_grad():
            return tuple(module(images))

    return run
