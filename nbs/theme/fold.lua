-- Code on the page: what the library exports is folded to its signature, what checks a claim to a line that says so, and
-- a long list of claims that hold to their number.
-- nbdev writes for every public name a rule, a link to its source, a heading, its signature with comments and its
-- docstring, and beside it the code, which says the same once more. Here the heading and the docstring stay, and below
-- those of one cell stands one <details>, whose <summary> is the signature and whose inside is the code.
local LINES, WIDTH = 6, 80 -- a lesson of so many lines stays open; a wide one counts for more
local CLAIMS = 3 -- so many claims stay open
local CHECKS = {'assert', 'test_%w+%('}

local function trim(text) return (text:gsub('^%s+', ''):gsub('%s+$', '')) end

-- Python

-- Characters of Python one by one, as `visit(character, depth of brackets)`; comments are left out, strings are kept.
local function scan(text, visit)
  local depth, quote, at = 0, nil, 1
  while at <= #text do
    local char = text:sub(at, at)
    if quote then
      if char == '\\' then visit(char, depth); at = at + 1; char = text:sub(at, at) elseif char == quote then quote = nil end
      visit(char, depth)
    elseif char == '#' then
      at = (text:find('\n', at, true) or #text + 1) - 1
    else
      if char == '"' or char == "'" then quote = char end
      if char:find('[%)%]}]') then depth = depth - 1 end
      if visit(char, depth) then return at end
      if char:find('[%(%[{]') then depth = depth + 1 end
    end
    at = at + 1
  end
end

-- One parameter without its type: `scale:float=1.` is `scale=1.`
local function parameter(text)
  local kept, skip = {}, false
  scan(text, function(char, depth)
    if depth == 0 and char == ':' then skip = true elseif depth == 0 and char == '=' then skip = false end
    if not skip then kept[#kept + 1] = char end
  end)
  return (trim(table.concat(kept)):gsub('%s+', ' '))
end

-- What stands in brackets at the start of a text, without types and comments.
local function parameters(text)
  local parts, part = {}, {}
  local function close()
    local one = parameter(table.concat(part))
    if one ~= '' then parts[#parts + 1] = one end
    part = {}
  end
  scan(text:sub(2), function(char, depth)
    if depth < 0 then return true end
    if depth == 0 and char == ',' then close() else part[#part + 1] = char end
  end)
  close()
  return table.concat(parts, ', ')
end

-- The names that a cell defines at its top level, with a signature each.
local function definitions(code)
  local found = {}
  local function add(name, text) found[#found + 1] = {name = name, text = text} end
  local text = '\n' .. code
  for start, kind, name in text:gmatch('\n()([%a ]-def) +([%w_]+)%f[%(]') do
    if kind == 'def' or kind == 'async def' then
      local open = text:find('(', start, true)
      add(name, name .. '(' .. parameters(text:sub(open)) .. ')')
    end
  end
  for name, bases in text:gmatch('\nclass +([%w_]+)(%b())') do add(name, 'class ' .. name .. (bases:gsub('%s+', ' '))) end
  for name in text:gmatch('\nclass +([%w_]+):') do add(name, 'class ' .. name) end
  if #found == 0 then
    for name in text:gmatch('\n([%a_][%w_]*)%s*=%f[^=]') do add(name, name) end
  end
  return found
end

local function lines(code)
  local count = 0
  for line in (code .. '\n'):gmatch('(.-)\n') do count = count + math.max(1, math.ceil(#line/WIDTH)) end
  return count
end

local function is_check(code)
  for _, pattern in ipairs(CHECKS) do if ('\n' .. code):find('%f[%w_]' .. pattern) then return true end end
  return false
end

-- The page

local function escape(text) return (text:gsub('&', '&amp;'):gsub('<', '&lt;'):gsub('>', '&gt;')) end

-- Code behind a summary. The state, open or closed, is told by <details> itself.
local function folded(block, class, what, more)
  block.attributes['code-fold'], block.attributes['code-summary'] = nil, nil
  local summary = ('<summary>%s<span class="more">%s</span></summary>'):format(what, more)
  return pandoc.Blocks {
    pandoc.RawBlock('html', ('<details class="code-fold %s">%s'):format(class, summary)), block,
    pandoc.RawBlock('html', '</details>')}
end

local function signatures(found)
  local shown = {}
  for _, one in ipairs(found) do shown[#shown + 1] = '<code>' .. escape(one.text) .. '</code> ' end
  return table.concat(shown)
end

local function source_of(div)
  if div.t ~= 'Div' or not div.classes:includes('cell') then return nil end
  for at, block in ipairs(div.content) do
    if block.t == 'CodeBlock' and block.classes:includes('cell-code') then return block, at end
  end
end

local function is_exported(block) return block.attributes['code-summary'] == 'Exported source' end

local function fold_exported(div)
  local block, at = source_of(div)
  local found = definitions(block.text)
  local what = #found > 0 and signatures(found) or '<span>imports</span> '
  div.content:remove(at)
  for i, one in ipairs(folded(block, 'exported', what, 'show code')) do div.content:insert(at + i - 1, one) end
end

-- How many claims an output is, if it is nothing else; nil otherwise.
local function claims(output)
  if output.t ~= 'Div' or not output.classes:includes('cell-output-stdout') then return nil end
  local block, count = output.content[1], 0
  if #output.content ~= 1 or block.t ~= 'CodeBlock' then return nil end
  for line in (block.text .. '\n'):gmatch('(.-)\n') do
    if line:find(': error [%d.e+-]+, tolerance [%d.e+-]+') then count = count + 1 elseif line:find('%S') then return nil end
  end
  return count
end

local function fold_claims(div)
  local content = pandoc.Blocks {}
  for _, block in ipairs(div.content) do
    local count = claims(block)
    if count and count > CLAIMS then
      content:insert(pandoc.RawBlock('html', ('<details class="claims"><summary>%d claims hold<span class="more">show them</span></summary>'):format(count)))
      content:extend {block, pandoc.RawBlock('html', '</details>')}
    else
      content:insert(block)
    end
  end
  div.content = content
end

local function fold_lesson(div)
  local block, at = source_of(div)
  if block.attributes['code-fold'] or block.classes:includes('hidden') then return end
  local long = lines(block.text) > LINES
  if not (long or is_check(block.text)) then return end
  div.content:remove(at)
  local more = is_check(block.text) and 'show the check' or 'show code'
  for i, one in ipairs(folded(block, 'lesson', '', more)) do div.content:insert(at + i - 1, one) end
end

-- What nbdev wrote of a public name, beginning at a block: {name, blocks}, and the number of blocks that it took.
local function shown_at(blocks, at)
  local rule, source, head, code = blocks[at], blocks[at + 1], blocks[at + 2], blocks[at + 3]
  if not (code and rule.t == 'HorizontalRule' and source.t == 'Para' and head.t == 'Header' and code.t == 'CodeBlock') then return nil end
  local link = source.content[1]
  if link.t ~= 'Link' or pandoc.utils.stringify(link) ~= 'source' then return nil end
  local said = blocks[at + 4]
  local docstring = said and said.t == 'Para' and said.content[1].t == 'Emph' and #said.content == 1
  local name = pandoc.utils.stringify(head)
  head.classes:insert('defined')
  local text = docstring and said.content[1].content:clone() or pandoc.Inlines {}
  link = pandoc.Link('source', link.target, '', {class = 'source', ['aria-label'] = 'source of ' .. name})
  text:extend({pandoc.Space(), link})
  return {name = name, head = head, said = pandoc.Para(text), code = code, took = docstring and 5 or 4}
end

-- Names with what nbdev wrote of them, and the blocks without it; a number stands where one was.
local function take_shown(blocks)
  local shown, rest, at = {}, pandoc.List {}, 1
  while at <= #blocks do
    local one = shown_at(blocks, at)
    if one then
      shown[#shown + 1] = one
      rest:insert(#shown)
      at = at + one.took
    else
      rest:insert(blocks[at])
      at = at + 1
    end
  end
  return shown, rest
end

-- A method is documented with its class, whose code it is in.
local function owner(name) return name:match('^([%w_]+)%.') or name end

-- Name -> where the code that defines it stands, and as which of its definitions.
local function homes(rest)
  local home = {}
  for at, block in ipairs(rest) do
    local code = type(block) ~= 'number' and source_of(block)
    if code and is_exported(code) then
      for rank, one in ipairs(definitions(code.text)) do home[one.name] = home[one.name] or {at = at, rank = rank} end
    end
  end
  return home
end

local function words_of(one) return pandoc.Blocks {one.head, one.said} end

-- A name whose code is not on the page: its signature, and behind it the one with types and comments.
local function alone(one)
  local blocks = words_of(one)
  blocks:extend(folded(one.code, 'exported', signatures(definitions(one.code.text)), 'show types'))
  return blocks
end

-- Where the code of a name is -> the names that are shown above it, in its order.
local function by_home(shown, home)
  local above = {}
  for _, one in ipairs(shown) do
    one.home = home[one.name] or home[owner(one.name)]
    if one.home then above[one.home.at] = above[one.home.at] or {}; table.insert(above[one.home.at], one) end
  end
  for _, names in pairs(above) do
    table.sort(names, function(a, b) return a.home.rank < b.home.rank or a.home.rank == b.home.rank and a.name < b.name end)
  end
  return above
end

-- A box that is closed at first, such as a proof or a solution: <details> opens by keyboard, Quarto's own box does not.
local function fold_box(div)
  local kind = div.classes:find_if(function(class) return class:find('^callout%-') end)
  if not kind or div.attributes.collapse ~= 'true' or div.identifier ~= '' then return nil end
  local title = div.attributes.title or 'More'
  local class = kind .. '-folded' .. (title == 'Solution' and ' solution' or '')
  local blocks = pandoc.Blocks {pandoc.RawBlock('html', ('<details class="box %s"><summary>%s</summary>'):format(class, escape(title)))}
  blocks:extend(div.content)
  blocks:insert(pandoc.RawBlock('html', '</details>'))
  return blocks
end

local function Pandoc(doc)
  local shown, rest = take_shown(doc.blocks)
  local above = by_home(shown, homes(rest))
  local blocks = pandoc.Blocks {}
  for at, block in ipairs(rest) do
    if type(block) == 'number' then
      if not shown[block].home then blocks:extend(alone(shown[block])) end
    else
      for _, one in ipairs(above[at] or {}) do blocks:extend(words_of(one)) end
      local code = source_of(block)
      if code and is_exported(code) then fold_exported(block) elseif code then fold_lesson(block) end
      if code then fold_claims(block) end
      blocks:insert(block)
    end
  end
  doc.blocks = blocks
  return doc
end

return {{Pandoc = Pandoc}, {Div = fold_box}}
