"""Command lines of upstream's tools, read by upstream's parsers."""

import argparse
import importlib.util
import io
import os
import sys
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from mmengine.config import Config

from halvit_mm._upstream import UPSTREAM, config_path
from halvit_mm.errors import DEBUG, UserError, did_you_mean
from halvit_mm.io.configs import load_config, not_an_option, scope_of, words_after

# In the order in which their parsers are tried; mmseg's know no option that these do not.
PARSERS = UPSTREAM[:2]
HELP = f"""
of halvit_mm:
  --trust-checkpoint    load and execute a checkpoint that carries code

environment:
  {DEBUG}=1     print the traceback of an error, not only its line

example:
  """
EXAMPLES = dict(
    train='python tools/train.py configs/digits/halvit_2xb64_digits.py --work-dir work_dirs/digits '
    '--cfg-options train_cfg.max_epochs=10',
    test='python tools/test.py configs/digits/halvit_2xb64_digits.py work_dirs/digits/epoch_10.pth',
)


@dataclass
class Command:
    """A parsed command line.

    Attributes:
        upstream (ModuleType): The tool of the package that the config belongs to.
        argv (list[str]): Arguments for that tool.
        args (argparse.Namespace): The parsed arguments, and ``trust_checkpoint``.
        cfg (Config): The config, with the options of the command line merged.
    """

    upstream: ModuleType
    argv: list[str]
    args: argparse.Namespace
    cfg: Config


def parse_command(tool: str, argv: list[str]) -> Command:
    """Parse the arguments of upstream's tool, and read the config that they name.

    The first parser that accepts the arguments finds the config. The parser of the config's ``default_scope`` then
    reads the arguments.

    Args:
        tool (str): ``'train'`` or ``'test'``.
        argv (list[str]): All arguments of the tool; ``--trust-checkpoint`` is this package's. The config is a file, or
            ``package::path`` for one that an installed package carries.

    Returns:
        Command: The command; its config is a file.

    Raises:
        SystemExit: If the parser refuses the arguments (exit code 2), or if they ask for help (exit code 0).
        UserError: If the config does not exist, or if its ``default_scope`` is not a package with such a tool.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--trust-checkpoint', action='store_true')
    trust, argv = parser.parse_known_args(argv)
    package, args = _parse_first(tool, argv)
    if '::' in args.config:
        given, (scope, _, name) = args.config, args.config.partition('::')
        args.config = config_path(name, scope)
        argv = [args.config if word == given else word for word in argv]
    cfg = load_config(args.config, args.cfg_options)
    scope = scope_of(cfg)
    upstream = load_upstream_tool(scope, tool)
    if scope != package:
        args = _parse(upstream, tool, argv)
    if isinstance(getattr(args, 'resume', None), bool):  # mmseg's option takes no file
        args.resume = 'auto' if args.resume else None
    args.trust_checkpoint = trust.trust_checkpoint
    return Command(upstream, argv, args, cfg)


def load_upstream_tool(package: str, tool: str) -> ModuleType:
    """Import ``tools/train.py`` or ``tools/test.py`` from the files that mmpretrain, mmdet or mmseg carries for mim.

    Raises:
        UserError: If the package is not installed, or if it carries no such tool.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        hint = did_you_mean(package, UPSTREAM) or f'expected {" or ".join(UPSTREAM)}'
        raise UserError(
            f'default_scope={package!r} is not an installed package; {hint} '
            '(python -m halvit_mm.check_env tells what is installed)'
        )
    path = Path(spec.origin).parent / '.mim' / 'tools' / f'{tool}.py'
    if package == 'halvit_mm' or not path.is_file():
        raise UserError(
            f'default_scope={package!r} is not a package that carries an upstream .mim/tools/{tool}.py; expected '
            f'{" or ".join(UPSTREAM)}, installed as a wheel or with mim'
        )
    spec = importlib.util.spec_from_file_location(f'{package}_{tool}_tool', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _parse_first(tool: str, argv: list[str]) -> tuple[str, argparse.Namespace]:
    """The first package whose parser accepts the arguments, and the parsed arguments; exits with the first refusal."""
    refusals = []
    for package in [name for name in PARSERS if importlib.util.find_spec(name)] or PARSERS[:1]:
        upstream = load_upstream_tool(package, tool)
        try:
            with redirect_stderr(io.StringIO()) as errors:
                return package, _parse(upstream, tool, argv)
        except SystemExit as end:
            if not end.code:
                print(HELP + EXAMPLES[tool])
                raise
            refusals.append(errors.getvalue())
    sys.stderr.write(refusals[0])
    sys.exit(2)


def _parse(upstream: ModuleType, tool: str, argv: list[str]) -> argparse.Namespace:
    """Call ``parse_args``, which reads ``sys.argv`` and sets ``LOCAL_RANK``, and restore both."""
    process_argv, local_rank = sys.argv, os.environ.get('LOCAL_RANK')
    sys.argv = [f'{tool}.py', *argv]
    try:
        return upstream.parse_args()
    except (ValueError, AssertionError) as error:
        raise UserError(not_an_option(words_after(argv, '--cfg-options'))) from error
    finally:
        sys.argv = process_argv
        if local_rank is None:
            os.environ.pop('LOCAL_RANK', None)
