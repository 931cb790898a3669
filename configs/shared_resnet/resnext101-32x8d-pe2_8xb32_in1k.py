_base_ = 'resnet101-pe2_8xb32_in1k.py'

model = dict(backbone=dict(groups=32, width_per_group=8))
