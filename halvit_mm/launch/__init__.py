"""From a command line to running ranks. Upstream takes seconds to import, so nothing here does before it is needed."""

from .tool import run_upstream_tool

__all__ = ['run_upstream_tool']
