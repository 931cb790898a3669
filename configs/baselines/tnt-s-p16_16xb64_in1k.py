_base_ = 'mmpretrain::tnt/tnt-s-p16_16xb64_in1k.py'
