# ImageNet-1k as DeiT is trained on it (arXiv 2012.12877): mmpretrain's pipelines hold DeiT's crops, RandAugment
# (rand-m9-mstd0.5-inc1) and random erasing (0.25); repeated augmentation is added here.
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'

# As many as a GPU has cores
workers = __import__('halvit_mm').loader_workers()
train_dataloader = dict(
    batch_size=128,
    num_workers=workers,
    sampler=dict(_delete_=True, _scope_='mmpretrain', type='RepeatAugSampler', num_repeats=3),
)
val_dataloader = dict(batch_size=128, num_workers=workers)
test_dataloader = dict(batch_size=128, num_workers=workers)
