# ResNeXt-50 32x4d with one matrix for both 1x1 convolutions of a bottleneck, but a stage's first. Not trained here.
_base_ = 'mmpretrain::resnext/resnext50-32x4d_8xb32_in1k.py'

model = dict(backbone=dict(type='halvit_mm.TiedModel', of='ResNeXt'))
