_base_ = 'cvt-13_8xb128_in1k.py'

model = dict(model_name='{{ fileDirname }}/cvt-21')
