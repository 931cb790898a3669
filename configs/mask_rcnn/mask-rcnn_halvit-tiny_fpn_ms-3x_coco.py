# 36 epochs (12 of the training set three times over), the shorter side between 640 and 800 pixels.
_base_ = ['mmdet::common/ms-poly_3x_coco-instance.py', '../_base_/models/mask-rcnn_halvit-tiny_fpn.py']

optim_wrapper = dict(
    optimizer=dict(_delete_=True, _scope_='mmdet', type='AdamW', lr=2e-4, weight_decay=1e-4),
    constructor='halvit_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.7, flat_decay_mult=0.0, custom_keys={'.pos_embed': dict(decay_mult=0.0)}),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3), num_classes=dict(_scope_='mmdet', type='NumClassCheckHook'))
custom_hooks = [dict(_scope_='mmdet', type='halvit_mm.PretrainedBackboneHook')]

# As many as a GPU has cores
workers = __import__('halvit_mm').loader_workers()
train_dataloader = dict(num_workers=workers)
val_dataloader = dict(num_workers=workers)
test_dataloader = dict(num_workers=workers)
