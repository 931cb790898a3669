# mmpretrain's own recipe of DeiT-B, which brings DeiT-B to 81.76 there, as it stands for HaLViT-M: as that of DeiT-S
# (halvit-tiny_4xb256-mmpretrain_in1k.py), with stochastic depth 0.1 and an average of the weights over time. Its untied
# counterpart is configs/baselines/deit-base_16xb64_in1k.py. Not trained here.
_base_ = 'mmpretrain::deit/deit-base_16xb64_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True,
        _scope_='mmpretrain',
        type='halvit_mm.HaLViT',
        arch='medium',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
    )
)
runner_type = 'halvit_mm.ResumableRunner'
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
