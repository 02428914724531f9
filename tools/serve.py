"""Serve the live pages on this machine, without Quarto: `make play`, then open the address that it prints.

Where `make site` has built the site, that is what is served. Elsewhere the pages that move (the story, the page to play
with, the comparison) and the glossary are put together here by Pandoc alone, with the style of the site. What runs the
network on the page to play with comes from the address in nbs/play/runtime.json, or from node_modules where
`npm install` has put it.
"""
import argparse, gzip, json, re, shutil, subprocess, sys, tempfile
from functools import lru_cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NBS, DOCS = ROOT/'nbs', ROOT/'_docs'
LIVE = 'story', 'play', 'compare', 'glossary'
FILTERS = 'site.lua', 'fold.lua', 'terms.lua', 'formulas.lua', 'tables.lua', 'results.lua', 'address.lua', 'reach.lua'
CARRIED = 'theme', 'katex', 'story', 'play', 'compare', 'results'
SETTING, RUNTIME = NBS/'play'/'runtime.json', ROOT/'node_modules'/'onnxruntime-web'/'dist'
PACKED = '.wasm', '.mjs', '.onnx', '.bin' # what is worth the time to compress
NO_PANDOC = 'No Pandoc here. To get it: pip install pypandoc-binary; or build the whole site with Quarto: make site'
ELSEWHERE = ('<p>{name} is not among the pages that are served here. It is a notebook, <code>nbs/</code>, to open in Jupyter; '
             'with Quarto, <code>make site</code> builds all pages.</p><p><a href="/story.html">The story</a></p>')
BASE = '''*, ::before, ::after { box-sizing: border-box; }
html { font-size: $font-size-root; } body { background: $paper; color: $ink; font: 400 1rem/1.62 $serif; margin: 0; }
h1, h2, h3 { color: $ink; font-family: $sans; } a { color: $accent; } pre, code { font-family: $mono; }
main, nav { margin: 0 auto; max-width: 800px; padding: 1rem; } main.wide { max-width: 1240px; } nav a { margin-right: 1rem; } [hidden] { display: none !important; }
.visually-hidden { clip-path: inset(50%); height: 1px; overflow: hidden; position: absolute; width: 1px; }
'''
TEMPLATE = '''<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title$</title><meta name="description" content="$description$">
<link rel="icon" href="theme/favicon.svg"><link rel="stylesheet" href="theme/fonts.css"><link rel="stylesheet" href="katex/katex.min.css"><link rel="stylesheet" href="site.css">
<script src="katex/katex.min.js"></script></head>
<body><nav aria-label="Pages">NAVIGATION</nav>
<main class="content$if(page-layout)$ wide$endif$"><header id="title-block-header"><h1 class="title">$title$</h1><div class="description">$description$</div></header>
$body$
</main><script>
for (const e of document.querySelectorAll('span.math'))
  katex.render(e.textContent, e, {displayMode: e.classList.contains('display'), throwOnError: false})
</script></body></html>
'''


def find_pandoc()->str: # its path
    "Pandoc of the package pypandoc-binary, or one on PATH; one line and the end where there is none."
    try:
        import pypandoc
        return pypandoc.get_pandoc_path()
    except (ImportError, OSError):
        return shutil.which('pandoc') or sys.exit(NO_PANDOC)


def part(
    path:Path, # a file of style
    name:str # defaults or rules
)->str: # what it has of it
    "A part of one of Quarto's files of style."
    found = re.search(rf'/\*-- scss:{name} --\*/(.*?)(?=/\*-- scss:|\Z)', path.read_text(encoding='utf-8'), re.S)
    return re.sub(r'^\s*//.*$', '', found[1], flags=re.M) if found else ''


def constants(
    text:str # lines `$name: value;`
)->dict[str, str]: # name -> value, without names in it
    "The names of a style, each with its value."
    known = {}
    for name, value in re.findall(r'^\$([\w-]+):\s*(.+?);', text, re.M):
        known[name] = filled(value, known)
    return known


def filled(
    text:str, # style
    known:dict[str, str] # name -> value
)->str: # style without those names
    "Names replaced by their values."
    text = re.sub(r'#\{(\$[\w-]+)\}', r'\1', text)
    return re.sub(r'\$([\w-]+)', lambda m: known.get(m[1], m[0]), text)


def transparent(
    found:re.Match # rgba(#rrggbb, share)
)->str: # in the words of CSS
    "A colour of which a share is there."
    channels = [int(found[1][i:i + 2], 16) for i in (0, 2, 4)]
    return f'rgba({", ".join(map(str, channels))}, {found[2]})'


def style(
    look:str # light or dark
)->str: # CSS
    "The style of the site in one look. It uses little of SCSS: names, and mixins with one argument."
    theme = NBS/'theme'
    known = constants(part(theme/f'{look}.scss', 'defaults') + part(theme/'site.scss', 'defaults'))
    rules = part(theme/'site.scss', 'rules')
    for name, argument, body in re.findall(r'^@mixin (\w+)\(\$(\w+)\) \{\n(.*?)^\}\n', rules, re.M | re.S):
        rules = re.sub(rf'^@mixin {name}.*?^\}}\n', '', rules, flags=re.M | re.S)
        rules = re.sub(rf'@include {name}\(([^)]*)\);', body.replace(f'${argument}', r'\1'), rules)
    return re.sub(r'rgba\(#([0-9a-f]{6}), ([\d.]+)\)', transparent, filled(BASE + rules, known))


def page(
    name:str, # of a page of LIVE
    folder:Path # where it goes, with the template in it
):
    "Put a page together."
    filters = [o for f in FILTERS for o in ('--lua-filter', str(NBS/'theme'/f))]
    command = [find_pandoc(), f'{name}.qmd', '-f', 'markdown', '-t', 'html', '--katex', '--section-divs', *filters]
    subprocess.run([*command, '--template', str(folder/'template.html'), '-o', str(folder/f'{name}.html')], cwd=NBS, check=True)
    made = folder/f'{name}.html'
    links = re.sub(r'(href="[\w/.-]*?)(?:\d+[a-z]?_)?(\w+)\.(?:qmd|ipynb)', r'\1\2.html', made.read_text(encoding='utf-8'))
    made.write_text(links, encoding='utf-8')


def assemble(
    folder:Path # empty
):
    "All live pages, and what they load."
    for name in CARRIED:
        (folder/name).symlink_to(NBS/name)
    links = ' '.join(f'<a href="{name}.html">{name.capitalize()}</a>' for name in LIVE)
    (folder/'template.html').write_text(TEMPLATE.replace('NAVIGATION', links), encoding='utf-8')
    css = style('light') + '@media (prefers-color-scheme: dark) {' + style('dark') + '}'
    (folder/'site.css').write_text(css, encoding='utf-8')
    for name in LIVE:
        page(name, folder)


def setting()->bytes: # JSON
    "Where a browser finds what runs the network: here, if what is here is what the page expects."
    said = json.loads(SETTING.read_text(encoding='utf-8'))
    here = [RUNTIME/said[name]['name'] for name in ('script', 'wasm')]
    there = all(path.is_file() for path in here)
    if there and [path.stat().st_size for path in here] == [said[name]['bytes'] for name in ('script', 'wasm')]:
        said['address'] = '../runtime/'
    return json.dumps(said).encode()


@lru_cache(16)
def packed(
    path:Path, # a file
    changed:float # when
)->bytes: # compressed
    "A file as it goes over the line."
    return gzip.compress(path.read_bytes(), 6)


class Handler(SimpleHTTPRequestHandler):
    "Says of a page that is not here where it is; compresses what is large; has the runtime of the network if it is here."

    def do_GET(self):
        "Answer."
        path = Path(self.translate_path(self.path))
        if path.name == SETTING.name and path.is_file():
            self.answer(setting(), 'application/json')
        elif path.suffix in PACKED and path.is_file() and 'gzip' in self.headers.get('Accept-Encoding', ''):
            self.answer(packed(path, path.stat().st_mtime), self.guess_type(str(path)), {'Content-Encoding': 'gzip'})
        else:
            super().do_GET()

    def answer(self, body:bytes, kind:str, more:dict[str, str]|None=None):
        "One body, in full."
        self.send_response(200)
        for name, value in {'Content-Type': kind, 'Content-Length': str(len(body)), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def translate_path(self, path:str)->str:
        "Files of the runtime lie elsewhere."
        name = re.fullmatch(r'/runtime/([\w.-]+)', path)
        return str(RUNTIME/name[1]) if name else super().translate_path(path)

    def log_message(self, *args):
        "Nothing: the address is printed once."

    def send_error(self, code:int, message:str|None=None, explain:str|None=None):
        "A sentence in place of a number."
        name = re.sub(r'[^\w.-]', '', self.path.rpartition('/')[2])
        body = ELSEWHERE.format(name=name or 'This').encode()
        self.send_response(code)
        self.send_header('Content-Type', 'text/html; charset=utf-8')
        self.end_headers()
        self.wfile.write(body)


def serve(
    folder:Path, # what is served
    port:int, # 0 for a free one
    first:str # page to begin with
):
    "Serve a folder to this machine alone, until it is stopped."
    try:
        server = ThreadingHTTPServer(('127.0.0.1', port), partial(Handler, directory=str(folder)))
    except (OSError, OverflowError) as e:
        sys.exit(f'port {port}: {e}; another: make play PORT=8001')
    print(f'http://127.0.0.1:{server.server_port}/{first}   (stop with Ctrl+C)', flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


def main():
    "Serve the built site, or the live pages alone."
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--port', type=int, default=8000, help='of this machine; 0 for a free one')
    parser.add_argument('--out', type=Path, help='write the live pages to this new folder, and serve nothing')
    args = parser.parse_args()
    if args.out:
        if args.out.exists():
            sys.exit(f'{args.out} is there already; nothing is overwritten')
        args.out.mkdir(parents=True)
        assemble(args.out)
    elif (DOCS/'index.html').is_file():
        serve(DOCS, args.port, 'play.html')
    else:
        with tempfile.TemporaryDirectory() as folder:
            assemble(Path(folder))
            serve(Path(folder), args.port, 'story.html')


if __name__ == '__main__':
    main()
