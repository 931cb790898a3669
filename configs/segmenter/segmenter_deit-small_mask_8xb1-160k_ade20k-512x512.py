_base_ = 'segmenter_halvit-tiny_mask_8xb1-160k_ade20k-512x512.py'

model = dict(backbone=dict(tie='none'))
