"""Package ``halvit_mm`` together with its configs and tools, as the OpenMMLab libraries package theirs."""

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent.resolve()
# What mmengine and mim look for under <package>/.mim
MIM_ITEMS = ('configs', 'tools', 'model-index.yml')
# Read by Python at start: makes us known to the hosts, see halvit_mm/_upstream.py
STARTUP_FILE = 'halvit_mm_scope.pth'


def read_requirements(name: str) -> list[str]:
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


class BuildWithConfigs(build_py):
    """Puts configs and tools under ``halvit_mm/.mim``: copies in a wheel, links in an editable install."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            self.link_items(ROOT / 'halvit_mm' / '.mim')
            return
        target = Path(self.build_lib)
        shutil.rmtree(target / 'halvit_mm' / '.mim', ignore_errors=True)
        for item in MIM_ITEMS:
            source, copy = ROOT / item, target / 'halvit_mm' / '.mim' / item
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns('__pycache__'))
            else:
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, copy)
        (target / STARTUP_FILE).write_text('import halvit_mm\n')

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        added = [os.path.join(self.build_lib, STARTUP_FILE)]
        mim = Path(self.build_lib) / 'halvit_mm' / '.mim'
        added += [str(path) for path in mim.rglob('*') if path.is_file()]
        return super().get_outputs(include_bytecode) + ([] if self.editable_mode else added)

    @staticmethod
    def link_items(mim: Path) -> None:
        mim.mkdir(exist_ok=True)
        for item in MIM_ITEMS:
            link = mim / item
            if not link.is_symlink():
                link.symlink_to(os.path.join('..', '..', item))


class SdistWithoutLinks(sdist):
    """Leaves out the links of an editable install, which would be packed as second copies."""

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, [name for name in files if '.mim' not in Path(name).parts])


setup(
    name='halvit_mm',
    version=re.search(r"__version__ = '(.+)'", (ROOT / 'halvit_mm' / '__init__.py').read_text()).group(1),
    description='HaLViT and ResNet50-PE for mmpretrain and mmdet: half of the weights',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    classifiers=[
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    packages=find_packages(include=['halvit_mm', 'halvit_mm.*']),
    python_requires='>=3.10',
    install_requires=read_requirements('runtime'),
    extras_require={name: read_requirements(name) for name in ('onedl', 'openmmlab', 'baselines', 'export', 'test')},
    cmdclass=dict(build_py=BuildWithConfigs, sdist=SdistWithoutLinks),
    zip_safe=False,
)
