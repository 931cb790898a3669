from .replace import tie_model

__all__ = ['tie_model']
