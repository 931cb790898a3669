_base_ = 'resnet50-pe2_8xb32_in1k.py'

model = dict(backbone=dict(depth=101))
