_base_ = 'mmpretrain::twins/twins-svt-small_8xb128_in1k.py'
