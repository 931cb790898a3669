from .digits import split_digits, write_digits
from .digits_coco import write_digits_coco, write_single_digits
from .digits_seg import write_digits_seg

__all__ = ['split_digits', 'write_digits', 'write_digits_coco', 'write_digits_seg', 'write_single_digits']
