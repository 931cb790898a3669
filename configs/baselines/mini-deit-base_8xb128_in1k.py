# With stochastic depth, as its authors train it
_base_ = 'mini-deit-small_8xb128_in1k.py'

model = dict(backbone=dict(arch='deit-base', drop_path_rate=0.1), head=dict(in_channels=768))
