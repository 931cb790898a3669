from .digits import split_digits, write_digits
from .digits_coco import write_digits_coco, write_single_digits

__all__ = ['split_digits', 'write_digits', 'write_digits_coco', 'write_single_digits']
