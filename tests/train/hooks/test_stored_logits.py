import shutil
from pathlib import Path

import pytest

import halvit_mm.io.logits
from halvit_mm.errors import RankError, UserError
from halvit_mm.train import IterationSeedHook, StoredLogitsHook
from tests.train.test_save_logits import CONFIG, MIXED, TEACHER_OPTIONS, build, config, save, teacher  # noqa: F401 - fixtures


def read(runner):
    """Let a runner have what the hook sees before the first step."""
    runner.model.init_weights()
    return runner


def refused(runner) -> str:
    with pytest.raises(UserError) as caught:
        StoredLogitsHook().before_train(runner)
    logits = runner.model.teacher_logits
    prefix = f"model.teacher_logits='{logits.folder}' does not fit this training: "
    assert str(caught.value).startswith(prefix)
    assert '\n' not in str(caught.value)
    assert not logits.accepted
    return str(caught.value).removeprefix(prefix)


def test_other_trainings(build, config, save, teacher, tmp_path):  # noqa: F811
    folder, _ = save(config())
    runner = read(build('stored', folder))
    model, logits = runner.model, runner.model.teacher_logits
    source = CONFIG, TEACHER_OPTIONS, teacher
    other = {**TEACHER_OPTIONS, 'model.backbone.img_size': 64}
    dataset, preprocessor = runner.cfg.train_dataloader.dataset, runner.cfg.data_preprocessor
    for place, name, value, reason in (
        (runner, '_seed', 4, 'randomness.seed was 3 and is 4'),
        (logits.manifest['training'], 'images', 24, 'the number of images was 24 and is 40'),
        (logits.manifest['training'], 'list', 'x', 'the list of paths and labels of the images is another one'),
        (
            *(dataset.pipeline[2], 'magnitude_range', (0.0, 9.0)),
            'train_dataloader.dataset.pipeline.2.magnitude_range.1 was 8.0 and is 9.0; expected the config that '
            'tools/save_logits.py was given',
        ),
        (
            *(runner.cfg.train_dataloader.sampler, 'type', 'RepeatAugSampler'),
            "train_dataloader.sampler.type was 'DefaultSampler' and is 'RepeatAugSampler'",
        ),
        (preprocessor, 'mean', [1.0] * 3, 'data_preprocessor.mean.0 was 78.0 and is 1.0'),
        (runner.cfg.model, 'train_cfg', MIXED['model.train_cfg'], 'data_preprocessor.batch_augments was None and is {'),
        (runner.train_dataloader.dataset.dataset, 'bad_images', 'skip', "bad_images was 'stop' and is 'skip'"),
        (
            runner.cfg.randomness,
            'diff_rank_seed',
            True,
            'randomness.diff_rank_seed=True gives the ranks seeds of their',
        ),
        (model.head, 'num_classes', 12, 'it has logits of 10 classes; the head has 12'),
        (
            logits,
            'epochs',
            1,
            'it has 1 epochs; expected the 2 of train_cfg.max_epochs, which tools/save_logits.py adds',
        ),
        (
            logits.manifest,
            'rows',
            39,
            'an epoch has 40 places on 1 ranks, and 39 are stored; expected tools/save_logits',
        ),
        (
            model,
            'teacher_source',
            (CONFIG, other, teacher),
            'teacher.model.backbone.img_size was 32 and is 64; expected',
        ),
        (
            model,
            'teacher_source',
            (*source[:2], 'other.pth'),
            "teacher.checkpoint was 'teacher.pth' and is 'other.pth'",
        ),
        (
            runner,
            '_train_loop',
            None,
            'its places are those of epochs; expected train_cfg with by_epoch=True and halvit_',
        ),
    ):
        known = place if isinstance(place, dict) else vars(place)
        before, had = known.get(name), name in known
        known[name] = value
        assert refused(runner).startswith(reason)
        if had:
            known[name] = before
        else:
            del known[name]
    # Weights of the teacher need not be there, and batches may have another size where images are not mixed.
    model.teacher_source = (*source[:2], str(tmp_path / 'away/teacher.pth'))
    logits.manifest['batch_size'] = 5
    StoredLogitsHook().before_train(runner)
    assert logits.accepted


def test_other_batches(build, config, save):  # noqa: F811
    folder, _ = save(config(**MIXED))
    runner = read(build('stored', folder, **MIXED, **{'train_dataloader.batch_size': 5}))
    assert refused(runner).startswith(
        'images are mixed within a batch, and batches were 1 ranks x 8 images and are 1 ranks x 5 images; expected the '
        'same, or tools/save_logits.py on as many ranks'
    )
    runner.model.teacher_logits.manifest['batch_size'] = 5
    runner._hooks = [hook for hook in runner.hooks if not isinstance(hook, IterationSeedHook)]
    assert refused(runner).startswith('default_hooks.seeds=None leaves the mixing of images to chance')


def test_images_elsewhere(build, config, save, digits_root, tmp_path):  # noqa: F811
    """Another folder with the same files fits; the same names of other pictures do not, at the first step."""
    folder, _ = save(config())
    other = tmp_path / 'digits'
    shutil.copytree(digits_root / 'train', other / 'train')
    runner = read(build('stored', folder, **{'train_dataloader.dataset.data_root': str(other)}))
    StoredLogitsHook().before_train(runner)
    names = sorted((other / 'train').glob('*/*'))
    for a, b in zip(names, names[700:740]):
        shutil.copy(b, a)
    with pytest.raises(UserError, match='holds logits of other images than those of epoch 1, though of the same list'):
        runner.train()


def test_another_shard_in_a_later_batch(build, config, save, monkeypatch):  # noqa: F811
    """The epoch ends with an error, before its checkpoint."""
    monkeypatch.setattr(halvit_mm.io.logits, 'SHARD', 8)
    folder, _ = save(config(**{'train_cfg.max_epochs': 1}))
    shutil.copy(folder / 'epoch_1/0_1.npy', folder / 'epoch_1/0_4.npy')
    runner = build('stored', folder, **{'train_cfg.max_epochs': 1})
    with pytest.raises(RankError, match='holds logits of other images than those of epoch 1, though of the same list'):
        runner.train()
    assert runner.iter == 5
    assert not [*Path(runner.work_dir).glob('*.pth')]
