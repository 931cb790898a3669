"""Exported files and ONNX Runtime sessions that hold each shared matrix once; publishing; inference."""

from .session import create_session

__all__ = ['create_session']
