# The recipe of DeiT III (arXiv 2204.07118) for HaLViT-M, which has the shape of ViT-B, with the values of the authors'
# command for ViT-B (facebookresearch/deit, README_revenge.md): learning rate 3e-3, stochastic depth 0.2, 800 epochs at
# 192 pixels; halvit-medium_8xb64-deit3-20e_in1k.py then goes to 224. The untied counterpart: model.backbone.tie=none.
# The class token has a position embedding, which DeiT III's has not. Not trained here.
_base_ = [
    '../_base_/models/halvit-tiny.py',
    '../_base_/datasets/imagenet_bs256_deit3_192.py',
    '../_base_/schedules/imagenet_bs2048_lamb_deit3.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(arch='medium', img_size=192, layer_scale_init_value=1e-4, layer_cfgs=dict(drop_path_rate=0.2)),
    # Binary cross-entropy, averaged over the 1,000 classes too; both classes of a mixed image have the target 1.
    head=dict(
        in_channels=768,
        loss=dict(
            _delete_=True,
            type='LabelSmoothLoss',
            mode='multi_label',
            label_smooth_val=0.0,
            use_sigmoid=True,
            loss_weight=1e-3,
        ),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=3e-3))
# From 1e-6
param_scheduler = [
    dict(
        _scope_='mmpretrain', type='LinearLR', start_factor=1 / 3000, by_epoch=True, end=5, convert_to_iter_based=True
    ),
    dict(_scope_='mmpretrain', type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=5),
]
train_cfg = dict(max_epochs=800)
