_base_ = 'mmpretrain::_base_/models/resnet50.py'

model = dict(backbone=dict(type='halvit_mm.SharedStageResNet', shared_stages=(0, 1, 2, 3)))
