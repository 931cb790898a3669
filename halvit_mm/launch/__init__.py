"""From a command line to running ranks. The hosts take seconds to import, so nothing here does before it is needed."""

from .tool import run_host_tool

__all__ = ['run_host_tool']
