_base_ = 'mmseg::vit/vit_vit-b16_mln_upernet_8xb2-160k_ade20k-512x512.py'
workers = __import__('halvit_mm').loader_workers()
