_base_ = 'mmpretrain::twins/twins-svt-large_16xb64_in1k.py'
