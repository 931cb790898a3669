"""Package ``halvit_mm``; its configs and tools go with it, by the links in ``halvit_mm/.mim``."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent.resolve()
EXTRAS = ('onedl', 'openmmlab', 'segmentation', 'timm', 'baselines', 'export', 'test')


def read_requirements(name: str) -> list[str]:
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


setup(
    name='halvit_mm',
    version=re.search(r"__version__ = '(.+)'", (ROOT / 'halvit_mm' / '__init__.py').read_text()).group(1),
    description='HaLViT and ResNet50-PE for mmpretrain, mmdet and timm: half of the weights',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    author='halvit-mm contributors',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords=['vision transformer', 'weight sharing', 'image classification', 'object detection', 'mmpretrain', 'timm'],
    project_urls={'Paper': 'https://arxiv.org/abs/2401.16438'},
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Typing :: Typed',
    ],
    packages=find_packages(include=['halvit_mm', 'halvit_mm.*']),
    package_data={'halvit_mm': ['py.typed', '.mim/configs/**/*.*', '.mim/tools/*.*', '.mim/model-index.yml']},
    exclude_package_data={'halvit_mm': ['*.pyc']},
    python_requires='>=3.10',
    install_requires=read_requirements('runtime'),
    extras_require={name: read_requirements(name) for name in EXTRAS},
    zip_safe=False,
)
