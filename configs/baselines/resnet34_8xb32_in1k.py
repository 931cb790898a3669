_base_ = 'mmpretrain::resnet/resnet34_8xb32_in1k.py'
