_base_ = 'mask-rcnn_halvit-medium_fpn_1x_coco.py'

model = dict(backbone=dict(tie='none'))
