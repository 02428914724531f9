"""Write README.md from nbs/index.ipynb, which is also the site's first page; with --check, only say whether it is stale.

Until `published` of settings.ini says that the site has its address, links to its pages lead to their sources.
"""
import json, re, sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def read_settings(
    root:Path=ROOT # folder with settings.ini
): # names and their values
    "What settings.ini says."
    parser = ConfigParser()
    parser.read(root/'settings.ini', encoding='utf-8')
    return parser['DEFAULT']


def source(
    name:str, # of a page of the site, without .html
    root:Path=ROOT # folder of the project
)->str: # the file that it is made from
    "The source of a page, from the top of the repository."
    files = [p for kind in ('ipynb', 'qmd') for p in (root/'nbs').glob(f'*.{kind}')]
    found = next(p for p in files if re.sub(r'^\d+[a-z]?_', '', p.stem) == name)
    return found.relative_to(root).as_posix()


def offline(
    text:str, # Markdown
    root:Path=ROOT # folder of the project
)->str: # the same, with no link to where nothing is yet
    "Links to pages of the site lead to their sources, until it is published."
    says = read_settings(root)
    if says.getboolean('published'): return text
    site = re.escape(says['doc_host'] + says['doc_baseurl'])
    return re.sub(rf'\]\({site}/(\w+)\.html(?:#[^)]*)?\)', lambda m: f']({source(m[1], root)})', text)


def readme(
    nb:dict # the parsed notebook
)->str: # text of README.md
    "The prose of the notebook, with links that hold at the top of the repository."
    text = '\n\n'.join(''.join(c['source']) for c in nb['cells'] if c['cell_type'] == 'markdown')
    return offline(re.sub(r'\]\((?=results/|\d\d[a-z]?_\w+\.ipynb)', '](nbs/', text)) + '\n'


def main():
    "Write the file, or compare it."
    text = readme(json.loads((ROOT/'nbs'/'index.ipynb').read_text(encoding='utf-8')))
    stale = not (ROOT/'README.md').is_file() or (ROOT/'README.md').read_text(encoding='utf-8') != text
    if '--check' in sys.argv: sys.exit('README.md is stale. To mend: make prepare' if stale else 0)
    (ROOT/'README.md').write_text(text, encoding='utf-8')


if __name__ == '__main__': main()
