-- After rendering: what the search box knows of each section is its prose, without code and without solutions; and of
-- each page, first of all, its description and the questions by which people look for it (theme/asked.json). And what
-- finds them looks for words (theme/search.js): it is put behind Quarto's own script, which each page loads, 404.html too.
local LISTS = {['api.html'] = true, ['ledger.html'] = true} -- pages of names, after all prose
local TOP = '#title-block-header' -- the place on each page to which those lead

local function read(path)
  local file = io.open(path, 'rb')
  local text = file and file:read('a')
  if file then file:close() end
  return text
end

local function write(path, text)
  local file = assert(io.open(path, 'wb'))
  file:write(text)
  file:close()
end

-- A page

local function without(html, pattern, stop)
  local kept, at = {}, 1
  while true do
    local from = html:find(pattern, at)
    if not from then break end
    kept[#kept + 1] = html:sub(at, from - 1)
    at = select(2, html:find(stop, from, true)) or #html
    at = at + 1
  end
  kept[#kept + 1] = html:sub(at)
  return table.concat(kept)
end

-- The text of a piece of a page, with < and its like as they are in HTML. Nothing here is folded within a fold.
local function prose(html)
  for _, name in ipairs({'script', 'style', 'pre'}) do html = without(html, '<' .. name .. '%f[%s>]', '</' .. name .. '>') end
  html = without(html, '<details[^>]*class="[^"]*code%-fold', '</details>')
  html = without(html, '<details[^>]*class="[^"]*solution', '</details>')
  return (html:gsub('<[^>]*>', ' '):gsub('&nbsp;', ' '):gsub('\194\160', ' '):gsub('%s+', ' '):gsub("'", '&#39;'):gsub('"', '&quot;'):gsub('^ ', ''):gsub(' $', ''))
end

-- Id of a section -> its prose without the heading. Sections of this level stand one after the other, and the references
-- of a page after the last.
local function sections(html)
  local found, starts = {}, {}
  html = html:match('<main.*</main>') or html
  html = without(html, '<div[^>]*id="quarto%-appendix"', '</main>')
  for from, id in html:gmatch('()<section%s+id="([^"]+)"%s+class="level2') do starts[#starts + 1] = {from = from, id = id} end
  for i, one in ipairs(starts) do
    local piece = html:sub(one.from, starts[i + 1] and starts[i + 1].from - 1 or #html)
    found[one.id] = prose((piece:gsub('<h2.-</h2>', '', 1)))
  end
  return found
end

-- The index

local function escape(text) return (text:gsub('&', '&amp;'):gsub('<', '&lt;'):gsub('>', '&gt;'):gsub('"', '&quot;'):gsub("'", '&#39;')) end

-- What people ask that a page answers, and the place that does: of `choice` its top, of `choice#needs` that section.
local function asked_of(asked, page)
  local keys, found = pandoc.List {}, {}
  for key in pairs(asked) do keys:insert(key) end
  keys:sort()
  for _, key in ipairs(keys) do
    local name, place = key:match('^([^#]*)(.*)$')
    for _, question in ipairs(name == page and asked[key] or {}) do
      found[#found + 1] = {section = question, place = place == '' and TOP or place}
    end
  end
  return found
end

-- What stands for a page before its sections: its description, and each question with the description as answer.
local function entries(doc, href, html, questions)
  local says = html:match('<meta%s+name="description"%s+content="(.-)"') or ''
  local found = {}
  for i, one in ipairs(pandoc.List {{section = '', place = TOP}} .. questions) do
    found[i] = {objectID = href .. TOP .. '-' .. i, href = href .. one.place, section = one.section, text = says,
      title = doc.title, crumbs = doc.crumbs}
  end
  return found
end

local function improve(docs, folder, asked)
  local known, top, rest, last = {}, pandoc.List {}, pandoc.List {}, pandoc.List {}
  for _, doc in ipairs(docs) do
    local href, id = doc.href:match('^([^#]*)#?(.*)$')
    if known[href] == nil then
      local html = read(folder .. '/' .. href) or ''
      known[href] = sections(html)
      top:extend(entries(doc, href, html, asked_of(asked, (href:gsub('%.html$', '')))))
    end
    doc.text = known[href][id] or doc.text
    local list = (id == 'exercises' or LISTS[href]) and last or rest
    list:insert(doc)
  end
  return top .. rest .. last
end

local folder = os.getenv('QUARTO_PROJECT_OUTPUT_DIR')
local index = folder and read(folder .. '/search.json')
if index then
  local asked = pandoc.json.decode(read('theme/asked.json') or '{}', false)
  local docs = pandoc.json.decode(index, false)
  local own = function(doc) return not doc.objectID:find(TOP, 1, true) end -- of an earlier run
  write(folder .. '/search.json', pandoc.json.encode(improve(pandoc.List(docs):filter(own), folder, asked)))
end

local OURS = '\n// theme/search.js\n' -- what follows in Quarto's script is of this file, or of an earlier run
local path = folder and folder .. '/site_libs/quarto-search/quarto-search.js'
local script, words = path and read(path), read('theme/search.js')
if script and words then
  local at = script:find(OURS, 1, true)
  write(path, script:sub(1, (at or 0) - 1) .. OURS .. words)
end
