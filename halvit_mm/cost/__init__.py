from .count import count_parameters

__all__ = ['count_parameters']
