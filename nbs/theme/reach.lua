-- theme/reach.js, within each page: so it is found from 404.html too, which is served in place of any address.
local file = io.open('theme/reach.js')
local script = file and file:read('a')

local function Pandoc(doc)
  doc.blocks:insert(pandoc.RawBlock('html', '<script>\n' .. script .. '</script>'))
  return doc
end

return script and {{Pandoc = Pandoc}} or {}
