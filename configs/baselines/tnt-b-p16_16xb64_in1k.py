_base_ = 'tnt-s-p16_16xb64_in1k.py'

model = dict(backbone=dict(arch='b'), head=dict(in_channels=640))
