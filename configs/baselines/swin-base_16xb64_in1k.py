_base_ = 'mmpretrain::swin_transformer/swin-base_16xb64_in1k.py'
