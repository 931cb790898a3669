import sys

from tests.utils import ROOT

# As the scripts there find one another
sys.path.insert(0, str(ROOT / 'research'))
