# HaLViT-Tiny from a trained DeiT-S in 30 epochs, with the DeiT-S as teacher; see docs/warm_start.md. Not trained here.
# deit-small.pth is the trained DeiT-S, and tied-deit-small.pth what tools/tie_checkpoint.py makes of it.
_base_ = '../halvit/halvit-tiny_8xb128_in1k.py'

model = dict(
    type='halvit_mm.DistilledClassifier',
    teacher='mmpretrain::deit/deit-small_4xb256_in1k.py',
    teacher_checkpoint='deit-small.pth',
    label=0.0,
    soft=1.0,
    temperature=2.0,
    feature=1.0,
    feature_layers=[f'backbone.layers.{i}' for i in range(12)],
)
load_from = 'tied-deit-small.pth'

param_scheduler = [
    dict(_scope_='mmpretrain', type='LinearLR', start_factor=1e-2, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(
        _scope_='mmpretrain', type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, convert_to_iter_based=True
    ),
]
train_cfg = dict(max_epochs=30)
