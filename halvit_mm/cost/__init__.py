from .count import count_macs, count_parameters
from .measure import PRECISIONS, inference, keep_freed_memory, time_interleaved, training_step
from .profile import profile_run
from .samples import input_channels, is_detector, is_segmentor
from .storage import activation_bytes, storage_bytes, training_bytes, weight_file_bytes

__all__ = [
    'PRECISIONS',
    'activation_bytes',
    'count_macs',
    'count_parameters',
    'inference',
    'input_channels',
    'is_detector',
    'is_segmentor',
    'keep_freed_memory',
    'profile_run',
    'storage_bytes',
    'time_interleaved',
    'training_bytes',
    'training_step',
    'weight_file_bytes',
]
