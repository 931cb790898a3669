_base_ = 'resnet50-pe1_8xb32_in1k.py'

model = dict(backbone=dict(shared_stages=(2, 3)))
