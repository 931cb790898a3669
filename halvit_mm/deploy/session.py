"""ONNX Runtime sessions that hold each shared matrix once."""

import os

from halvit_mm.errors import UserError

# ONNX Runtime's transformations that copy a shared matrix for each of its uses
UNSHARING = ['ConvBNFusion', 'ConvMulFusion', 'ConvAddFusion', 'ConstantFolding']


def create_session(
    path: str | os.PathLike,
    prefer: str = 'memory',
    threads: int | None = None,
    provider: str = 'CPUExecutionProvider',
) -> 'onnxruntime.InferenceSession':  # noqa: F821
    """Open an ONNX file in ONNX Runtime.

    By default ONNX Runtime repacks the weights of every product when it loads a file. A shared matrix is then packed
    twice, which takes the memory of an untied model. ``docs/formats.md`` has measurements.

    Args:
        path (str or PathLike): The file.
        prefer (str): ``'memory'`` uses the weights as they lie in the file, and maps them if they have a file of their
            own; ``'time'`` packs them in advance. Defaults to ``'memory'``.
        threads (int, optional): Threads within an operator. Defaults to None, which is one for each core.
        provider (str): ONNX Runtime's execution provider. Defaults to ``'CPUExecutionProvider'``.

    Returns:
        onnxruntime.InferenceSession: The session.

    Raises:
        UserError: If the file does not exist or is not an ONNX graph, if ``prefer`` is unknown, or if this build of
            ONNX Runtime lacks the provider.
    """
    import onnxruntime as ort  # of the extra 'export'

    if prefer not in ('memory', 'time'):
        raise UserError(f"prefer={prefer!r} is not a preference; expected 'memory' or 'time'")
    if provider not in (available := ort.get_available_providers()):
        raise UserError(f'provider {provider} is not in this build of ONNX Runtime; it has {", ".join(available)}')
    if not os.path.isfile(path):
        raise UserError(f'{path} does not exist')
    options = ort.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    if prefer == 'memory':
        options.add_session_config_entry('session.disable_prepacking', '1')
        options.add_session_config_entry('optimization.disable_specified_optimizers', ';'.join(UNSHARING))
        options.enable_mem_pattern = False
    try:
        return ort.InferenceSession(path, options, providers=[provider])
    except Exception as error:
        raise UserError(f'ONNX Runtime cannot open {path}: {" ".join(str(error).split())[:300]}') from error
