import gc
import sys

from mmengine.registry import RUNNERS
from torch import distributed as dist

from halvit_mm.errors import errors_in_one_line

from .command import parse_command


def run_upstream_tool(tool: str, argv: list[str] | None = None) -> None:
    """Run a config with upstream's tool and its command line.

    The package of the config's ``default_scope`` carries the tool for mim. The runner is the config's ``runner_type``,
    or :class:`halvit_mm.train.ResumableRunner` if the config names none.

    Args:
        tool (str): ``'train'`` or ``'test'``.
        argv (list[str], optional): Arguments of the tool. Defaults to those of the process.
    """
    from .checks import check_run  # imports mmcv, which the process that starts ranks does without
    from .config import OUR_RUNNER

    with errors_in_one_line():
        command = parse_command(tool, sys.argv[1:] if argv is None else argv)
        check_run(command.cfg, tool, command.args)
        from halvit_mm.io.checkpoints import read_only_data  # imports torch's serialization and mmengine's runner

        read_only_data(trust=command.args.trust_checkpoint)
        sys.argv[1:] = command.argv
        if 'runner_type' not in command.cfg:
            # With `=` the option takes one value, whatever follows; upstream's parser adds the user's pairs.
            sys.argv.insert(1, f'--cfg-options=runner_type={OUR_RUNNER}')
        if not hasattr(command.upstream, 'RUNNERS'):
            # mmseg's test tool, whose copy here is ours alone, asks for mmengine's runner, whatever runner_type says.
            command.upstream.Runner = RUNNERS.get(command.cfg.get('runner_type', OUR_RUNNER))
        command.upstream.main()
    if dist.is_initialized():
        # A gloo thread that is busy when the interpreter ends aborts a rank that has finished. Destroying the group
        # joins its threads, but only after the runner is collected, whose model holds the group.
        gc.collect()
        dist.destroy_process_group()
