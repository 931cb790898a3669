# 8 GPUs x 32 images = the 256 that the learning rate is for; with other numbers use --auto-scale-lr.
_base_ = [
    '../_base_/models/resnet50-pe1.py',
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    '../_base_/schedules/imagenet_bs256_sgd_90e.py',
    '../_base_/default_runtime.py',
]
