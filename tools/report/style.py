"""The look of a report: system fonts, light and dark, readable on a phone and on paper."""

STYLE = """
:root { color-scheme: light dark;
  --ink: #1b1d21; --soft: #545a64; --rule: #d5d9df; --paper: #fff; --band: #f3f5f8 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --soft: #aab1bc; --rule: #3b414a; --paper: #16181c; --band: #1f2329 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--rule) }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem }
p { max-width: 46rem; margin: .5rem 0 }
.note, figcaption, caption, dt { color: var(--soft); font-size: .875rem }
.scroll { overflow-x: auto; margin: 1rem 0 1.5rem }
table { border-collapse: separate; border-spacing: 0; font-size: .875rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal }
caption { text-align: left; padding-bottom: .4rem }
caption span { position: sticky; left: 0; display: inline-block; max-width: calc(100vw - 2rem) }
th, td { padding: .3rem .7rem; white-space: nowrap; border-bottom: 1px solid var(--rule); text-align: left }
.r { text-align: right }
td.l { white-space: normal; min-width: 8rem }
thead th { border-bottom: 2px solid var(--soft); vertical-align: bottom }
tbody th { font-weight: 500; position: sticky; left: 0; background: var(--paper) }
tbody tr:nth-child(even) > * { background: var(--band) }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr));
  gap: 1rem }
figure { margin: 0 }
figure > img { display: block; width: 100%; max-width: 30rem; background: #fff;
  border: 1px solid var(--rule) }
.strip div { display: flex; gap: .25rem }
.strip img { width: calc((100% - .5rem) / 3); aspect-ratio: 1; object-fit: contain;
  image-rendering: pixelated }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; font-size: .875rem }
dd { margin: 0 }
@media (max-width: 40rem) { dl { display: block } dd { margin-bottom: .5rem } }
"""
