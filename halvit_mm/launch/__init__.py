"""From a command line to running ranks; upstream, which takes seconds to import, is imported when it is needed."""

from .tool import run_upstream_tool

__all__ = ['run_upstream_tool']
