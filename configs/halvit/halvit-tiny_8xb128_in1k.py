# 8 GPUs x 128 images = the 1024 that the learning rate is for; with other numbers use --auto-scale-lr.
_base_ = [
    '../_base_/models/halvit-tiny.py',
    '../_base_/datasets/imagenet_bs128_deit_224.py',
    '../_base_/schedules/imagenet_bs1024_adamw_deit.py',
    '../_base_/default_runtime.py',
]
