"""`rcnn report`: evaluations of one or several recipes as one page of HTML that needs no network.

`page` makes it from `headline` (what it begins with), `runs` (what each evaluation gives), `tables`, `charts`,
`provenance` (what was run) and `pictures`; `selection` decides what is shown. page.html, page.css and page.js are the
template.
"""
