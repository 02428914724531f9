"Write README.md from nbs/index.ipynb, which is also the site's first page; with --check, only say whether it is stale."
import json, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def readme(
    nb:dict # the parsed notebook
)->str: # text of README.md
    "The prose of the notebook, with links that hold at the top of the repository."
    text = '\n\n'.join(''.join(c['source']) for c in nb['cells'] if c['cell_type'] == 'markdown')
    return re.sub(r'\]\((?=results/|\d\d[a-z]?_\w+\.ipynb)', '](nbs/', text) + '\n'


def main():
    "Write the file, or compare it."
    text = readme(json.loads((ROOT/'nbs'/'index.ipynb').read_text(encoding='utf-8')))
    stale = not (ROOT/'README.md').is_file() or (ROOT/'README.md').read_text(encoding='utf-8') != text
    if '--check' in sys.argv: sys.exit('README.md is stale. To mend: make prepare' if stale else 0)
    (ROOT/'README.md').write_text(text, encoding='utf-8')


if __name__ == '__main__': main()
