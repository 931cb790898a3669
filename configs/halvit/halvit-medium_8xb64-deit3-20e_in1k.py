# The end of DeiT III's recipe for HaLViT-M: from the weights that halvit-medium_8xb256-deit3-800e-192px_in1k.py has
# trained at 192 pixels to 224, with the values of the authors' command for ViT-B: AdamW, learning rate 1e-5 for 512
# images, weight decay 0.1, 20 epochs, RandAugment without random erasing, label smoothing of 0.1, the default sampler.
# With 1e-5 as the least rate too, theirs rises from 1e-6 in 5 epochs and stays. Not trained here.
_base_ = [
    '../_base_/models/halvit-tiny.py',
    '../_base_/datasets/imagenet_bs256_deit3_224.py',
    '../_base_/schedules/imagenet_bs1024_adamw_deit.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(arch='medium', layer_scale_init_value=1e-4, layer_cfgs=dict(drop_path_rate=0.2)),
    head=dict(in_channels=768),
)
load_from = 'work_dirs/halvit-medium_8xb256-deit3-800e-192px_in1k/epoch_800.pth'

mean = (104, 116, 124)  # of blue, green and red
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=mean, interpolation='bicubic'),
    ),
    dict(type='PackInputs'),
]
train_pipeline = [dict(_scope_='mmpretrain', **step) for step in train_pipeline]
train_dataloader = dict(
    batch_size=64,
    dataset=dict(pipeline=train_pipeline),
    sampler=dict(_delete_=True, _scope_='mmpretrain', type='DefaultSampler', shuffle=True),
)

optim_wrapper = dict(optimizer=dict(lr=1e-5, weight_decay=0.1))
param_scheduler = [
    dict(_scope_='mmpretrain', type='LinearLR', start_factor=0.1, by_epoch=True, end=5, convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=20)
auto_scale_lr = dict(base_batch_size=512)
