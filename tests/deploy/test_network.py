import pytest

from halvit_mm.deploy.export import export
from halvit_mm.deploy.network import input_shape
from halvit_mm.errors import UserError
from tests.deploy.conftest import DETECTOR, HALVIT, read


def test_shapes_of_test_pipelines():
    assert input_shape(read('configs/halvit/halvit-tiny_8xb128_in1k.py')) == (224, 224)
    assert input_shape(read(HALVIT)) == (32, 32)
    assert input_shape(read('configs/mask_rcnn/mask-rcnn_halvit-medium_fpn_1x_coco.py')) == (800, 1344)


def test_size_that_no_pipeline_names(tmp_path):
    with pytest.raises(UserError, match='has no size for its test images; name one with --shape'):
        export(read(DETECTOR), None, tmp_path / 'model.onnx')
