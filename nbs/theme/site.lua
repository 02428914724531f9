-- Small differences between a notebook and its page: links inside the site are relative, the Colab badge is text
-- (an image would come from another site), operators in a subscript have the braces that KaTeX asks for, and no line
-- ends between a number and its per cent sign.
local settings = io.open('nbdev.yml')
local site = settings and settings:read('a'):match('site%-url: "(.-)"')

local function relative(link)
  local rest = site and link.target:sub(1, #site + 1) == site .. '/' and link.target:sub(#site + 2)
  -- a method is documented with its class
  if rest then link.target = rest:gsub('#([%w_]+)%.[%w_]+$', '#%1') end
  return rest and link
end

local function badge(link)
  local image = link.content[1]
  if not image or image.t ~= 'Image' or not image.src:find('colab%-badge') then return nil end
  link.content = pandoc.Inlines('Open in Colab')
  link.classes:insert('colab')
  return link
end

local function braces(math)
  for _, operator in ipairs({'max', 'min', 'log'}) do
    math.text = math.text:gsub('([_^])(\\' .. operator .. ')%f[%A]', '%1{%2}')
  end
  return math
end

local function percent(inlines)
  for i = 2, #inlines - 1 do
    local before, after = inlines[i - 1], inlines[i + 1]
    local number = before.t == 'Str' and before.text:find('%d$') and after.t == 'Str' and after.text:find('^%%')
    if number and inlines[i].t == 'Space' then inlines[i] = pandoc.Str('\u{a0}') end
  end
  return inlines
end

return {{Inlines = percent, Link = function(link) return badge(link) or relative(link) or nil end, Math = braces}}
