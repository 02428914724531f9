-- Every head of a table says something. pandas puts the names of the index into a row of its own, whose other cells are
-- empty: they move up into the empty corner above. A corner that stays empty gets a word for those who hear the page.
-- Formulas in such a table, which nobody else sets, become MathML.
local WORD = '<span class="visually-hidden">row</span>'

local function trim(text) return (text:gsub('&nbsp;', ' '):gsub('^%s+', ''):gsub('%s+$', '')) end

-- A letter is set as one: not every program that reads pages aloud finds a head that is MathML alone.
local function formula(tex)
  if tex:find('^%a$') then return '<em>' .. tex .. '</em>' end
  tex = tex:gsub('&lt;', '<'):gsub('&gt;', '>'):gsub('&amp;', '&'):gsub('\\\\(%a)', '\\%1') -- two strokes, as in Python, are one
  local math = pandoc.Math('InlineMath', tex)
  local html = pandoc.write(pandoc.Pandoc {pandoc.Plain {math}}, 'html5', {html_math_method = 'mathml'})
  return (html:gsub('<annotation.-</annotation>', ''):gsub('%s+$', ''))
end

-- $x$ in a cell: what begins or ends with a space is a price, and no formula.
local function formulas(cell)
  return (cell:gsub('%$(%f[^%s$][^$<>\n]-)%f[%s$]%$', formula))
end

local function cells(row)
  local found = {}
  for attributes, text in row:gmatch('<th([^>]*)>(.-)</th>') do found[#found + 1] = {attributes = attributes, text = trim(text)} end
  return found
end

-- How many cells at the start of a row have a word, if all others are empty and there are both; nil otherwise.
local function names(row)
  local count = 0
  while row[count + 1] and row[count + 1].text ~= '' do count = count + 1 end
  if count == 0 or count == #row then return nil end
  for i = count + 1, #row do if row[i].text ~= '' then return nil end end
  return count
end

local function wide(cell) return cell.attributes:find('colspan') end

-- The names of the index, moved into the corner above them; beside the name of the columns, if that is there.
local function merge(above, row, count)
  for i = 1, count do
    if not above[i] or wide(above[i]) then return false end
  end
  for i = 1, count do
    above[i].text = above[i].text == '' and row[i].text or row[i].text .. ' \\ ' .. above[i].text
  end
  return true
end

local function write_row(row)
  local out = {}
  for _, cell in ipairs(row) do
    local text = cell.text == '' and WORD or cell.text
    out[#out + 1] = ('<th%s>%s</th>'):format(cell.attributes, text)
  end
  return '<tr>' .. table.concat(out) .. '</tr>'
end

local function head(text)
  local rows = {}
  for row in text:gmatch('<tr.-</tr>') do rows[#rows + 1] = cells(row) end
  local last = rows[#rows]
  local count = #rows > 1 and names(last)
  if count and merge(rows[#rows - 1], last, count) then rows[#rows] = nil end
  local out = {}
  for i, row in ipairs(rows) do out[i] = write_row(row) end
  return '<thead>' .. table.concat(out) .. '</thead>'
end

local function RawBlock(block)
  if block.format ~= 'html' or not block.text:find('<th', 1, true) then return nil end
  local text = block.text:gsub('<thead>(.-)</thead>', head)
  text = text:gsub('(<th[^>]*>)[%s]*(</th>)', '%1' .. WORD .. '%2'):gsub('(<th[^>]*>)%s*&nbsp;%s*(</th>)', '%1' .. WORD .. '%2')
  block.text = text:gsub('(<t[hd][^>]*>)(.-)(</t[hd]>)', function(open, cell, close) return open .. formulas(cell) .. close end)
  return block
end

local function is_empty(cell) return pandoc.utils.stringify(cell.contents) == '' and #cell.contents == 0 end

local function Table(block)
  for _, row in ipairs(block.head.rows) do
    for _, cell in ipairs(row.cells) do
      if is_empty(cell) then
        cell.contents = {pandoc.Plain {pandoc.Span('row', {class = 'visually-hidden'})}}
      end
    end
  end
  return block
end

return {{RawBlock = RawBlock, Table = Table}}
