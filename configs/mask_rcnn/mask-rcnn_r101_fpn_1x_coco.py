_base_ = 'mmdet::mask_rcnn/mask-rcnn_r101_fpn_1x_coco.py'

default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
