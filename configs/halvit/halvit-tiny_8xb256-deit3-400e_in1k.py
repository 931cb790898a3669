# The recipe of DeiT III (arXiv 2204.07118) for the HaLViT of DeiT-S's shape; its untied counterpart is trained with
# model.backbone.tie=none. The class token has a position embedding, which DeiT III's has not.
_base_ = [
    '../_base_/models/halvit-tiny.py',
    '../_base_/datasets/imagenet_bs256_deit3_224.py',
    '../_base_/schedules/imagenet_bs2048_lamb_deit3.py',
    '../_base_/default_runtime.py',
]

model = dict(
    # The same stochastic depth in all layers
    backbone=dict(layer_scale_init_value=1e-4, layer_cfgs=dict(drop_path_rate=0.05)),
    # Binary cross-entropy, averaged over the 1,000 classes too; both classes of a mixed image have the target 1.
    head=dict(
        loss=dict(
            _delete_=True,
            type='LabelSmoothLoss',
            mode='multi_label',
            label_smooth_val=0.0,
            use_sigmoid=True,
            loss_weight=1e-3,
        )
    ),
)
