// Boxes that scroll sideways can be reached and scrolled by keyboard. Those that do not scroll are left out of its way.
const BOXES = '.katex-display, div.sourceCode pre, main pre, .cell-output, .cell-output pre, main table'

function tend(box) {
  const scrolls = box.scrollWidth > box.clientWidth && !box.parentElement.closest('[data-reach]')
  if (scrolls == 'reach' in box.dataset) return
  if (scrolls) {
    box.dataset.reach = ''
    box.tabIndex = 0
  } else {
    delete box.dataset.reach
    box.removeAttribute('tabindex')
  }
}

// What opens a part of the list of chapters is a button without being one: it answers to its keys.
addEventListener('keydown', event => {
  const pressed = event.target.closest?.('a[role="button"][tabindex="0"]:not([href])')
  if (!pressed || (event.key != 'Enter' && event.key != ' ')) return
  event.preventDefault()
  pressed.click()
})

const watch = new ResizeObserver(seen => seen.forEach(entry => tend(entry.target)))
const all = () => document.querySelectorAll(BOXES)
const begin = () => all().forEach(box => watch.observe(box))
// letters that come later are wider, and the box stays as it was
document.fonts.addEventListener('loadingdone', () => all().forEach(tend))
if (document.readyState == 'complete') begin()
else addEventListener('load', begin)
