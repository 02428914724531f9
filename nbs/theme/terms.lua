-- Words of the glossary: the first time that a page uses one, the word links to glossary.qmd and bears its sentence as
-- title, which browsers show at the pointer and screen readers read; site.scss shows it to those who use the keyboard.
-- Headings, code, formulas, links, tables, outputs and boxes stay as they are.
local PAGE = 'glossary.qmd'
local LISTS = {API = true, ['Ledger of equations'] = true} -- titles of pages that are written by programs
local NO_NOUN = {to = true, we = true, who = true, cannot = true} -- before "judge" and others: a verb

local function read()
  local file = io.open(PAGE)
  return file and file:read('a') or ''
end

local function each(list)
  return (list or ''):gmatch('[^,%s][^,]*')
end

local function plain(text) return (text:gsub('`', ''):gsub('\u{2019}', "'")) end

local function words(text)
  local found = {}
  for word in plain(text):gmatch('%S+') do found[#found + 1] = word end
  return found
end

-- Forms in which words appear, long ones first: {words, id, sentence, with}
local function forms()
  local found = {}
  local pattern = '\n%[([^%]]+)%]{#([%w-]+)([^}\n]*)}\n:%s+([^\n]+)'
  for name, id, options, sentence in ('\n' .. read()):gmatch(pattern) do
    local entry = {id = id, says = plain(sentence), with = options:match('with="([^"]*)"')}
    for form in each(options:match('seen="([^"]*)"') or name) do
      found[#found + 1] = {words = words(form), entry = entry}
    end
  end
  table.sort(found, function(a, b) return #a.words > #b.words end)
  return found
end

-- Capitals within a word, as in KID, have to be there; others may.
local function same(word, wanted)
  if wanted:find('%u', 2) then return word == wanted or word == wanted .. 's' end
  word, wanted = word:lower(), wanted:lower()
  return word == wanted or word == wanted .. 's'
end

local function split(text)
  local before, rest = text:match('^([%(%[]*)(.-)$')
  local word, after = rest:match('^(.-)([%.,;:!%?%)%]]*)$')
  return before, word, after
end

local function is_space(inline) return inline and (inline.t == 'Space' or inline.t == 'SoftBreak') end

-- How many inlines a form takes from a place on, or nil.
local function length(inlines, at, form)
  for i, wanted in ipairs(form) do
    local here = at + 2*(i - 1)
    local inline = inlines[here]
    if not inline or inline.t ~= 'Str' or (i > 1 and not is_space(inlines[here - 1])) then return nil end
    local before, word, after = split(plain(inline.text))
    if (i > 1 and before ~= '') or (i < #form and after ~= '') then return nil end
    if i < #form and word:lower() ~= wanted:lower() or i == #form and not same(word, wanted) then return nil end
  end
  return 2*#form - 1
end

local function is_verb(inlines, at)
  local last = is_space(inlines[at - 1]) and inlines[at - 2]
  return last and last.t == 'Str' and NO_NOUN[last.text:lower()]
end

local function find(inlines, at, known)
  for _, form in ipairs(known) do
    local took = length(inlines, at, form.words)
    if took then return form.entry, took end
  end
end

local function link(inlines, at, took, entry)
  local before, first = split(inlines[at].text)
  local text = pandoc.Inlines {}
  for i = at, at + took - 1 do text:insert(inlines[i]:clone()) end
  text[1].text = text[1].text:sub(#before + 1)
  local _, _, after = split(text[#text].text)
  text[#text].text = text[#text].text:sub(1, #text[#text].text - #after)
  local made = pandoc.Link(text, PAGE .. '#' .. entry.id, entry.says, {class = 'term'})
  local whole = pandoc.Inlines {}
  if before ~= '' then whole:insert(pandoc.Str(before)) end
  whole:insert(made)
  if after ~= '' then whole:insert(pandoc.Str(after)) end
  return whole
end

local function mark(inlines, known, done)
  local out, at = pandoc.Inlines {}, 1
  while at <= #inlines do
    local entry, took
    if inlines[at].t == 'Str' then entry, took = find(inlines, at, known) end
    if entry and not done[entry.id] and not is_verb(inlines, at) then
      done[entry.id] = true
      out:extend(link(inlines, at, took, entry))
    else
      for i = at, at + (took or 1) - 1 do out:insert(inlines[i]) end
    end
    at = at + (took or 1)
  end
  return out
end

-- The forms whose `with` has a word on the page, or that have none.
local function wanted_on(doc, known)
  local text = pandoc.utils.stringify(doc)
  local kept = {}
  for _, form in ipairs(known) do
    local fits = not form.entry.with
    for word in each(form.entry.with) do fits = fits or text:find('%f[%w]' .. word .. '%f[%W]') end
    if fits then kept[#kept + 1] = form end
  end
  return kept
end

local function leave(block) return block, false end

local function leave_box(div)
  local is_box = div.classes:find_if(function(class) return class:find('^cell') or class:find('^callout') end)
  if is_box then return div, false end
end

local function Pandoc(doc)
  if doc.meta.terms == false or LISTS[pandoc.utils.stringify(doc.meta.title or '')] then return nil end
  local known, done = wanted_on(doc, forms()), {}
  local function text(block)
    block.content = mark(block.content, known, done)
    return block, false
  end
  local blocks = doc.blocks:walk {
    traverse = 'topdown', Para = text, Plain = text, Div = leave_box, Header = leave, Table = leave, Figure = leave,
    DefinitionList = leave, CodeBlock = leave, RawBlock = leave}
  return pandoc.Pandoc(blocks, doc.meta)
end

return {{Pandoc = Pandoc}}
