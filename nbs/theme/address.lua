-- Where the course is: until `published` of settings.ini says that its address exists, no link leads there. The badge of
-- Colab goes, a link into the repository is its words alone, and a link to a source is left out. And what the page says
-- of itself to those who collect pages: schema.org's words, in JSON.
local file = io.open('../settings.ini')
local settings = file and file:read('a') or ''

local function setting(name) return ('\n' .. settings):match('\n' .. name .. ' *= *([^\n]*)') or '' end

local published = setting('published') == 'True'
local name = setting('user') .. '/' .. setting('repo')
local site = 'https://' .. setting('user') .. '.github.io/' .. setting('repo') .. '/'

local function starts(text, start) return text:sub(1, #start) == start end

local function is_repository(target)
  local rest = target:match('^https://github%.com/(.*)$') or target:match('^https://colab%.research%.google%.com/github/(.*)$')
  return rest and starts(rest .. '/', name .. '/')
end

local function Link(link)
  if published or not is_repository(link.target) then return nil end
  local goes = link.classes:includes('colab') or link.classes:includes('source')
  return goes and pandoc.Inlines {} or link.content
end

local function Para(para)
  if #para.content == 0 then return pandoc.Blocks {} end
end

-- What the page says of itself

local function page_name(meta)
  if meta['output-file'] then return pandoc.utils.stringify(meta['output-file']) end
  local input = quarto and quarto.doc.input_file or ''
  return (input:match('([^/]*)%.%w+$') or 'index') .. '.html'
end

local function about(meta)
  local course = {['@type'] = 'Course', name = setting('title'), description = setting('description'), url = site,
    provider = {['@type'] = 'Organization', name = setting('author'):gsub('%%%b()s', '')}}
  local function word(key) return meta[key] and pandoc.utils.stringify(meta[key]) or '' end
  return {['@context'] = 'https://schema.org', ['@type'] = 'LearningResource', name = word('title'), description = word('description'),
    url = site .. page_name(meta), inLanguage = 'en', isAccessibleForFree = true, license = 'https://www.apache.org/licenses/LICENSE-2.0',
    isPartOf = course}
end

local function Pandoc(doc)
  if not doc.meta.title or settings == '' then return nil end
  local json = pandoc.json.encode(about(doc.meta)):gsub('<', '\\u003c')
  doc.blocks:insert(pandoc.RawBlock('html', '<script type="application/ld+json">' .. json .. '</script>'))
  return doc
end

return {{Link = Link}, {Para = Para}, {Pandoc = Pandoc}}
