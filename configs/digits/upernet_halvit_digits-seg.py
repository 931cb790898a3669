# UPerNet on handwritten digits for two CPU ranks. The backbone has learned to classify them before:
# halvit_2xb16_digits-single.py. Its untied counterpart: --cfg-options model.backbone.tie=none, in both.
_base_ = [
    '../_base_/datasets/digits-seg_bs8_64.py',
    '../_base_/schedules/digits-seg_adamw_1200.py',
    '../_base_/segmentation_runtime.py',
]

model = dict(
    _scope_='mmseg',
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[78.0, 78.0, 78.0],
        std=[72.0, 72.0, 72.0],
        bgr_to_rgb=True,
        seg_pad_val=255,
        size=(64, 64),
    ),
    backbone=dict(
        type='halvit_mm.HaLViT',
        arch=dict(embed_dims=96, num_layers=6, num_heads=3, feedforward_channels=384),
        img_size=64,
        patch_size=8,
        out_type='featmap',
        out_indices=(1, 3, 5),
        with_cls_token=False,
        final_norm=False,
    ),
    neck=dict(type='halvit_mm.ViTPyramid', in_channels=96, in_stride=8, out_strides=(2, 4, 8)),
    decode_head=dict(
        type='UPerHead',
        in_channels=[96] * 3,
        in_index=[0, 1, 2],
        pool_scales=(1, 2, 4),
        channels=32,
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=dict(type='BN'),
        align_corners=False,
        # Four of five pixels are background, and without weights the training stays at predicting nothing else.
        loss_decode=dict(type='CrossEntropyLoss', class_weight=[0.1] + [1.0] * 10),
    ),
    test_cfg=dict(mode='whole'),
)

default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=600))
randomness = dict(seed=0)
