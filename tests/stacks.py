"""Tests that another stack than that of ``requirements/tested.txt`` cannot run, with the reasons.

No other place leaves a test out for its stack. ``tests/conftest.py`` names at the start of a run what is left out.
"""

from importlib.util import find_spec

import mmengine
import torch
from mmengine.utils import digit_version

# Reason: whether it holds here, and the beginnings of the names of tests
STACKS: dict[str, tuple[bool, tuple[str, ...]]] = {
    "mmcv's operators are not here": (
        find_spec('mmcv._ext') is None,
        (
            'tests/configs/test_coco_configs.py',
            'tests/configs/test_configs.py::test_index_tells_the_truth[tied-pvt',
            *(
                f'tests/configs/test_configs.py::test_model_and_optimizer_are_built[{name}'
                for name in ('pvt-', 'pvt_', 'tied-pvt')
            ),
            'tests/cost/test_samples.py',
            'tests/data/test_digits_coco.py',
            'tests/io/test_build.py::test_a_detector_is_built_in_its_scope',
            'tests/io/test_components.py::test_what_upstream_builds_passes',
            'tests/io/test_components.py::test_what_is_not_there_is_named[backbone.type-PyramidVisionTransformr',
            'tests/io/test_components.py::test_hooks_have_a_priority',
            'tests/io/test_components.py::test_candidates',
            'tests/io/test_operators.py::test_operators_for_the_cpu_beside_a_gpu',
            'tests/models/test_other_scopes.py::test_pose',
            'tests/launch/test_coco_check.py',
            'tests/launch/test_coco_file.py',
            'tests/models/test_tied_model.py::test_config_is_built_counted_and_trained[tied-detr',
            'tests/models/test_tied_model.py::test_config_is_built_counted_and_trained[tied-pvt',
            'tests/models/necks/test_gap.py',
            'tests/models/necks/test_vit_pyramid.py',
            'tests/test_check_env.py::test_this_environment_is_sound',
            'tests/test_check_env.py::test_what_only_a_training_imports_is_imported',
            'tests/test_own_data.py',
            'tests/test_upstream.py',
            *(
                f'tests/tying/test_kinds.py::{name}[{model}'
                for name in ('test_a_model_with_equal_ways_computes_what_it_did', 'test_networks_are_computed_again')
                for model in ('pvt', 'detr')
            ),
            'tests/tools/test_detection.py',
            'tests/train/hooks/test_bad_images.py',
            'tests/train/hooks/test_pretrained.py',
            'tests/train/test_seeds.py::test_an_epoch_that_begins_later[batch_sampler1',
            'tests/train/test_runner.py::test_mmdets_own_tools_train_resume_and_test',
        ),
    ),
    'mmseg is not here': (
        find_spec('mmseg') is None,
        (
            'tests/configs/test_segmentation_configs.py',
            'tests/configs/test_configs.py::test_inherited_by_package_path[segmenter',
            'tests/configs/test_configs.py::test_inherited_by_package_path[upernet',
            'tests/cost/test_measure.py::test_a_training_step_trains_and_an_inference_does_not[upernet',
            'tests/cost/test_samples.py',
            'tests/cost/test_subject.py::test_norms_of_all_ranks_on_the_cpu',
            'tests/data/test_digits_seg.py',
            'tests/deploy/test_infer.py::TestSegmentor',
            'tests/deploy/test_network.py::test_logits_of_a_segmentor',
            'tests/deploy/test_network.py::test_shapes_of_test_pipelines',
            'tests/launch/test_command.py::test_mmseg_resumes_by_a_flag',
            'tests/launch/test_command.py::test_the_config_says_whose_tool_it_is',
            'tests/launch/test_mask_check.py',
            'tests/launch/test_tool.py::test_every_tool_finds_our_runner',
            'tests/test_docs.py::test_configs_build[docs/segmentation.md',
            'tests/test_upstream.py::test_inferencer_of_segmentors',
            'tests/test_upstream.py::test_order_of_imports_does_not_matter',
            'tests/tools/test_segmentation.py',
        ),
    ),
    f'torch {torch.__version__} has no torch.export, ONNX or OpenVINO for us, no FSDP2 and another profiler': (
        torch.__version__ < '2.6',
        (
            'tests/deploy/test_export.py',
            'tests/deploy/test_formats.py',
            'tests/deploy/test_onnx.py',
            'tests/layers/test_sharing.py::test_compiled_and_exported',
            'tests/layers/openmmlab/test_attention.py::test_makes_no_copy_of_a_matrix',
            'tests/models/backbones/test_halvit.py::TestSurroundings::test_autocast_casts_each_matrix_once',
            'tests/models/backbones/test_halvit.py::TestSurroundings::test_export',
            'tests/models/backbones/test_halvit.py::TestLargeInputs::test_export',
            'tests/models/backbones/test_shared_resnet.py::test_export',
            'tests/models/test_tie.py::test_tie_over_ranks[fsdp]',
            'tests/models/test_tie.py::test_windows_over_ranks',
        ),
    ),
    f'torch {torch.__version__} takes minutes to compile a model, or cannot': (
        torch.__version__ < '2.6',
        (
            'tests/layers/openmmlab/test_bottleneck.py::test_compiled_equals_untied_counterpart',
            'tests/layers/test_recompute.py::test_what_a_compiled_layer_keeps',
            'tests/layers/test_recompute.py::test_an_exported_layer_is_the_plain_one',
            'tests/models/backbones/test_halvit.py::TestGradients::test_against_untied_counterpart[inductor',
            'tests/models/backbones/test_halvit.py::TestGradients::test_compiled_fused_attention',
            'tests/models/backbones/test_halvit.py::TestSurroundings::test_compile_in_both_modes',
            'tests/models/backbones/test_shared_resnet.py::TestGradients::test_compiled',
        ),
    ),
    f'torch {torch.__version__} casts to bfloat16 alone on the CPU, and its attention keeps 4 numbers more': (
        torch.__version__ < '2.6',
        (
            'tests/layers/test_recompute.py::test_output_and_gradients_are_those_of_the_plain_layer_bit_for_bit'
            '[torch.float16',
            'tests/layers/test_recompute.py::test_what_a_layer',
            'tests/models/backbones/test_halvit.py::TestSurroundings::test_autocast[both-dtype1',
            'tests/models/backbones/test_halvit.py::TestSurroundings::test_autocast[none-dtype1',
        ),
    ),
    f'torch {torch.__version__} has no operators by signature and no selective checkpointing': (
        torch.__version__ < '2.4',
        (
            'tests/test_torch.py::test_custom_op',
            'tests/layers/test_recompute.py::test_a_second_backward_pass_is_refused_where_products_are_kept',
        ),
    ),
    'torch.load has no list of types to clear': (
        not hasattr(torch.serialization, 'clear_safe_globals'),
        ('tests/io/test_checkpoints.py::test_attributes_are_no_way_round',),
    ),
    f'mmengine {mmengine.__version__} cannot print a config that holds a class': (
        digit_version(mmengine.__version__) < digit_version('0.10.12'),
        ('tests/train/hooks/test_finite.py',),
    ),
}


def left_out(name: str) -> bool:
    """Whether a test, or a file of tests, is left out here."""
    places = [one for holds, names in STACKS.values() if holds for one in names]
    return name.startswith(tuple(places))
