"""Run a config with the hosts' own tools."""

import gc
import sys

from torch import distributed as dist

from halvit_mm.errors import told_in_one_line
from halvit_mm.io.configs import load_config

from .checks import check_run, load_host_tool, parse_tool_args


def run_host_tool(tool: str, argv: list[str] | None = None) -> None:
    """Run a config with the host's own tool, its command line and :class:`halvit_mm.train.ResumableRunner`.

    The host is the config's ``default_scope``; its tool is the file that its package carries for mim.

    Args:
        tool (str): ``'train'`` or ``'test'``.
        argv (list[str], optional): Arguments of the tool. Defaults to those of the process.
    """
    argv = sys.argv[1:] if argv is None else argv
    with told_in_one_line():
        args = parse_tool_args(tool, argv)
        cfg = load_config(args.config, args.cfg_options)
        check_run(cfg, tool, args)
        from halvit_mm.io.checkpoints import read_only_data
        from halvit_mm.train import ResumableRunner  # and the hosts with it

        read_only_data(trust=args.trust_checkpoint)
        module = load_host_tool(cfg.get('default_scope', 'mmpretrain'), tool)
        module.Runner = ResumableRunner
        sys.argv[1:] = [word for word in argv if word != '--trust-checkpoint']
        module.main()
    if dist.is_initialized():
        # A thread of gloo's that is still busy as the interpreter ends aborts a rank that has done its work. The group
        # joins its threads, but not before the runner is gone, whose model holds it.
        gc.collect()
        dist.destroy_process_group()
