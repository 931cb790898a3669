"""ONNX Runtime sessions that keep what the file saves."""

import os

import onnxruntime as ort

from halvit_mm.errors import UserError

# ONNX Runtime's names of transformations that write a shared matrix out anew for each of its uses
UNSHARING = ['ConvBNFusion', 'ConvMulFusion', 'ConvAddFusion', 'ConstantFolding']


def create_session(
    path: str | os.PathLike,
    prefer: str = 'memory',
    threads: int | None = None,
    provider: str = 'CPUExecutionProvider',
) -> ort.InferenceSession:
    """Open an ONNX file in ONNX Runtime.

    By default ONNX Runtime repacks the weights of every product when it loads a file, and a matrix that is used on two
    ways is packed twice: of half the weights nothing is left. What that costs and saves is measured in
    ``docs/deploy.md``.

    Args:
        path (str or PathLike): The file.
        prefer (str): ``'memory'``: weights are used as they lie in the file, and are mapped from it where
            they have a file of their own; ``'time'``: they are packed in advance. Defaults to ``'memory'``.
        threads (int, optional): Threads within an operator. Defaults to None, which leaves it to ONNX Runtime: one for
            each core.
        provider (str): ONNX Runtime's execution provider. Defaults to ``'CPUExecutionProvider'``.

    Returns:
        onnxruntime.InferenceSession: The session.

    Raises:
        UserError: If there is no such file, if it is no ONNX graph, if ``prefer`` is unknown, or if this build of ONNX
            Runtime lacks the provider.
    """
    if prefer not in ('memory', 'time'):
        raise UserError(f"prefer={prefer!r} is unknown; choose from 'memory', 'time'")
    if provider not in (available := ort.get_available_providers()):
        raise UserError(f'provider {provider} is not in this build of ONNX Runtime; it has {", ".join(available)}')
    if not os.path.isfile(path):
        raise UserError(f'{path} does not exist')
    options = ort.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    disabled = []
    if prefer == 'memory':
        options.add_session_config_entry('session.disable_prepacking', '1')
        options.enable_mem_pattern = False
        disabled = UNSHARING
    try:
        return ort.InferenceSession(path, options, providers=[provider], disabled_optimizers=disabled)
    except Exception as error:
        raise UserError(f'ONNX Runtime cannot open {path}: {" ".join(str(error).split())[:300]}') from error
