_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        _scope_='mmdet',
        type='halvit_mm.SharedStageResNet',
        depth=50,
        shared_stages=(0, 1, 2, 3),
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_eval=True,
    )
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
custom_hooks = [dict(_scope_='mmdet', type='halvit_mm.PretrainedBackboneHook')]

# As many as a GPU has cores
workers = __import__('halvit_mm').loader_workers()
train_dataloader = dict(num_workers=workers)
val_dataloader = dict(num_workers=workers)
test_dataloader = dict(num_workers=workers)
