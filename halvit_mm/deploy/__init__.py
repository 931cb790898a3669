"""Taking a trained model to a file and to a running session that are half as large."""

from .formats import FORMATS, PRECISIONS
from .session import create_session

__all__ = ['FORMATS', 'PRECISIONS', 'create_session']
