_base_ = 'mmpretrain::resnet/resnet101_8xb32_in1k.py'
