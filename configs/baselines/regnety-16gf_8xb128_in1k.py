# RegNetY-16GF (arXiv 2003.13678), the teacher of DeiT and Mini-DeiT, from timm: mmpretrain's RegNet is the X family.
# Its weights: timm's regnety_160.deit_in1k, or DeiT's own regnety_160-a5fe301d.pth. The recipe here is DeiT's.
_base_ = 'pvt-v2-b2-li_8xb128_in1k.py'

model = dict(model_name='regnety_160', drop_path_rate=0.0)
