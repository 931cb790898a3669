import logging
import os

import pytest
import torch

# What is compiled is compiled anew: the cache on disk does not tell one attention backend from another.
os.environ['TORCHINDUCTOR_FORCE_DISABLE_CACHES'] = '1'


@pytest.fixture(autouse=True)
def _quiet_and_repeatable():
    """Two workers share two cores; mmengine's reports on initialization would fill the log of a failure."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)
    torch.compiler.reset()
