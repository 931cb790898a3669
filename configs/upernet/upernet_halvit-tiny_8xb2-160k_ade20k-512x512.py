_base_ = [
    '../_base_/models/upernet_halvit-tiny.py',
    '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/ade20k_adamw_160k.py',
    '../_base_/segmentation_runtime.py',
]
