from .digits import write_digits

__all__ = ['write_digits']
