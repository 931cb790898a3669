from .count import count_macs, count_parameters
from .measure import inference, ratios_to_first, time_interleaved, training_step

__all__ = [
    'count_macs',
    'count_parameters',
    'inference',
    'ratios_to_first',
    'time_interleaved',
    'training_step',
]
