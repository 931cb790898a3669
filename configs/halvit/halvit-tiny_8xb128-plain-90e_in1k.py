# The recipe of the plain ViT (Better plain ViT baselines for ImageNet-1k, arXiv 2205.01580) for HaLViT-Tiny, which has
# ViT-S/16's shape: no class token, dropout or stochastic depth; Mixup 0.2; the mean of the patches, one linear layer,
# which the paper finds as good as a tanh layer in front. Departures: the position embedding is learned, not of sines
# and cosines; the mean of the patches is normalized, not the patches; all training images are used, not 99 % of them.
# The untied counterpart: model.backbone.tie=none. Not trained here.
_base_ = [
    '../_base_/models/halvit-tiny.py',
    '../_base_/datasets/imagenet_bs128_plain-vit_224.py',
    '../_base_/schedules/imagenet_bs1024_adamw_plain-vit.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(drop_path_rate=0.0, with_cls_token=False, out_type='avg_featmap', final_norm=False),
    head=dict(loss=dict(_delete_=True, type='CrossEntropyLoss', use_soft=True)),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.2)]),
)
