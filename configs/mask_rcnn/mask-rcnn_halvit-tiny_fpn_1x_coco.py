_base_ = [
    '../_base_/models/mask-rcnn_halvit-tiny_fpn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_adamw-layer-decay_1x.py',
    '../_base_/coco_runtime.py',
]
