"All metadata lives in settings.ini."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

config = ConfigParser(delimiters=['='])
config.read('settings.ini', encoding='utf-8')
cfg = config['DEFAULT']

extras = {name: cfg[f'{name}_requirements'].split() for name in cfg['extras'].split()}
extras['all'] = sorted({package for packages in extras.values() for package in packages})
extras['dev'] = [*extras['all'], *cfg['dev_requirements'].split()]

STATUS = {'1': 'Planning', '2': 'Pre-Alpha', '3': 'Alpha', '4': 'Beta', '5': 'Production/Stable'}
VERSIONS = range(int(cfg['min_python'].split('.')[1]), 15)
classifiers = [
    f"Development Status :: {cfg['status']} - {STATUS[cfg['status']]}",
    f"Intended Audience :: {cfg['audience']}",
    'Intended Audience :: Education',
    'Intended Audience :: Science/Research',
    f"Natural Language :: {cfg['language']}",
    'Operating System :: OS Independent',
    'Programming Language :: Python :: 3',
    *(f'Programming Language :: Python :: 3.{minor}' for minor in VERSIONS),
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
    'Typing :: Typed']

site = cfg['doc_host'] + cfg['doc_baseurl']
project_urls = {
    'Documentation': site,
    'Source': cfg['git_url'],
    'Issues': f"{cfg['git_url']}/issues",
    'Changelog': f"{cfg['git_url']}/blob/{cfg['branch']}/CHANGELOG.md"}

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], url=cfg['git_url'],
    author=cfg['author'], author_email=cfg['author_email'], keywords=cfg['keywords'],
    license_expression={'apache2': 'Apache-2.0'}[cfg['license']], python_requires=f">={cfg['min_python']}",
    classifiers=classifiers, project_urls=project_urls,
    packages=find_packages(include=[cfg['lib_path']]),
    package_data={cfg['lib_path']: [
        'py.typed', 'index.json', *(f'weights/*.{kind}' for kind in ('safetensors', 'json', 'csv', 'npz')), 'weights/heads/*.safetensors',
        *(f'worlds/*.{kind}' for kind in ('safetensors', 'json'))]},
    install_requires=cfg['requirements'].split(), extras_require=extras,
    long_description=Path('README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    entry_points={'nbdev': [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"],
                  'console_scripts': cfg['console_scripts'].split()})
